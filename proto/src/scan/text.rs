//! JSON strings: where they end, what they mean, and which spellings some parsers confuse.

use std::borrow::Cow;

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
    match unescape_bytes(raw.as_bytes())? {
        Cow::Borrowed(_) => Some(Cow::Borrowed(raw)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// The same for bytes that need not be UTF-8.
pub(super) fn unescape_bytes(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(first) = memchr::memchr(b'\\', raw) else {
        return Some(Cow::Borrowed(raw));
    };
    let mut out = Vec::with_capacity(raw.len());
    unescape_into(raw, first, |piece| out.extend_from_slice(piece))?;
    Some(Cow::Owned(out))
}

/// Gives the pieces of what a string means to `each`, given where its first escape is.
pub(super) fn unescape_into(raw: &[u8], first: usize, mut each: impl FnMut(&[u8])) -> Option<()> {
    each(raw.get(..first)?);
    let mut at = first;
    while at < raw.len() {
        let (character, taken) = escape(raw, at)?;
        each(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += taken;
        let next = memchr::memchr(b'\\', raw.get(at..)?).map_or(raw.len(), |n| at + n);
        each(raw.get(at..next)?);
        at = next;
    }
    Some(())
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

/// Whether some parser that ignores case takes `key` for `plain`, which is ASCII.
#[inline(always)]
pub(super) fn folds_to(key: &[u8], plain: &str) -> bool {
    // What folds to an ASCII character takes up to three bytes.
    if key.len() < plain.len() || key.len() > 3 * plain.len() {
        return false;
    }
    if key.len() == plain.len() && key.eq_ignore_ascii_case(plain.as_bytes()) {
        return true;
    }
    !key.is_ascii() && folds_to_wide(key, plain)
}

#[cold]
fn folds_to_wide(key: &[u8], plain: &str) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| key.chars().map(folded).eq(plain.chars().map(folded)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(folds_to(key.as_bytes(), "name"));
        }
        assert!(folds_to("paramſ".as_bytes(), "params"));
        assert!(folds_to("tas\u{212a}".as_bytes(), "task"));
        assert!(folds_to("ıd".as_bytes(), "id") && folds_to("İD".as_bytes(), "id"));
        assert!(folds_to("requeststate".as_bytes(), "requestState"));
        assert!(
            !folds_to("names".as_bytes(), "name")
                && !folds_to("nam".as_bytes(), "name")
                && !folds_to("nåme".as_bytes(), "name")
        );
    }
}
