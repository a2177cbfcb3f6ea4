//! Strict JSON (RFC 8259) to [`Node`]s, with places and without duplicate keys.

use super::{DEPTH_MAX, Entry, NODES_MAX, Node, PROBLEMS_MAX, Pos, Problem, Value};
use super::{duplicate_key, pointer_token, too_deep};
use std::collections::{HashMap, hash_map};

/// Why a text is not JSON.
pub(super) struct Failure {
    pub problems: Vec<Problem>,
    /// What was found is usual in YAML (a bare word, a comment, a trailing comma), so YAML's reader may know better.
    pub maybe_yaml: bool,
}

pub(super) fn parse(text: &str) -> Result<Node, Failure> {
    let mut reader = Reader {
        rest: text,
        at: Pos { line: 1, column: 1 },
        path: Vec::new(),
        nodes: 0,
        problems: Vec::new(),
        maybe_yaml: false,
    };
    match reader.document() {
        Ok(node) if reader.problems.is_empty() => Ok(node),
        Ok(_) => Err(reader.fail(None)),
        Err(problem) => Err(reader.fail(Some(problem))),
    }
}

struct Reader<'a> {
    rest: &'a str,
    at: Pos,
    path: Vec<String>,
    nodes: usize,
    problems: Vec<Problem>,
    maybe_yaml: bool,
}

