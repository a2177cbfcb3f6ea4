//! `policy.json` (policies.md §1.1).

mod limits;

use super::{
    Told, below, check_name, check_version,
    condition::{self, ConditionIn},
    limit, message,
};
use crate::{
    doc::{Entries, Spanned},
    policy::{
        dialect::Dialect,
        ir::{self, Hidden, Place, Policy, Step, Tool, Unlisted, What},
    },
};
use limits::LimitIn;
use schemars::JsonSchema;
use serde::Deserialize;

/// A native policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tollgate policy (native)", extend("required" = ["version", "default"]))]
pub(in crate::policy) struct Document {
    /// Version of the form. Required, only `"1"`.
    #[schemars(extend("const" = "1"))]
    version: Spanned<String>,
    /// What happens to a tool that is not listed under `tools`. Required.
    default: Allow,
    /// Tools that are removed from `tools/list` and denied when called; names or globs, `"*"` hides everything.
    /// Default: none.
    #[serde(default)]
    hide: Vec<Spanned<String>>,
    /// Rules over every tool call. Default: none.
    all_tools: Option<Rules>,
    /// Rules by tool; names or globs: an exact name beats a glob, the longest glob beats a shorter one, and only the
    /// winning entry applies. Default: none.
    #[serde(default)]
    tools: Entries<Rules>,
    /// `shadow` records what would have been denied and forwards it; its limits count apart. Default: `enforce`.
    #[serde(default)]
    mode: Mode,
    /// Which methods besides `tools/call` pass. Default: all that the protocol version knows.
    methods: Option<Spanned<MethodsIn>>,
    /// `show` leaves tools that the default denies in `tools/list`. Default: `hide`.
    #[serde(default)]
    list_denied: ListDenied,
    /// `code` hides rule, max and remaining from the agent. Default: `full`.
    #[serde(default)]
    denial_detail: DenialDetail,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum Allow {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
}

impl Allow {
    pub(super) fn unlisted(self) -> Unlisted {
        match self {
            Allow::Allow => Unlisted::Allow,
            Allow::Deny => Unlisted::Deny,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Denies.
    #[default]
    Enforce,
    /// Records and forwards.
    Shadow,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ListDenied {
    /// They are removed.
    #[default]
    Hide,
    /// They are shown.
    Show,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum DenialDetail {
    /// Code, rule, max and remaining.
    #[default]
    Full,
    /// The code alone.
    Code,
}

/// One of `allow` and `deny`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MethodsIn {
    /// Only these pass (names or globs), and what a connection cannot do without: initialize, server/discover, ping,
    /// notifications.
    allow: Option<Vec<Spanned<String>>>,
    /// All but these pass (names or globs).
    deny: Option<Vec<Spanned<String>>>,
}

/// Rules of a tool; `{}` allows it unconditionally.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Each must hold. Default: none.
    #[serde(default)]
    require: Vec<Spanned<RuleIn>>,
    /// None may hold. Default: none.
    #[serde(default)]
    deny_if: Vec<Spanned<RuleIn>>,
    /// What is counted. Default: nothing.
    #[serde(default)]
    limits: Vec<Spanned<LimitIn>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleIn {
    /// All of them together; read from left to right up to the first that is false. Required; an empty list under
    /// `deny_if` always denies.
    conditions: Vec<Spanned<ConditionIn>>,
    /// What the agent is told. Default: a sentence made from the conditions.
    on_deny: Option<String>,
}

/// Reads a native policy; `all_first` = `all_tools` stands before `tools`.
pub(super) fn policy(document: Document, all_first: bool, told: &mut Told) -> Policy {
    check_version(&document.version, told);
    let hide = document
        .hide
        .into_iter()
        .enumerate()
        .map(|(i, name)| hidden(name, i, told))
        .collect();
    let all = document
        .all_tools
        .map(|rules| steps(rules, "/all_tools", told))
        .unwrap_or_default();
    let tools = document.tools.0.into_iter().map(|(name, rules)| {
        let pointer = below("/tools", &name.value);
        check_name(&name, name.at, &pointer, told);
        Tool {
            steps: steps(rules, &pointer, told),
            place: Place::new(name.at, pointer),
            name: name.value,
        }
    });
    Policy {
        dialect: Dialect::Native,
        unlisted: document.default.unlisted(),
        hide,
        all,
        all_first,
        tools: tools.collect(),
        shadow: document.mode == Mode::Shadow,
        list_denied: document.list_denied == ListDenied::Show,
        terse: document.denial_detail == DenialDetail::Code,
        methods: document
            .methods
            .map_or(ir::Methods::All, |read| methods(read, told)),
    }
}

pub(super) fn hidden(name: Spanned<String>, index: usize, told: &mut Told) -> Hidden {
    let pointer = below("/hide", index);
    check_name(&name, name.at, &pointer, told);
    Hidden {
        place: Place::new(name.at, pointer),
        name: name.value,
    }
}

fn methods(read: Spanned<MethodsIn>, told: &mut Told) -> ir::Methods {
    let mut names = |list: Vec<Spanned<String>>, key: &str| {
        let pointer = below("/methods", key);
        let place = Place::new(read.at, pointer.as_str());
        let known = |name: &str| crate::policy::glob::Glob::is_glob(name) || knows_method(name);
        for (i, name) in list.iter().enumerate() {
            if name.value == "tools/call" {
                told.error(
                    name.at,
                    below(&pointer, i),
                    "tools/call is judged by `tools`, `default` and `hide`",
                );
            } else if !known(name) {
                told.warning(
                    name.at,
                    below(&pointer, i),
                    format!("MCP knows no method `{}`", name.value),
                );
            }
        }
        (place, list.into_iter().map(|name| name.value).collect())
    };
    match (read.value.allow, read.value.deny) {
        (Some(list), None) => {
            let (place, names) = names(list, "allow");
            ir::Methods::Allow { place, names }
        }
        (None, Some(list)) => {
            let (place, names) = names(list, "deny");
            ir::Methods::Deny { place, names }
        }
        _ => {
            told.error(
                read.at,
                "/methods",
                "`methods` has either `allow` or `deny`",
            );
            ir::Methods::All
        }
    }
}

fn knows_method(name: &str) -> bool {
    use crate::mcp::{LEGACY, MODERN, knows_method};
    MODERN
        .iter()
        .chain(LEGACY)
        .any(|version| knows_method(version, name))
}

fn steps(rules: Rules, pointer: &str, told: &mut Told) -> Vec<Step> {
    let mut steps = Vec::new();
    for (key, list) in [("deny_if", rules.deny_if), ("require", rules.require)] {
        let pointer = below(pointer, key);
        for (i, rule) in list.into_iter().enumerate() {
            steps.extend(self::rule(rule, key == "deny_if", below(&pointer, i), told));
        }
    }
    let pointer = below(pointer, "limits");
    let names: Vec<Option<String>> = rules
        .limits
        .iter()
        .map(|l| l.counter.as_ref().map(|c| c.value.clone()))
        .collect();
    for (i, limit) in rules.limits.into_iter().enumerate() {
        let rule = match names.get(i).cloned().flatten() {
            // A limit's id names its counter, where the name is its own.
            Some(name)
                if is_id(&name)
                    && names
                        .iter()
                        .flatten()
                        .filter(|other| **other == name)
                        .count()
                        == 1 =>
            {
                below(&pointer, name)
            }
            _ => below(&pointer, i),
        };
        let place = Place::new(limit.at, below(&pointer, i));
        let message = message(limit.value.on_deny.clone());
        if let Some(limit) = limits::limit(limit.value, &place, told) {
            steps.push(Step {
                place,
                rule,
                name: None,
                message,
                what: What::Limit(limit),
            });
        }
    }
    steps
}

/// Whether a counter's name cannot be taken for an index.
fn is_id(name: &str) -> bool {
    !name.bytes().all(|b| b.is_ascii_digit())
}

fn rule(read: Spanned<RuleIn>, deny_if: bool, pointer: String, told: &mut Told) -> Option<Step> {
    let base = below(&pointer, "conditions");
    let conditions: Vec<_> = (read.conditions.iter().enumerate())
        .map(|(i, c)| condition::condition(c, below(&base, i), false, told))
        .collect();
    let conditions: Vec<_> = conditions.into_iter().collect::<Option<_>>()?;
    Some(Step {
        rule: pointer.clone(),
        place: Place::new(read.at, pointer),
        name: None,
        message: message(read.value.on_deny),
        what: if deny_if {
            What::DenyIf(conditions)
        } else {
            What::Require(conditions)
        },
    })
}
