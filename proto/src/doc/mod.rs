//! Documents that people write (configuration, policies): YAML or JSON, read with positions, all problems at once.
//!
//! ```text
//! text ──yaml | json──► Node (every value knows its line and column; duplicate keys are problems)
//! Node ──de::from_node──► T: any serde type, with *every* unknown key and misfit reported, not only the first
//! ```

mod any;
mod de;
mod json;
mod scalar;
mod spanned;
mod suggest;
#[cfg(test)]
mod tests;
mod yaml;

pub use any::Any;
pub use spanned::{Entries, OneOrMany, Spanned};
pub use suggest::suggest;

use std::fmt;

/// Longest document, bytes.
pub const BYTES_MAX: usize = 4 << 20;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 64;
/// Most values in a document, anchors and aliases expanded.
pub const NODES_MAX: usize = 200_000;
/// Most problems told of one document.
pub const PROBLEMS_MAX: usize = 100;

/// A place in a document; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// It can be used; the author probably means something else.
    Warning,
    /// It can be used; something the author may want to know.
    Note,
}

/// Something to say about a place in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub at: Pos,
    /// JSON Pointer (RFC 6901) of the value, `""` for the document.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// An error at a place.
    pub fn error(at: Pos, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            at,
            pointer: pointer.into(),
            message: message.into(),
        }
    }
    /// A warning at a place.
    pub fn warning(at: Pos, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            at,
            pointer: pointer.into(),
            message: message.into(),
        }
    }
    /// A note at a place.
    pub fn note(at: Pos, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            at,
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// One value of a document with the place where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value starts.
    pub at: Pos,
    /// The value.
    pub value: Value,
}

/// A document's value. Numbers keep their digits, so that nothing is rounded before its meaning is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number in JSON's grammar: from JSON as written; from YAML without `+`, a bare `.` filled with `0`, hexadecimal
    /// and octal turned into decimal
    Number(String),
    /// Text
    String(String),
    /// A list
    List(Vec<Node>),
    /// A mapping in document order; keys are text and differ from one another
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key starts.
    pub key_at: Pos,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The entry with this key, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }
    /// The value under this key, if this is a mapping that has it.
    pub fn child(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }
    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }
    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
    /// What this is, for messages: `a list`, `text` …
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Appends one reference token to a JSON Pointer, escaped.
pub fn pointer_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    for c in token.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

fn duplicate_key(key: &str, first: Pos) -> String {
    format!("the key `{key}` is already at {first}")
}

fn too_deep() -> String {
    format!("nested more than {DEPTH_MAX} deep")
}

/// Parses a document. JSON is told from its first character (`{` or `[` that parses as JSON); everything else is YAML.
///
/// On failure at least one problem is an error. Bounds: [`BYTES_MAX`], [`DEPTH_MAX`], [`NODES_MAX`].
pub fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let start = Pos { line: 1, column: 1 };
    if text.len() > BYTES_MAX {
        let message = format!("the document is longer than {BYTES_MAX} bytes");
        return Err(vec![Problem::error(start, "", message)]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.trim_start().starts_with(['{', '[']) {
        return yaml::parse(text);
    }
    match json::parse(text) {
        Ok(node) => Ok(node),
        Err(failure) => match yaml::parse(text) {
            Ok(node) => Ok(node),
            Err(problems) if failure.maybe_yaml => Err(problems),
            Err(_) => Err(failure.problems),
        },
    }
}

/// Reads a node into a serde type. Unknown keys (with a suggestion), misfits and missing keys are all reported at once.
///
/// Types are read as serde's derive reads them; `#[serde(flatten)]`, `untagged` and internally tagged enums work, but
/// buffer their content, so that places inside them are lost: do without. Problems come in the document's order.
pub fn from_node<T: serde::de::DeserializeOwned>(node: &Node) -> Result<T, Vec<Problem>> {
    match de::from_node_lossy(node) {
        (Some(read), problems) if problems.is_empty() => Ok(read),
        (_, problems) => Err(problems),
    }
}

/// The same for a caller that goes on checking after problems: what could be read, without what has a problem, and
/// with made-up values (empty text, 0, the first choice; places 0:0) for missing keys. Never to be used but to find
/// further problems.
pub fn from_node_lossy<T: serde::de::DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Problem>) {
    de::from_node_lossy(node)
}
