//! Reading values by path, lazily, over bytes that [`super::read`] has already validated.

use std::borrow::Cow;

/// One JSON value inside validated bytes.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    raw: &'a [u8],
}

/// A value's JSON type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        todo!()
    }
    /// An object's member; keys are compared after unescaping. `None` when absent or not an object.
    pub fn get(&self, _key: &str) -> Option<Value<'a>> {
        todo!()
    }
    /// An array's element.
    pub fn index(&self, _index: usize) -> Option<Value<'a>> {
        todo!()
    }
    /// An object's members in order, keys unescaped; empty for other types.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> + use<'a> {
        std::iter::empty()
    }
    /// An array's elements in order; empty for other types.
    pub fn elements(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        std::iter::empty()
    }
    /// A string, unescaped.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        todo!()
    }
    /// A number as it is written.
    pub fn as_number(&self) -> Option<&'a str> {
        todo!()
    }
    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        todo!()
    }
}
