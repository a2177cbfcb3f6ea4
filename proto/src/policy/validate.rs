//! What makes a policy unusable although each of its parts can be read: told with places, all at once.

use super::{
    compile::companion_counter,
    condition,
    ir::{Condition, Limit, Policy, Step, Subject, Test, What, scope_name},
};
use crate::{
    doc::{Pos, Problem},
    limit::{Kind, Scale, Scope},
};
use std::collections::{HashMap, HashSet};

/// Errors only; empty = the policy compiles.
pub(super) fn problems(policy: &Policy) -> Vec<Problem> {
    let mut problems = of_parts(policy);
    let counters: HashSet<(Option<&str>, &str)> = policy
        .steps()
        .filter_map(|(tool, step)| match &step.what {
            What::Limit(limit) if limit.key.is_none() => Some((tool, limit.counter.as_str())),
            _ => None,
        })
        .collect();
    for condition in policy.steps().flat_map(|(_, step)| conditions(step)) {
        let Subject::Counter { tool, counter } = &condition.subject else {
            continue;
        };
        if !counters.contains(&(tool.as_deref(), counter.as_str())) {
            let of = tool.as_deref().unwrap_or("*");
            let message =
                format!("no rule under `{of}` has a `state` block with the counter `{counter}`");
            problems.push(Problem::error(
                condition.place.at,
                condition.place.pointer.as_str(),
                message,
            ));
        }
    }
    problems.sort_by_key(|problem| problem.at);
    problems
}

/// Those that remain true when a part of the document is left out.
pub(super) fn of_parts(policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    equal_identities(policy, &mut problems);
    for condition in policy.steps().flat_map(|(_, step)| conditions(step)) {
        unusable(condition, &mut problems);
    }
    problems
}

/// The conditions of a step, if it has any.
pub(super) fn conditions(step: &Step) -> &[Condition] {
    match &step.what {
        What::Require(conditions) | What::DenyIf(conditions) => conditions,
        What::Deny | What::Limit(_) => &[],
    }
}

fn unusable(condition: &Condition, problems: &mut Vec<Problem>) {
    let place = &condition.place;
    let mut error =
        |message: String| problems.push(Problem::error(place.at, place.pointer.as_str(), message));
    match (&condition.test, &condition.subject) {
        (Test::Regex(_) | Test::Contains(_), Subject::Counter { .. }) => {
            error(
                "a counter is a number: compare it with lt, lte, gt, gte, eq, neq, in or not_in"
                    .to_owned(),
            );
        }
        (Test::Regex(pattern), _) => {
            if let Err(why) = condition::regex(pattern) {
                error(why);
            }
        }
        _ => {}
    }
}

fn equal_identities(policy: &Policy, problems: &mut Vec<Problem>) {
    let mut seen: HashMap<_, Pos> = HashMap::new();
    for (tool, step) in policy.steps() {
        let What::Limit(limit) = &step.what else {
            continue;
        };
        let companion = (limit.scope == Scope::Session && limit.kind != Kind::InFlight)
            .then(|| (companion_counter(&limit.counter), Scope::Grant));
        for (counter, scope) in [(limit.counter.clone(), limit.scope)]
            .into_iter()
            .chain(companion)
        {
            let window = match limit.kind {
                Kind::Rate(window) => window.name(),
                Kind::InFlight => String::new(),
            };
            let identity = (
                tool.unwrap_or("*"),
                counter,
                scope,
                window,
                limit.scale == Scale::Micro,
            );
            if let Some(first) = seen.insert(identity, step.place.at) {
                problems.push(Problem::error(
                    step.place.at,
                    step.place.pointer.as_str(),
                    same(limit, first),
                ));
                break;
            }
        }
    }
}

fn same(limit: &Limit, first: Pos) -> String {
    format!(
        "the same counter as at {first}: `{}`, scope {}; give one of them another `counter`, window or scope",
        limit.counter,
        scope_name(limit.scope)
    )
}
