//! A server's reply of any size, read in pieces as it passes: a result or an error, to which id, and where the tools of
//! a list stand.
//!
//! As strict as [`super::read`] of the whole bytes; but requests and batches, which are no replies, are refused. What is
//! kept is bounded by [`Bounds`]: a hash for each key (with a seed that nobody outside knows; that two keys share one is
//! a chance of one in 10^8 for a reply with as many keys as may be), a list's tools, and the key that is being read,
//! however long: whoever pushes the pieces bounds the whole.

pub use super::envelope::{Passed, Tool};
use super::{
    Bounds, ID_BYTES_MAX, Kind,
    grammar::{Next, Number, Utf8, escape, word},
    plain::special,
    reader::Text,
    reason::{Reason, Refusal},
    routing::{Level, check_key, check_proto},
    text::unescape,
};
use smallvec::SmallVec;
use std::{collections::HashSet, hash::BuildHasher};

/// Longest name of a tool, as written, that is given out.
const HELD_BYTES_MAX: usize = 4_096;

/// A reply that is being read.
#[derive(Debug)]
pub struct Reply {
    bounds: Bounds,
    at: usize,
    utf8: Utf8,
    next: Next,
    token: Token,
    /// What is written of an escape that goes on.
    escape: SmallVec<[u8; 12]>,
    open: Vec<Open>,
    /// What the value is that comes or passes.
    what: What,
    /// The token as it is written, without quotes; of values only where somebody wants it.
    held: Vec<u8>,
    keys: Keys,
    seen: Seen,
}

#[derive(Clone, Copy, Debug)]
enum Token {
    None,
    Text { key: bool, escaped: bool },
    Number(Number),
    Word(&'static [u8]),
}

/// An open array or object.
#[derive(Clone, Copy, Debug)]
struct Open {
    what: What,
    object: bool,
    /// Its number, and how many keys it has had.
    number: u32,
    keys: usize,
}

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Message,
    Version,
    Id,
    Result,
    IsError,
    Tools,
    Tool,
    Name,
    Error,
    Code,
    /// What a tool returned: any key may stand in it.
    Data,
    /// What this version of the protocol does not know: `__proto__` is refused in it.
    Unknown,
}

/// What was read of the message.
#[derive(Debug, Default)]
struct Seen {
    version: bool,
    id: Option<Vec<u8>>,
    result: bool,
    error: bool,
    code: Option<i64>,
    is_tool_error: bool,
    tools: Option<Vec<Tool>>,
}

#[derive(Debug, Default)]
struct Keys {
    seen: HashSet<u64, foldhash::fast::RandomState>,
    objects: u32,
}

