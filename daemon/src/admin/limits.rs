//! The one place where the admin plane reads and changes counters: the ledger's numbers under this node's names.
//!
//! The ledger knows hashes and totals; names stay on the nodes that met them. What a node leased is used for the ledger;
//! of its own leases this node knows what is still unspent, of others' it does not.

use super::names::{Limits as Known, Nodes};
use crate::{
    limiter::{Filter, LimitState, Limiter},
    view::View,
};
use ::cluster::handle::Handle;
use proto::{
    admin::{COUNTERS_MAX, Counter, Limits, LimitsQuery, members::Holder},
    limit::{
        CounterKey, Kind, Limit, Scale, Scope,
        ledger::{Counters, ROWS_MAX, Row},
    },
    time::Now,
};
use std::{cmp::Reverse, collections::BTreeMap};

/// Questions to the ledger for one filter.
const QUESTIONS_MAX: usize = 64;

/// What is joined.
pub(super) struct Sources<'a> {
    pub(super) limiter: &'a Limiter,
    pub(super) handle: &'a Handle,
    pub(super) view: Option<&'a View>,
    pub(super) nodes: &'a Nodes,
}

/// The counters that the query asks for.
pub(super) async fn shown(from: &Sources<'_>, query: &LimitsQuery, now: Now) -> Limits {
    let local = from.limiter.find(&filter(query), now);
    let known = from.view.map(Known::of).unwrap_or_default();
    let Some((rows, total)) = rows(from, query, &local.states, &known).await else {
        return Limits {
            counters: local.states.iter().map(counter).collect(),
            total: local.total,
            ledger: false,
        };
    };
    let gates = local.states.iter().filter(|state| is_gate(state));
    let mut counters: Vec<Counter> = gates.map(counter).collect();
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let total = total.saturating_add(counters.len());
    for row in &rows {
        let state = from.limiter.named(row.key, now);
        let limit = known.limit(row.identity);
        let at_ms = from.handle.ledger_ms(now);
        counters.push(joined(row, state.as_ref(), limit, from.nodes, at_ms));
    }
    match query.top {
        Some(_) => counters.sort_by_cached_key(|c| (Reverse(c.used_permille), place(c))),
        None => counters.sort_by_cached_key(place),
    }
    counters.truncate(query.top.unwrap_or(COUNTERS_MAX).min(COUNTERS_MAX));
    Limits {
        counters,
        total,
        ledger: true,
    }
}

fn filter(query: &LimitsQuery) -> Filter {
    Filter {
        identity: None,
        text: query.filter.clone(),
        fullest: query.top.is_some(),
        most: query.top,
    }
}

fn place(counter: &Counter) -> (String, String, Option<String>, String) {
    let Counter {
        limit,
        scope_value,
        key,
        counter,
        ..
    } = counter;
    // What this node has no name for comes last.
    let limit = match limit.is_empty() {
        true => "\u{10ffff}".to_owned(),
        false => limit.clone(),
    };
    (limit, scope_value.clone(), key.clone(), counter.clone())
}

/// The ledger's rows; `None`: it cannot be reached.
async fn rows(
    from: &Sources<'_>,
    query: &LimitsQuery,
    local: &[LimitState],
    known: &Known,
) -> Option<(Vec<Row>, u64)> {
    let all = Counters {
        key: None,
        identity: None,
        fullest: query.top.is_some(),
        most: query.top.unwrap_or(ROWS_MAX).min(ROWS_MAX),
    };
    let Some(text) = query.filter.as_deref() else {
        let (rows, total, _) = from.handle.counters(all).await.ok()?;
        return Some((rows, total));
    };
    let mut questions: Vec<Counters> = match counter_key(text) {
        Some(key) => vec![Counters {
            key: Some(key),
            ..all.clone()
        }],
        None => Vec::new(),
    };
    let limits = known.labelled(text);
    let wanted = limits.into_iter().map(|identity| Counters {
        identity: Some(identity),
        ..all.clone()
    });
    questions.extend(wanted);
    let asked = |questions: &[Counters], state: &LimitState| {
        let covers = |q: &Counters| q.identity == Some(state.identity) || q.key == Some(state.key);
        questions.iter().any(covers)
    };
    for state in local.iter().filter(|state| !is_gate(state)) {
        if !asked(&questions, state) {
            questions.push(Counters {
                key: Some(state.key),
                ..all.clone()
            });
        }
    }
    let mut found = BTreeMap::new();
    let mut beyond = 0;
    for question in questions.into_iter().take(QUESTIONS_MAX) {
        let (rows, total, _) = from.handle.counters(question).await.ok()?;
        beyond += total.saturating_sub(rows.len() as u64);
        found.extend(rows.into_iter().map(|row| (row.key, row)));
    }
    let total = beyond + found.len() as u64;
    Some((found.into_values().collect(), total))
}

