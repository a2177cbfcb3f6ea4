//! The catalogue's YAML (policies.md §1.3).

use super::{
    Told, below, check_name,
    condition::{self, ConditionIn},
    limit, message, native,
};
use crate::{
    doc::{Any, Entries, Entry, Node, Spanned, Value},
    limit::{Scale, Scope, Window},
    policy::{
        dialect::Dialect,
        ir::{Limit, Methods, Place, Policy, Step, Tool, What},
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

/// A policy in the form that the catalogue's pages print.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tollgate policy (catalogue YAML)")]
pub(in crate::policy) struct Document {
    /// What happens to a tool that is not listed. Default: `allow`.
    default: Option<native::Allow>,
    /// Rules by tool; those under `"*"` apply to every tool. Required.
    tools: Entries<Rules>,
}

/// Rules of a tool: a `deny` wins, and every limit applies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Default: none.
    #[serde(default)]
    rules: Vec<Spanned<RuleIn>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleIn {
    /// Default: `allow`.
    action: Option<native::Allow>,
    /// Counted per agent session. Default: none.
    rate_limit: Option<Spanned<Rate>>,
    /// What must pass, all of it; not with `action: deny`. Default: none.
    #[serde(default)]
    conditions: Vec<Spanned<ConditionIn>>,
    /// What the agent is told. Default: a sentence made from the rule.
    reason: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rate {
    /// Calls in one window, 0 to 10^15. Required.
    #[schemars(with = "u64")]
    max: Spanned<Any>,
    /// The window, seconds: 1 to 31622400, at most three decimals. Required.
    #[schemars(with = "f64")]
    window: Spanned<Any>,
}

/// Older pages print `rate_limit: 30/hour`: it is read as what it means today, with a warning. `tools` is the pointer of
/// the mapping.
pub(super) fn modernise(tools: &mut [Entry], base: &str, told: &mut Told) {
    for tool in tools {
        let pointer = below(&below(base, &tool.key), "rules");
        let Value::Map(keys) = &mut tool.value.value else {
            continue;
        };
        for rules in keys.iter_mut().filter(|entry| entry.key == "rules") {
            let Value::List(rules) = &mut rules.value.value else {
                continue;
            };
            for (i, rule) in rules.iter_mut().enumerate() {
                let Value::Map(keys) = &mut rule.value else {
                    continue;
                };
                let pointer = below(&below(&pointer, i), "rate_limit");
                for rate in keys.iter_mut().filter(|entry| entry.key == "rate_limit") {
                    modernise_rate(&mut rate.value, &pointer, told);
                }
            }
        }
    }
}

fn modernise_rate(rate: &mut Node, pointer: &str, told: &mut Told) {
    let Value::String(text) = &rate.value else {
        return;
    };
    let (max, window) = match limit::per_window(text) {
        Ok((max, _, Window::Duration(ms))) => (max, ms / 1000),
        Ok(_) => return,
        Err(why) => return told.error(rate.at, pointer, why),
    };
    let now = format!("rate_limit: {{max: {max}, window: {window}}}");
    told.warning(
        rate.at,
        pointer,
        format!("`{text}` as older pages print it: write `{now}`"),
    );
    let at = rate.at;
    let entry = |key: &str, number: u64| Entry {
        key: key.to_owned(),
        key_at: at,
        value: Node {
            at,
            value: Value::Number(number.to_string()),
        },
    };
    rate.value = Value::Map(vec![entry("max", max), entry("window", window)]);
}

pub(super) fn policy(document: Document, base: &str, told: &mut Told) -> Policy {
    let (mut tools, mut all) = (Vec::new(), Vec::new());
    for (name, rules) in document.tools.0 {
        let pointer = below(base, &name.value);
        check_name(&name, name.at, &pointer, told);
        let base = below(&pointer, "rules");
        let mut steps = Vec::new();
        for (i, rule) in rules.rules.into_iter().enumerate() {
            let place = Place::new(rule.at, below(&base, i));
            let said = message(rule.value.reason.clone());
            steps.extend(
                self::rule(rule.value, &place, told)
                    .into_iter()
                    .map(|what| Step {
                        place: place.clone(),
                        rule: place.pointer.clone(),
                        name: None,
                        message: said.clone(),
                        what,
                    }),
            );
        }
        match name.value.as_str() {
            "*" => all = steps,
            _ => tools.push(Tool {
                place: Place::new(name.at, pointer),
                name: name.value,
                steps,
            }),
        }
    }
    if document.default.is_none() {
        let at = tools
            .first()
            .map(|tool: &Tool| tool.place.at)
            .unwrap_or_default();
        told.note(
            at,
            "",
            "tools that are not listed are allowed: write `default: deny` to refuse them",
        );
    }
    Policy {
        dialect: Dialect::Catalogue,
        unlisted: document.default.unwrap_or(native::Allow::Allow).unlisted(),
        hide: Vec::new(),
        all,
        all_first: false,
        tools,
        shadow: false,
        methods: Methods::All,
        list_denied: false,
        terse: false,
    }
}

fn rule(rule: RuleIn, place: &Place, told: &mut Told) -> Vec<What> {
    let pointer = |key: &str| below(&place.pointer, key);
    if let Some(native::Allow::Deny) = rule.action {
        if let Some(rate) = &rule.rate_limit {
            told.error(
                rate.at,
                pointer("rate_limit"),
                "`action: deny` with a `rate_limit`: no call passes that could be counted",
            );
        }
        if let Some(first) = rule.conditions.first() {
            told.error(
                first.at,
                pointer("conditions"),
                "`action: deny` has no conditions: conditions say what must pass",
            );
        }
        return vec![What::Deny];
    }
    let base = pointer("conditions");
    let conditions: Vec<_> = (rule.conditions.iter().enumerate())
        .filter_map(|(i, c)| condition::condition(c, below(&base, i), false, told))
        .collect();
    let require = (!conditions.is_empty()).then_some(What::Require(conditions));
    let limit = rule
        .rate_limit
        .and_then(|rate| self::limit(&rate.value, &pointer("rate_limit"), told));
    [require, limit.map(What::Limit)]
        .into_iter()
        .flatten()
        .collect()
}

fn limit(rate: &Rate, pointer: &str, told: &mut Told) -> Option<Limit> {
    let max = limit::units(&rate.max, Scale::Integer, &below(pointer, "max"), told);
    let pointer = below(pointer, "window");
    let window = limit::number(&rate.window, &pointer, told)
        // Millionths of a second, of which only whole milliseconds are taken.
        .and_then(|text| match Scale::Micro.units(text) {
            Ok(micros) if micros > 0 && micros.is_multiple_of(1000) => {
                Window::duration(micros / 1000).ok()
            }
            _ => None,
        });
    if window.is_none() {
        told.error(
            rate.window.at,
            pointer,
            "the window is a number of seconds, 1 to 31622400, at most three decimals",
        );
    }
    let window = window?;
    Some(limit::calls(
        limit::rate_counter(window),
        window,
        max?,
        Scope::Session,
    ))
}
