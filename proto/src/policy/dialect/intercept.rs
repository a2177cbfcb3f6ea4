//! Intercept's YAML (policies.md §1.2).

use super::{
    Told, below, check_name, check_version,
    condition::{self, ConditionIn},
    limit, message, native,
};
use crate::{
    doc::{Any, Entries, Spanned},
    limit::{RefundOn, Scale, Scope, Window},
    policy::{
        dialect::Dialect,
        ir::{
            Amount, Condition, Limit, Methods, Place, Policy, Step, Subject, Test, Tool, Unlisted,
            What,
        },
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

/// The windows of this form.
const WINDOWS: [&str; 3] = ["minute", "hour", "day"];

/// An Intercept policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tollgate policy (Intercept YAML)")]
pub(in crate::policy) struct Document {
    /// Version of the form. Required, only `"1"`.
    #[schemars(extend("const" = "1"))]
    version: Spanned<String>,
    /// For people. Default: none.
    #[serde(default, rename = "description")]
    _description: Option<String>,
    /// What happens to a tool that is not listed under `tools`. Default: `allow`.
    default: Option<native::Allow>,
    /// Tools that are removed from `tools/list` and denied when called; `"*"` hides everything. Default: none.
    #[serde(default)]
    hide: Vec<Spanned<String>>,
    /// Rules by tool; those under `"*"` come after the tool's own, for every tool. Required.
    tools: Entries<Rules>,
}

/// Rules of a tool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// In the order in which they are judged; none allows the tool. Default: none.
    #[serde(default)]
    rules: Vec<Spanned<RuleIn>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleIn {
    /// What people call it. Required.
    name: String,
    /// `evaluate` (the default: at least one condition) or `deny` (none).
    action: Option<Spanned<String>>,
    /// What must pass, all of it. Default: none.
    #[serde(default)]
    conditions: Vec<Spanned<ConditionIn>>,
    /// A counter that each allowed call moves. Default: none.
    state: Option<Spanned<StateIn>>,
    /// `N/minute`, `N/hour` or `N/day`; alone. Default: none.
    #[schemars(with = "Option<String>")]
    rate_limit: Option<Spanned<Any>>,
    /// What the agent is told. Default: a sentence with the rule's name.
    on_deny: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StateIn {
    /// The counter's name, read as `state.<tool>.<counter>`. Required.
    counter: Spanned<String>,
    /// `minute`, `hour` or `day`, UTC. Required.
    window: Spanned<String>,
    /// What one call counts. Default: 1.
    #[schemars(with = "Option<f64>", range(min = 0))]
    increment: Option<Spanned<Any>>,
    /// The argument whose number a call counts, e.g. `args.amount`. Default: none.
    increment_from: Option<Spanned<String>>,
}

pub(super) fn policy(document: Document, told: &mut Told) -> Policy {
    check_version(&document.version, told);
    let (mut tools, mut all) = (Vec::new(), Vec::new());
    for (name, rules) in document.tools.0 {
        let pointer = below("/tools", &name.value);
        check_name(&name, name.at, &pointer, told);
        let steps = steps(rules, &name, &pointer, told);
        match name.value.as_str() {
            "*" => all = steps,
            _ => tools.push(Tool {
                place: Place::new(name.at, pointer),
                name: name.value,
                steps,
            }),
        }
    }
    Policy {
        dialect: Dialect::Intercept,
        unlisted: document
            .default
            .map_or(Unlisted::Allow, native::Allow::unlisted),
        hide: document
            .hide
            .into_iter()
            .enumerate()
            .map(|(i, name)| native::hidden(name, i, told))
            .collect(),
        all,
        all_first: false,
        tools,
        shadow: false,
        methods: Methods::All,
        list_denied: false,
        terse: false,
    }
}

fn steps(rules: Rules, tool: &str, pointer: &str, told: &mut Told) -> Vec<Step> {
    let base = below(pointer, "rules");
    let mut counters: Vec<(String, String)> = Vec::new();
    let mut steps = Vec::new();
    for (i, rule) in rules.rules.into_iter().enumerate() {
        let place = Place::new(rule.at, below(&base, i));
        if let Some(state) = &rule.state {
            let (name, window) = (&state.counter.value, &state.window.value);
            if counters
                .iter()
                .any(|(known, of)| known == name && of != window)
            {
                let message =
                    format!("another rule of this tool counts `{name}` in another window");
                let pointer = below(&below(&place.pointer, "state"), "counter");
                told.error(state.counter.at, pointer, message);
            }
            counters.push((name.clone(), window.clone()));
        }
        let rule = rule.value;
        let (name, mut said) = (rule.name.clone(), message(rule.on_deny.clone()));
        let whats = match &rule.rate_limit {
            Some(rate) => rate_limit(rate, &rule, &place, &mut said, told),
            None => self::rule(rule, tool, &place, told),
        };
        steps.extend(whats.into_iter().map(|what| Step {
            place: place.clone(),
            rule: place.pointer.clone(),
            name: Some(name.clone()),
            message: said.clone(),
            what,
        }));
    }
    steps
}

fn rate_limit(
    rate: &Spanned<Any>,
    rule: &RuleIn,
    place: &Place,
    said: &mut Option<String>,
    told: &mut Told,
) -> Vec<What> {
    let pointer = below(&place.pointer, "rate_limit");
    let denies = action(rule.action.as_ref(), place, told) == Some(Action::Deny);
    if !rule.conditions.is_empty() || rule.state.is_some() || denies {
        let message = "`rate_limit` stands alone: not with `conditions`, `state` or `action: deny`";
        told.error(rate.at, pointer.as_str(), message);
    }
    let read = match &rate.value {
        Any::String(text) => limit::per_window(text),
        Any::Map => Err(
            "{max, window} is the catalogue's form, which has no `version`; here it is N/minute"
                .to_owned(),
        ),
        other => Err(format!(
            "expected a rate such as 5/hour, found {}",
            other.kind()
        )),
    };
    match read {
        Ok((max, word, window)) => {
            said.get_or_insert_with(|| {
                format!("Rate limit of {max} per {word} reached. Try again later.")
            });
            let mut limit = limit::calls(limit::rate_counter(window), window, max, Scope::Server);
            limit.refund_on.rpc_error = true;
            vec![What::Limit(limit)]
        }
        Err(why) => {
            told.error(rate.at, pointer, why);
            Vec::new()
        }
    }
}

#[derive(PartialEq)]
enum Action {
    Evaluate,
    Deny,
}

/// What a rule does; `None` when a problem was told.
fn action(action: Option<&Spanned<String>>, place: &Place, told: &mut Told) -> Option<Action> {
    let Some(action) = action else {
        return Some(Action::Evaluate);
    };
    let why = match action.value.as_str() {
        "evaluate" => return Some(Action::Evaluate),
        "deny" => return Some(Action::Deny),
        "require_approval" => "`action: require_approval` is not supported yet",
        "allow" => {
            "`action: allow` is the catalogue's form, which has no `version`; here it is `evaluate` or `deny`"
        }
        _ => "the action is `evaluate` or `deny`",
    };
    told.error(action.at, below(&place.pointer, "action"), why);
    None
}

fn rule(rule: RuleIn, tool: &str, place: &Place, told: &mut Told) -> Vec<What> {
    let pointer = |key: &str| below(&place.pointer, key);
    match action(rule.action.as_ref(), place, told) {
        Some(Action::Evaluate) => evaluate(rule, tool, place, told),
        Some(Action::Deny) => {
            if let Some(first) = rule.conditions.first() {
                told.error(
                    first.at,
                    pointer("conditions"),
                    "`action: deny` has no conditions",
                );
            }
            if let Some(state) = &rule.state {
                let message = "`action: deny` counts nothing: no call passes it";
                told.error(state.at, pointer("state"), message);
            }
            vec![What::Deny]
        }
        None => Vec::new(),
    }
}

fn evaluate(rule: RuleIn, tool: &str, place: &Place, told: &mut Told) -> Vec<What> {
    if rule.conditions.is_empty() {
        let message = "at least one condition is needed (or `action: deny`, or `rate_limit`)";
        told.error(place.at, place.pointer.as_str(), message);
        return Vec::new();
    }
    let base = below(&place.pointer, "conditions");
    let conditions: Vec<Condition> = (rule.conditions.iter().enumerate())
        .filter_map(|(i, read)| condition::condition(read, below(&base, i), true, told))
        .collect();
    // A bound on the rule's own counter.
    let own = |condition: &Condition| match (&condition.subject, &rule.state, &condition.test) {
        (
            Subject::Counter { tool: of, counter },
            Some(state),
            Test::Lte(bound) | Test::Lt(bound),
        ) => {
            let own = of.as_deref().unwrap_or("*") == tool && *counter == state.counter.value;
            own.then_some(*bound)
        }
        _ => None,
    };
    let fraction = conditions
        .iter()
        .filter_map(own)
        .any(|bound| !bound.is_integer());
    let limit = rule
        .state
        .as_ref()
        .map(|state| self::limit(state, fraction, place, told));
    if let (Some(state), false) = (&rule.state, conditions.iter().any(|c| own(c).is_some())) {
        told.warning(
            state.at,
            below(&place.pointer, "state"),
            "counts and never refuses: no condition of this rule is `lte` or `lt` on its own counter",
        );
    }
    let Some(mut limit) = limit.flatten() else {
        // Without a counter, or with one that cannot be used.
        return vec![What::Require(conditions)];
    };
    // Read from left to right: what stands before the counter, the counter, what stands behind it.
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for condition in conditions {
        if own(&condition).is_none() {
            let list = if limit.max.is_some() {
                &mut after
            } else {
                &mut before
            };
            list.push(condition);
        } else if let Err(why) = bound(&mut limit, &condition.test) {
            told.error(condition.place.at, condition.place.pointer, why);
        }
    }
    let require =
        |conditions: Vec<Condition>| (!conditions.is_empty()).then_some(What::Require(conditions));
    [require(before), Some(What::Limit(limit)), require(after)]
        .into_iter()
        .flatten()
        .collect()
}

/// Makes a condition on the rule's own counter its bound.
fn bound(limit: &mut Limit, test: &Test) -> Result<(), String> {
    let (bound, below) = match test {
        Test::Lte(bound) => (bound, 0),
        Test::Lt(bound) => (bound, 1),
        _ => return Ok(()),
    };
    let units = limit
        .scale
        .units(&bound.to_string())
        .map_err(|why| format!("`{bound}`: {why}"))?;
    let units = units
        .checked_sub(below)
        .ok_or("no count is below 0: no call would pass")?;
    limit.max = Some(limit.max.map_or(units, |max| max.min(units)));
    Ok(())
}

fn limit(
    state: &Spanned<StateIn>,
    fraction: bool,
    place: &Place,
    told: &mut Told,
) -> Option<Limit> {
    let base = below(&place.pointer, "state");
    let pointer = |key: &str| below(&base, key);
    if state.counter.trim().is_empty() {
        told.error(
            state.counter.at,
            pointer("counter"),
            "a counter needs a name",
        );
    }
    let window = match Window::parse(&state.window) {
        Ok(window) if WINDOWS.contains(&state.window.value.as_str()) => Some(window),
        _ => {
            told.error(
                state.window.at,
                pointer("window"),
                "the window is minute, hour or day",
            );
            None
        }
    };
    let fraction =
        fraction || state.increment_from.is_some() || limit::has_fraction(state.increment.as_ref());
    let scale = if fraction {
        Scale::Micro
    } else {
        Scale::Integer
    };
    let one = Amount::Fixed(scale.units("1").unwrap_or(1));
    let amount = match (&state.increment_from, &state.increment) {
        (Some(path), _) => Amount::From(condition::one_argument(
            path,
            pointer("increment_from"),
            told,
        )?),
        (None, Some(by)) => match limit::units(by, scale, &pointer("increment"), told)? {
            // Intercept takes 0 for "not given".
            0 => {
                told.warning(by.at, pointer("increment"), "an increment of 0 counts as 1");
                one
            }
            units => Amount::Fixed(units),
        },
        (None, None) => one,
    };
    Some(Limit {
        scale,
        max: None,
        refund_on: RefundOn {
            rpc_error: state.increment_from.is_none(),
            ..RefundOn::default()
        },
        amount,
        ..limit::calls(state.counter.value.clone(), window?, 0, Scope::Server)
    })
}
