//! What an author should know about a policy that is nevertheless right.

use super::{Dialect, Told};
use crate::{
    limit::Scope,
    policy::{
        glob::Glob,
        ir::{Literal, Policy, Step, Subject, Test, Unlisted, What},
        number::Decimal,
        validate::conditions,
    },
};

pub(super) fn add(policy: &Policy, told: &mut Told) {
    missing_paths(policy, told);
    empty_requirements(policy, told);
    keys_alone(policy, told);
    hidden_tools(policy, told);
    globs(policy, told);
    if policy.dialect == Dialect::Intercept {
        approximate_reads(policy, told);
        loose_equality(policy, told);
        shared_counters(policy, told);
    }
}

/// A `deny_if` does not fire when what it looks at is absent.
fn missing_paths(policy: &Policy, told: &mut Told) {
    for (tool, step) in policy.steps() {
        let What::DenyIf(list) = &step.what else {
            continue;
        };
        let own = policy
            .tools
            .iter()
            .filter(|t| Some(t.name.as_str()) == tool)
            .flat_map(|t| &t.steps);
        let around: Vec<&Step> = own.chain(&policy.all).collect();
        for condition in list {
            let Subject::Args(path) = &condition.subject else {
                continue;
            };
            let demanded = around.iter().any(|step| must_be_there(step, path.as_str()));
            if !matches!(condition.test, Test::Exists(_)) && !demanded {
                told.warning(
                    condition.place.at,
                    condition.place.pointer.as_str(),
                    format!(
                        "a call without {path} is not denied by this: add `require` with {{\"path\": {}, \"op\": \"exists\", \
                         \"value\": true}} if it must be there",
                        serde_json::Value::from(path.as_str())
                    ),
                );
            }
        }
    }
}

/// Whether a step refuses calls that lack this path.
fn must_be_there(step: &Step, wanted: &str) -> bool {
    let on_path =
        |subject: &Subject| matches!(subject, Subject::Args(path) if path.as_str() == wanted);
    match &step.what {
        What::Require(list) => list
            .iter()
            .any(|c| on_path(&c.subject) && !matches!(c.test, Test::Exists(false))),
        What::DenyIf(list) => match list.as_slice() {
            [only] => on_path(&only.subject) && matches!(only.test, Test::Exists(false)),
            _ => false,
        },
        What::Deny | What::Limit(_) => false,
    }
}

fn empty_requirements(policy: &Policy, told: &mut Told) {
    for (_, step) in policy.steps() {
        if matches!(&step.what, What::Require(list) if list.is_empty()) {
            told.warning(
                step.place.at,
                step.place.pointer.as_str(),
                "without conditions this requires nothing",
            );
        }
    }
}

/// A counter that is split bounds each value, not their sum: as many values, as many times `max`.
fn keys_alone(policy: &Policy, told: &mut Told) {
    for (tool, step) in policy.steps() {
        let What::Limit(limit) = &step.what else {
            continue;
        };
        let whole = |other: &Step| matches!(&other.what, What::Limit(limit) if limit.key.is_none());
        let companion = policy
            .steps()
            .any(|(of, other)| (of == tool || of.is_none()) && whole(other));
        if limit.key.is_some() && !companion {
            told.warning(
                step.place.at,
                step.place.pointer.as_str(),
                format!(
                    "each value of `key` has `max` of its own, up to {} values: add a limit without `key` for all of them together",
                    limit.keys_max
                ),
            );
        }
    }
}

fn hidden_tools(policy: &Policy, told: &mut Told) {
    for hidden in &policy.hide {
        let glob = Glob::new(&hidden.name);
        let listed: Vec<_> = policy
            .tools
            .iter()
            .filter(|tool| glob.matches(&tool.name))
            .collect();
        if let Some(tool) = listed.first() {
            let message = format!(
                "hides `{}`, whose rules under `tools` are never reached",
                tool.name
            );
            told.note(hidden.place.at, hidden.place.pointer.as_str(), message);
        }
    }
}

fn globs(policy: &Policy, told: &mut Told) {
    for tool in policy.tools.iter().filter(|tool| Glob::is_glob(&tool.name)) {
        let place = &tool.place;
        if policy.dialect != Dialect::Native {
            told.note(
                place.at,
                place.pointer.as_str(),
                "read as a glob; other readers of this form take it literally",
            );
        } else if tool.name.chars().all(|c| c == '*') && policy.unlisted == Unlisted::Deny {
            told.warning(
                place.at,
                place.pointer.as_str(),
                "lists every tool: `default: deny` denies none",
            );
        }
    }
}

/// Reading another rule's counter is no reservation.
fn approximate_reads(policy: &Policy, told: &mut Told) {
    for (_, step) in policy.steps() {
        for condition in conditions(step)
            .iter()
            .filter(|c| matches!(c.subject, Subject::Counter { .. }))
        {
            told.warning(
                condition.place.at,
                condition.place.pointer.as_str(),
                "reads a counter without reserving: approximate, up to 1 s old, and calls at the same time pass together",
            );
        }
    }
}

fn loose_equality(policy: &Policy, told: &mut Told) {
    let numeric = |literal: &Literal| match literal {
        Literal::Number(_) => true,
        Literal::String(text) => Decimal::read(text).is_ok(),
        Literal::Bool(_) => false,
    };
    for (_, step) in policy.steps() {
        for condition in conditions(step)
            .iter()
            .filter(|c| matches!(c.subject, Subject::Args(_)))
        {
            let loose = match &condition.test {
                Test::In(list) | Test::NotIn(list) => list.iter().any(numeric),
                Test::Contains(part) => numeric(part),
                _ => false,
            };
            if loose {
                told.note(
                    condition.place.at,
                    condition.place.pointer.as_str(),
                    "in this form a number equals the text that spells it: 5 and \"5\" are the same",
                );
            }
        }
    }
}

/// One note for the whole document, at its first counter.
fn shared_counters(policy: &Policy, told: &mut Told) {
    let shared =
        |step: &Step| matches!(&step.what, What::Limit(limit) if limit.scope == Scope::Server);
    let counters = policy
        .steps()
        .map(|(_, step)| step)
        .filter(|step| shared(step));
    if let Some(step) = counters.min_by_key(|step| step.place.at) {
        told.note(
            step.place.at,
            step.place.pointer.as_str(),
            "counters of this form belong to the policy on its server: one grant can use up what the others need",
        );
    }
}
