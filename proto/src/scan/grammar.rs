//! The tokens of RFC 8259 byte by byte, for bytes that come in pieces.

use super::{reason::Reason, text};
use smallvec::SmallVec;

/// What may come next, between tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Value,
    /// Behind `[`.
    ValueOrEnd,
    Key,
    /// Behind `{`.
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// Behind the message.
    Nothing,
}

/// How much of a number was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    pub(super) fn first(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Number::Minus),
            b'0' => Some(Number::Zero),
            b'1'..=b'9' => Some(Number::Integer),
            _ => None,
        }
    }

    /// With one more byte; `None` where it is none of the number's.
    pub(super) fn with(self, byte: u8) -> Option<Self> {
        use Number::*;
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Integer, b'0'..=b'9') => Integer,
            (Zero | Integer, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Integer | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            _ => return None,
        })
    }

    /// Whether it may end here.
    pub(super) fn is_whole(self) -> bool {
        use Number::*;
        matches!(self, Zero | Integer | Fraction | ExponentDigits)
    }
}

/// The rest of `true`, `false` or `null`.
pub(super) fn word(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b't' => Some(b"rue"),
        b'f' => Some(b"alse"),
        b'n' => Some(b"ull"),
        _ => None,
    }
}

/// Whether these bytes, a backslash and what follows it, are an escape (`Some(true)`) or may become one.
pub(super) fn escape(bytes: &[u8]) -> Result<bool, Reason> {
    match *bytes {
        [b'\\'] => return Ok(false),
        [b'\\', b'u', ref digits @ ..] => {
            let hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
            let (first, pair) = digits.split_at(digits.len().min(4));
            if !hex(first) {
                return Err(Reason::Syntax);
            }
            if first.len() < 4 {
                return Ok(false);
            }
            if matches!(text::hex4(first, 0), Some(0xd800..0xdc00)) && pair.len() < 6 {
                let (mark, second) = pair.split_at(pair.len().min(2));
                if b"\\u".starts_with(mark) && hex(second) {
                    return Ok(false);
                }
                return Err(Reason::LoneSurrogate);
            }
            text::escape(bytes, 0).ok_or(Reason::LoneSurrogate)?;
        }
        _ => {
            text::escape(bytes, 0).ok_or(Reason::Syntax)?;
        }
    }
    Ok(true)
}

/// How many bytes at the end are the beginning of a character that may go on.
fn begun(bytes: &[u8]) -> usize {
    let tail = bytes.len() - bytes.len().min(3);
    let lead = |&(_, byte): &(usize, &u8)| *byte >= 0xc0;
    let Some((from, _)) = bytes.iter().enumerate().skip(tail).rfind(lead) else {
        return 0;
    };
    let end = bytes.get(from..).unwrap_or_default();
    match std::str::from_utf8(end) {
        Err(e) if e.error_len().is_none() => end.len(),
        _ => 0,
    }
}

/// UTF-8 in pieces.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The first bytes of a character that goes on in the next piece.
    cut: SmallVec<[u8; 4]>,
}

impl Utf8 {
    /// Whether a character goes on.
    pub(super) fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// The next piece; where it is no UTF-8, how many of its bytes are.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), usize> {
        let mut rest = piece;
        while self.is_cut() {
            let Some((&byte, after)) = rest.split_first() else {
                return Ok(());
            };
            self.cut.push(byte);
            rest = after;
            match std::str::from_utf8(&self.cut) {
                Ok(_) => self.cut.clear(),
                Err(e) if e.error_len().is_none() => {}
                Err(_) => return Err(0),
            }
        }
        let (whole, begun) = rest.split_at(rest.len() - begun(rest));
        if simdutf8::basic::from_utf8(whole).is_ok() {
            self.cut.extend_from_slice(begun);
            return Ok(());
        }
        let Err(e) = std::str::from_utf8(rest) else {
            return Ok(());
        };
        if e.error_len().is_some() {
            return Err(piece.len() - rest.len() + e.valid_up_to());
        }
        let cut = rest.get(e.valid_up_to()..).unwrap_or_default();
        self.cut.extend_from_slice(cut);
        Ok(())
    }
}
