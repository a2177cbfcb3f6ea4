//! Conditions: what is true of a call's arguments and of counters.

use super::{
    arguments::Arguments,
    compile::Usage,
    ir::Literal,
    number::{Decimal, NumberError},
    path::Path,
};
use crate::{
    limit::{CounterKey, Limit, Scale},
    scan::{Value, value::Type},
};
use regex::Regex;
use std::{borrow::Cow, sync::Arc};

/// Longest text that a pattern is tried on, bytes; longer ones deny.
pub const REGEX_INPUT_MAX: usize = 64 << 10;
/// Largest compiled pattern, bytes.
pub const REGEX_SIZE_MAX: usize = 1 << 20;

/// Compiles a pattern: unanchored, linear time, bounded.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    let mut builder = regex::RegexBuilder::new(pattern);
    builder
        .size_limit(REGEX_SIZE_MAX)
        .build()
        .map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => {
                format!("the pattern needs more than {REGEX_SIZE_MAX} bytes when compiled")
            }
            e => {
                let text = e.to_string();
                let why = text.lines().last().unwrap_or_default();
                let why = why.trim_start_matches("error: ");
                format!("not a pattern (https://docs.rs/regex#syntax): {why}")
            }
        })
}

/// A condition, ready to be judged.
#[derive(Debug)]
pub(super) struct Condition {
    pub subject: Subject,
    pub test: Test,
    /// Intercept: a number equals a string that spells exactly that number.
    pub loose: bool,
}

#[derive(Debug)]
pub(super) enum Subject {
    Args(Path),
    Counter(Arc<Limit>, CounterKey),
}

#[derive(Debug)]
pub(super) enum Test {
    In(Vec<Literal>),
    NotIn(Vec<Literal>),
    Lt(Decimal),
    Lte(Decimal),
    Gt(Decimal),
    Gte(Decimal),
    Regex(Regex),
    Contains(Literal),
    Exists(bool),
}

/// Of the values that a path with `[*]` names, which must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// A condition that must hold.
    Every,
    /// A condition that must not.
    Any,
}

/// A value that no rule may be judged by: the call is refused, whatever the rule would have said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its type fits neither the operator nor an operand.
    Misfit(Type, Cow<'static, str>),
    /// Parsers disagree about the number.
    Ambiguous,
    /// Too long for a pattern.
    TooLong,
    /// Beside the key stands another that only differs in case: servers that ignore case would read that one.
    Twin(String),
}

impl Condition {
    /// Whether it holds.
    pub(super) fn holds(
        &self,
        arguments: &Arguments<'_>,
        of: Of,
        usage: &dyn Usage,
        unix_ms: u64,
    ) -> Result<bool, Refusal> {
        match &self.subject {
            Subject::Counter(limit, key) => {
                Ok(self.test_counter(limit, usage.used(limit, *key, unix_ms)))
            }
            Subject::Args(path) => {
                let (mut every, mut any) = (true, false);
                arguments.values(path, &mut |value| {
                    let holds = self.test(value)?;
                    every &= holds;
                    any |= holds;
                    Ok(())
                })?;
                Ok(if of == Of::Every { every } else { any })
            }
        }
    }

    fn test_counter(&self, limit: &Limit, used: u64) -> bool {
        let decimals = if limit.scale == Scale::Micro { -6 } else { 0 };
        let used = Decimal::from_units(used, decimals);
        let equals = |literal: &Literal| *literal == Literal::Number(used);
        match &self.test {
            Test::In(any) => any.iter().any(equals),
            Test::NotIn(none) => !none.iter().any(equals),
            Test::Lt(bound) => used < *bound,
            Test::Lte(bound) => used <= *bound,
            Test::Gt(bound) => used > *bound,
            Test::Gte(bound) => used >= *bound,
            Test::Exists(wanted) => *wanted,
            // Refused when the policy is loaded.
            Test::Regex(_) | Test::Contains(_) => false,
        }
    }

    fn test(&self, value: Option<Value<'_>>) -> Result<bool, Refusal> {
        let kind = value.map_or(Type::Null, |v| v.kind());
        let Some(value) = value.filter(|_| kind != Type::Null) else {
            return Ok(matches!(self.test, Test::Exists(false)));
        };
        match &self.test {
            Test::Exists(wanted) => Ok(*wanted),
            Test::In(any) => self.is_one_of(value, kind, any),
            Test::NotIn(none) => self.is_one_of(value, kind, none).map(|found| !found),
            Test::Lt(bound) => Ok(ordered(value, kind)? < *bound),
            Test::Lte(bound) => Ok(ordered(value, kind)? <= *bound),
            Test::Gt(bound) => Ok(ordered(value, kind)? > *bound),
            Test::Gte(bound) => Ok(ordered(value, kind)? >= *bound),
            Test::Regex(regex) => {
                let text = value
                    .as_str()
                    .ok_or(Refusal::Misfit(kind, "a string".into()))?;
                if text.len() > REGEX_INPUT_MAX {
                    return Err(Refusal::TooLong);
                }
                Ok(regex.is_match(&text))
            }
            Test::Contains(part) => self.contains(value, kind, part),
        }
    }

