//! Values of any type, for fields that decide later what fits.

use super::Spanned;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, fmt};

/// Name under which [`Any`] asks the deserializer for a number's text.
pub(super) const NAME: &str = "$tollgate::doc::Any";

/// A value of any type. Numbers keep their digits.
#[derive(Clone, Debug, PartialEq)]
pub enum Any {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number in JSON's grammar.
    Number(String),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Spanned<Any>>),
    /// A mapping; its content is not kept.
    Map,
}

impl Any {
    /// What this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Any::Null => "nothing",
            Any::Bool(_) => "true or false",
            Any::Number(_) => "a number",
            Any::String(_) => "text",
            Any::List(_) => "a list",
            Any::Map => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NAME, Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Any;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    /// A number's text.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, number: D) -> Result<Any, D::Error> {
        String::deserialize(number).map(Any::Number)
    }
    fn visit_unit<E>(self) -> Result<Any, E> {
        Ok(Any::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Any, E> {
        Ok(Any::Bool(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Any, E> {
        Ok(Any::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Any, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Any::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Any, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Any::Map)
    }
}

impl JsonSchema for Any {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Any".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{from_node, parse};
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_places_are_kept() {
        let node = parse("[1.10, 12345678901234567890.5, x, {a: 1}, null, true]").unwrap();
        let Any::List(items) = from_node(&node).unwrap() else {
            panic!("a list");
        };
        assert_eq!(items[0].value, Any::Number("1.10".into()));
        assert_eq!(items[1].value, Any::Number("12345678901234567890.5".into()));
        assert_eq!((items[2].at.line, items[2].at.column), (1, 32));
        assert_eq!(items[3].value, Any::Map);
        assert_eq!(
            (&items[4].value, &items[5].value),
            (&Any::Null, &Any::Bool(true))
        );
    }
}
