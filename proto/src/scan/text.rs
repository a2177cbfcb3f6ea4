//! JSON strings: where they end, what they mean, and which spellings some parsers confuse.

use std::borrow::Cow;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A mask whose lowest set bit stands in the first byte that is zero (later bits may be wrong: use the first only).
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

/// The index of the first `"`, `\` or control character at or after `from`; the length if there is none.
pub(super) fn special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    // Eight bytes at a time; each test's lowest set bit is exact, so the lowest of the three is the first special byte.
    while let Some(Ok(eight)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let word = u64::from_le_bytes(eight);
        let quote = zero_bytes(word ^ (LOW * b'"' as u64));
        let backslash = zero_bytes(word ^ (LOW * b'\\' as u64));
        let control = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at.min(bytes.len())
}

/// The four hexadecimal digits at `at`.
pub(super) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let mut value = 0;
    for &digit in bytes.get(at..at.checked_add(4)?)? {
        value = value << 4 | (digit as char).to_digit(16)?;
    }
    Some(value)
}

/// One escape, `at` its backslash: the character and the bytes that it takes. `None` when it is malformed or half a
/// surrogate pair.
pub(super) fn escape(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let simple = match *bytes.get(at + 1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = hex4(bytes, at + 2)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            if bytes.get(at + 6..at + 8)? != b"\\u" {
                return None;
            }
            let second = hex4(bytes, at + 8)?;
            if !(0xdc00..0xe000).contains(&second) {
                return None;
            }
            let both = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Some((char::from_u32(both)?, 12));
        }
        _ => return None,
    };
    Some((simple, 2))
}

/// What a string means, given the text between its quotes. `None` when an escape is malformed.
pub(super) fn unescape(raw: &str) -> Option<Cow<'_, str>> {
    let bytes = raw.as_bytes();
    let Some(first) = memchr::memchr(b'\\', bytes) else {
        return Some(Cow::Borrowed(raw));
    };
    let mut out = String::with_capacity(raw.len());
    out.push_str(raw.get(..first)?);
    let mut at = first;
    while at < bytes.len() {
        let (character, taken) = escape(bytes, at)?;
        out.push(character);
        at += taken;
        let next = memchr::memchr(b'\\', bytes.get(at..)?).map_or(bytes.len(), |n| at + n);
        out.push_str(raw.get(at..next)?);
        at = next;
    }
    Some(Cow::Owned(out))
}

/// The ASCII letter that some parser takes this character for: lower case, Unicode's simple folding (ſ and the Kelvin
/// sign), and the two i of Turkish that languages fold through upper case.
fn folded(character: char) -> char {
    match character {
        'ſ' => 's',
        '\u{212a}' => 'k',
        'ı' | 'İ' => 'i',
        other => other.to_ascii_lowercase(),
    }
}

/// Whether some parser that ignores case takes `key` for `plain`.
pub(super) fn folds_to(key: &str, plain: &str) -> bool {
    key.chars().map(folded).eq(plain.chars().map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found_wherever_it_stands() {
        for special_byte in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for length in 0..40 {
                for place in 0..length {
                    for filler in [b'a', 0x20, 0x7f, 0x80, 0xff, b'#', b'!', b'[', b']'] {
                        let mut bytes = vec![filler; length];
                        bytes[place] = special_byte;
                        assert_eq!(special(&bytes, 0), place, "{special_byte} {filler}");
                    }
                }
            }
        }
        assert_eq!(special(b"nothing here at all", 0), 19);
        assert_eq!(special(b"", 0), 0);
    }

    #[test]
    fn escapes_mean_what_rfc_8259_says() {
        for (raw, meant) in [
            ("", Some("")),
            ("plain ſ 世", Some("plain ſ 世")),
            (r"n\u0061me", Some("name")),
            (r#"\"\\\/\b\f\n\r\t"#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r"\ud83d\ude00!", Some("😀!")),
            (r"\uD83D\uDE00", Some("😀")),
            (r"\ud83d", None),
            (r"\ud83dx\ude00", None),
            (r"\ude00", None),
            (r"\ud83d\ud83d", None),
            (r"\u00g0", None),
            (r"\u+061", None),
            (r"\x41", None),
            ("\\", None),
            (r"\u12", None),
        ] {
            assert_eq!(unescape(raw).as_deref(), meant, "{raw}");
        }
    }

    #[test]
    fn keys_that_a_lenient_parser_confuses_are_recognised() {
        for key in ["name", "Name", "NAME", "nAmE"] {
            assert!(folds_to(key, "name"));
        }
        assert!(folds_to("paramſ", "params"));
        assert!(folds_to("tas\u{212a}", "task"));
        assert!(folds_to("ıd", "id") && folds_to("İD", "id"));
        assert!(folds_to("requeststate", "requestState"));
        assert!(
            !folds_to("names", "name") && !folds_to("nam", "name") && !folds_to("nåme", "name")
        );
    }
}
