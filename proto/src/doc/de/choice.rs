//! Enums: a name alone, or a mapping of one name to its content.

use super::{De, Error, Path, access::KeyDe};
use crate::doc::{Node, Pos, Value};
use serde::de::{self, DeserializeSeed, EnumAccess, VariantAccess, Visitor};

/// An enum's variant and what stands behind it.
pub(super) struct Choice<'a, 'p> {
    pub de: De<'a, 'p>,
    pub at: Pos,
    pub name: &'a str,
    pub content: Option<&'a Node>,
}

impl<'de, 'a, 'p> EnumAccess<'de> for Choice<'a, 'p> {
    type Error = Error<'a>;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error<'a>> {
        let key = KeyDe {
            text: self.name,
            at: self.at,
        };
        let variant = seed
            .deserialize(key)
            .map_err(|error| error.at(self.de.node, self.at, self.de.path))?;
        Ok((variant, self))
    }
}

impl<'a> Choice<'a, '_> {
    fn inner<T>(
        self,
        step: impl FnOnce(De<'a, '_>) -> Result<T, Error<'a>>,
    ) -> Result<T, Error<'a>> {
        let Some(node) = self.content else {
            let message = format!("`{}` needs a mapping: `{}: …`", self.name, self.name);
            return Err(Error::other(message));
        };
        let de = De {
            ctx: self.de.ctx,
            node,
            path: &Path::Key(self.de.path, self.name),
        };
        de.within(step)
    }
}

impl<'de, 'a> VariantAccess<'de> for Choice<'a, '_> {
    type Error = Error<'a>;

    fn unit_variant(self) -> Result<(), Error<'a>> {
        match self.content {
            None => Ok(()),
            Some(node) if node.value == Value::Null => Ok(()),
            Some(_) => self.inner(|de| de.misfit("nothing")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error<'a>> {
        self.inner(|de| seed.deserialize(de))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error<'a>> {
        self.inner(|de| de::Deserializer::deserialize_tuple(de, len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error<'a>> {
        self.inner(|de| de::Deserializer::deserialize_struct(de, "", fields, visitor))
    }
}
