//! RFC 8259, strictly: values, strings, numbers, and objects whose keys all differ.
//!
//! Never recursive: what nests is kept on a stack of its own, so no depth that is configured can exhaust the thread's.

use super::{
    Bounds,
    keys::{KeySpan, Keys},
    plain::{self, Kernel, StringEnd},
    reason::{Reason, Refusal},
    text,
    value::Type,
};
use std::{borrow::Cow, marker::PhantomData};

/// A string or key as it stands in the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    /// What stands between its quotes.
    pub raw: &'a [u8],
    /// Whether it is written with escapes.
    pub escaped: bool,
    /// Where its opening quote is.
    pub at: usize,
}

impl<'a> Text<'a> {
    /// What it means, as bytes that may not be UTF-8 yet.
    #[inline(always)]
    pub(super) fn meaning(&self) -> Cow<'a, [u8]> {
        if self.escaped {
            text::unescape_bytes(self.raw).unwrap_or_default()
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// What it means.
    pub(super) fn decoded(&self) -> Result<Cow<'a, str>, Refusal> {
        let raw = std::str::from_utf8(self.raw);
        let raw = raw.map_err(|e| Refusal::new(Reason::Encoding, self.at + 1 + e.valid_up_to()))?;
        if !self.escaped {
            return Ok(Cow::Borrowed(raw));
        }
        text::unescape(raw).ok_or(Refusal::new(Reason::Syntax, self.at))
    }
}

/// A cursor over one body.
#[derive(Debug)]
pub(super) struct Reader<'a, K> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    depth_max: usize,
    keys: Keys<'a>,
    /// From the first string that is not ASCII to the end of the last one: the bytes that are validated in the end.
    wide: Option<(usize, usize)>,
    kernel: PhantomData<K>,
}

impl<'a, K: Kernel> Reader<'a, K> {
    /// A cursor before the first value.
    pub(super) fn new(body: &'a [u8], bounds: &Bounds) -> Result<Self, Refusal> {
        if body.starts_with(b"\xef\xbb\xbf") {
            return Err(Refusal::new(Reason::Bom, 0));
        }
        let reader = Self {
            bytes: body,
            at: K::space(body, 0),
            depth: 0,
            depth_max: bounds.depth_max,
            keys: Keys::new(body, bounds.keys_object_max, bounds.keys_body_max),
            wide: None,
            kernel: PhantomData,
        };
        if reader.peek().is_none() {
            return Err(Refusal::new(Reason::Empty, 0));
        }
        Ok(reader)
    }

