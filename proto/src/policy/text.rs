//! The sentences that agents read where the author of a policy wrote none.

use super::ir::{Condition, Literal, Step, Subject, Test, What};
use crate::limit::{Kind, Limit};
use std::{borrow::Cow, fmt::Write};

/// Longest sentence made from a rule, characters.
const DESCRIPTION_MAX: usize = 300;
/// Longest part of a name that comes from outside, characters.
const NAME_MAX: usize = 128;

/// What a step says when it refuses.
pub(super) fn refusal(step: &Step, terse: bool) -> String {
    if let Some(message) = &step.message {
        return message.clone();
    }
    let text = match (&step.name, &step.what) {
        _ if terse => "A rule of the policy refuses this call".to_owned(),
        (Some(name), _) => format!("The policy's rule \"{name}\" refuses this call"),
        (None, What::Deny) => "The policy denies this tool".to_owned(),
        (None, What::Require(conditions)) => {
            format!("The policy requires that {}", list(conditions))
        }
        (None, What::DenyIf(conditions)) if conditions.is_empty() => {
            "The policy denies this tool".to_owned()
        }
        (None, What::DenyIf(conditions)) => {
            format!("The policy denies calls where {}", list(conditions))
        }
        (None, What::Limit(_)) => {
            "A limit of the policy cannot be counted for this call".to_owned()
        }
    };
    text.chars().take(DESCRIPTION_MAX).collect()
}

/// What is said of a limit that has nothing left.
pub(super) fn limit_reached(limit: &Limit, terse: bool) -> Cow<'_, str> {
    if let Some(said) = &limit.on_deny {
        return Cow::Borrowed(said);
    }
    let max = limit.scale.show(limit.max);
    let scope = match limit.scope {
        crate::limit::Scope::Session => "session",
        crate::limit::Scope::Grant => "grant",
        crate::limit::Scope::Server => "server",
        crate::limit::Scope::All => "gateway",
    };
    match limit.kind {
        _ if terse => "A limit of the policy is reached".into(),
        Kind::Rate(window) => {
            format!("Limit of {max} {} reached ({scope})", per(&window.name())).into()
        }
        Kind::InFlight => format!("Limit of {max} calls in flight reached ({scope})").into(),
    }
}

/// What is said of an amount that is larger than the limit.
pub(super) fn never_fits(limit: &Limit, terse: bool) -> String {
    match terse {
        true => "This amount can never fit into the limit.".to_owned(),
        false => format!(
            "This amount can never fit into the limit of {}.",
            limit.scale.show(limit.max)
        ),
    }
}

/// `per minute`, `in 90s`.
pub(super) fn per(window: &str) -> String {
    match window.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("in {window}"),
        false => format!("per {window}"),
    }
}

/// Two sentences; a point is put between them where none is.
pub(super) fn join(first: &str, second: &str) -> String {
    let first = first.trim_end();
    match first.ends_with(['.', '!', '?', '…', ':', ';']) || first.is_empty() {
        true => format!("{first} {}", sentence(second))
            .trim_start()
            .to_owned(),
        false => format!("{first}. {}", sentence(second)),
    }
}

/// With a capital, unless it begins with a path.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !text.starts_with("args") => first.to_uppercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// A name from outside, bounded.
pub(super) fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let start: String = chars.by_ref().take(NAME_MAX).collect();
    match chars.next() {
        Some(_) => format!("\"{start}…\""),
        None => format!("\"{start}\""),
    }
}

/// Conditions as a person would write them.
pub(super) fn list(conditions: &[Condition]) -> String {
    let all: Vec<String> = conditions.iter().map(describe).collect();
    all.join(" and ")
}

fn describe(condition: &Condition) -> String {
    let mut text = match &condition.subject {
        Subject::Args(path) => path.to_string(),
        Subject::Counter { tool, counter } => {
            format!("state.{}.{counter}", tool.as_deref().unwrap_or("_global"))
        }
    };
    let _ = match &condition.test {
        Test::In(any) => match any.as_slice() {
            [one] => write!(text, " is {}", literal(one)),
            any => write!(text, " is one of {}", literals(any)),
        },
        Test::NotIn(none) => match none.as_slice() {
            [one] => write!(text, " is not {}", literal(one)),
            none => write!(text, " is none of {}", literals(none)),
        },
        Test::Lt(bound) => write!(text, " is less than {bound}"),
        Test::Lte(bound) => write!(text, " is at most {bound}"),
        Test::Gt(bound) => write!(text, " is more than {bound}"),
        Test::Gte(bound) => write!(text, " is at least {bound}"),
        Test::Regex(pattern) => write!(text, " matches {pattern}"),
        Test::Contains(part) => write!(text, " contains {}", literal(part)),
        Test::Exists(true) => write!(text, " is there"),
        Test::Exists(false) => write!(text, " is absent"),
    };
    text
}

fn literals(all: &[Literal]) -> String {
    let all: Vec<String> = all.iter().map(literal).collect();
    all.join(", ")
}

fn literal(value: &Literal) -> String {
    match value {
        Literal::String(text) => format!("\"{text}\""),
        Literal::Number(number) => number.to_string(),
        Literal::Bool(is) => is.to_string(),
    }
}
