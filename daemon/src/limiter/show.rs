//! What the admin plane is shown of the counters; bounded output.

use super::{
    Limiter,
    counter::{Counter, State},
};
use proto::{
    limit::{CounterKey, Identity, Kind, Scale, Scope},
    time::Now,
};
use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, sync::atomic::Ordering};

/// Most counters in one answer.
pub const SHOW_MAX: usize = 1_000;

/// Which counters are asked for; everything that is set must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// This limit's.
    pub identity: Option<Identity>,
    /// A part of the label, the scope's value or the key.
    pub text: Option<String>,
    /// The fullest first; otherwise in the order of label, scope value and key.
    pub fullest: bool,
    /// At most this many (and never more than [`SHOW_MAX`]); `None` = [`SHOW_MAX`].
    pub most: Option<usize>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The first ones.
    pub states: Vec<LimitState>,
    /// How many there were before the bound.
    pub total: usize,
}

/// One counter in its present window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The counter's key.
    pub key: CounterKey,
    /// `server/policy/tool/counter`.
    pub label: Arc<str>,
    /// The limit's identity hash.
    pub identity: Identity,
    /// JSON Pointer of the rule.
    pub rule: Arc<str>,
    /// What is counted, in which windows.
    pub kind: Kind,
    /// Over what.
    pub scope: Scope,
    /// Grant id, session id, server name or `*`; at most 128 bytes.
    pub scope_value: Arc<str>,
    /// The `key` value, if the limit has one; at most 128 bytes.
    pub key_text: Option<Arc<str>>,
    /// The window's id; `None` for a limit on calls in flight.
    pub window: Option<u64>,
    /// The window's end, milliseconds since 1970; `None` for a limit on calls in flight.
    pub window_end_ms: Option<u64>,
    /// Time to the window's end, milliseconds; `None` for a limit on calls in flight.
    pub ends_in_ms: Option<u64>,
    /// The fixed point of the numbers that follow.
    pub scale: Scale,
    /// Units that may be charged in the window, or calls in flight; `None`: it counts but never refuses.
    pub max: Option<u64>,
    /// Units charged in the window: admitted, less what was refunded.
    pub charged: u64,
    /// Units leased to this node in the window that no call has taken yet.
    pub unspent: u64,
    /// Calls in flight, for a limit on them.
    pub in_flight: u64,
    /// Units given back in the window on this node.
    pub refunded: u64,
}

impl LimitState {
    /// Charged, or in flight.
    pub fn used(&self) -> u64 {
        self.charged.max(self.in_flight)
    }
    /// Used of `max`, in tenths of a percent; over 1,000 where `max` was lowered, 0 where there is none.
    pub fn used_permille(&self) -> u64 {
        let Some(max) = self.max else {
            return 0;
        };
        let permille = u128::from(self.used()) * 1_000 / u128::from(max.max(1));
        u64::try_from(permille).unwrap_or(u64::MAX)
    }
}

/// A counter in the order of the answer; only as many as will be shown are kept.
struct Ranked {
    fullness: Reverse<u64>,
    state: LimitState,
}

impl Limiter {
    /// Counters whose window is running, in the order of their labels, scope values and keys.
    pub fn show(&self, filter: &Filter, now: Now) -> Vec<LimitState> {
        self.find(filter, now).states
    }

    /// The fullest counters, the fullest first; at most [`SHOW_MAX`].
    pub fn top(&self, n: usize, now: Now) -> Vec<LimitState> {
        let filter = Filter {
            fullest: true,
            most: Some(n),
            ..Filter::default()
        };
        self.show(&filter, now)
    }

    /// One counter, if this node remembers it; without a window where that is over.
    pub fn named(&self, key: CounterKey, now: Now) -> Option<LimitState> {
        let counter = self.counters.get(&key)?.value().clone();
        let shown = counter.shown(self.handle.ledger_ms(now));
        Some(shown.unwrap_or_else(|| counter.idle()))
    }

    /// Counters whose window is running, and how many there are. It walks over all counters: a question for people.
    pub fn find(&self, filter: &Filter, now: Now) -> Found {
        let at_ms = self.handle.ledger_ms(now);
        let most = filter.most.unwrap_or(SHOW_MAX).min(SHOW_MAX);
        let mut first: BinaryHeap<Ranked> = BinaryHeap::with_capacity(most + 1);
        let mut total = 0;
        for counter in self.counters.iter().filter(|counter| filter.fits(counter)) {
            let Some(state) = counter.shown(at_ms) else {
                continue;
            };
            total += 1;
            let rank = if filter.fullest {
                state.used_permille()
            } else {
                0
            };
            first.push(Ranked {
                fullness: Reverse(rank),
                state,
            });
            if first.len() > most {
                first.pop();
            }
        }
        let states = first.into_sorted_vec();
        Found {
            states: states.into_iter().map(|ranked| ranked.state).collect(),
            total,
        }
    }
}

impl Ranked {
    fn order(&self) -> (Reverse<u64>, &str, &str, Option<&str>) {
        let state = &self.state;
        let key = state.key_text.as_deref();
        (self.fullness, &state.label, &state.scope_value, key)
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}
impl Eq for Ranked {}

impl Filter {
    fn fits(&self, counter: &Counter) -> bool {
        let names = |text: &str| {
            counter.limit.label.contains(text)
                || counter.scope_value.contains(text)
                || counter
                    .key_text
                    .as_ref()
                    .is_some_and(|key| key.contains(text))
        };
        self.identity
            .is_none_or(|identity| counter.limit.identity == identity)
            && self.text.as_deref().is_none_or(names)
    }
}

impl Counter {
    /// Its names.
    fn idle(&self) -> LimitState {
        LimitState {
            key: self.key,
            label: self.limit.label.clone(),
            identity: self.limit.identity,
            rule: self.limit.rule.clone(),
            kind: self.limit.kind,
            scope: self.limit.scope,
            scope_value: self.scope_value.clone(),
            key_text: self.key_text.clone(),
            window: None,
            window_end_ms: None,
            ends_in_ms: None,
            scale: self.limit.scale,
            max: None,
            charged: 0,
            unspent: 0,
            in_flight: 0,
            refunded: 0,
        }
    }

    fn shown(&self, at_ms: u64) -> Option<LimitState> {
        let mut shown = self.idle();
        match &self.state {
            State::Gate { inside, max } => {
                shown.in_flight = inside.load(Ordering::Acquire);
                shown.max = Some(max.load(Ordering::Relaxed));
            }
            State::Rate(rate) => {
                let known = rate.known();
                if !known.is_live(at_ms) {
                    return None;
                }
                shown.window = Some(known.window);
                shown.window_end_ms = Some(known.end_ms);
                shown.ends_in_ms = known.retry_ms(at_ms);
                shown.charged = rate.charged(&known, at_ms);
                shown.unspent = rate.bucket.remaining();
                shown.max = Some(known.max).filter(|_| !self.limit.counts_only);
                shown.refunded = known.refunded;
            }
        }
        Some(shown)
    }
}
