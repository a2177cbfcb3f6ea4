//! Durations and sizes as people write them, and values that may come from elsewhere.

use proto::doc::suggest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr, time::Duration};

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`, e.g. `100ms`, `90s`, `15m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

const DURATIONS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A number of bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`, e.g. `4MiB`; a bare number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

fn with_unit(text: &str, units: &[(&str, u64)], want: &str) -> Result<u64, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let number: u64 = digits.parse().map_err(|_| format!("expected {want}"))?;
    match units.iter().find(|(name, _)| *name == unit.trim_start()) {
        Some((_, factor)) => number
            .checked_mul(*factor)
            .ok_or_else(|| "this is too large".to_owned()),
        None => match suggest(unit, units.iter().map(|(name, _)| *name)) {
            Some(near) => Err(format!("expected {want}; did you mean `{digits}{near}`?")),
            None => Err(format!("expected {want}")),
        },
    }
}

fn show(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| number >= *factor && number.is_multiple_of(*factor);
    match units.iter().find(fits) {
        Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
        None => f.write_str(zero),
    }
}

const DURATION: &str = "a duration such as 100ms, 90s, 15m, 12h or 2d";
const SIZE: &str = "a size such as 512B, 64KiB, 4MiB or 1GiB";

impl FromStr for HumanDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ms = with_unit(text, DURATIONS, DURATION)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}
impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        with_unit(text, SIZES, SIZE).map(Self)
    }
}
impl FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().map_err(|_| "expected a whole number")?;
        Ok(Self(number))
    }
}
impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        show(f, ms, DURATIONS, "0s")
    }
}
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, SIZES, "0B")
    }
}
impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(DURATION, false, PhantomData))
    }
}
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(SIZE, true, PhantomData))
    }
}
impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

/// Reads text with `FromStr`; a bare number is taken where `.1` says so.
struct TextVisitor<T>(&'static str, bool, PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        match self.1 {
            true => format!("{number}B").parse().map_err(E::custom),
            false => Err(E::invalid_type(de::Unexpected::Unsigned(number), &self)),
        }
    }
}

macro_rules! serialize_shown {
    ($($type:ty)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
serialize_shown!(HumanDuration ByteSize);

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+ *(ms|s|m|h|d)$",
            "description": "A whole number and a unit: ms, s, m, h or d."
        })
    }
}
impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)$" },
                { "type": "integer", "minimum": 0 }
            ],
            "description": "A whole number and a unit: B, KiB, MiB or GiB; a bare number is bytes."
        })
    }
}
impl JsonSchema for Count {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

/// Where a secret is read from: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// A file whose whole content is the value; one line end at its end is dropped. Relative paths start at the
    /// directory of the file that names them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// An environment variable of the gateway. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Text put before the value, e.g. `"Bearer "`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A value: text as it stands, or a reference to a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Text as it stands.
    Literal(String),
    /// Read from elsewhere.
    From(SecretRef),
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in quotes, `{file: …}` or `{env: …}`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::Literal(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
                SecretRef::deserialize(MapAccessDeserializer::new(map)).map(Text::From)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = generator.subschema_for::<SecretRef>();
        json_schema!({
            "description": "Text as it stands, or where it is read from.",
            "anyOf": [{ "type": "string" }, secret]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_shown_in_their_largest_unit() {
        for (text, ms, shown) in [
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("100ms", 100, "100ms"),
            ("24h", 86_400_000, "1d"),
            ("0s", 0, "0s"),
            ("5 s", 5_000, "5s"),
        ] {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!(duration.0, Duration::from_millis(ms), "{text}");
            assert_eq!(duration.to_string(), shown);
        }
        for (text, bytes, shown) in [
            ("4MiB", 4 << 20, "4MiB"),
            ("1024B", 1024, "1KiB"),
            ("1500B", 1500, "1500B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
    }

    #[test]
    fn units_that_are_not_known_are_refused_with_a_hint() {
        for (text, hint) in [
            ("5", "expected a duration"),
            ("5x", "expected a duration"),
            ("5S", "did you mean `5s`"),
            ("-5s", "expected a duration"),
            ("99999999999999999999d", "expected a duration"),
            ("999999999999999999d", "too large"),
        ] {
            let why = text.parse::<HumanDuration>().unwrap_err();
            assert!(why.contains(hint), "{text}: {why}");
        }
        let why = "4MB".parse::<ByteSize>().unwrap_err();
        assert!(why.contains("did you mean `4MiB`"), "{why}");
    }
}
