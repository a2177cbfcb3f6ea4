//! Nodes to YAML, for what the program itself writes: block style, every doubtful scalar in double quotes.

use proto::doc::{Entry, Node, Pos, Value};
use std::fmt::Write as _;

fn node(value: Value) -> Node {
    Node {
        at: Pos::default(),
        value,
    }
}

/// Text.
pub(crate) fn text(text: impl Into<String>) -> Node {
    node(Value::String(text.into()))
}
/// A whole number.
pub(crate) fn number(number: u64) -> Node {
    node(Value::Number(number.to_string()))
}
/// A number as written.
pub(crate) fn digits(digits: String) -> Node {
    node(Value::Number(digits))
}
/// `true` or `false`.
pub(crate) fn truth(value: bool) -> Node {
    node(Value::Bool(value))
}
/// `null`.
pub(crate) fn null() -> Node {
    node(Value::Null)
}
/// A list.
pub(crate) fn list(items: impl IntoIterator<Item = Node>) -> Node {
    node(Value::List(items.into_iter().collect()))
}

/// A mapping that is filled key by key.
#[derive(Default)]
pub(crate) struct Map(Vec<Entry>);

impl Map {
    /// Adds an entry.
    pub(crate) fn put(&mut self, key: &str, value: Node) -> &mut Self {
        self.0.push(Entry {
            key: key.to_owned(),
            key_at: Pos::default(),
            value,
        });
        self
    }
    /// Adds an entry if there is a value.
    pub(crate) fn put_some(&mut self, key: &str, value: Option<Node>) -> &mut Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }
    /// Adds an entry unless the list or mapping is empty.
    pub(crate) fn put_full(&mut self, key: &str, value: Node) -> &mut Self {
        match &value.value {
            Value::List(items) if items.is_empty() => self,
            Value::Map(entries) if entries.is_empty() => self,
            _ => self.put(key, value),
        }
    }
    /// The mapping.
    pub(crate) fn done(&mut self) -> Node {
        node(Value::Map(std::mem::take(&mut self.0)))
    }
}

/// A node as JSON. A number that no JSON reader would take as one becomes text.
pub(crate) fn json(node: &Node) -> serde_json::Value {
    use serde_json::Value as Json;
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(digits) => {
            serde_json::from_str(digits).unwrap_or_else(|_| Json::String(digits.clone()))
        }
        Value::String(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(entries) => {
            let entry = |entry: &Entry| (entry.key.clone(), json(&entry.value));
            Json::Object(entries.iter().map(entry).collect())
        }
    }
}

/// Writes a node as a YAML document that reads back as the same node.
pub(crate) fn yaml(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => map(&mut out, entries, 0),
        Value::List(items) if !items.is_empty() => items_of(&mut out, items, 0),
        _ => {
            inline(&mut out, node);
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn map(out: &mut String, entries: &[Entry], depth: usize) {
    for (i, entry) in entries.iter().enumerate() {
        // The first key of a list's element stands behind its dash.
        if i > 0 || !out.ends_with("- ") {
            pad(out, depth);
        }
        scalar(out, &entry.key);
        out.push(':');
        value(out, &entry.value, depth);
    }
}

fn items_of(out: &mut String, items: &[Node], depth: usize) {
    for item in items {
        pad(out, depth);
        out.push_str("- ");
        match &item.value {
            Value::Map(entries) if !entries.is_empty() => map(out, entries, depth + 1),
            _ => {
                inline(out, item);
                out.push('\n');
            }
        }
    }
}

fn value(out: &mut String, node: &Node, depth: usize) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            map(out, entries, depth + 1);
        }
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Map(_))) => {
            out.push('\n');
            items_of(out, items, depth + 1);
        }
        _ => {
            out.push(' ');
            inline(out, node);
            out.push('\n');
        }
    }
}

fn inline(out: &mut String, node: &Node) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(digits) => out.push_str(digits),
        Value::String(text) => scalar(out, text),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                inline(out, item);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, entry) in entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                scalar(out, &entry.key);
                out.push_str(": ");
                inline(out, &entry.value);
            }
            out.push('}');
        }
    }
}

/// Text, plain only where no reader of any YAML version can take it for something else.
pub(crate) fn scalar(out: &mut String, text: &str) {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.len() > 1
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !["null", "true", "false", "yes", "no", "on", "off"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::doc;

    fn without_places(node: &Node) -> Node {
        self::node(match &node.value {
            Value::List(items) => Value::List(items.iter().map(without_places).collect()),
            Value::Map(entries) => {
                let mut map = Map::default();
                for entry in entries {
                    map.put(&entry.key, without_places(&entry.value));
                }
                map.done().value
            }
            other => other.clone(),
        })
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let odd = [
            "",
            " ",
            "yes",
            "No",
            "null",
            "~",
            "1",
            "1.5",
            "0x1",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "{",
            "'",
            "\"\\",
            "tab\there",
            "two\nlines\n",
            "é😀",
            "\u{85}\u{2028}\u{7f}",
            "y",
            "n",
            "2027-01-01",
            "<<",
            "=",
            "@x",
            "%y",
            "/a/b.c-d_e",
            ".5",
            "..",
            "\u{feff}x",
        ];
        let mut all = Map::default();
        all.put("list", list(odd.map(text)));
        all.put("empty", list([]));
        all.put("none", null());
        all.put("n", digits("1.50".into()));
        let mut inner = Map::default();
        for key in odd {
            inner.put(key, list([truth(true), list([number(1), list([])])]));
        }
        let mut nested = Map::default();
        nested.put(
            "a",
            Map::default()
                .put(
                    "b",
                    list([Map::default()
                        .put("c", null())
                        .put("d", Map::default().put("e", text("f")).done())
                        .done()]),
                )
                .done(),
        );
        all.put(
            "in",
            list([
                inner.done(),
                nested.done(),
                text("x"),
                Map::default().done(),
            ]),
        );
        let all = all.done();
        let written = yaml(&all);
        let read = doc::parse(&written).unwrap_or_else(|p| panic!("{written}\n{p:#?}"));
        assert_eq!(without_places(&read), all, "{written}");
    }
}
