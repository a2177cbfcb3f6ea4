//! What the admin plane is shown of the counters; bounded output.

use super::{
    Limiter,
    core::Core,
    counter::{Counter, Names, State},
    lock,
    parked::Known,
};
use proto::{
    limit::{CounterKey, Identity, Kind, Limit, Scale, Scope, lease::View},
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
        let at_ms = self.core.handle.ledger_ms(now);
        if let Some(counter) = self.core.counters.get(&key) {
            let counter = counter.value();
            let shown = self.core.shown(counter, at_ms);
            return Some(
                shown.unwrap_or_else(|| LimitState::of(key, &counter.limit, &counter.names)),
            );
        }
        let known = self.core.parked.look(key)?;
        let shown = self.core.rested(&known, at_ms);
        Some(shown.unwrap_or_else(|| LimitState::of(key, &known.limit, &known.names)))
    }

    /// Counters whose window is running, and how many there are. It walks over all counters: a question for people.
    pub fn find(&self, filter: &Filter, now: Now) -> Found {
        let core = &self.core;
        let at_ms = core.handle.ledger_ms(now);
        let mut first = First::new(filter);
        for counter in core.counters.iter() {
            if filter.fits(&counter.limit, &counter.names) {
                first.push(core.shown(&counter, at_ms));
            }
        }
        core.parked.for_each(|known| {
            if filter.fits(&known.limit, &known.names) {
                first.push(core.rested(&known, at_ms));
            }
        });
        let states = first.heap.into_sorted_vec();
        Found {
            states: states.into_iter().map(|ranked| ranked.state).collect(),
            total: first.total,
        }
    }
}

/// The first ones in the order that is asked for.
struct First {
    heap: BinaryHeap<Ranked>,
    most: usize,
    fullest: bool,
    total: usize,
}

impl First {
    fn new(filter: &Filter) -> Self {
        let most = filter.most.unwrap_or(SHOW_MAX).min(SHOW_MAX);
        Self {
            heap: BinaryHeap::with_capacity(most + 1),
            most,
            fullest: filter.fullest,
            total: 0,
        }
    }

    fn push(&mut self, state: Option<LimitState>) {
        let Some(state) = state else {
            return;
        };
        self.total += 1;
        let rank = if self.fullest {
            state.used_permille()
        } else {
            0
        };
        self.heap.push(Ranked {
            fullness: Reverse(rank),
            state,
        });
        if self.heap.len() > self.most {
            self.heap.pop();
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
    fn fits(&self, limit: &Limit, names: &Names) -> bool {
        let named = |text: &str| {
            limit.label.contains(text)
                || names.scope().contains(text)
                || names.key().is_some_and(|key| key.contains(text))
        };
        self.identity
            .is_none_or(|identity| limit.identity == identity)
            && self.text.as_deref().is_none_or(named)
    }
}

impl LimitState {
    /// A counter's names.
    fn of(key: CounterKey, limit: &Limit, names: &Names) -> Self {
        Self {
            key,
            label: limit.label.clone(),
            identity: limit.identity,
            rule: limit.rule.clone(),
            kind: limit.kind,
            scope: limit.scope,
            scope_value: names.scope().into(),
            key_text: names.key().map(Into::into),
            window: None,
            window_end_ms: None,
            ends_in_ms: None,
            scale: limit.scale,
            max: None,
            charged: 0,
            unspent: 0,
            in_flight: 0,
            refunded: 0,
        }
    }

    /// In its present window; `None`: that is over.
    fn in_window(mut self, view: &View, max: Option<u64>, at_ms: u64) -> Option<Self> {
        if at_ms >= view.end_ms {
            return None;
        }
        self.window = Some(view.window);
        self.window_end_ms = Some(view.end_ms);
        self.ends_in_ms = Some(view.end_ms - at_ms);
        self.charged = view.charged;
        self.refunded = view.refunded;
        self.max = max;
        Some(self)
    }
}

impl Core {
    fn shown(&self, counter: &Counter, at_ms: u64) -> Option<LimitState> {
        let mut shown = LimitState::of(counter.key, &counter.limit, &counter.names);
        match &counter.state {
            State::Gate { inside, max } => {
                shown.in_flight = inside.load(Ordering::Acquire);
                shown.max = Some(max.load(Ordering::Relaxed));
                Some(shown)
            }
            State::Rate(rate) => {
                shown.unspent = rate.bucket.remaining();
                let view = rate.lock().holder.view(&rate.bucket);
                shown.in_window(&view, self.max(&counter.limit), at_ms)
            }
        }
    }

    fn rested(&self, known: &Known, at_ms: u64) -> Option<LimitState> {
        let view = View {
            window: known.rest.window,
            end_ms: known.rest.end_ms,
            charged: known.rest.charged(),
            refunded: known.rest.refunded,
        };
        LimitState::of(known.key, &known.limit, &known.names).in_window(
            &view,
            self.max(&known.limit),
            at_ms,
        )
    }

    /// The `max` in force, or as last known; `None`: it counts but never refuses.
    fn max(&self, limit: &Limit) -> Option<u64> {
        let defined = lock(&self.defined).get(&limit.identity).copied();
        Some(defined.unwrap_or(limit.max)).filter(|_| !limit.counts_only)
    }
}
