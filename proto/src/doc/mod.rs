//! Documents that people write (configuration, policies): YAML or JSON, read with positions, all problems at once.
//!
//! ```text
//! text ──yaml | json──► Node (every value knows its line and column; duplicate keys are problems)
//! Node ──de::from_node──► T: any serde type, with *every* unknown key and misfit reported, not only the first
//! ```

use std::fmt;

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

/// A document's value. Numbers keep their text, so that nothing is rounded before its meaning is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as written in JSON's or YAML 1.2's core grammar
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

/// A value together with the place it was read from: the field type to use where a later check must name the place.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands; `Pos::default()` (0:0) when it was not read from a document.
    pub at: Pos,
}

/// Parses a document. JSON is told from its first character (`{` or `[` that parses as JSON); everything else is YAML.
///
/// On success the problems are warnings at most; on failure at least one is an error. Bounds: 4 MiB, depth 64,
/// 200,000 nodes with aliases expanded.
pub fn parse(_text: &str) -> Result<Node, Vec<Problem>> {
    todo!()
}

/// Reads a node into a serde type. Unknown keys (with a suggestion), misfits and missing keys are all reported at once.
pub fn from_node<T: serde::de::DeserializeOwned>(_node: &Node) -> Result<T, Vec<Problem>> {
    todo!()
}
