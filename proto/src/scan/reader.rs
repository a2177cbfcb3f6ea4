//! RFC 8259, strictly: values, strings, numbers, and objects whose keys all differ.
//!
//! Never recursive: what nests is kept on a stack of its own, so no depth that is configured can exhaust the thread's.

use super::{
    Bounds,
    reason::{Reason, Refusal},
    text,
    value::Type,
};
use smallvec::SmallVec;
use std::{borrow::Cow, collections::HashSet};

/// Up to this many keys of an object are compared one by one; beyond, they are hashed (seeded, so that nobody can
/// choose keys that collide).
const KEYS_LISTED: usize = 16;

/// A string or key as it stands in the body.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    /// What it means.
    pub decoded: Cow<'a, str>,
    /// Whether it is written with escapes.
    pub escaped: bool,
    /// Where its opening quote is.
    pub at: usize,
}

/// An object that is being read.
#[derive(Default)]
struct Keys<'a> {
    /// Where its keys start in the reader's list.
    first: usize,
    count: usize,
    /// All of its keys, once they are more than [`KEYS_LISTED`].
    set: Option<HashSet<Cow<'a, str>>>,
}

enum Frame<'a> {
    Array,
    Object(Keys<'a>),
}

/// A cursor over one body.
pub(super) struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    keys_left: usize,
    bounds: Bounds,
    /// The keys of all objects that are open and small, innermost last.
    keys: Vec<Cow<'a, str>>,
}

