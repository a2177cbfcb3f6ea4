//! What the admin plane is shown of the counters; bounded output.

use super::{
    Limiter,
    counter::{Counter, State},
};
use proto::{
    limit::{Identity, Kind, Scale, Scope},
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
    /// At most this many (and never more than [`SHOW_MAX`]); 0 = [`SHOW_MAX`].
    pub most: usize,
}

/// One counter in its present window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
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
    pub scope_value: String,
    /// The `key` value, if the limit has one; at most 128 bytes.
    pub key_text: Option<String>,
    /// The window's id; `None` for a limit on calls in flight.
    pub window: Option<u64>,
    /// The window's end, milliseconds since 1970; `None` for a limit on calls in flight.
    pub window_end_ms: Option<u64>,
    /// The fixed point of the numbers that follow.
    pub scale: Scale,
    /// Units that may be charged in the window, or calls in flight; `None`: it counts but never refuses.
    pub max: Option<u64>,
    /// Units charged in the window: admitted, less what was refunded.
    pub charged: u64,
    /// Calls in flight, for a limit on them.
    pub in_flight: u64,
    /// Units given back in the window on this node.
    pub refunded: u64,
}

impl LimitState {
    /// How full it is, in millionths of `max`.
    fn fullness(&self) -> u64 {
        let used = u128::from(self.charged.max(self.in_flight)) * 1_000_000;
        let max = u128::from(self.max.unwrap_or(u64::MAX).max(1));
        u64::try_from(used / max).unwrap_or(u64::MAX)
    }
}

impl Limiter {
    /// Counters whose window is running, in the order of their labels, scope values and keys.
    pub fn show(&self, filter: &Filter, now: Now) -> Vec<LimitState> {
        let most = match filter.most {
            0 => SHOW_MAX,
            most => most.min(SHOW_MAX),
        };
        let at_ms = self.handle.ledger_ms(now);
        let mut shown: Vec<_> = self
            .counters
            .iter()
            .filter(|counter| filter.fits(counter))
            .filter_map(|counter| counter.shown(at_ms))
            .take(most)
            .collect();
        shown.sort_by(|a, b| {
            (&a.label, &a.scope_value, &a.key_text).cmp(&(&b.label, &b.scope_value, &b.key_text))
        });
        shown
    }

    /// The fullest counters, the fullest first; at most [`SHOW_MAX`].
    pub fn top(&self, n: usize, now: Now) -> Vec<LimitState> {
        let at_ms = self.handle.ledger_ms(now);
        let n = n.min(SHOW_MAX);
        let mut fullest = BinaryHeap::with_capacity(n + 1);
        for counter in self.counters.iter() {
            if let Some(state) = counter.shown(at_ms) {
                fullest.push(Reverse((state.fullness(), counter.key)));
                if fullest.len() > n {
                    fullest.pop();
                }
            }
        }
        fullest
            .into_sorted_vec()
            .into_iter()
            .filter_map(|Reverse((_, key))| self.counters.get(&key)?.shown(at_ms))
            .collect()
    }
}

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
    fn shown(&self, at_ms: u64) -> Option<LimitState> {
        let mut shown = LimitState {
            label: self.limit.label.clone(),
            identity: self.limit.identity,
            rule: self.limit.rule.clone(),
            kind: self.limit.kind,
            scope: self.limit.scope,
            scope_value: self.scope_value.to_string(),
            key_text: self.key_text.as_deref().map(str::to_owned),
            window: None,
            window_end_ms: None,
            scale: self.limit.scale,
            max: None,
            charged: 0,
            in_flight: 0,
            refunded: 0,
        };
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
                shown.charged = rate.charged(&known, at_ms);
                shown.max = Some(known.max).filter(|_| !self.limit.counts_only);
                shown.refunded = known.refunded;
            }
        }
        Some(shown)
    }
}