/// A counter's key as it is shown.
pub(super) fn counter_key(text: &str) -> Option<CounterKey> {
    let whole = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = whole.then_some(text)?;
    u128::from_str_radix(digits, 16).ok().map(CounterKey)
}

fn is_gate(state: &LimitState) -> bool {
    state.kind == Kind::InFlight
}

/// A row of the ledger under this node's names.
fn joined(
    row: &Row,
    state: Option<&LimitState>,
    limit: Option<&Limit>,
    nodes: &Nodes,
    at_ms: u64,
) -> Counter {
    let scale = state.map(|state| state.scale);
    let scale = scale.or(limit.map(|limit| limit.scale));
    let show = |units: u128| shown_units(scale.unwrap_or(Scale::Integer), units);
    let same_window = |state: &&LimitState| state.window == Some(row.window);
    let unspent = state.filter(same_window).map_or(0, |state| state.unspent);
    let used = row.used.saturating_sub(u128::from(unspent));
    let label = state.map(|state| state.label.to_string());
    let kind = state.map(|state| state.kind);
    let counts_only = limit.is_some_and(|limit| limit.counts_only);
    Counter {
        limit: label
            .or(limit.map(|limit| limit.label.to_string()))
            .unwrap_or_default(),
        counter: format!("{:032x}", row.key.0),
        identity: format!("{:032x}", row.identity.0),
        scope: state
            .map(|state| state.scope)
            .or(limit.map(|limit| limit.scope))
            .map_or("", scope_name)
            .to_owned(),
        scope_value: state
            .map(|state| state.scope_value.to_string())
            .unwrap_or_default(),
        key: state.and_then(|state| state.key_text.as_deref().map(str::to_owned)),
        window: kind
            .or(limit.map(|limit| limit.kind))
            .map_or_else(String::new, window_name),
        ends_ms: Some(row.end_ms.saturating_sub(at_ms)),
        used: show(used),
        max: match counts_only {
            true => "unlimited".to_owned(),
            false => show(u128::from(row.max)),
        },
        used_permille: match counts_only {
            true => 0,
            false => permille(used, row.max),
        },
        lost: show(row.lost),
        holders: row
            .holders
            .iter()
            .map(|holding| Holder {
                node: nodes.name(holding.node),
                granted: show(holding.granted),
                returned: show(holding.returned),
                lost: show(u128::from(holding.lost)),
            })
            .collect(),
    }
}

fn permille(used: u128, max: u64) -> u64 {
    let permille = used.saturating_mul(1_000) / u128::from(max.max(1));
    u64::try_from(permille).unwrap_or(u64::MAX)
}

/// Totals are wider than the units of one call; one beyond that is shown as the largest.
pub(super) fn shown_units(scale: Scale, units: u128) -> String {
    scale.show(u64::try_from(units).unwrap_or(u64::MAX))
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Session => "session",
        Scope::Grant => "grant",
        Scope::Server => "server",
        Scope::All => "all",
    }
}

fn window_name(kind: Kind) -> String {
    match kind {
        Kind::Rate(window) => window.name(),
        Kind::InFlight => "in flight".to_owned(),
    }
}