impl Reader<'_> {
    fn fail(self, last: Option<Problem>) -> Failure {
        let mut problems = self.problems;
        problems.extend(last);
        problems.truncate(PROBLEMS_MAX);
        Failure {
            problems,
            maybe_yaml: self.maybe_yaml,
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        self.space();
        let node = self.value()?;
        self.space();
        match self.peek() {
            None => Ok(node),
            Some(_) => Err(self.unexpected("the end of the document")),
        }
    }

    fn value(&mut self) -> Result<Node, Problem> {
        let at = self.at;
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.error(format!("more than {NODES_MAX} values")));
        }
        let value = match self.peek() {
            Some('{') => self.object()?,
            Some('[') => self.array()?,
            Some('"') => Value::String(self.string()?),
            Some('-' | '0'..='9') => Value::Number(self.number()?),
            Some(c) if c.is_ascii_alphabetic() => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, value })
    }

    fn object(&mut self) -> Result<Value, Problem> {
        self.enter()?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: HashMap<String, Pos> = HashMap::new();
        if self.closes('}') {
            return Ok(Value::Map(entries));
        }
        loop {
            self.space();
            let key_at = self.at;
            if self.peek() != Some('"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(':') {
                return Err(self.unexpected("`:`"));
            }
            self.bump();
            self.space();
            self.path.push(key.clone());
            let value = self.value()?;
            match places.entry(key.clone()) {
                hash_map::Entry::Vacant(place) => {
                    place.insert(key_at);
                    entries.push(Entry { key, key_at, value });
                }
                hash_map::Entry::Occupied(first) => {
                    let message = duplicate_key(&key, *first.get());
                    let problem = Problem::error(key_at, self.pointer(), message);
                    self.problems.push(problem);
                }
            }
            self.path.pop();
            if self.problems.len() >= PROBLEMS_MAX {
                return Err(self.error("and more".to_owned()));
            }
            self.space();
            match self.peek() {
                Some(',') => self.bump(),
                Some('}') => {
                    self.bump();
                    return Ok(Value::Map(entries));
                }
                _ => return Err(self.unexpected("`,` or `}`")),
            }
        }
    }

    fn array(&mut self) -> Result<Value, Problem> {
        self.enter()?;
        let mut items = Vec::new();
        if self.closes(']') {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            self.path.push(items.len().to_string());
            items.push(self.value()?);
            self.path.pop();
            self.space();
            match self.peek() {
                Some(',') => self.bump(),
                Some(']') => {
                    self.bump();
                    return Ok(Value::List(items));
                }
                _ => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    /// Steps over `{` or `[`.
    fn enter(&mut self) -> Result<(), Problem> {
        if self.path.len() >= DEPTH_MAX {
            return Err(self.error(too_deep()));
        }
        self.bump();
        Ok(())
    }

    fn closes(&mut self, with: char) -> bool {
        self.space();
        let closes = self.peek() == Some(with);
        if closes {
            self.bump();
        }
        closes
    }

    fn word(&mut self) -> Result<Value, Problem> {
        for (word, value) in [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
        ] {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                word.chars().for_each(|_| self.bump());
                return Ok(value);
            }
        }
        Err(self.unexpected("a value"))
    }

    fn number(&mut self) -> Result<String, Problem> {
        let start = self.rest;
        if self.peek() == Some('-') {
            self.bump();
        }
        if self.peek() == Some('0') {
            self.bump();
        } else {
            self.digits()?;
        }
        if self.peek() == Some('.') {
            self.bump();
            self.digits()?;
        }
        if let Some('e' | 'E') = self.peek() {
            self.bump();
            if let Some('+' | '-') = self.peek() {
                self.bump();
            }
            self.digits()?;
        }
        let len = start.len() - self.rest.len();
        Ok(start.get(..len).unwrap_or_default().to_owned())
    }

    fn digits(&mut self) -> Result<(), Problem> {
        if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Err(self.unexpected("a digit"));
        }
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.bump();
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, Problem> {
        self.bump();
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.bump();
                    return Ok(text);
                }
                Some('\\') => text.push(self.escape()?),
                Some(c) if c >= ' ' => {
                    text.push(c);
                    self.bump();
                }
                Some(_) => {
                    self.maybe_yaml = true;
                    return Err(self.error("a control character inside text; escape it".into()));
                }
                None => return Err(self.error("text without its closing `\"`".into())),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let at = self.at;
        let failed = |reader: &Self| {
            let message = "an escape that JSON does not have, or half of a surrogate pair";
            Err(Problem::error(at, reader.pointer(), message))
        };
        self.bump();
        let plain = match self.peek() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                self.bump();
                let Some(high) = self.hex4() else {
                    return failed(self);
                };
                let mut code = u32::from(high);
                if (0xd800..0xdc00).contains(&high) {
                    let Some(rest) = self.rest.strip_prefix("\\u") else {
                        return failed(self);
                    };
                    self.rest = rest;
                    self.at.column += 2;
                    match self.hex4() {
                        Some(low @ 0xdc00..=0xdfff) => {
                            code = 0x1_0000
                                + ((u32::from(high) - 0xd800) << 10)
                                + (u32::from(low) - 0xdc00);
                        }
                        _ => return failed(self),
                    }
                }
                return char::from_u32(code).map_or_else(|| failed(self), Ok);
            }
            _ => {
                self.maybe_yaml = true;
                return failed(self);
            }
        };
        self.bump();
        Ok(plain)
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.rest.get(..4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let code = u16::from_str_radix(digits, 16).ok()?;
        (0..4).for_each(|_| self.bump());
        Some(code)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) {
        let mut chars = self.rest.chars();
        if let Some(c) = chars.next() {
            self.rest = chars.as_str();
            if c == '\n' || (c == '\r' && !self.rest.starts_with('\n')) {
                self.at.line += 1;
                self.at.column = 1;
            } else {
                self.at.column += 1;
            }
        }
    }

    fn space(&mut self) {
        while let Some(' ' | '\t' | '\n' | '\r') = self.peek() {
            self.bump();
        }
    }

    fn unexpected(&mut self, expected: &str) -> Problem {
        let found = match self.peek() {
            None => "the end of the text".to_owned(),
            Some(c) => {
                self.maybe_yaml |= c.is_alphanumeric() || "'#&*!|>~?.+_}],".contains(c);
                match c.is_control() {
                    true => format!("`{}`", c.escape_unicode()),
                    false => format!("`{c}`"),
                }
            }
        };
        self.error(format!(
            "not valid JSON: expected {expected}, found {found}"
        ))
    }

    fn error(&self, message: String) -> Problem {
        Problem::error(self.at, self.pointer(), message)
    }

    fn pointer(&self) -> String {
        self.path.iter().fold(String::new(), |mut pointer, token| {
            pointer_token(&mut pointer, token);
            pointer
        })
    }
}
