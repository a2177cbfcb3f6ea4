//! Strings and white space byte by byte and eight bytes at a time: the portable kernel, and the twin that the
//! vectorised one is tested and fuzzed against.

use super::{reason::Reason, text};
use std::num::NonZeroU64;

/// Where a string ends and what is in it, in one word that stays in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringEnd(NonZeroU64);

impl StringEnd {
    #[inline(always)]
    pub(super) fn new(at: usize, wide: bool, escaped: bool) -> Self {
        let flags = u64::from(wide) << 1 | u64::from(escaped) << 2;
        Self(NonZeroU64::MIN | (at as u64) << 3 | flags)
    }

    /// Its closing quote.
    #[inline(always)]
    pub(super) fn at(self) -> usize {
        (self.0.get() >> 3) as usize
    }

    /// Whether a byte of it is not ASCII: it must be validated as UTF-8.
    #[inline(always)]
    pub(super) fn wide(self) -> bool {
        self.0.get() & 2 != 0
    }

    /// Whether it is written with escapes.
    #[inline(always)]
    pub(super) fn escaped(self) -> bool {
        self.0.get() & 4 != 0
    }
}

/// The searches that most bytes of a message pass through.
pub(super) trait Kernel {
    /// The end of the string whose contents begin at `from`; `None` where it is no string ([`fault`] says why).
    fn string(bytes: &[u8], from: usize) -> Option<StringEnd>;

    /// The closing quote of a string of which more may come; `Err` is where these bytes stop being read: at their end, at
    /// an escape that is none or goes on behind them, or at a control character.
    fn piece(bytes: &[u8], from: usize) -> Result<usize, usize>;

    /// The first byte at or after `from` that is no white space of JSON's.
    fn space(bytes: &[u8], from: usize) -> usize;
}

/// Nothing but safe code.
#[derive(Debug)]
pub(super) struct Plain;

impl Kernel for Plain {
    fn string(bytes: &[u8], from: usize) -> Option<StringEnd> {
        find(bytes, from).ok()
    }

    fn piece(bytes: &[u8], from: usize) -> Result<usize, usize> {
        find(bytes, from).map(StringEnd::at).map_err(|(_, at)| at)
    }

    fn space(bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
            at += 1;
        }
        at
    }
}

/// Why a string that no kernel could end is none, and where.
#[cold]
pub(super) fn fault(bytes: &[u8], from: usize) -> (Reason, usize) {
    match find(bytes, from) {
        Err(fault) => fault,
        // Not reached: the kernels agree. Should one of them err, the message is refused, never misread.
        Ok(end) => (Reason::Syntax, end.at()),
    }
}

fn find(bytes: &[u8], from: usize) -> Result<StringEnd, (Reason, usize)> {
    let mut at = from;
    let mut wide = false;
    let mut escaped = false;
    loop {
        let (stop, wide_before) = special(bytes, at);
        wide |= wide_before;
        at = stop;
        match bytes.get(at) {
            None => return Err((Reason::Truncated, at)),
            Some(b'"') => break,
            Some(b'\\') => {
                escaped = true;
                match text::escape(bytes, at) {
                    Some((_, taken)) => at += taken,
                    None => return Err((bad_escape(bytes, at), at)),
                }
            }
            Some(_) => return Err((Reason::ControlCharacter, at)),
        }
    }
    Ok(StringEnd::new(at, wide, escaped))
}

fn bad_escape(bytes: &[u8], at: usize) -> Reason {
    let surrogate = bytes.get(at + 1) == Some(&b'u') && text::hex4(bytes, at + 2).is_some();
    if surrogate {
        Reason::LoneSurrogate
    } else {
        Reason::Syntax
    }
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A mask whose lowest set bit stands in the first byte that is zero (later bits may be wrong: use the first only).
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

/// The index of the first `"`, `\` or control character at or after `from` (the length if there is none), and whether
/// a byte before it is not ASCII.
fn special(bytes: &[u8], from: usize) -> (usize, bool) {
    let mut at = from;
    let mut seen = 0;
    // Eight bytes at a time; each test's lowest set bit is exact, so the lowest of the three is the first special byte.
    while let Some(Ok(eight)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let word = u64::from_le_bytes(eight);
        let quote = zero_bytes(word ^ (LOW * b'"' as u64));
        let backslash = zero_bytes(word ^ (LOW * b'\\' as u64));
        let control = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            let before = found.trailing_zeros() - 7;
            seen |= word & ((1 << before) - 1);
            return (at + (before / 8) as usize, seen & HIGH != 0);
        }
        seen |= word;
        at += 8;
    }
    let mut wide = seen & HIGH != 0;
    while let Some(&byte) = bytes.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        wide |= byte >= 0x80;
        at += 1;
    }
    (at.min(bytes.len()), wide)
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
                        let wide = place > 0 && filler >= 0x80;
                        assert_eq!(special(&bytes, 0), (place, wide), "{special_byte} {filler}");
                    }
                }
            }
        }
        assert_eq!(special(b"nothing here at all", 0), (19, false));
        assert_eq!(special(b"", 0), (0, false));
    }
}
