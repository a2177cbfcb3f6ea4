//! RFC 8259, strictly: values, strings, numbers, and objects whose keys all differ.
//!
//! Never recursive: what nests is kept on a stack of its own, so no depth that is configured can exhaust the thread's.

use super::{
    Bounds,
    keys::{KeySpan, Keys},
    plain::{self, Kernel, StringEnd},
    reason::{Fault, Reason},
    routing::is_proto,
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
    pub(super) fn decoded(&self) -> Result<Cow<'a, str>, Fault> {
        let raw = std::str::from_utf8(self.raw);
        let raw = raw.map_err(|e| Fault::new(Reason::Encoding, self.at + 1 + e.valid_up_to()))?;
        if !self.escaped {
            return Ok(Cow::Borrowed(raw));
        }
        text::unescape(raw).ok_or(Fault::new(Reason::Syntax, self.at))
    }
}

/// Where a string stands.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Its opening quote.
    at: usize,
    end: StringEnd,
}

impl Span {
    #[inline(always)]
    fn of(self, bytes: &[u8]) -> Text<'_> {
        Text {
            raw: bytes.get(self.at + 1..self.end.at()).unwrap_or_default(),
            escaped: self.end.escaped(),
            at: self.at,
        }
    }
}

/// A place in the body, small enough to stay in registers.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Place<'a> {
    /// The next byte.
    #[inline(always)]
    fn peek(self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    #[inline(never)]
    fn refuse<T>(self, reason: Reason) -> Result<T, Fault> {
        Err(Fault::new(reason, self.at))
    }

    #[cold]
    #[inline(never)]
    fn unexpected<T>(self) -> Result<T, Fault> {
        self.refuse(match self.peek() {
            None => Reason::Truncated,
            Some(_) => Reason::Syntax,
        })
    }

    #[inline(always)]
    fn space<K: Kernel>(&mut self) {
        if self.peek().is_some_and(|byte| byte <= b' ') {
            self.at = K::space(self.bytes, self.at);
        }
    }

    #[inline(always)]
    fn word<const N: usize>(&mut self, word: &[u8; N]) -> Result<(), Fault> {
        if self.bytes.get(self.at..self.at + N) == Some(word) {
            self.at += N;
            return Ok(());
        }
        self.misspelt(word)
    }

    #[cold]
    #[inline(never)]
    fn misspelt(mut self, word: &[u8]) -> Result<(), Fault> {
        for &byte in word {
            if self.peek() != Some(byte) {
                break;
            }
            self.at += 1;
        }
        self.unexpected()
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return self.unexpected();
        }
        Ok(())
    }

    /// A number; whether it is written as an integer.
    #[inline(always)]
    fn number(&mut self) -> Result<bool, Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            *self = self.fraction()?;
            return Ok(false);
        }
        Ok(true)
    }

    #[inline(never)]
    fn fraction(mut self) -> Result<Self, Fault> {
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
        Ok(self)
    }
}

/// A cursor over one body.
#[derive(Debug)]
pub(super) struct Reader<'a, K> {
    here: Place<'a>,
    depth: u32,
    depth_max: u32,
    keys: Keys,
    /// From the first string that is not ASCII to the end of the last one: the bytes that are validated in the end.
    wide: Option<(usize, usize)>,
    kernel: PhantomData<K>,
}

impl<'a, K: Kernel> Reader<'a, K> {
    /// A cursor before the first value.
    pub(super) fn new(body: &'a [u8], bounds: &Bounds) -> Result<Self, Fault> {
        if body.starts_with(b"\xef\xbb\xbf") {
            return Err(Fault::new(Reason::Bom, 0));
        }
        let reader = Self {
            here: Place {
                bytes: body,
                at: K::space(body, 0),
            },
            depth: 0,
            depth_max: bounds.depth_max.try_into().unwrap_or(u32::MAX),
            keys: Keys::new(bounds.keys_object_max, bounds.keys_body_max),
            wide: None,
            kernel: PhantomData,
        };
        if reader.peek().is_none() {
            return Err(Fault::new(Reason::Empty, 0));
        }
        Ok(reader)
    }

    /// Where the cursor stands.
    pub(super) fn at(&self) -> usize {
        self.here.at
    }

