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
    let mut problems = Vec::new();
    equal_identities(policy, &mut problems);
    let counters: HashSet<(Option<&str>, &str)> = policy
        .steps()
        .filter_map(|(tool, step)| match &step.what {
            What::Limit(limit) if limit.key.is_none() => Some((tool, limit.counter.as_str())),
            _ => None,
        })
        .collect();
    for (_, step) in policy.steps() {
        for condition in conditions(step) {
            unusable(condition, &counters, &mut problems);
        }
    }
    problems.sort_by_key(|problem| problem.at);
    problems
}

/// The conditions of a step, if it has any.
pub(super) fn conditions(step: &Step) -> &[Condition] {
    match &step.what {
        What::Require(conditions) | What::DenyIf(conditions) => conditions,
        What::Deny | What::Limit(_) => &[],
    }
}

fn unusable(
    condition: &Condition,
    counters: &HashSet<(Option<&str>, &str)>,
    problems: &mut Vec<Problem>,
) {
    let place = &condition.place;
    let mut error =
        |message: String| problems.push(Problem::error(place.at, place.pointer.as_str(), message));
    if let Test::Regex(pattern) = &condition.test
        && let Err(why) = condition::regex(pattern)
    {
        error(why);
    }
    if let Subject::Counter { tool, counter } = &condition.subject {
        if !counters.contains(&(tool.as_deref(), counter.as_str())) {
            let of = tool.as_deref().unwrap_or("*");
            error(format!(
                "no rule under `{of}` has a `state` block with the counter `{counter}`"
            ));
        }
        if matches!(condition.test, Test::Regex(_) | Test::Contains(_)) {
            error(
                "a counter is a number: compare it with lt, lte, gt, gte, eq, neq, in or not_in"
                    .to_owned(),
            );
        }
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
