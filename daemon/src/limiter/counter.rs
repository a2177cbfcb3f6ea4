//! One counter of this node: its names, and what it counts with.

use super::rate::Rate;
use proto::{
    limit::{Charge, CounterKey, Kind, Limit},
    policy::Code,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Most bytes kept of a scope's or a key's value for display.
const NAME_BYTES_MAX: usize = 128;
/// Hint when quota could not be had.
pub(super) const UNREACHABLE_RETRY_MS: u64 = 1_000;

/// Why a charge was not taken: [`super::Refused`] without the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    pub code: Code,
    pub remaining: u64,
    pub retry_after_ms: Option<u64>,
}

impl Short {
    /// Quota could not be had.
    pub(super) const UNREACHABLE: Short = Short {
        code: Code::Unreachable,
        remaining: 0,
        retry_after_ms: Some(UNREACHABLE_RETRY_MS),
    };
    /// The table of counters is full.
    pub(super) const OVERLOADED: Short = Short {
        code: Code::Overloaded,
        remaining: 0,
        retry_after_ms: Some(UNREACHABLE_RETRY_MS),
    };
    /// Waiting does not help, or nobody knows how long.
    pub(super) fn limit(remaining: u64, retry_after_ms: Option<u64>) -> Self {
        Short {
            code: Code::Limit,
            remaining,
            retry_after_ms,
        }
    }
}

/// A counter.
#[derive(Debug)]
pub(super) struct Counter {
    pub key: CounterKey,
    /// The limit as its first charge knew it, for names and identity; the `max` in force is in [`super::rate::Known`].
    pub limit: Arc<Limit>,
    pub scope_value: Arc<str>,
    pub key_text: Option<Arc<str>>,
    pub state: State,
    /// When the sweep looks at it next, ledger milliseconds; written under the schedule's lock alone.
    pub due_ms: AtomicU64,
}

/// What kind of counter it is.
#[derive(Debug)]
pub(super) enum State {
    Rate(Box<Rate>),
    /// Calls in flight, and the `max` last asked for.
    Gate {
        inside: AtomicU64,
        max: AtomicU64,
    },
}

impl Counter {
    pub(super) fn new(charge: &Charge<'_>) -> Self {
        Self {
            key: charge.key,
            limit: charge.limit.clone(),
            scope_value: shorten(charge.scope_value),
            key_text: charge.key_text.as_deref().map(shorten),
            state: match charge.limit.kind {
                Kind::Rate(window) => State::Rate(Box::new(Rate::new(window, charge.limit.max))),
                Kind::InFlight => State::Gate {
                    inside: AtomicU64::new(0),
                    max: AtomicU64::new(charge.limit.max),
                },
            },
            due_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Enters the gate, or says how many places are left.
    pub(super) fn enter(self: &Arc<Self>, amount: u64, limit: &Limit) -> Result<Place, Short> {
        let State::Gate { inside, max } = &self.state else {
            return Err(Short::UNREACHABLE);
        };
        max.store(limit.max, Ordering::Relaxed);
        let bound = if limit.counts_only {
            u64::MAX
        } else {
            limit.max
        };
        inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| {
                inside.checked_add(amount).filter(|sum| *sum <= bound)
            })
            .map_err(|inside| Short::limit(bound.saturating_sub(inside), None))?;
        Ok(Place {
            counter: self.clone(),
            amount,
        })
    }
}

/// A value for display, bounded.
fn shorten(text: &str) -> Arc<str> {
    let end = text.floor_char_boundary(NAME_BYTES_MAX);
    match text.get(..end) {
        Some(start) if start.len() < text.len() => format!("{start}…").into(),
        _ => text.into(),
    }
}

/// A place behind a gate, freed when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    counter: Arc<Counter>,
    amount: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let State::Gate { inside, .. } = &self.counter.state {
            inside.fetch_sub(self.amount, Ordering::AcqRel);
        }
    }
}
