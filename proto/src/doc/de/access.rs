//! What a list, a mapping, a key and a place give to serde's visitors.

use super::{De, Error, Path, address, fabricate::Fabricated};
use crate::doc::{Entry, Node, Pos, spanned};
use serde::de::{
    self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::U32Deserializer,
};

/// The elements of a list.
pub(super) struct Items<'a, 'p> {
    pub de: De<'a, 'p>,
    pub items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de, 'a> SeqAccess<'de> for Items<'a, '_> {
    type Error = Error<'a>;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error<'a>> {
        let ctx = self.de.ctx;
        let Some((index, node)) = self.items.by_ref().find(|(_, n)| !ctx.is_skipped(n)) else {
            return Ok(None);
        };
        let path = &Path::Index(self.de.path, index);
        let de = De { ctx, node, path };
        de.within(|de| seed.deserialize(de)).map(Some)
    }
}

/// The entries of a mapping, then those that are made up.
pub(super) struct Fields<'a, 'p> {
    de: De<'a, 'p>,
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
    fabricated: Vec<&'static str>,
}

impl<'a, 'p> Fields<'a, 'p> {
    pub(super) fn new(
        de: De<'a, 'p>,
        entries: &'a [Entry],
        fields: &'static [&'static str],
    ) -> Self {
        let made_up = de.ctx.fabricated.borrow();
        let fabricated = fields
            .iter()
            .copied()
            .filter(|field| made_up.contains(&(address(de.node), *field)))
            .collect();
        Self {
            de,
            entries: entries.iter(),
            current: None,
            fabricated,
        }
    }
}

impl<'de, 'a> MapAccess<'de> for Fields<'a, '_> {
    type Error = Error<'a>;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error<'a>> {
        let ctx = self.de.ctx;
        self.current = self.entries.by_ref().find(|e| !ctx.is_skipped(&e.value));
        match self.current {
            Some(entry) => {
                let path = Path::Key(self.de.path, &entry.key);
                seed.deserialize(KeyDe {
                    text: &entry.key,
                    at: entry.key_at,
                })
                .map_err(|error| error.at(&entry.value, entry.key_at, &path))
                .map(Some)
            }
            None => match self.fabricated.last() {
                Some(field) => seed.deserialize((*field).into_deserializer()).map(Some),
                None => Ok(None),
            },
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error<'a>> {
        let parent = self.de;
        match self.current.take() {
            Some(entry) => {
                let de = De {
                    ctx: parent.ctx,
                    node: &entry.value,
                    path: &Path::Key(parent.path, &entry.key),
                };
                de.within(|de| seed.deserialize(de))
            }
            None => {
                self.fabricated.pop();
                let made_up = seed.deserialize(Fabricated::default());
                made_up.map_err(|_: Error<'_>| {
                    Error::silent().at(parent.node, parent.node.at, parent.path)
                })
            }
        }
    }
}

/// A key as a deserializer: text, or text with its place.
pub(super) struct KeyDe<'a> {
    pub text: &'a str,
    pub at: Pos,
}

impl<'de, 'a> de::Deserializer<'de> for KeyDe<'a> {
    type Error = Error<'a>;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        visitor.visit_str(self.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        match name {
            spanned::NAME => visitor.visit_seq(Spot::new(self.at, Some(self))),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        visitor.visit_enum(self.text.into_deserializer())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error<'a>> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// What [`super::Spanned`] reads: line, column, value.
pub(super) struct Spot<D> {
    place: std::vec::IntoIter<u32>,
    value: Option<D>,
}

impl<D> Spot<D> {
    pub(super) fn new(at: Pos, value: Option<D>) -> Self {
        Self {
            place: vec![at.line, at.column].into_iter(),
            value,
        }
    }
}

impl<'de, 'a, D: de::Deserializer<'de, Error = Error<'a>>> SeqAccess<'de> for Spot<D> {
    type Error = Error<'a>;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error<'a>> {
        if let Some(number) = self.place.next() {
            let number: U32Deserializer<Error<'a>> = number.into_deserializer();
            return seed.deserialize(number).map(Some);
        }
        self.value.take().map(|de| seed.deserialize(de)).transpose()
    }
}
