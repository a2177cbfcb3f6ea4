//! Values of audit lines as JSON (RFC 8259), appended to bytes. Every call has a line, whose keys and most of whose texts
//! need no escaping: those are copied. What needs it is left to `serde_json`.

use std::{borrow::Cow, io::Write as _, net::IpAddr};

/// What can stand in a line.
pub trait Value {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);
}

impl Value for str {
    fn write(&self, out: &mut Vec<u8>) {
        // Without an early end it is done in vectors.
        let escape = self
            .bytes()
            .fold(false, |any, byte| any | must_be_escaped(byte));
        if escape {
            return serde_json::to_writer(out, self)
                .expect("invariant: a text is written to memory");
        }
        quoted(out, self.as_bytes());
    }
}

impl Value for Cow<'_, str> {
    fn write(&self, out: &mut Vec<u8>) {
        str::write(self, out);
    }
}

/// A word of the code, in which nothing has to be escaped.
#[derive(Clone, Copy, Debug)]
pub struct Word(pub &'static str);

impl Value for Word {
    fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(!self.0.bytes().any(must_be_escaped), "{}", self.0);
        quoted(out, self.0.as_bytes());
    }
}

impl Value for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl Value for IpAddr {
    fn write(&self, out: &mut Vec<u8>) {
        write!(out, "\"{self}\"").expect("invariant: memory takes what is written");
    }
}

/// 32 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex128(pub u128);

impl Value for Hex128 {
    fn write(&self, out: &mut Vec<u8>) {
        let mut digits = [0; 32];
        for (pair, byte) in digits
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(self.0.to_be_bytes())
        {
            *pair = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        }
        quoted(out, &digits);
    }
}

/// Appends an array.
pub fn list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    out.extend_from_slice(bytes);
    out.push(b'"');
}

/// RFC 8259 section 7.
fn must_be_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &(impl Value + ?Sized)) -> String {
        let mut out = b"before".to_vec();
        value.write(&mut out);
        String::from_utf8(out.split_off(6)).unwrap()
    }

    proptest! {
        #[test]
        fn a_text_is_written_as_serde_json_writes_it(text in r#"[\PC\x00-\x20"\\\x7f]{0,80}"#, plain in "[ -~é世]{0,80}") {
            for text in [text, plain] {
                prop_assert_eq!(written(&*text), serde_json::to_string(&text).unwrap());
            }
        }

        #[test]
        fn numbers_and_addresses_are_written_as_rust_shows_them(number: u64, hex: u128, four: [u8; 4], six: [u16; 8]) {
            prop_assert_eq!(written(&number), number.to_string());
            prop_assert_eq!(written(&Hex128(hex)), format!("\"{hex:032x}\""));
            for address in [IpAddr::from(four), IpAddr::from(six)] {
                prop_assert_eq!(written(&address), format!("\"{address}\""));
            }
        }
    }

    #[test]
    fn every_byte_that_json_wants_escaped_is() {
        for byte in 0..0x80_u8 {
            let text = char::from(byte).to_string();
            let quoted = written(&*text);
            assert_eq!(quoted, serde_json::to_string(&text).unwrap());
            assert_eq!(must_be_escaped(byte), quoted.len() != 3, "{byte}");
        }
    }

    #[test]
    fn a_list_has_commas_between_its_items() {
        let listed = |items: &[u64]| {
            let mut out = Vec::new();
            list(&mut out, items, u64::write);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(listed(&[]), "[]");
        assert_eq!(listed(&[1]), "[1]");
        assert_eq!(listed(&[1, 2, 3]), "[1,2,3]");
    }
}
