//! A document that cannot be read is read once more without what was wrong, so that the rest is checked all the same.

use super::Dialect;
use crate::doc::{Entry, Node, Problem, Value, pointer_token};
use std::collections::{BTreeMap, BTreeSet};

/// A document without the values that problems point at.
pub(super) struct Pruned {
    pub node: Node,
    /// List elements that are gone, by their list's pointer in the whole document.
    gone: BTreeMap<String, BTreeSet<usize>>,
}

impl Pruned {
    pub(super) fn new(dialect: Dialect, node: &Node, problems: &[Problem]) -> Self {
        let mut pruned = Self {
            node: node.clone(),
            gone: BTreeMap::new(),
        };
        let mut lost = BTreeSet::new();
        for problem in problems {
            // A misspelt key is missing under its right name.
            let unknown_key = problem.message.starts_with("unknown key")
                && !problem.message.contains("did you mean");
            lost.insert(pruned.scope(node, &problem.pointer, unknown_key));
        }
        // From the back, so that no index moves before it is used.
        for pointer in lost.iter().rev() {
            remove(&mut pruned.node, &tokens(pointer));
        }
        fill(dialect, &mut pruned.node);
        pruned
    }

    /// What has to go: an unknown key alone, else the whole list element around it, else the key.
    fn scope(&mut self, node: &Node, pointer: &str, unknown_key: bool) -> String {
        let (mut at, mut path) = (Some(node), String::new());
        for token in tokens(pointer) {
            let list = path.clone();
            pointer_token(&mut path, &token);
            at = match at.map(|node| &node.value) {
                Some(Value::List(items)) => {
                    let index = token.parse::<usize>().ok();
                    if let Some(index) = index.filter(|_| !unknown_key) {
                        self.gone.entry(list).or_default().insert(index);
                        return path;
                    }
                    index.and_then(|index| items.get(index))
                }
                Some(Value::Map(_)) => at.and_then(|node| node.child(&token)),
                _ => None,
            };
        }
        path
    }

    /// A pointer into the pruned document as one into the whole one.
    pub(super) fn whole(&self, pointer: &str) -> String {
        let mut whole = String::new();
        for token in tokens(pointer) {
            let moved = self.gone.get(&whole).zip(token.parse::<usize>().ok());
            match moved.and_then(|(gone, index)| (0..).filter(|i| !gone.contains(i)).nth(index)) {
                Some(index) => pointer_token(&mut whole, &index.to_string()),
                None => pointer_token(&mut whole, &token),
            }
        }
        whole
    }
}

fn tokens(pointer: &str) -> Vec<String> {
    let plain = |token: &str| token.replace("~1", "/").replace("~0", "~");
    pointer.split('/').skip(1).map(plain).collect()
}

fn remove(node: &mut Node, path: &[String]) {
    let [token, rest @ ..] = path else {
        return;
    };
    let index = token.parse::<usize>().ok();
    match (&mut node.value, rest) {
        (Value::List(items), []) => {
            if let Some(index) = index.filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        (Value::List(items), rest) => {
            if let Some(item) = index.and_then(|index| items.get_mut(index)) {
                remove(item, rest);
            }
        }
        (Value::Map(entries), []) => entries.retain(|entry| entry.key != *token),
        (Value::Map(entries), rest) => {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *token) {
                remove(&mut entry.value, rest);
            }
        }
        _ => {}
    }
}

/// Keys that no document can do without.
fn fill(dialect: Dialect, node: &mut Node) {
    let at = node.at;
    let Value::Map(entries) = &mut node.value else {
        return;
    };
    let text = |text: &str| Value::String(text.to_owned());
    let needed = match dialect {
        Dialect::Native => [("version", text("1")), ("default", text("deny"))].to_vec(),
        Dialect::Intercept => [("version", text("1")), ("tools", Value::Map(Vec::new()))].to_vec(),
        Dialect::Catalogue => [("tools", Value::Map(Vec::new()))].to_vec(),
    };
    for (key, value) in needed {
        if !entries.iter().any(|entry| entry.key == key) {
            entries.push(Entry {
                key: key.to_owned(),
                key_at: at,
                value: Node { at, value },
            });
        }
    }
}
