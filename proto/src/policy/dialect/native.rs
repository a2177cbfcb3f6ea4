//! `policy.json` (policies.md §1.1).

use super::{
    Told, below, check_name, check_version,
    condition::{self, ConditionIn},
    limit, message,
};
use crate::{
    doc::{Any, Entries, Pos, Spanned},
    limit::{Kind, OnUnreachable, RefundOn, Scale, Scope, Window},
    policy::{
        dialect::Dialect,
        ir::{self, Amount, Hidden, KEYS_MAX, Place, Policy, Step, Tool, Unlisted, What},
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Longest counter name, bytes.
const COUNTER_BYTES_MAX: usize = 128;
/// Largest `keys_max`.
const KEYS_MAX_MAX: u32 = 1_000_000;

/// A native policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tollgate policy (native)", extend("required" = ["version", "default"]))]
pub(in crate::policy) struct Document {
    /// Version of the form. Required, only `"1"`.
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
    #[default]
    Enforce,
    Shadow,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum ListDenied {
    #[default]
    Hide,
    Show,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum DenialDetail {
    #[default]
    Full,
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

/// A limit: `counter`, `window` and `max`, or `max_in_flight` alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitIn {
    /// The counter's name: with its tool, window and scope it is the counter's identity. Required.
    counter: Option<Spanned<String>>,
    /// `second`, `minute`, `hour`, `day`, `week`, `month` (UTC calendar) or a duration such as `90s`, `15m`; 1 s to
    /// 366 d. Required.
    window: Option<Spanned<String>>,
    /// Most that is counted in one window, 0 to 10^15 (10^9 with `increment_from` or fractions). Required.
    #[schemars(with = "Option<f64>", range(min = 0))]
    max: Option<Spanned<Any>>,
    /// Over what is counted: one MCP session, one grant, one server, or the whole gateway. Default: `grant`.
    scope: Option<ScopeIn>,
    /// What one call counts, more than 0, at most 6 decimals. Default: 1.
    #[schemars(with = "Option<f64>", range(min = 0.000_001))]
    increment: Option<Spanned<Any>>,
    /// The argument whose number a call counts, e.g. `args.amount`. Default: none.
    increment_from: Option<Spanned<String>>,
    /// Splits the counter by this argument's value, e.g. `args.customer_id`. Default: not split.
    key: Option<Spanned<String>>,
    /// Most distinct values of `key` a grant and window, 1 to 1,000,000. Default: 1000.
    #[schemars(with = "Option<u32>", range(min = 1, max = KEYS_MAX_MAX))]
    keys_max: Option<Spanned<u32>>,
    /// Calls that may be in flight at once, on each node; instead of `counter`, `window` and `max`. Minimum 1.
    #[schemars(with = "Option<u64>", range(min = 1))]
    max_in_flight: Option<Spanned<u64>>,
    /// What happens when quota cannot be had from the cluster. Default: `deny`.
    on_unreachable: Option<Allow>,
    /// Outcomes, besides a call that certainly did not act, that give back what was taken. Default: none.
    refund_on: Option<Vec<RefundOnIn>>,
    /// Most that is given back in one window on a node. Default: `max`.
    #[schemars(with = "Option<f64>", range(min = 0))]
    refund_max: Option<Spanned<Any>>,
    /// What the agent is told. Default: a sentence made from the limit.
    on_deny: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ScopeIn {
    /// One MCP session; where there is none, the grant.
    Session,
    /// One grant.
    Grant,
    /// All callers of the server.
    Server,
    /// The whole gateway.
    All,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum RefundOnIn {
    /// Any JSON-RPC error.
    RpcError,
    /// An HTTP status of 500 to 599.
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// A tool result with `isError: true`.
    ToolError,
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
        if let Some(limit) = self::limit(limit.value, &place, told) {
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

fn limit(read: LimitIn, place: &Place, told: &mut Told) -> Option<ir::Limit> {
    if read.max_in_flight.is_some() {
        return in_flight(read, place, told);
    }
    let pointer = |key: &str| below(&place.pointer, key);
    let missing = [
        ("counter", read.counter.is_none()),
        ("window", read.window.is_none()),
        ("max", read.max.is_none()),
    ];
    for (key, _) in missing.iter().filter(|(_, missing)| *missing) {
        told.error(
            place.at,
            place.pointer.as_str(),
            format!("`{key}` is missing"),
        );
    }
    if let (Some(_), Some(from)) = (&read.increment, &read.increment_from) {
        told.error(
            from.at,
            pointer("increment_from"),
            "either `increment` or `increment_from`, not both",
        );
    }
    if let (Some(keys), None) = (&read.keys_max, &read.key) {
        told.error(
            keys.at,
            pointer("keys_max"),
            "`keys_max` bounds the values of `key`, which is missing",
        );
    }
    let fraction = has_fraction(&read);
    let scale = if fraction {
        Scale::Micro
    } else {
        Scale::Integer
    };
    let counter = read
        .counter
        .as_ref()
        .and_then(|name| counter(name, pointer("counter"), told));
    let window = read.window.as_ref().and_then(|text| {
        Window::parse(text)
            .map_err(|why| told.error(text.at, pointer("window"), why))
            .ok()
    });
    let max = read
        .max
        .as_ref()
        .and_then(|max| limit::units(max, scale, &pointer("max"), told));
    let refund_max = match &read.refund_max {
        Some(most) => Some(limit::units(most, scale, &pointer("refund_max"), told)?),
        None => None,
    };
    let key = match &read.key {
        Some(path) => Some(condition::one_argument(path, pointer("key"), told)?),
        None => None,
    };
    let keys_max = read.keys_max.map_or(KEYS_MAX, |keys| {
        if !(1..=KEYS_MAX_MAX).contains(&keys.value) {
            told.error(keys.at, pointer("keys_max"), format!("1 to {KEYS_MAX_MAX}"));
        }
        keys.value
    });
    let amount = match (&read.increment_from, &read.increment) {
        (Some(path), _) => Amount::From(condition::one_argument(
            path,
            pointer("increment_from"),
            told,
        )?),
        (None, Some(by)) => Amount::Fixed(increment(by, scale, &pointer("increment"), told)?),
        (None, None) => Amount::Fixed(scale.units("1").unwrap_or(1)),
    };
    Some(ir::Limit {
        counter: counter?,
        kind: Kind::Rate(window?),
        scope: scope(read.scope),
        scale,
        max: Some(max?),
        amount,
        key,
        keys_max,
        on_unreachable: match read.on_unreachable {
            Some(Allow::Allow) => OnUnreachable::Allow,
            _ => OnUnreachable::Deny,
        },
        refund_on: refund_on(read.refund_on.as_deref().unwrap_or_default()),
        refund_max,
    })
}

fn has_fraction(read: &LimitIn) -> bool {
    let numbers = [&read.max, &read.increment, &read.refund_max];
    read.increment_from.is_some()
        || numbers
            .iter()
            .any(|number| limit::has_fraction(number.as_ref()))
}

fn counter(name: &Spanned<String>, pointer: String, told: &mut Told) -> Option<String> {
    let fits = !name.trim().is_empty() && name.len() <= COUNTER_BYTES_MAX;
    if !fits {
        told.error(
            name.at,
            pointer,
            format!("a counter's name has 1 to {COUNTER_BYTES_MAX} bytes"),
        );
    }
    fits.then(|| name.value.clone())
}

pub(super) fn increment(
    by: &Spanned<Any>,
    scale: Scale,
    pointer: &str,
    told: &mut Told,
) -> Option<u64> {
    let units = limit::units(by, scale, pointer, told)?;
    if units == 0 {
        told.error(
            by.at,
            pointer,
            "an increment of 0 would never count anything",
        );
        return None;
    }
    Some(units)
}

fn scope(read: Option<ScopeIn>) -> Scope {
    match read {
        Some(ScopeIn::Session) => Scope::Session,
        Some(ScopeIn::Grant) | None => Scope::Grant,
        Some(ScopeIn::Server) => Scope::Server,
        Some(ScopeIn::All) => Scope::All,
    }
}

fn refund_on(read: &[RefundOnIn]) -> RefundOn {
    RefundOn {
        rpc_error: read.contains(&RefundOnIn::RpcError),
        http_5xx: read.contains(&RefundOnIn::Http5xx),
        tool_error: read.contains(&RefundOnIn::ToolError),
    }
}

/// `{"max_in_flight": N, "scope": …}`
fn in_flight(read: LimitIn, place: &Place, told: &mut Told) -> Option<ir::Limit> {
    let at = |value: &Option<Spanned<Any>>| value.as_ref().map(|v| v.at);
    let text = |value: &Option<Spanned<String>>| value.as_ref().map(|v| v.at);
    let others: [(&str, Option<Pos>); 9] = [
        ("counter", text(&read.counter)),
        ("window", text(&read.window)),
        ("max", at(&read.max)),
        ("increment", at(&read.increment)),
        ("increment_from", text(&read.increment_from)),
        ("key", text(&read.key)),
        ("refund_max", at(&read.refund_max)),
        ("refund_on", read.refund_on.as_ref().map(|_| place.at)),
        ("on_unreachable", read.on_unreachable.map(|_| place.at)),
    ];
    for (key, at) in others {
        if let Some(at) = at {
            told.error(
                at,
                below(&place.pointer, key),
                format!("`{key}` does not go with `max_in_flight`"),
            );
        }
    }
    let max = read.max_in_flight?;
    if max.value == 0 || max.value > u32::MAX.into() {
        told.error(
            max.at,
            below(&place.pointer, "max_in_flight"),
            format!("1 to {}", u32::MAX),
        );
    }
    told.note(
        max.at,
        below(&place.pointer, "max_in_flight"),
        "calls in flight are counted on each node, not over the cluster",
    );
    Some(ir::Limit {
        kind: Kind::InFlight,
        ..limit::calls(
            "_in_flight".to_owned(),
            Window::Week,
            max.value,
            scope(read.scope),
        )
    })
}
