//! One counter of this node: its names, and what it counts with.

use super::{
    rate::{Inner, Rate},
    timers::Timers,
};
use proto::{
    limit::{Charge, CounterKey, Kind, Limit, lease::Denial},
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
    /// A table of counters is full.
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
    /// What the lease protocol says, at a moment of the ledger's time.
    pub(super) fn of(denial: Denial, at_ms: u64) -> Self {
        let retry_ms = |end_ms: u64| Some(end_ms.saturating_sub(at_ms).max(1));
        match denial {
            Denial::Limit { remaining, end_ms } => Self::limit(remaining, retry_ms(end_ms)),
            Denial::Keys { end_ms } => Self {
                code: Code::Rule,
                remaining: 0,
                retry_after_ms: retry_ms(end_ms),
            },
            Denial::Full => Self::OVERLOADED,
            Denial::Unreachable => Self::UNREACHABLE,
        }
    }
}

/// A counter.
#[derive(Debug)]
pub(super) struct Counter {
    pub key: CounterKey,
    /// The limit as its first charge knew it, for names and identity; the `max` in force is in the table of definitions.
    pub limit: Arc<Limit>,
    pub names: Names,
    pub state: State,
    pub timers: Arc<Timers>,
    /// When it is looked at next, boot clock; written under the timers' lock alone.
    pub due_ns: AtomicU64,
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
    pub(super) fn gate(charge: &Charge<'_>, timers: Arc<Timers>) -> Self {
        let state = State::Gate {
            inside: AtomicU64::new(0),
            max: AtomicU64::new(charge.limit.max),
        };
        Self::new(charge, state, timers)
    }

    pub(super) fn rate(charge: &Charge<'_>, rate: Rate, timers: Arc<Timers>) -> Self {
        Self::new(charge, State::Rate(Box::new(rate)), timers)
    }

    fn new(charge: &Charge<'_>, state: State, timers: Arc<Timers>) -> Self {
        Self {
            key: charge.key,
            limit: charge.limit.clone(),
            names: Names::new(charge.scope_value, charge.key_text.as_deref()),
            state,
            timers,
            due_ns: AtomicU64::new(u64::MAX),
        }
    }

    /// Its bucket and holder, if it counts amounts in windows.
    pub(super) fn as_rate(&self) -> Option<&Rate> {
        match &self.state {
            State::Rate(rate) if matches!(self.limit.kind, Kind::Rate(_)) => Some(rate),
            _ => None,
        }
    }

    /// Units went back into its bucket: if they stay there unused, or its lease is over, they are to be returned.
    pub(super) fn came_back(&self, rate: &Rate, inner: &Inner) {
        if let Some(due_ns) = inner.holder.due_ns(&rate.bucket) {
            self.timers.set_sooner(self, due_ns);
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

/// The values of scope and key for people, bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// One after the other.
    text: Box<str>,
    scope_bytes: u16,
    has_key: bool,
}

impl Names {
    pub(super) fn new(scope: &str, key: Option<&str>) -> Self {
        let mut text = String::with_capacity(scope.len() + key.map_or(0, str::len));
        shorten(scope, &mut text);
        let scope_bytes = text.len() as u16;
        if let Some(key) = key {
            shorten(key, &mut text);
        }
        Self {
            text: text.into(),
            scope_bytes,
            has_key: key.is_some(),
        }
    }

    /// Grant id, session id, server name or `*`.
    pub(super) fn scope(&self) -> &str {
        self.text.get(..self.scope_bytes.into()).unwrap_or_default()
    }

    /// The `key` value, if the limit has one.
    pub(super) fn key(&self) -> Option<&str> {
        let key = self.text.get(self.scope_bytes.into()..);
        key.filter(|_| self.has_key)
    }

    /// Both texts, where the second begins, and whether there is one.
    pub(super) fn parts(&self) -> (&str, u16, bool) {
        (&self.text, self.scope_bytes, self.has_key)
    }

    /// From [`Names::parts`].
    pub(super) fn from_parts(text: &str, scope_bytes: u16, has_key: bool) -> Self {
        Self {
            text: text.into(),
            scope_bytes,
            has_key,
        }
    }
}

/// A value for display, bounded.
fn shorten(text: &str, onto: &mut String) {
    let end = text.floor_char_boundary(NAME_BYTES_MAX);
    let start = text.get(..end).unwrap_or_default();
    onto.push_str(start);
    if start.len() < text.len() {
        onto.push('…');
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