    /// Where the cursor stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The bytes from `start` to the cursor.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Nothing but white space may be left, and all that was read must have been UTF-8 (outside strings all is ASCII).
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        self.space();
        if self.peek().is_some() {
            return self.refuse(Reason::Trailing);
        }
        let Some((start, end)) = self.wide else {
            return Ok(());
        };
        let wide = self.bytes.get(start..end).unwrap_or_default();
        match simdutf8::basic::from_utf8(wide) {
            Ok(_) => Ok(()),
            Err(_) => self.refuse(Reason::Encoding),
        }
    }

    /// The type of the value at the cursor.
    #[inline(always)]
    pub(super) fn kind(&self) -> Result<Type, Refusal> {
        Ok(match self.peek() {
            Some(b'{') => Type::Object,
            Some(b'[') => Type::Array,
            Some(b'"') => Type::String,
            Some(b't' | b'f') => Type::Bool,
            Some(b'n') => Type::Null,
            Some(b'-' | b'0'..=b'9') => Type::Number,
            _ => return self.unexpected(),
        })
    }

    /// The next byte.
    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    fn refuse<T>(&self, reason: Reason) -> Result<T, Refusal> {
        Err(Refusal::new(reason, self.at))
    }

    #[cold]
    fn unexpected<T>(&self) -> Result<T, Refusal> {
        self.refuse(match self.peek() {
            None => Reason::Truncated,
            Some(_) => Reason::Syntax,
        })
    }

    #[inline(always)]
    fn space(&mut self) {
        self.at = K::space(self.bytes, self.at);
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.peek() != Some(byte) {
            return self.unexpected();
        }
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    fn word<const N: usize>(&mut self, word: &[u8; N]) -> Result<(), Refusal> {
        if self.bytes.get(self.at..self.at + N) == Some(word) {
            self.at += N;
            return Ok(());
        }
        self.misspelt(word)
    }

    #[cold]
    fn misspelt(&mut self, word: &[u8]) -> Result<(), Refusal> {
        word.iter().try_for_each(|&byte| self.expect(byte))
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), Refusal> {
        let mut at = self.at;
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == self.at {
            return self.unexpected();
        }
        self.at = at;
        Ok(())
    }

    /// A number; whether it is written as an integer.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<bool, Refusal> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        match self.peek() {
            Some(b'.' | b'e' | b'E') => self.fraction(),
            _ => Ok(true),
        }
    }

    fn fraction(&mut self) -> Result<bool, Refusal> {
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(false)
    }

    /// Passes a string, whose opening quote is at the cursor.
    #[inline(always)]
    fn pass_string(&mut self) -> Result<StringEnd, Refusal> {
        let start = self.at + 1;
        let Some(end) = K::string(self.bytes, start) else {
            let (reason, at) = plain::fault(self.bytes, start);
            return Err(Refusal::new(reason, at));
        };
        if end.wide {
            let first = self.wide.map_or(start, |(first, _)| first);
            self.wide = Some((first, end.at));
        }
        self.at = end.at + 1;
        Ok(end)
    }

    /// A string.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<Text<'a>, Refusal> {
        let at = self.at;
        if self.peek() != Some(b'"') {
            return self.unexpected();
        }
        let end = self.pass_string()?;
        Ok(Text {
            raw: self.bytes.get(at + 1..end.at).unwrap_or_default(),
            escaped: end.escaped,
            at,
        })
    }

    #[inline(always)]
    fn enter(&mut self) -> Result<(), Refusal> {
        if self.depth >= self.depth_max {
            return self.refuse(Reason::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    #[inline(always)]
    fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// Reads a key with its colon, up to the value.
    #[inline(always)]
    fn key(&mut self) -> Result<Text<'a>, Refusal> {
        let key = self.string()?;
        let start = key.at + 1;
        let end = start + key.raw.len();
        if let Err(reason) = self.keys.take(KeySpan { start, end }, key.escaped) {
            return Err(Refusal::new(reason, key.at));
        }
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    /// After a member or element: whether another one follows.
    #[inline(always)]
    fn another(&mut self, close: u8) -> Result<bool, Refusal> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == close => Ok(false),
            _ => self.unexpected(),
        }
    }

    /// Reads an object whose members mean something to the caller: `member` is called before every value and must pass
    /// exactly that value.
    #[inline(always)]
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.enter()?;
        self.keys.enter(self.depth);
        let mut more = self.peek() != Some(b'}');
        while more {
            let key = self.key()?;
            member(self, key)?;
            more = self.another(b'}')?;
        }
        self.keys.leave();
        self.leave();
        Ok(())
    }

    /// Reads an array whose elements mean something to the caller; how many there were.
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Refusal>,
    ) -> Result<usize, Refusal> {
        self.enter()?;
        let mut count = 0;
        let mut more = self.peek() != Some(b']');
        while more {
            count += 1;
            element(self)?;
            more = self.another(b']')?;
        }
        self.leave();
        Ok(count)
    }

    /// Passes any value. Unless `free`, the key `__proto__` is refused at every depth.
    #[inline(never)]
    pub(super) fn value(&mut self, free: bool) -> Result<&'a [u8], Refusal> {
        let start = self.at;
        let outside = self.depth;
        loop {
            match self.peek() {
                Some(b'"') => drop(self.pass_string()?),
                Some(b'{') => {
                    self.enter()?;
                    if self.peek() == Some(b'}') {
                        self.leave();
                    } else {
                        self.keys.enter(self.depth);
                        self.nested_key(free)?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter()?;
                    if self.peek() == Some(b']') {
                        self.leave();
                    } else {
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => drop(self.number()?),
                Some(b'n') => self.word(b"null")?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                _ => return self.unexpected(),
            }
            // A value has ended: so may have the ones around it.
            loop {
                if self.depth == outside {
                    return Ok(self.since(start));
                }
                let in_object = self.keys.depth() == self.depth;
                self.space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.space();
                        if in_object {
                            self.nested_key(free)?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => self.keys.leave(),
                    Some(b']') if !in_object => {}
                    _ => return self.unexpected(),
                }
                self.leave();
            }
        }
    }

    #[inline(always)]
    fn nested_key(&mut self, free: bool) -> Result<(), Refusal> {
        let key = self.key()?;
        if !free && *key.meaning() == *b"__proto__" {
            return Err(Refusal::new(Reason::ProtoKey, key.at));
        }
        Ok(())
    }
}
