//! Which dialect a document is written in (policies.md §1).

use super::{Dialect, Told, below, catalogue};
use crate::doc::{Entry, Node, Value};

/// Keys of a tool that only the native form has.
const NATIVE: [&str; 3] = ["limits", "require", "deny_if"];

/// A document's form.
pub(super) struct Form {
    pub dialect: Dialect,
    /// The document; a fragment is wrapped in `tools`.
    pub node: Node,
    /// Whether `tools` was added.
    pub fragment: bool,
    /// Whether `all_tools` stands before `tools`.
    pub all_first: bool,
}

impl Form {
    /// Where the tools are, in the document as it is written.
    pub(super) fn tools_pointer(&self) -> &'static str {
        if self.fragment { "" } else { "/tools" }
    }

    /// A pointer into the document as it is written as one into `node`.
    pub(super) fn as_read(&self, pointer: &str) -> String {
        match self.fragment && !pointer.is_empty() {
            true => format!("/tools{pointer}"),
            false => pointer.to_owned(),
        }
    }

    /// A pointer into `node` as one into the document as it is written.
    pub(super) fn as_written(&self, pointer: &str) -> String {
        let inner = pointer.strip_prefix("/tools").filter(|_| self.fragment);
        inner.unwrap_or(pointer).to_owned()
    }
}

pub(super) fn detect(node: &Node, told: &mut Told) -> Option<Form> {
    if !matches!(node.value, Value::Map(_)) {
        told.error(
            node.at,
            "",
            format!("a policy is a mapping, this is {}", node.kind()),
        );
        return None;
    }
    let fragment = node.child("tools").is_none() && node.entries().iter().any(is_tool);
    let tools = match node.child("tools") {
        Some(tools) => tools.entries(),
        None if fragment => node.entries(),
        None => &[],
    };
    let tool_keys = || {
        tools
            .iter()
            .flat_map(|tool| tool.value.entries().iter().map(move |entry| (tool, entry)))
    };
    let rules = tool_keys().find(|(_, entry)| entry.key == "rules");
    let native = node
        .entry("all_tools")
        .map(|entry| (entry, below("", "all_tools")))
        .or_else(|| {
            let (tool, entry) =
                tool_keys().find(|(_, entry)| NATIVE.contains(&entry.key.as_str()))?;
            let base = if fragment {
                String::new()
            } else {
                below("", "tools")
            };
            Some((entry, below(&below(&base, &tool.key), &entry.key)))
        });
    let version = node.child("version").is_some();
    let dialect = match (native, rules) {
        (Some((native, pointer)), Some((_, rules))) => {
            told.error(
                native.key_at,
                pointer,
                format!(
                    "two dialects in one document: `{}` ({}) is native, `rules` ({}) is Intercept's or the catalogue's",
                    native.key, native.key_at, rules.key_at
                ),
            );
            return None;
        }
        (Some(_), None) => Dialect::Native,
        (None, Some(_)) if version => Dialect::Intercept,
        (None, Some(_)) => Dialect::Catalogue,
        (None, None) if node.child("default").is_some() => Dialect::Native,
        (None, None) => {
            told.error(
                node.at,
                "",
                "the dialect cannot be told: a native policy has `default`, the others have `rules` under their tools",
            );
            return None;
        }
    };
    not_supported(node, tools, fragment, told);
    let wrap = fragment && dialect == Dialect::Catalogue;
    if wrap {
        told.warning(
            node.at,
            "",
            "a fragment as older pages print it: put the tools under a `tools:` key",
        );
    }
    let position = |key: &str| node.entries().iter().position(|entry| entry.key == key);
    let mut form = Form {
        dialect,
        node: if wrap { wrapped(node) } else { node.clone() },
        fragment: wrap,
        all_first: position("all_tools") < position("tools"),
    };
    if dialect == Dialect::Catalogue {
        let base = form.tools_pointer();
        if let Value::Map(keys) = &mut form.node.value
            && let Some(tools) = keys.iter_mut().find(|entry| entry.key == "tools")
            && let Value::Map(tools) = &mut tools.value.value
        {
            catalogue::modernise(tools, base, told);
        }
    }
    Some(form)
}

fn is_tool(entry: &Entry) -> bool {
    entry.value.child("rules").is_some()
}

/// Puts everything that is a tool under `tools`.
fn wrapped(node: &Node) -> Node {
    let (tools, mut rest): (Vec<Entry>, Vec<Entry>) = node
        .entries()
        .iter()
        .cloned()
        .partition(|entry| matches!(entry.value.value, Value::Map(_)));
    rest.push(Entry {
        key: "tools".to_owned(),
        key_at: node.at,
        value: Node {
            at: node.at,
            value: Value::Map(tools),
        },
    });
    Node {
        at: node.at,
        value: Value::Map(rest),
    }
}

/// Keys of later Intercept files: they are refused, never ignored.
fn not_supported(node: &Node, tools: &[Entry], fragment: bool, told: &mut Told) {
    let mut look = |entries: &[Entry], pointer: &str| {
        for entry in entries {
            if ["spend", "approval", "require_approval"]
                .iter()
                .any(|later| entry.key.starts_with(later))
            {
                let message = format!("`{}` is not supported yet", entry.key);
                told.error(entry.key_at, below(pointer, &entry.key), message);
            }
        }
    };
    let base = if fragment {
        String::new()
    } else {
        below("", "tools")
    };
    if !fragment {
        look(node.entries(), "");
    }
    for tool in tools {
        let pointer = below(&base, &tool.key);
        look(tool.value.entries(), &pointer);
        let Some(Value::List(rules)) = tool.value.child("rules").map(|rules| &rules.value) else {
            continue;
        };
        for (index, rule) in rules.iter().enumerate() {
            look(rule.entries(), &below(&below(&pointer, "rules"), index));
        }
    }
}
