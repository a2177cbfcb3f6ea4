//! Header values that mirror the body (MCP 2026-07-28, streamable HTTP, "Value Encoding").

use base64::{Engine, engine::general_purpose::STANDARD};
use std::borrow::Cow;

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// Decodes `=?base64?…?=`; any other visible ASCII stands for itself (M11). `None` when malformed.
pub fn decode_header(value: &str) -> Option<Cow<'_, str>> {
    if !is_plain(value) {
        return None;
    }
    if !is_sentinel(value) {
        return Some(Cow::Borrowed(value));
    }
    // `=?base64?=` begins and ends right and yet holds no value: malformed rather than plain.
    let encoded = value.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let bytes = STANDARD.decode(encoded).ok()?;
    Some(Cow::Owned(String::from_utf8(bytes).ok()?))
}

/// Writes a value so that [`decode_header`] returns it: itself where that is safe, else `=?base64?…?=`.
pub fn encode_header(value: &str) -> Cow<'_, str> {
    if is_plain(value) && !is_sentinel(value) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{PREFIX}{}{SUFFIX}", STANDARD.encode(value)))
}

/// Visible ASCII, with spaces and tabs inside only.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))
        && value.trim_matches([' ', '\t']).len() == value.len()
}

fn is_sentinel(value: &str) -> bool {
    value.starts_with(PREFIX) && value.ends_with(SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_specification_hold() {
        for (meant, header) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encode_header(meant), header);
            assert_eq!(decode_header(header).as_deref(), Some(meant));
        }
    }

    #[test]
    fn malformed_values_are_refused_and_near_misses_stand_for_themselves() {
        for bad in [
            "=?base64?SGVsbG8?=",   // no padding
            "=?base64?SGVs bG8=?=", // a space
            "=?base64?SGVsbG9=?=",  // bits left over
            "=?base64?_-8=?=",      // the other alphabet
            "=?base64?/w==?=",      // not UTF-8
            "=?base64?=",
            "caf\u{e9}",
            "a\u{7f}",
            " a",
            "a\t",
        ] {
            assert_eq!(decode_header(bad), None, "{bad}");
        }
        for plain in [
            "=?BASE64?YQ==?=",
            "=?base64?YQ==",
            "x=?base64?YQ==?=",
            "a b",
            "",
        ] {
            assert_eq!(decode_header(plain).as_deref(), Some(plain));
        }
        assert_eq!(decode_header("=?base64??=").as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn every_text_survives_the_way_through_a_header(text in any::<String>()) {
            let header = encode_header(&text).into_owned();
            let back = decode_header(&header);
            prop_assert_eq!(back.as_deref(), Some(&*text));
        }
    }
}
