//! YAML 1.2 to [`Node`]s: anchors, aliases and merge keys are expanded, bounded; everything has its place.

use super::{BYTES_MAX, DEPTH_MAX, Entry, NODES_MAX, Node, PROBLEMS_MAX, Pos, Problem, Value};
use super::{pointer_token, scalar};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::{
    collections::{HashMap, hash_map},
    mem,
};

pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event.map_err(|e| scan_error(&e)) {
            Ok((event, span)) => match builder.event(event, span) {
                Ok(()) if builder.problems.len() < PROBLEMS_MAX => {}
                Ok(()) => break,
                Err(problem) => {
                    builder.problems.push(problem);
                    break;
                }
            },
            Err(problem) => {
                builder.problems.push(problem);
                break;
            }
        }
    }
    builder.finish()
}

fn pos(at: saphyr_parser::Marker) -> Pos {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Pos {
        line: count(at.line()),
        column: count(at.col().saturating_add(1)),
    }
}

fn scan_error(error: &ScanError) -> Problem {
    let message = format!("not valid YAML: {}", error.info());
    Problem::error(pos(*error.marker()), "", message)
}

/// What is open: the list or mapping that the next event belongs to.
#[derive(Debug)]
struct Frame {
    at: Pos,
    anchor: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        places: HashMap<String, Pos>,
        key: Option<Key>,
        merges: Vec<Node>,
    },
}

