//! Reading values by path, lazily, over bytes that [`super::read`] has already validated.
//!
//! Total all the same: on bytes that were never validated the answers are meaningless, but there is no panic and no
//! endless loop.

use super::{plain::Kernel, simd::Simd, text};
use std::borrow::Cow;

/// One JSON value inside validated bytes.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    raw: &'a [u8],
}

/// A value's JSON type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number
    Number,
    /// A string
    String,
    /// An array
    Array,
    /// An object
    Object,
}

impl<'a> Value<'a> {
    /// Wraps bytes that the scanner has validated: exactly one value, white space around it allowed.
    pub fn new(validated: &'a [u8]) -> Self {
        Self {
            raw: validated.trim_ascii(),
        }
    }
    /// The bytes as written, without white space around them.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
    /// The JSON type.
    pub fn kind(&self) -> Type {
        match self.raw.first() {
            Some(b'{') => Type::Object,
            Some(b'[') => Type::Array,
            Some(b'"') => Type::String,
            Some(b't' | b'f') => Type::Bool,
            Some(b'-' | b'0'..=b'9') => Type::Number,
            _ => Type::Null,
        }
    }
    /// An object's member; keys are compared after unescaping. `None` when absent or not an object.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.members()
            .find_map(|(name, value)| (name == key).then_some(value))
    }
    /// An array's element.
    pub fn index(&self, index: usize) -> Option<Value<'a>> {
        self.elements().nth(index)
    }
    /// An object's members in order, keys unescaped; empty for other types.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> + use<'a> {
        self.entries().map_while(|(key, value)| {
            let key = match key {
                Cow::Borrowed(key) => Cow::Borrowed(std::str::from_utf8(key).ok()?),
                Cow::Owned(key) => Cow::Owned(String::from_utf8(key).ok()?),
            };
            Some((key, value))
        })
    }
    /// The same, without asking whether keys are UTF-8: who validated them knows.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Value<'a>)> + use<'a> {
        let mut cursor = Cursor::inside(self.raw, b'{');
        std::iter::from_fn(move || {
            let key = cursor.key()?;
            let value = cursor.item()?;
            Some((key, Value { raw: value }))
        })
    }
    /// An array's elements in order; empty for other types.
    pub fn elements(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::inside(self.raw, b'[');
        std::iter::from_fn(move || {
            Some(Value {
                raw: cursor.item()?,
            })
        })
    }
    /// A string, unescaped.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        let inner = self.raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        text::unescape(std::str::from_utf8(inner).ok()?)
    }
    /// A number as it is written.
    pub fn as_number(&self) -> Option<&'a str> {
        if self.kind() != Type::Number {
            return None;
        }
        std::str::from_utf8(self.raw).ok()
    }
    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.raw {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }
}

/// Walks over the items of an object (keys and values alternate) or array.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn inside(raw: &'a [u8], open: u8) -> Self {
        let bytes = if raw.first() == Some(&open) { raw } else { b"" };
        Self { bytes, at: 1 }
    }

    fn skip(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b':') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn key(&mut self) -> Option<Cow<'a, [u8]>> {
        self.skip();
        let start = self.at;
        if self.bytes.get(start) != Some(&b'"') {
            return None;
        }
        let (end, has_escape) = string(self.bytes, start);
        self.at = end;
        let inner = self.bytes.get(start + 1..end)?.strip_suffix(b"\"")?;
        match has_escape {
            false => Some(Cow::Borrowed(inner)),
            true => text::unescape_bytes(inner),
        }
    }

    fn item(&mut self) -> Option<&'a [u8]> {
        self.skip();
        let start = self.at;
        self.at = end_of_value(self.bytes, start);
        // Empty: the closing bracket, or the end of bytes that are no JSON.
        self.bytes.get(start..self.at).filter(|raw| !raw.is_empty())
    }
}

/// Where the value that starts at `start` ends; `start` itself where none starts.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                if depth == 0 {
                    return at;
                }
                depth -= 1;
                at += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                if depth == 0 {
                    return at;
                }
                at += 1;
                continue;
            }
            _ => at = end_of_word(bytes, at),
        }
        if depth == 0 {
            return at;
        }
    }
    at.min(bytes.len())
}

fn end_of_word(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    let ends = |b: &u8| {
        matches!(b, b',' | b':' | b'}' | b']' | b'"' | b'{' | b'[') || b.is_ascii_whitespace()
    };
    start + rest.iter().position(ends).unwrap_or(rest.len()).max(1)
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    string(bytes, start).0
}

/// Where the string that starts at `start` ends, and whether anything in it is escaped.
#[inline]
fn string(bytes: &[u8], start: usize) -> (usize, bool) {
    match Simd::string(bytes, start + 1) {
        Some(end) => (end.at() + 1, end.escaped()),
        None => no_string(bytes, start + 1),
    }
}

/// The same in bytes that were never validated.
#[cold]
fn no_string(bytes: &[u8], mut at: usize) -> (usize, bool) {
    let mut has_escape = false;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match memchr::memchr2(b'"', b'\\', rest) {
            None => return (bytes.len(), has_escape),
            Some(n) if rest.get(n) == Some(&b'"') => return (at + n + 1, has_escape),
            Some(n) => {
                has_escape = true;
                at = (at + n + 2).min(bytes.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Value<'_> {
        Value::new(text.as_bytes())
    }

    #[test]
    fn members_and_elements_are_found_by_path() {
        let v =
            value(r#" {"a":{"b":[1, -2.5e3 ,"x\u0041",true,null,{}]},"k\u0065y":false,"":"}"} "#);
        let list = v.get("a").unwrap().get("b").unwrap();
        assert_eq!(list.kind(), Type::Array);
        assert_eq!(list.elements().count(), 6);
        assert_eq!(list.index(1).unwrap().as_number(), Some("-2.5e3"));
        assert_eq!(list.index(2).unwrap().as_str().as_deref(), Some("xA"));
        assert_eq!(list.index(3).unwrap().as_bool(), Some(true));
        assert_eq!(list.index(4).unwrap().kind(), Type::Null);
        assert_eq!(list.index(5).unwrap().kind(), Type::Object);
        assert!(list.index(6).is_none());
        assert_eq!(v.get("key").unwrap().as_bool(), Some(false));
        assert_eq!(v.get("").unwrap().as_str().as_deref(), Some("}"));
        assert!(v.get("absent").is_none() && list.get("a").is_none() && v.index(0).is_none());
        let names: Vec<_> = v.members().map(|(k, _)| k.into_owned()).collect();
        assert_eq!(names, ["a", "key", ""]);
        assert_eq!(
            value("{}").members().count() + value("[ ]").elements().count(),
            0
        );
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_panic(bytes in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b','), Just(b':'), any::<u8>()],
            0..64,
        )) {
            let v = Value::new(&bytes);
            let _ = (v.kind(), v.as_str(), v.as_number(), v.as_bool(), v.get("a"), v.index(3));
            for (_, inner) in v.members() {
                let _ = (inner.raw().len(), inner.elements().count());
            }
            for inner in v.elements() {
                let _ = inner.members().count();
            }
        }
    }
}