    /// The bytes from `start` to the cursor.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.here.bytes.get(start..self.here.at).unwrap_or_default()
    }

    /// Nothing but white space may be left, and all that was read must have been UTF-8 (outside strings all is ASCII).
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        self.space();
        if self.peek().is_some() {
            return self.refuse(Reason::Trailing);
        }
        let Some((start, end)) = self.wide else {
            return Ok(());
        };
        let wide = self.here.bytes.get(start..end).unwrap_or_default();
        match simdutf8::basic::from_utf8(wide) {
            Ok(_) => Ok(()),
            Err(_) => self.refuse(Reason::Encoding),
        }
    }

    /// The type of the value at the cursor.
    #[inline(always)]
    pub(super) fn kind(&self) -> Result<Type, Fault> {
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

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.here.peek()
    }

    fn refuse<T>(&self, reason: Reason) -> Result<T, Fault> {
        self.here.refuse(reason)
    }

    fn unexpected<T>(&self) -> Result<T, Fault> {
        self.here.unexpected()
    }

    #[inline(always)]
    fn space(&mut self) {
        self.here.space::<K>();
    }

    /// A number; whether it is written as an integer.
    pub(super) fn number(&mut self) -> Result<bool, Fault> {
        self.here.number()
    }

    /// Passes a string, whose opening quote is there.
    #[inline(always)]
    fn pass_string(&mut self, here: &mut Place<'a>) -> Result<StringEnd, Fault> {
        let start = here.at + 1;
        let Some(end) = K::string(here.bytes, start) else {
            return not_a_string(here.bytes, start);
        };
        if end.wide() {
            let first = self.wide.map_or(start, |(first, _)| first);
            self.wide = Some((first, end.at()));
        }
        here.at = end.at() + 1;
        Ok(end)
    }

    /// A string.
    pub(super) fn string(&mut self) -> Result<Text<'a>, Fault> {
        let mut here = self.here;
        let span = self.text(&mut here)?;
        self.here = here;
        Ok(span.of(here.bytes))
    }

    #[inline(always)]
    fn text(&mut self, here: &mut Place<'a>) -> Result<Span, Fault> {
        let at = here.at;
        if here.peek() != Some(b'"') {
            return here.unexpected();
        }
        let end = self.pass_string(here)?;
        Ok(Span { at, end })
    }

    #[inline(always)]
    fn enter(&mut self, here: &mut Place<'a>) -> Result<(), Fault> {
        if self.depth >= self.depth_max {
            return here.refuse(Reason::TooDeep);
        }
        self.depth += 1;
        here.at += 1;
        here.space::<K>();
        Ok(())
    }

    #[inline(always)]
    fn leave(&mut self, here: &mut Place<'a>) {
        self.depth -= 1;
        here.at += 1;
    }

    /// Reads a key with its colon, up to the value.
    #[inline(always)]
    fn key(&mut self, here: &mut Place<'a>) -> Result<Span, Fault> {
        let key = self.text(here)?;
        let span = KeySpan {
            start: key.at + 1,
            end: key.end.at(),
        };
        if let Err(reason) = self.keys.take(here.bytes, span, key.end.escaped()) {
            return Err(Fault::new(reason, key.at));
        }
        here.space::<K>();
        if here.peek() != Some(b':') {
            return here.unexpected();
        }
        here.at += 1;
        here.space::<K>();
        Ok(key)
    }

    /// The same for a caller that the key means something to: not worth a copy of the code for each.
    #[inline(never)]
    fn key_here(&mut self) -> Result<Span, Fault> {
        let mut here = self.here;
        let key = self.key(&mut here)?;
        self.here = here;
        Ok(key)
    }

    fn enter_here(&mut self) -> Result<(), Fault> {
        let mut here = self.here;
        self.enter(&mut here)?;
        self.here = here;
        Ok(())
    }

    fn leave_here(&mut self) {
        self.depth -= 1;
        self.here.at += 1;
    }

    /// After a member or element: whether another one follows.
    #[inline(always)]
    fn another(&mut self, close: u8) -> Result<bool, Fault> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.here.at += 1;
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
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter_here()?;
        self.keys.enter(self.depth);
        let mut more = self.peek() != Some(b'}');
        while more {
            let key = self.key_here()?.of(self.here.bytes);
            member(self, key)?;
            more = self.another(b'}')?;
        }
        self.keys.leave();
        self.leave_here();
        Ok(())
    }

    /// Reads an array whose elements mean something to the caller; how many there were.
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        self.enter_here()?;
        let mut count = 0;
        let mut more = self.peek() != Some(b']');
        while more {
            count += 1;
            element(self)?;
            more = self.another(b']')?;
        }
        self.leave_here();
        Ok(count)
    }

    /// Passes any value. Unless `free`, the key `__proto__` is refused at every depth.
    #[inline(never)]
    pub(super) fn value(&mut self, free: bool) -> Result<&'a [u8], Fault> {
        let start = self.here.at;
        self.here = self.pass(self.here, free)?;
        Ok(self.since(start))
    }

    /// Where the value ends.
    #[inline(always)]
    fn pass(&mut self, mut here: Place<'a>, free: bool) -> Result<Place<'a>, Fault> {
        let outside = self.depth;
        loop {
            match here.peek() {
                Some(b'"') => drop(self.pass_string(&mut here)?),
                Some(b'{') => {
                    self.enter(&mut here)?;
                    if here.peek() == Some(b'}') {
                        self.leave(&mut here);
                    } else {
                        self.keys.enter(self.depth);
                        self.nested_key(&mut here, free)?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(&mut here)?;
                    if here.peek() == Some(b']') {
                        self.leave(&mut here);
                    } else {
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => drop(here.number()?),
                Some(b'n') => here.word(b"null")?,
                Some(b't') => here.word(b"true")?,
                Some(b'f') => here.word(b"false")?,
                _ => return here.unexpected(),
            }
            // A value has ended: so may have the ones around it.
            loop {
                if self.depth == outside {
                    return Ok(here);
                }
                let in_object = self.keys.depth() == self.depth;
                here.space::<K>();
                match here.peek() {
                    Some(b',') => {
                        here.at += 1;
                        here.space::<K>();
                        if in_object {
                            self.nested_key(&mut here, free)?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => self.keys.leave(),
                    Some(b']') if !in_object => {}
                    _ => return here.unexpected(),
                }
                self.leave(&mut here);
            }
        }
    }

    #[inline(always)]
    fn nested_key(&mut self, here: &mut Place<'a>, free: bool) -> Result<(), Fault> {
        let key = self.key(here)?;
        if !free && is_proto(&key.of(here.bytes)) {
            return Err(Fault::new(Reason::ProtoKey, key.at));
        }
        Ok(())
    }
}

#[cold]
#[inline(never)]
fn not_a_string<T>(bytes: &[u8], start: usize) -> Result<T, Fault> {
    let (reason, at) = plain::fault(bytes, start);
    Err(Fault::new(reason, at))
}