    fn is_one_of(
        &self,
        value: Value<'_>,
        kind: Type,
        operands: &[Literal],
    ) -> Result<bool, Refusal> {
        let value = Read::new(value, kind)?;
        if !operands.iter().any(|operand| self.fits(&value, operand)) {
            return Err(Refusal::Misfit(kind, kinds(operands)));
        }
        Ok(operands.iter().any(|operand| self.equal(&value, operand)))
    }

    fn contains(&self, value: Value<'_>, kind: Type, part: &Literal) -> Result<bool, Refusal> {
        match (kind, part) {
            (Type::String, Literal::String(part)) => Ok(value
                .as_str()
                .is_some_and(|text| text.contains(part.as_str()))),
            (Type::Array, _) => {
                let mut found = false;
                for element in value.elements() {
                    let kind = element.kind();
                    // A number that is compared with nothing need not mean the same to everybody.
                    if kind != Type::Number || self.compares_numbers(part) {
                        found |= self.equal(&Read::new(element, kind)?, part);
                    }
                }
                Ok(found)
            }
            (_, Literal::String(_)) => Err(Refusal::Misfit(kind, "a string or an array".into())),
            _ => Err(Refusal::Misfit(kind, "an array".into())),
        }
    }

    /// Whether a value's type is one that the operand can be compared with.
    fn fits(&self, value: &Read<'_>, operand: &Literal) -> bool {
        match (value, operand) {
            (Read::String(_), Literal::String(_)) | (Read::Bool(_), Literal::Bool(_)) => true,
            (Read::Number(_), operand) => self.compares_numbers(operand),
            (Read::String(text), Literal::Number(_)) => self.loose && Decimal::read(text).is_ok(),
            _ => false,
        }
    }

    fn compares_numbers(&self, operand: &Literal) -> bool {
        match operand {
            Literal::Number(_) => true,
            Literal::String(text) => self.loose && Decimal::read(text).is_ok(),
            Literal::Bool(_) => false,
        }
    }

    fn equal(&self, value: &Read<'_>, operand: &Literal) -> bool {
        let spells = |text: &str, number: &Decimal| {
            self.loose && Decimal::read(text).is_ok_and(|n| n == *number)
        };
        match (value, operand) {
            (Read::String(a), Literal::String(b)) => a == b,
            (Read::Number(a), Literal::Number(b)) => a == b,
            (Read::Bool(a), Literal::Bool(b)) => a == b,
            (Read::String(text), Literal::Number(number)) => spells(text, number),
            (Read::Number(number), Literal::String(text)) => spells(text, number),
            _ => false,
        }
    }
}

/// A scalar that was read.
enum Read<'v> {
    String(Cow<'v, str>),
    Number(Decimal),
    Bool(bool),
    Other,
}

impl<'v> Read<'v> {
    fn new(value: Value<'v>, kind: Type) -> Result<Self, Refusal> {
        Ok(match kind {
            Type::String => value.as_str().map_or(Read::Other, Read::String),
            Type::Bool => value.as_bool().map_or(Read::Other, Read::Bool),
            Type::Number => Read::Number(number(value)?),
            _ => Read::Other,
        })
    }
}

fn ordered(value: Value<'_>, kind: Type) -> Result<Decimal, Refusal> {
    match kind {
        Type::Number => number(value),
        _ => Err(Refusal::Misfit(kind, "a number".into())),
    }
}

/// A number that means the same to every parser.
pub(super) fn number(value: Value<'_>) -> Result<Decimal, Refusal> {
    let read = value
        .as_number()
        .map_or(Err(NumberError::Grammar), Decimal::read);
    read.map_err(|_| Refusal::Ambiguous)
}

fn kinds(operands: &[Literal]) -> Cow<'static, str> {
    let names = [
        (
            operands.iter().any(|o| matches!(o, Literal::String(_))),
            "a string",
        ),
        (
            operands.iter().any(|o| matches!(o, Literal::Number(_))),
            "a number",
        ),
        (
            operands.iter().any(|o| matches!(o, Literal::Bool(_))),
            "true or false",
        ),
    ];
    let names: Vec<_> = names
        .iter()
        .filter(|(there, _)| *there)
        .map(|(_, name)| *name)
        .collect();
    names.join(" or ").into()
}

impl Refusal {
    /// What to tell the agent about the value at this path.
    pub(super) fn explain(&self, path: &str) -> String {
        match self {
            Refusal::Misfit(found, wanted) => format!(
                "{path} is {}; the policy needs {wanted} here",
                kind_name(*found)
            ),
            Refusal::Ambiguous => format!(
                "{path} is a number that parsers read differently (more than 15 digits, or too large): send it as a string"
            ),
            Refusal::TooLong => format!(
                "{path} is longer than {REGEX_INPUT_MAX} bytes, more than a pattern is tried on"
            ),
            Refusal::Twin(twin) => {
                let twin: String = twin.chars().take(64).collect();
                format!(
                    "{path} stands beside `{twin}`, which differs in case only: servers disagree which of them counts"
                )
            }
        }
    }
}

/// A type in an agent's words.
pub(super) fn kind_name(kind: Type) -> &'static str {
    match kind {
        Type::Null => "null",
        Type::Bool => "true or false",
        Type::Number => "a number",
        Type::String => "a string",
        Type::Array => "an array",
        Type::Object => "an object",
    }
}