#[derive(Debug)]
struct Key {
    text: String,
    at: Pos,
    /// A plain `<<`: the value is merged in.
    merge: bool,
    /// Already there: the value is read and dropped.
    duplicate: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    bytes: usize,
    problems: Vec<Problem>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = pos(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.error(at, "a second document; put it into a file of its own"));
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], at);
                self.push(at, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], at);
                let content = Content::Map {
                    entries: Vec::new(),
                    places: HashMap::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.push(at, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.pop()?,
            Event::Scalar(text, style, anchor, tag) => {
                if self.awaits_key() {
                    if anchor > 0 {
                        let value = Value::String(text.to_string());
                        self.remember(anchor, &Node { at, value })?;
                    }
                    let merge = style == ScalarStyle::Plain && text == "<<";
                    return self.key(text.into_owned(), at, merge);
                }
                let value = self.scalar(&text, style, tag.as_deref(), at);
                self.add(anchor, Node { at, value })?;
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(self.error(at, "an alias inside the very value that it names"));
                };
                let size = size(node);
                self.count(size.nodes, size.bytes, at)?;
                if self.open.len() + size.depth > DEPTH_MAX {
                    return Err(self.too_deep(at));
                }
                let node = self.anchors.get(&anchor).cloned().unwrap_or(Node {
                    at,
                    value: Value::Null,
                });
                if self.awaits_key() {
                    return match node.value {
                        Value::String(text) | Value::Number(text) => self.key(text, at, false),
                        _ => Err(self.error(at, "a key must be text")),
                    };
                }
                self.add(0, node)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Frame {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, text: String, at: Pos, merge: bool) -> Result<(), Problem> {
        self.count(0, text.len(), at)?;
        let Some(Frame {
            content: Content::Map { places, key, .. },
            ..
        }) = self.open.last_mut()
        else {
            return Ok(());
        };
        let first = match places.entry(text.clone()) {
            hash_map::Entry::Occupied(first) => Some(*first.get()),
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(at);
                None
            }
        };
        *key = Some(Key {
            text: text.clone(),
            at,
            merge,
            duplicate: first.is_some(),
        });
        if let Some(first) = first {
            let problem = self.error(at, super::duplicate_key(&text, first));
            self.problems.push(problem);
        }
        Ok(())
    }

    fn push(&mut self, at: Pos, anchor: usize, content: Content) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(self.error(at, "a key must be text, not a list or mapping"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(self.too_deep(at));
        }
        self.open.push(Frame {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn pop(&mut self) -> Result<(), Problem> {
        let Some(frame) = self.open.pop() else {
            return Ok(());
        };
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map {
                mut entries,
                mut places,
                merges,
                ..
            } => {
                for source in merges {
                    self.merge(&mut entries, &mut places, source);
                }
                Value::Map(entries)
            }
        };
        let node = Node {
            at: frame.at,
            value,
        };
        self.add(frame.anchor, node)
    }

    /// What is written in the mapping itself wins; an earlier source wins over a later one.
    fn merge(&mut self, entries: &mut Vec<Entry>, places: &mut HashMap<String, Pos>, source: Node) {
        match source.value {
            Value::Map(from) => {
                for entry in from {
                    if let hash_map::Entry::Vacant(vacant) = places.entry(entry.key.clone()) {
                        vacant.insert(entry.key_at);
                        entries.push(entry);
                    }
                }
            }
            Value::List(sources) if !sources.iter().any(|s| matches!(s.value, Value::List(_))) => {
                for source in sources {
                    self.merge(entries, places, source);
                }
            }
            _ => {
                let message = "`<<` takes an alias of a mapping, or a list of them";
                let problem = self.error(source.at, message);
                self.problems.push(problem);
            }
        }
    }

    fn add(&mut self, anchor: usize, node: Node) -> Result<(), Problem> {
        self.count(1, 0, node.at)?;
        if anchor > 0 {
            self.remember(anchor, &node)?;
        }
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map {
                entries,
                key,
                merges,
                ..
            }) => {
                if let Some(key) = key.take() {
                    if key.duplicate {
                    } else if key.merge {
                        merges.push(node);
                    } else {
                        entries.push(Entry {
                            key: key.text,
                            key_at: key.at,
                            value: node,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps an anchored value; the copy counts like an alias, so that nested anchors stay bounded too.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Problem> {
        let size = size(node);
        self.count(size.nodes, size.bytes, node.at)?;
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    fn count(&mut self, nodes: usize, bytes: usize, at: Pos) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > NODES_MAX || self.bytes > 4 * BYTES_MAX {
            let message = format!("more than {NODES_MAX} values, aliases expanded, or too long");
            return Err(self.error(at, message));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Pos) -> Value {
        self.bytes = self.bytes.saturating_add(text.len());
        let plain = style == ScalarStyle::Plain;
        if tag.is_none() && !plain {
            return Value::String(text.to_owned());
        }
        if let Some(tag) = tag {
            if is_non_specific(tag) || is_core(tag, "str") {
                return Value::String(text.to_owned());
            }
            self.check_tag(Some(tag), &["int", "float", "bool", "null"], at);
        }
        let value = scalar::resolve(text).unwrap_or_else(|why| {
            let problem = self.error(at, why);
            self.problems.push(problem);
            Value::Null
        });
        let fits = match (tag.map(|t| t.suffix.as_str()), &value) {
            (Some("int"), Value::Number(n)) => !n.contains(['.', 'e']),
            (Some("float"), v) => matches!(v, Value::Number(_)),
            (Some("bool"), v) => matches!(v, Value::Bool(_)),
            (Some("null"), v) => matches!(v, Value::Null),
            (Some("int"), _) => false,
            _ => true,
        };
        if !fits {
            let problem = self.error(at, "the value does not fit its tag");
            self.problems.push(problem);
        }
        value
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], at: Pos) {
        if let Some(tag) = tag
            && !is_non_specific(tag)
            && !known.iter().any(|known| is_core(tag, known))
        {
            let problem = self.error(at, format!("the tag `{tag}` means nothing here"));
            self.problems.push(problem);
        }
    }

    fn too_deep(&self, at: Pos) -> Problem {
        self.error(at, super::too_deep())
    }

    fn error(&self, at: Pos, message: impl Into<String>) -> Problem {
        Problem::error(at, self.pointer(), message)
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for frame in &self.open {
            match &frame.content {
                Content::List(items) => pointer_token(&mut pointer, &items.len().to_string()),
                Content::Map { key: Some(key), .. } => pointer_token(&mut pointer, &key.text),
                Content::Map { .. } => {}
            }
        }
        pointer
    }

    fn finish(mut self) -> Result<Node, Vec<Problem>> {
        if self.problems.is_empty() {
            return Ok(self.root.take().unwrap_or(Node {
                at: Pos { line: 1, column: 1 },
                value: Value::Null,
            }));
        }
        let mut problems = mem::take(&mut self.problems);
        problems.sort_by_key(|p| p.at);
        Err(problems)
    }
}

fn is_core(tag: &Tag, suffix: &str) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == suffix
}

/// `!`: not resolved, text stays text.
fn is_non_specific(tag: &Tag) -> bool {
    tag.handle.is_empty() && tag.suffix == "!"
}

/// How much a node holds.
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

fn size(node: &Node) -> Size {
    let mut size = Size {
        nodes: 1,
        bytes: 0,
        depth: 0,
    };
    let mut inner = |keys: usize, child: Size| {
        size.nodes += child.nodes;
        size.bytes += child.bytes + keys;
        size.depth = size.depth.max(child.depth + 1);
    };
    match &node.value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(text) | Value::String(text) => size.bytes = text.len(),
        Value::List(items) => items.iter().for_each(|item| inner(0, self::size(item))),
        Value::Map(entries) => entries
            .iter()
            .for_each(|entry| inner(entry.key.len(), self::size(&entry.value))),
    }
    size
}
