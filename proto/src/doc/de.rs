//! [`Node`] to serde types, finding *every* problem although serde stops at the first.
//!
//! ```text
//! run ──error at a node──► note the problem, skip the node from now on ──► run again …  until a run succeeds
//! ```
//! A skipped value counts as absent; what only fails because of that (a missing key, a parent that cannot be built)
//! is not a problem of its own. A missing key gets a made-up value, so that the rest of its mapping is still read.

mod access;
mod choice;
mod error;
mod fabricate;

use super::{Entry, Node, PROBLEMS_MAX, Pos, Problem, Value, any, pointer_token, spanned, suggest};
use access::{Fields, Items, Spot};
use choice::Choice;
use error::{Error, Kind, Place};
use serde::de::{self, DeserializeOwned, Visitor, value::StrDeserializer};
use std::{cell::RefCell, collections::HashSet, ptr};

/// Runs over one document: every problem costs one, and one more for each parent that falls with it.
const RUNS_MAX: usize = 4 * PROBLEMS_MAX;

pub(super) fn from_node_lossy<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Problem>) {
    let ctx = Ctx::default();
    let mut read = None;
    for _ in 0..RUNS_MAX {
        let de = De {
            ctx: &ctx,
            node,
            path: &Path::Root,
        };
        match de.within(|de| T::deserialize(de)) {
            Ok(value) => {
                read = Some(value);
                break;
            }
            Err(error) => ctx.settle(error),
        }
        if ctx.is_skipped(node) || ctx.problems.borrow().len() >= PROBLEMS_MAX {
            break;
        }
    }
    let mut problems = ctx.problems.into_inner();
    if problems.is_empty() && read.is_none() {
        problems.push(Problem::error(node.at, "", "this cannot be read"));
    }
    problems.sort_by_key(|problem| problem.at);
    problems.truncate(PROBLEMS_MAX);
    (read, problems)
}

/// What was learned in earlier runs. Nodes are known by their addresses: places and names may repeat.
#[derive(Default)]
struct Ctx {
    problems: RefCell<Vec<Problem>>,
    skipped: RefCell<HashSet<usize>>,
    fabricated: RefCell<HashSet<(usize, &'static str)>>,
}

fn address(node: &Node) -> usize {
    ptr::from_ref(node).addr()
}

impl Ctx {
    fn is_skipped(&self, node: &Node) -> bool {
        self.skipped.borrow().contains(&address(node))
    }

    fn note(&self, at: Pos, pointer: String, message: String) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(Problem::error(at, pointer, message));
        }
    }

    fn settle(&self, error: Error<'_>) {
        let Some(Place { node, at, pointer }) = error.place else {
            return self.note(Pos::default(), String::new(), error.to_string());
        };
        match error.kind {
            Kind::Missing(field) => {
                let misspelt = |entry: &Entry| {
                    self.is_skipped(&entry.value) && suggest(&entry.key, [field]).is_some()
                };
                if !node.entries().iter().any(misspelt) {
                    self.note(at, pointer, format!("`{field}` is missing"));
                }
                if self.fabricated.borrow_mut().insert((address(node), field)) {
                    return;
                }
            }
            Kind::Other(message) => {
                if !self.disturbed(node) {
                    self.note(at, pointer, message);
                }
            }
            Kind::Silent => {}
        }
        self.skipped.borrow_mut().insert(address(node));
    }

    /// Whether something below was skipped or made up, so that a misfit of the whole may be due to that.
    fn disturbed(&self, node: &Node) -> bool {
        let own = address(node);
        let below = |child: &Node| self.is_skipped(child) || self.disturbed(child);
        self.fabricated.borrow().iter().any(|(at, _)| *at == own)
            || match &node.value {
                Value::List(items) => items.iter().any(below),
                Value::Map(entries) => entries.iter().any(|entry| below(&entry.value)),
                _ => false,
            }
    }

    fn unknown_key(&self, entry: &Entry, siblings: &[Entry], fields: &[&str], path: &Path<'_>) {
        if !self.skipped.borrow_mut().insert(address(&entry.value)) {
            return;
        }
        let key = &entry.key;
        let absent = fields
            .iter()
            .filter(|field| !siblings.iter().any(|entry| entry.key == **field));
        let message = match suggest(key, absent.copied()) {
            Some(known) => format!("unknown key `{key}`; did you mean `{known}`?"),
            None if fields.is_empty() => format!("unknown key `{key}`; nothing is known here"),
            None => format!("unknown key `{key}`; known here: {}", fields.join(", ")),
        };
        self.note(entry.key_at, Path::Key(path, key).pointer(), message);
    }
}

enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn pointer(&self) -> String {
        let (mut pointer, token) = match self {
            Path::Root => return String::new(),
            Path::Key(parent, key) => (parent.pointer(), (*key).to_owned()),
            Path::Index(parent, index) => (parent.pointer(), index.to_string()),
        };
        pointer_token(&mut pointer, &token);
        pointer
    }
}

#[derive(Clone, Copy)]
struct De<'a, 'p> {
    ctx: &'a Ctx,
    node: &'a Node,
    path: &'p Path<'p>,
}

impl<'a> De<'a, '_> {
    /// Runs a step; an error that has no place yet gets this one. (The innermost place wins.)
    fn within<T>(self, step: impl FnOnce(Self) -> Result<T, Error<'a>>) -> Result<T, Error<'a>> {
        step(self).map_err(|error| error.at(self.node, self.node.at, self.path))
    }

    fn misfit<T>(self, expected: &str) -> Result<T, Error<'a>> {
        let message = format!("expected {expected}, found {}", self.node.kind());
        Err(Error::other(message).at(self.node, self.node.at, self.path))
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(text) => visit_number(text, visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items {
                de: self,
                items: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Fields::new(self, entries, &[])),
        }
    }
}

fn visit_number<'de, 'a, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Error<'a>> {
    if let Ok(n) = text.parse::<u64>() {
        visitor.visit_u64(n)
    } else if let Ok(n) = text.parse::<i64>() {
        visitor.visit_i64(n)
    } else if let Ok(n) = text.parse::<f64>()
        && n.is_finite()
    {
        visitor.visit_f64(n)
    } else {
        Err(Error::other(format!("`{text}` is too large a number")))
    }
}

macro_rules! as_it_is {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
            self.within(|de| de.visit(visitor))
        }
    )*};
}

impl<'de, 'a> de::Deserializer<'de> for De<'a, '_> {
    type Error = Error<'a>;

    as_it_is! {
        deserialize_any deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_char
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        match self.node.as_str() {
            Some("yes" | "Yes" | "on" | "On" | "no" | "No" | "off" | "Off") => {
                self.misfit("true or false")
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        match &self.node.value {
            Value::Number(text) => {
                self.misfit(&format!("text (in quotes if it is meant: \"{text}\")"))
            }
            Value::Bool(value) => {
                self.misfit(&format!("text (in quotes if it is meant: \"{value}\")"))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        self.within(|de| match de.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(de),
        })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        self.within(|de| match name {
            spanned::NAME => visitor.visit_seq(Spot::new(de.node.at, Some(de))),
            spanned::ONE_OR_MANY => match de.node.value {
                Value::List(_) => de.visit(visitor),
                _ => visitor.visit_newtype_struct(de),
            },
            any::NAME => match &de.node.value {
                Value::Number(text) => visitor.visit_newtype_struct(StrDeserializer::new(text)),
                _ => de.visit(visitor),
            },
            _ => visitor.visit_newtype_struct(de),
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        let Value::Map(entries) = &self.node.value else {
            return self.misfit("a mapping");
        };
        for entry in entries.iter().filter(|e| !fields.contains(&&*e.key)) {
            self.ctx.unknown_key(entry, entries, fields, self.path);
        }
        self.within(|de| visitor.visit_map(Fields::new(de, entries, fields)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        let choice = match &self.node.value {
            Value::String(text) => Choice {
                de: self,
                at: self.node.at,
                name: text,
                content: None,
            },
            Value::Map(entries) if matches!(entries.as_slice(), [_]) => match entries.first() {
                Some(entry) if !self.ctx.is_skipped(&entry.value) => Choice {
                    de: self,
                    at: entry.key_at,
                    name: &entry.key,
                    content: Some(&entry.value),
                },
                _ => return Err(Error::silent().at(self.node, self.node.at, self.path)),
            },
            _ => return self.misfit(&format!("one of {}", variants.join(", "))),
        };
        self.within(|_| visitor.visit_enum(choice))
    }
}