impl<'a> Reader<'a> {
    /// A cursor before the first value.
    pub(super) fn new(body: &'a [u8], bounds: &Bounds) -> Result<Self, Refusal> {
        if body.starts_with(b"\xef\xbb\xbf") {
            return Err(Refusal::new(Reason::Bom, 0));
        }
        let text = std::str::from_utf8(body)
            .map_err(|e| Refusal::new(Reason::Encoding, e.valid_up_to()))?;
        // JSON in UTF-16 or UTF-32 without accents is valid UTF-8 with zero bytes: say what it is.
        if body.iter().take(4).any(|&b| b == 0) {
            return Err(Refusal::new(Reason::Encoding, 0));
        }
        let mut reader = Self {
            text,
            bytes: body,
            at: 0,
            depth: 0,
            keys_left: bounds.keys_body_max,
            bounds: *bounds,
            keys: Vec::new(),
        };
        reader.space();
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

    /// Nothing but white space may be left.
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => self.refuse(Reason::Trailing),
        }
    }

    /// The type of the value at the cursor.
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
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn refuse<T>(&self, reason: Reason) -> Result<T, Refusal> {
        Err(Refusal::new(reason, self.at))
    }

    fn unexpected<T>(&self) -> Result<T, Refusal> {
        self.refuse(match self.peek() {
            None => Reason::Truncated,
            Some(_) => Reason::Syntax,
        })
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.peek() != Some(byte) {
            return self.unexpected();
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Refusal> {
        for &byte in word {
            self.expect(byte)?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Refusal> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return self.unexpected();
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    /// A number; whether it is written as an integer.
    pub(super) fn number(&mut self) -> Result<bool, Refusal> {
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(integer)
    }

    /// Passes a string; its contents without the quotes, and whether it has escapes.
    fn pass_string(&mut self) -> Result<(&'a str, bool), Refusal> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = text::special(self.bytes, self.at);
            match self.peek() {
                None => return self.refuse(Reason::Truncated),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.pass_escape()?;
                }
                Some(_) => return self.refuse(Reason::ControlCharacter),
            }
        }
        let raw = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok((raw, escaped))
    }

    fn pass_escape(&mut self) -> Result<(), Refusal> {
        if let Some((_, taken)) = text::escape(self.bytes, self.at) {
            self.at += taken;
            return Ok(());
        }
        let surrogate = self.bytes.get(self.at + 1) == Some(&b'u')
            && text::hex4(self.bytes, self.at + 2).is_some();
        self.refuse(if surrogate {
            Reason::LoneSurrogate
        } else {
            Reason::Syntax
        })
    }

    /// A string, decoded.
    pub(super) fn string(&mut self) -> Result<Text<'a>, Refusal> {
        let at = self.at;
        let (raw, escaped) = self.pass_string()?;
        let decoded = if escaped {
            text::unescape(raw).ok_or(Refusal::new(Reason::Syntax, at))?
        } else {
            Cow::Borrowed(raw)
        };
        Ok(Text {
            decoded,
            escaped,
            at,
        })
    }

    fn enter(&mut self) -> Result<(), Refusal> {
        if self.depth >= self.bounds.depth_max {
            return self.refuse(Reason::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    fn open_keys(&self) -> Keys<'a> {
        Keys {
            first: self.keys.len(),
            ..Keys::default()
        }
    }

    /// Reads a key with its colon, up to the value.
    fn key(&mut self, object: &mut Keys<'a>) -> Result<Text<'a>, Refusal> {
        if self.peek() != Some(b'"') {
            return self.unexpected();
        }
        let key = self.string()?;
        let refuse = |reason| Err(Refusal::new(reason, key.at));
        if object.count >= self.bounds.keys_object_max || self.keys_left == 0 {
            return refuse(Reason::TooManyKeys);
        }
        object.count += 1;
        self.keys_left -= 1;
        // Only an escape can bring this character: a bare one is a control character.
        if key.escaped && key.decoded.contains('\0') {
            return refuse(Reason::NulKey);
        }
        if !self.is_new(object, key.decoded.clone()) {
            return refuse(Reason::DuplicateKey);
        }
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    fn is_new(&mut self, object: &mut Keys<'a>, key: Cow<'a, str>) -> bool {
        if let Some(set) = &mut object.set {
            return set.insert(key);
        }
        let listed = self.keys.get(object.first..).unwrap_or_default();
        if listed.contains(&key) {
            return false;
        }
        if listed.len() < KEYS_LISTED {
            self.keys.push(key);
        } else {
            let mut set: HashSet<_> = self.keys.drain(object.first..).collect();
            set.insert(key);
            object.set = Some(set);
        }
        true
    }

    /// After a member or element: whether another one follows.
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
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.enter()?;
        let mut object = self.open_keys();
        let mut more = self.peek() != Some(b'}');
        while more {
            let key = self.key(&mut object)?;
            member(self, key)?;
            more = self.another(b'}')?;
        }
        self.keys.truncate(object.first);
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
    pub(super) fn value(&mut self, free: bool) -> Result<&'a [u8], Refusal> {
        let start = self.at;
        let mut stack: SmallVec<[Frame<'a>; 8]> = SmallVec::new();
        loop {
            match self.kind()? {
                Type::Object => {
                    self.enter()?;
                    if self.peek() == Some(b'}') {
                        self.leave();
                    } else {
                        let mut keys = self.open_keys();
                        self.nested_key(&mut keys, free)?;
                        stack.push(Frame::Object(keys));
                        continue;
                    }
                }
                Type::Array => {
                    self.enter()?;
                    if self.peek() == Some(b']') {
                        self.leave();
                    } else {
                        stack.push(Frame::Array);
                        continue;
                    }
                }
                Type::String => drop(self.pass_string()?),
                Type::Number => drop(self.number()?),
                Type::Null => self.word(b"null")?,
                Type::Bool if self.peek() == Some(b't') => self.word(b"true")?,
                Type::Bool => self.word(b"false")?,
            }
            // A value has ended: so may have the ones around it.
            loop {
                match stack.last_mut() {
                    None => return Ok(self.since(start)),
                    Some(Frame::Array) => {
                        if self.another(b']')? {
                            break;
                        }
                    }
                    Some(Frame::Object(keys)) => {
                        if self.another(b'}')? {
                            self.nested_key(keys, free)?;
                            break;
                        }
                        self.keys.truncate(keys.first);
                    }
                }
                self.leave();
                stack.pop();
            }
        }
    }

    fn nested_key(&mut self, keys: &mut Keys<'a>, free: bool) -> Result<(), Refusal> {
        let key = self.key(keys)?;
        if !free && key.decoded == "__proto__" {
            return Err(Refusal::new(Reason::ProtoKey, key.at));
        }
        Ok(())
    }
}