impl Reply {
    /// Before the first byte. The bounds are multiplied as for every message of a server.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            bounds: bounds.of_server(),
            at: 0,
            utf8: Utf8::default(),
            next: Next::Value,
            token: Token::None,
            escape: SmallVec::new(),
            open: Vec::new(),
            what: What::Message,
            held: Vec::new(),
            keys: Keys::default(),
            seen: Seen::default(),
        }
    }

    /// Reads the next piece. After a refusal nothing more may be pushed.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let utf8 = self.utf8.push(piece);
        utf8.map_err(|valid| Refusal::new(Reason::Encoding, self.at + valid))?;
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            let taken = match self.token {
                Token::Text { .. } => self.text(rest),
                Token::Number(number) => self.number(number, byte),
                Token::Word(word) => self.word(word, byte),
                Token::None => self.between(byte).map(|()| 1),
            };
            let taken = taken.map_err(|reason| Refusal::new(reason, self.at))?;
            self.at += taken;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// What has passed, now that nothing more comes.
    pub fn finish(mut self) -> Result<Passed, Refusal> {
        let refused = |reason| Err(Refusal::new(reason, self.at));
        if self.utf8.is_cut() {
            return refused(Reason::Encoding);
        }
        if self.next != Next::Nothing {
            let empty = self.open.is_empty() && matches!(self.token, Token::None);
            return refused(if empty {
                Reason::Empty
            } else {
                Reason::Truncated
            });
        }
        let seen = std::mem::take(&mut self.seen);
        if !seen.version {
            return refused(Reason::Version);
        }
        let kind = match (seen.result, seen.error) {
            (true, false) if seen.id.as_deref().is_none_or(|id| id == b"null") => {
                return refused(Reason::IdType);
            }
            (true, false) => Kind::Result,
            (false, true) => match seen.code {
                Some(code) => Kind::Error(code),
                None => return refused(Reason::ErrorType),
            },
            _ => return refused(Reason::Shape),
        };
        Ok(Passed {
            kind,
            id: seen.id,
            is_tool_error: seen.is_tool_error,
            tools: seen.tools,
        })
    }

    /// A byte between tokens.
    fn between(&mut self, byte: u8) -> Result<(), Reason> {
        match (self.next, byte) {
            (_, b' ' | b'\n' | b'\r' | b'\t') => Ok(()),
            (Next::Nothing, _) => Err(Reason::Trailing),
            (Next::Colon, b':') => {
                self.next = Next::Value;
                Ok(())
            }
            (Next::Key | Next::KeyOrEnd, b'"') => {
                self.hold_text(true);
                Ok(())
            }
            (Next::KeyOrEnd, b'}') | (Next::ValueOrEnd, b']') => {
                self.close();
                Ok(())
            }
            (Next::CommaOrEnd, _) => self.comma_or_end(byte),
            (Next::Value | Next::ValueOrEnd, _) => self.value(byte),
            _ => Err(Reason::Syntax),
        }
    }

    fn comma_or_end(&mut self, byte: u8) -> Result<(), Reason> {
        let object = self.open.last().is_some_and(|open| open.object);
        match (byte, object) {
            (b',', true) => self.next = Next::Key,
            (b',', false) => {
                self.next = Next::Value;
                self.what = self.element();
            }
            (b'}', true) | (b']', false) => self.close(),
            _ => return Err(Reason::Syntax),
        }
        Ok(())
    }

    /// What an element of the innermost array is.
    fn element(&self) -> What {
        match self.open.last().map(|open| open.what) {
            Some(What::Tools) => What::Tool,
            // A result that is no object has no level of the protocol's own.
            Some(What::Unknown | What::Version | What::Result) => What::Unknown,
            _ => What::Data,
        }
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8) -> Result<(), Reason> {
        match (self.what, byte) {
            (What::Message, b'{') | (What::Error, b'{') => {}
            (What::Message, _) => return Err(Reason::NotAnObject),
            (What::Error, _) => return Err(Reason::ErrorType),
            (What::Id, b'"' | b'n' | b'-' | b'0'..=b'9') => {}
            (What::Id, _) => return Err(Reason::IdType),
            _ => {}
        }
        if self.what == What::Tool {
            let tools = self.seen.tools.get_or_insert_default();
            if tools.len() >= self.bounds.keys_body_max {
                return Err(Reason::TooManyKeys);
            }
            tools.push(Tool {
                name: None,
                start: self.at,
                end: self.at,
            });
        }
        self.held.clear();
        match byte {
            b'{' | b'[' => self.enter(byte == b'{'),
            b'"' => {
                self.hold_text(false);
                Ok(())
            }
            _ => {
                self.hold(&[byte]);
                self.token = match (Number::first(byte), word(byte)) {
                    (Some(number), _) => Token::Number(number),
                    (None, Some(rest)) => Token::Word(rest),
                    (None, None) => return Err(Reason::Syntax),
                };
                Ok(())
            }
        }
    }

    fn enter(&mut self, object: bool) -> Result<(), Reason> {
        if self.open.len() >= self.bounds.depth_max {
            return Err(Reason::TooDeep);
        }
        if self.what == What::Tools && !object {
            self.seen.tools = Some(Vec::new());
        }
        self.keys.objects += u32::from(object);
        self.open.push(Open {
            what: self.what,
            object,
            number: self.keys.objects,
            keys: 0,
        });
        self.next = if object {
            Next::KeyOrEnd
        } else {
            Next::ValueOrEnd
        };
        self.what = self.element();
        Ok(())
    }

    fn close(&mut self) {
        let what = self.open.pop().map_or(What::Data, |open| open.what);
        self.ended(what, self.at + 1);
    }

    /// A value has ended before the byte at `end`.
    fn ended(&mut self, what: What, end: usize) {
        if what == What::Tool {
            let tools = self.seen.tools.iter_mut().flatten();
            if let Some(tool) = tools.last() {
                tool.end = end;
            }
        }
        self.token = Token::None;
        self.next = if self.open.is_empty() {
            Next::Nothing
        } else {
            Next::CommaOrEnd
        };
    }

    fn hold_text(&mut self, key: bool) {
        self.held.clear();
        self.token = Token::Text {
            key,
            escaped: false,
        };
    }

    /// Keeps what is written where somebody wants it.
    fn hold(&mut self, bytes: &[u8]) {
        let wanted = match (self.token, self.what) {
            (Token::Text { key: true, .. }, _) => true,
            (_, What::Version | What::Id | What::Code | What::IsError | What::Name) => {
                // What is longer fits nothing.
                self.held.len() <= HELD_BYTES_MAX
            }
            _ => false,
        };
        if wanted {
            self.held.extend_from_slice(bytes);
        }
    }

    /// More of a string; how many bytes of it.
    fn text(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        if !self.escape.is_empty() {
            let byte = rest.first().copied().unwrap_or_default();
            // A pair's second half may be missing where the string goes on: the byte decides.
            self.escape.push(byte);
            if escape(&self.escape)? {
                let whole = std::mem::take(&mut self.escape);
                self.hold(&whole);
            }
            return Ok(1);
        }
        let (end, _) = special(rest, 0);
        self.hold(rest.get(..end).unwrap_or_default());
        let Token::Text { key, escaped } = self.token else {
            return Err(Reason::Syntax);
        };
        match rest.get(end) {
            None => return Ok(end),
            Some(b'\\') => {
                self.token = Token::Text { key, escaped: true };
                self.escape.push(b'\\');
            }
            Some(b'"') if key => self.key(escaped)?,
            Some(b'"') => self.scalar(true, self.at + end + 1)?,
            Some(_) => return Err(Reason::ControlCharacter),
        }
        Ok(end + 1)
    }

    fn number(&mut self, number: Number, byte: u8) -> Result<usize, Reason> {
        if let Some(number) = number.with(byte) {
            self.hold(&[byte]);
            self.token = Token::Number(number);
            return Ok(1);
        }
        if !number.is_whole() {
            return Err(Reason::Syntax);
        }
        if self.what == What::Id && !self.held.iter().all(|&b| b == b'-' || b.is_ascii_digit()) {
            return Err(Reason::IdType);
        }
        // The byte belongs to what follows.
        self.scalar(false, self.at)?;
        Ok(0)
    }

    fn word(&mut self, word: &'static [u8], byte: u8) -> Result<usize, Reason> {
        let Some((_, rest)) = word.split_first().filter(|(first, _)| **first == byte) else {
            return Err(Reason::Syntax);
        };
        self.hold(&[byte]);
        self.token = Token::Word(rest);
        if rest.is_empty() {
            self.scalar(false, self.at + 1)?;
        }
        Ok(1)
    }

    /// A string, number or word has ended.
    fn scalar(&mut self, string: bool, end: usize) -> Result<(), Reason> {
        let held = std::mem::take(&mut self.held);
        let seen = &mut self.seen;
        match self.what {
            What::Version => seen.version = string && held == b"2.0",
            What::Id => {
                let quotes = if string { 2 } else { 0 };
                if held.len() + quotes > ID_BYTES_MAX {
                    return Err(Reason::IdTooLong);
                }
                seen.id = Some(if string {
                    [b"\"", &held[..], b"\""].concat()
                } else {
                    held
                });
            }
            What::Code => {
                let code = std::str::from_utf8(&held).unwrap_or_default();
                seen.code = code.parse().ok().filter(|_| !string);
            }
            What::IsError => seen.is_tool_error = !string && held == b"true",
            What::Name => {
                let fits = string && held.len() <= HELD_BYTES_MAX;
                let name = std::str::from_utf8(&held).ok().filter(|_| fits);
                let name = name.and_then(unescape).map(|name| name.into_owned());
                let tools = seen.tools.iter_mut().flatten();
                if let Some(tool) = tools.last() {
                    tool.name = name;
                }
            }
            _ => {}
        }
        self.ended(self.what, end);
        Ok(())
    }

    /// A key has ended: what its value will be.
    fn key(&mut self, escaped: bool) -> Result<(), Reason> {
        let held = std::mem::take(&mut self.held);
        let text = Text {
            raw: &held,
            escaped,
            at: self.at,
        };
        let Some(object) = self.open.last_mut() else {
            return Err(Reason::Syntax);
        };
        object.keys += 1;
        let object = *object;
        let meant = text.meaning();
        if object.keys > self.bounds.keys_object_max
            || self.keys.seen.len() >= self.bounds.keys_body_max
        {
            return Err(Reason::TooManyKeys);
        }
        if escaped && meant.contains(&0) {
            return Err(Reason::NulKey);
        }
        let hash = self.keys.seen.hasher().hash_one((object.number, &*meant));
        if !self.keys.seen.insert(hash) {
            return Err(Reason::DuplicateKey);
        }
        match object.what {
            What::Message => check_key(&text, Level::Top),
            What::Result | What::Error | What::Unknown | What::Version => check_proto(&text),
            _ => Ok(()),
        }
        .map_err(|refusal| refusal.reason())?;
        self.what = match (object.what, &*meant) {
            (What::Message, b"jsonrpc") => What::Version,
            (What::Message, b"id") => What::Id,
            (What::Message, b"result") => {
                self.seen.result = true;
                What::Result
            }
            (What::Message, b"error") => {
                self.seen.error = true;
                What::Error
            }
            (What::Message, b"method" | b"params") => return Err(Reason::Shape),
            (What::Result, b"isError") => What::IsError,
            (What::Result, b"tools") => What::Tools,
            (What::Tool, b"name") => What::Name,
            (What::Error, b"code") => What::Code,
            (What::Message | What::Unknown | What::Version, _) => What::Unknown,
            _ => What::Data,
        };
        self.held = held;
        self.token = Token::None;
        self.next = Next::Colon;
        Ok(())
    }
}
