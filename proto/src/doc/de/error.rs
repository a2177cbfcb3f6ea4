//! The deserializer's error: what is wrong, in a person's words, and where.

use super::{Node, Path, Pos, suggest};
use serde::de::{self, Expected, Unexpected};
use std::fmt;

#[derive(Debug)]
pub(super) struct Error<'a> {
    pub kind: Kind,
    pub place: Option<Place<'a>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A mapping lacks this key.
    Missing(&'static str),
    /// Anything else.
    Other(String),
    /// Follows from a problem that is already noted.
    Silent,
}

#[derive(Debug)]
pub(super) struct Place<'a> {
    pub node: &'a Node,
    pub at: Pos,
    pub pointer: String,
}

impl<'a> Error<'a> {
    pub(super) fn other(message: String) -> Self {
        Self {
            kind: Kind::Other(message),
            place: None,
        }
    }

    pub(super) fn silent() -> Self {
        Self {
            kind: Kind::Silent,
            place: None,
        }
    }

    /// Sets the place, unless one is known.
    pub(super) fn at(mut self, node: &'a Node, at: Pos, path: &Path<'_>) -> Self {
        if self.place.is_none() {
            self.place = Some(Place {
                node,
                at,
                pointer: path.pointer(),
            });
        }
        self
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Missing(field) => write!(f, "`{field}` is missing"),
            Kind::Other(message) => f.write_str(message),
            Kind::Silent => f.write_str("this cannot be read"),
        }
    }
}

impl std::error::Error for Error<'_> {}

impl de::Error for Error<'_> {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::other(message.to_string())
    }

    /// Text is not repeated: it may be a secret at the wrong place.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::other(format!(
            "expected {}, found {}",
            words(expected),
            kind(found)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (expected, found) = (words(expected), kind(found));
        Self::other(format!("expected {expected}, found {found}"))
    }

    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        Self::other(format!(
            "expected {}, found {len} elements",
            words(expected)
        ))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.join(", ");
        Self::other(match suggest(variant, expected.iter().copied()) {
            Some(near) => format!("`{variant}` is none of {known}; did you mean `{near}`?"),
            None => format!("`{variant}` is none of {known}"),
        })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::other(format!(
            "unknown key `{field}`; known here: {}",
            expected.join(", ")
        ))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            kind: Kind::Missing(field),
            place: None,
        }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::other(format!("`{field}` is given twice, under two of its names"))
    }
}

fn kind(found: Unexpected<'_>) -> String {
    let words = match found {
        Unexpected::Unsigned(n) => return n.to_string(),
        Unexpected::Signed(n) => return n.to_string(),
        Unexpected::Float(n) => return n.to_string(),
        Unexpected::Bool(_) => "true or false",
        Unexpected::Char(_) | Unexpected::Str(_) => "text",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a mapping",
        _ => "something else",
    };
    words.to_owned()
}

/// serde's words for what it wants, in the words of documents.
fn words(expected: &dyn Expected) -> String {
    let words = expected.to_string();
    match words.as_str() {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "a character" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "unit" | "a unit" => "nothing".to_owned(),
        _ if words.starts_with("struct ") => "a mapping".to_owned(),
        _ => words,
    }
}
