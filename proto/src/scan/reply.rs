//! A server's reply of any size, read in pieces as it passes: a result or an error, to which id, and where the tools of
//! a list stand.
//!
//! As strict as [`super::read`] of the whole bytes; but requests and batches, which are no replies, are refused. What is
//! kept is bounded by [`Bounds`]: a hash for each key (with a seed that nobody outside knows; that two keys share one is
//! a chance of one in 10^8 for a reply with as many keys as may be), a list's tools, and the key that is being read,
//! however long: whoever pushes the pieces bounds the whole.

mod seen;

pub use super::envelope::{Passed, Tool};
use super::{
    Bounds,
    grammar::{Next, Number, Utf8, escape, word},
    plain::Kernel,
    reader::Text,
    reason::{Reason, Refusal},
    routing::{Level, check_key, check_proto},
    simd::Simd,
};
use seen::{HELD_BYTES_MAX, Seen, What};
use smallvec::SmallVec;
use std::{collections::HashSet, hash::BuildHasher};

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
    Text { key: bool },
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
        loop {
            if matches!(self.token, Token::None) {
                let blank = Simd::space(rest, 0);
                self.at += blank;
                rest = rest.get(blank..).unwrap_or_default();
            }
            let Some(&byte) = rest.first() else {
                return Ok(());
            };
            let taken = match self.token {
                Token::Text { key } => self.text(key, rest),
                Token::Number(number) => self.number(number, rest),
                Token::Word(word) => self.word(word, byte),
                Token::None => self.between(byte).map(|()| 1),
            };
            let taken = taken.map_err(|reason| Refusal::new(reason, self.at))?;
            self.at += taken;
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether the reply is complete: only white space may follow.
    pub fn is_whole(&self) -> bool {
        self.next == Next::Nothing
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
        seen.passed().or_else(refused)
    }

    /// A byte between tokens, no white space.
    fn between(&mut self, byte: u8) -> Result<(), Reason> {
        match (self.next, byte) {
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
                self.what = What::element_of(self.open.last().map(|open| open.what));
            }
            (b'}', true) | (b']', false) => self.close(),
            _ => return Err(Reason::Syntax),
        }
        Ok(())
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
        self.what = What::element_of(self.open.last().map(|open| open.what));
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
        self.token = Token::Text { key };
    }

    /// Keeps what is written where somebody wants it.
    fn hold(&mut self, bytes: &[u8]) {
        let wanted = match (self.token, self.what) {
            (Token::Text { key: true }, _) => true,
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
    fn text(&mut self, key: bool, rest: &[u8]) -> Result<usize, Reason> {
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
        let (Ok(end) | Err(end)) = Simd::piece(rest, 0);
        let read = rest.get(..end).unwrap_or_default();
        match rest.get(end) {
            // Most keys come in one piece, of which no copy is needed.
            Some(b'"') if key && self.held.is_empty() => self.key(read)?,
            Some(b'"') if key => {
                self.hold(read);
                let held = std::mem::take(&mut self.held);
                self.key(&held)?;
                self.held = held;
            }
            Some(b'"') => {
                self.hold(read);
                self.scalar(true, self.at + end + 1)?;
            }
            None => {
                self.hold(read);
                return Ok(end);
            }
            Some(b'\\') => {
                self.hold(read);
                self.escape.push(b'\\');
            }
            Some(_) => return Err(Reason::ControlCharacter),
        }
        Ok(end + 1)
    }

    /// More of a number; how many bytes of it.
    fn number(&mut self, mut number: Number, rest: &[u8]) -> Result<usize, Reason> {
        let mut taken = 0;
        while let Some(longer) = rest.get(taken).and_then(|&byte| number.with(byte)) {
            number = longer;
            taken += 1;
        }
        self.hold(rest.get(..taken).unwrap_or_default());
        self.token = Token::Number(number);
        if taken == rest.len() {
            return Ok(taken);
        }
        // The next byte belongs to what follows.
        if !number.is_whole() {
            return Err(Reason::Syntax);
        }
        if self.what == What::Id && !self.held.iter().all(|&b| b == b'-' || b.is_ascii_digit()) {
            return Err(Reason::IdType);
        }
        self.scalar(false, self.at + taken)?;
        Ok(taken)
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
        self.seen.scalar(self.what, string, held)?;
        self.ended(self.what, end);
        Ok(())
    }

    /// A key has ended: what its value will be.
    fn key(&mut self, raw: &[u8]) -> Result<(), Reason> {
        let escaped = raw.contains(&b'\\');
        let text = Text {
            raw,
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
        self.what = self.seen.key(object.what, &meant)?;
        self.token = Token::None;
        self.next = Next::Colon;
        Ok(())
    }
}
