//! Limits as the native form writes them.

use super::{Allow, Told, below, condition, limit};
use crate::{
    doc::{Any, Pos, Spanned},
    limit::{Kind, OnUnreachable, RefundOn, Scale, Scope, Window},
    policy::ir::{self, Amount, KEYS_MAX, Place},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Longest counter name, bytes.
const COUNTER_BYTES_MAX: usize = 128;
/// Largest `keys_max`.
const KEYS_MAX_MAX: u32 = 1_000_000;

/// A limit: `counter`, `window` and `max`, or `max_in_flight` alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["counter", "window", "max"]}, {"required": ["max_in_flight"]}]))]
pub(in crate::policy) struct LimitIn {
    /// The counter's name: with its tool, window and scope it is the counter's identity. Required.
    pub(super) counter: Option<Spanned<String>>,
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
    pub(super) on_deny: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum ScopeIn {
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
pub(in crate::policy) enum RefundOnIn {
    /// Any JSON-RPC error.
    RpcError,
    /// An HTTP status of 500 to 599.
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// A tool result with `isError: true`.
    ToolError,
}

/// Reads a limit; `None` when problems were told.
pub(super) fn limit(read: LimitIn, place: &Place, told: &mut Told) -> Option<ir::Limit> {
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

fn increment(by: &Spanned<Any>, scale: Scale, pointer: &str, told: &mut Told) -> Option<u64> {
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
