//! Conditions as documents write them, the same in every dialect.

use super::{Told, below};
use crate::{
    doc::{Any, Pos, Spanned},
    policy::{
        ir::{Condition, Literal, Place, Subject, Test},
        number::Decimal,
        path::{Path, Segment, segments},
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

/// One condition.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct ConditionIn {
    /// What is looked at: `args.amount`, `args.items.0`, `args.items[*].price`, `args["a.b"]`; in Intercept's form also
    /// `state.<tool>.<counter>`. Required.
    pub path: Spanned<String>,
    /// How it is compared. Required.
    pub op: Op,
    /// What it is compared with: a list for `in` and `not_in`, a number for `lt`, `lte`, `gt` and `gte`, a pattern for
    /// `regex`, true or false for `exists`. Required.
    #[schemars(required)]
    pub value: Option<Spanned<Any>>,
}

/// The operators.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum Op {
    /// Equal, of the same type.
    Eq,
    /// Not equal.
    Neq,
    /// Equal to one of a list.
    In,
    /// Equal to none of a list.
    NotIn,
    /// Less than a number.
    Lt,
    /// At most a number.
    Lte,
    /// More than a number.
    Gt,
    /// At least a number.
    Gte,
    /// Matches a pattern somewhere.
    Regex,
    /// Has a substring, or an element.
    Contains,
    /// Is there and not null.
    Exists,
}

/// Reads a condition; `None` when problems were told.
pub(super) fn condition(
    read: &Spanned<ConditionIn>,
    pointer: String,
    counters: bool,
    told: &mut Told,
) -> Option<Condition> {
    let subject = subject(&read.path, &pointer, counters, told);
    let test = match &read.value.value {
        Some(value) => test(read.op, value, &below(&pointer, "value"), told),
        None => {
            told.error(
                read.at,
                pointer.as_str(),
                "`value` is missing (null is the same as absent: use `exists: false`)",
            );
            None
        }
    };
    Some(Condition {
        place: Place::new(read.at, pointer),
        subject: subject?,
        test: test?,
    })
}

fn subject(
    path: &Spanned<String>,
    pointer: &str,
    counters: bool,
    told: &mut Told,
) -> Option<Subject> {
    let pointer = below(pointer, "path");
    if !path.starts_with("state") {
        return argument(path, pointer, told).map(Subject::Args);
    }
    if !counters {
        told.error(
            path.at,
            pointer,
            "counters are read in Intercept's form alone; here a limit counts and refuses by itself",
        );
        return None;
    }
    match segments(path).as_deref() {
        Ok(
            [
                Segment::Key(state),
                Segment::Key(tool),
                Segment::Key(counter),
            ],
        ) if state == "state" => Some(Subject::Counter {
            tool: (tool != "_global").then(|| tool.clone()),
            counter: counter.clone(),
        }),
        _ => {
            told.error(
                path.at,
                pointer,
                "not a counter: write state.<tool>.<counter>, or state[\"a.b\"].<counter> for a tool with dots",
            );
            None
        }
    }
}

/// A path into the arguments.
pub(super) fn argument(path: &Spanned<String>, pointer: String, told: &mut Told) -> Option<Path> {
    Path::parse(path)
        .map_err(|why| told.error(path.at, pointer, why))
        .ok()
}

/// A path that names one value.
pub(super) fn one_argument(
    path: &Spanned<String>,
    pointer: String,
    told: &mut Told,
) -> Option<Path> {
    let read = argument(path, pointer.clone(), told)?;
    if read.has_each() {
        told.error(path.at, pointer, "this must name one value: [*] names many");
        return None;
    }
    Some(read)
}

fn test(op: Op, value: &Spanned<Any>, pointer: &str, told: &mut Told) -> Option<Test> {
    let mut wrong = |needs: &str| {
        told.error(
            value.at,
            pointer,
            format!("this operator needs {needs}, found {}", value.kind()),
        );
        None
    };
    match op {
        Op::Eq => literal(value, pointer, told).map(|one| Test::In(vec![one])),
        Op::Neq => literal(value, pointer, told).map(|one| Test::NotIn(vec![one])),
        Op::In | Op::NotIn => {
            let Any::List(items) = &value.value else {
                return wrong("a list");
            };
            if items.is_empty() {
                told.error(value.at, pointer, "an empty list: no value would ever fit");
                return None;
            }
            let read: Vec<_> = items
                .iter()
                .enumerate()
                .map(|(i, item)| literal(item, &below(pointer, i), told))
                .collect();
            let all: Vec<Literal> = read.into_iter().collect::<Option<_>>()?;
            Some(if op == Op::In {
                Test::In(all)
            } else {
                Test::NotIn(all)
            })
        }
        Op::Lt | Op::Lte | Op::Gt | Op::Gte => {
            let Any::Number(text) = &value.value else {
                return wrong("a number");
            };
            let bound = decimal(text, value.at, pointer, told)?;
            Some(match op {
                Op::Lt => Test::Lt(bound),
                Op::Lte => Test::Lte(bound),
                Op::Gt => Test::Gt(bound),
                _ => Test::Gte(bound),
            })
        }
        Op::Regex => match &value.value {
            Any::String(pattern) => Some(Test::Regex(pattern.clone())),
            _ => wrong("text"),
        },
        Op::Contains => literal(value, pointer, told).map(Test::Contains),
        Op::Exists => match value.value {
            Any::Bool(wanted) => Some(Test::Exists(wanted)),
            _ => wrong("true or false"),
        },
    }
}

fn literal(value: &Spanned<Any>, pointer: &str, told: &mut Told) -> Option<Literal> {
    match &value.value {
        Any::String(text) => Some(Literal::String(text.clone())),
        Any::Bool(is) => Some(Literal::Bool(*is)),
        Any::Number(text) => decimal(text, value.at, pointer, told).map(Literal::Number),
        Any::Null => {
            told.error(
                value.at,
                pointer,
                "null is the same as absent: use `exists: false`",
            );
            None
        }
        Any::List(_) | Any::Map => {
            let message = format!(
                "text, a number, true or false is compared with, not {}",
                value.kind()
            );
            told.error(value.at, pointer, message);
            None
        }
    }
}

pub(super) fn decimal(text: &str, at: Pos, pointer: &str, told: &mut Told) -> Option<Decimal> {
    Decimal::read(text)
        .map_err(|why| told.error(at, pointer, format!("`{text}`: {why}")))
        .ok()
}