/// A counter as this node alone knows it.
fn counter(state: &LimitState) -> Counter {
    Counter {
        limit: state.label.to_string(),
        counter: format!("{:032x}", state.key.0),
        identity: format!("{:032x}", state.identity.0),
        scope: scope_name(state.scope).to_owned(),
        scope_value: state.scope_value.to_string(),
        key: state.key_text.as_deref().map(str::to_owned),
        window: window_name(state.kind),
        ends_ms: state.ends_in_ms,
        used: state.scale.show(state.used()),
        max: match state.max {
            Some(max) => state.scale.show(max),
            None => "unlimited".to_owned(),
        },
        used_permille: state.used_permille(),
        lost: "0".to_owned(),
        holders: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::tests::sample;
    use proto::{
        command::NodeId,
        limit::{Identity, Window, ledger::Holding},
    };

    fn now_or_never<T>(future: impl Future<Output = T>) -> T {
        use std::task::{Context, Poll, Waker};
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("the answer did not come at once"),
        }
    }

    #[test]
    fn without_the_ledger_counters_are_shown_as_this_node_knows_them() {
        let (limiter, now) = sample();
        let handle = Handle::disconnected(now);
        let nodes = Nodes::default();
        let from = Sources {
            limiter: &limiter,
            handle: &handle,
            view: None,
            nodes: &nodes,
        };
        let ask = |filter: Option<&str>, top| {
            let query = LimitsQuery {
                filter: filter.map(str::to_owned),
                top,
            };
            now_or_never(shown(&from, &query, now))
        };
        let all = ask(None, None);
        assert_eq!((all.total, all.ledger), (2, false));
        let first = &all.counters[0];
        assert_eq!(
            (&*first.limit, &*first.scope, &*first.scope_value),
            ("flux/images/img2img/1", "grant", "grant-1")
        );
        assert_eq!((&*first.used, &*first.max), ("6.5", "10"));
        assert_eq!((&*first.window, first.used_permille), ("minute", 650));
        let gate = &all.counters[1];
        assert_eq!(
            (&*gate.window, &*gate.used, gate.ends_ms),
            ("in flight", "1", None)
        );
        let top = ask(None, Some(1));
        assert_eq!((top.counters.len(), top.total), (1, 2));
        assert_eq!(ask(Some("nobody"), None).total, 0);
    }

    #[test]
    fn a_row_of_the_ledger_gets_this_nodes_names_and_what_is_unspent_here_is_not_used() {
        let (limiter, now) = sample();
        let states = limiter.find(&Filter::default(), now).states;
        let state = states.iter().find(|state| !is_gate(state)).unwrap();
        let mut state = state.clone();
        state.unspent = 1_500_000;
        let row = Row {
            key: state.key,
            identity: state.identity,
            window: state.window.unwrap(),
            end_ms: 90_000,
            max: 10_000_000,
            used: 9_000_000,
            lost: 500_000,
            holders: vec![Holding {
                node: NodeId(7),
                granted: 8_500_000,
                returned: 0,
                lost: 500_000,
            }],
        };
        let shown = joined(&row, Some(&state), None, &Nodes::default(), 60_000);
        assert_eq!((&*shown.used, &*shown.lost), ("7.5", "0.5"));
        assert_eq!((shown.used_permille, shown.ends_ms), (750, Some(30_000)));
        assert_eq!(&*shown.holders[0].node, "0000000000000007");
        assert_eq!(counter_key(&shown.counter), Some(state.key));
        // A bucket of an older window says nothing about this one.
        state.window = Some(row.window - 1);
        let later = joined(&row, Some(&state), None, &Nodes::default(), 60_000);
        assert_eq!(later.used, "9");
        let unknown = Row {
            identity: Identity(9),
            ..row
        };
        let shown = joined(&unknown, None, None, &Nodes::default(), 60_000);
        assert_eq!((&*shown.limit, &*shown.used), ("", "9000000"));
        assert_eq!(window_name(Kind::Rate(Window::Week)), "week");
    }

    #[test]
    fn a_key_is_read_as_it_is_shown() {
        assert_eq!(counter_key(&"f".repeat(32)), Some(CounterKey(u128::MAX)));
        for text in [
            "",
            "f",
            &"g".repeat(32),
            &"f".repeat(33),
            "+fffffffffffffffffffffffffffffff",
        ] {
            assert_eq!(counter_key(text), None, "{text}");
        }
    }
}
