//! Between the gateway and the ledger: takes what a call is charged, and settles it once.
//!
//! ```text
//! reserve ──► counter ──try_take──► bucket            the usual way: no lock, no wait
//!                └──► Holder::wait                     the one place where a request waits, at most 100 ms
//! settle  ──► refund: inside its window, once, at most refund_max  ·  in-flight places are freed on every path
//! run     ──► timers ──► Holder::poll ──► Handle       beside the requests: questions, returns, pushes, sessions
//! ```
//!
//! A counter is *active* (bucket and holder) while it has something in hand or to say, then *parked*: a few dozen bytes
//! that must not be forgotten before the ledger was heard to be past its window.

mod core;
mod counter;
mod parked;
mod rate;
mod show;
mod tally;
#[cfg(test)]
pub(crate) mod tests;
mod tickets;
mod timers;
mod waiting;
mod work;

pub use cluster::handle::Error as DefineError;
pub use show::{Filter, Found, LimitState, SHOW_MAX};
pub use tickets::{Charged, Tickets};

use self::core::Core;
use crate::metrics::Ledger;
use cluster::handle::{Clock, Error, Handle};
use counter::{Short, State};
use proto::{
    limit::{Charge, CounterKey, Kind, Limit, OnUnreachable, Scope},
    policy::{Code, compile::Usage},
    time::Now,
};
use smallvec::SmallVec;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tickets::{Held, Taking};
use tokio::time::{Instant, timeout};

/// Longest time that a call waits for quota, over all its charges.
const WAIT: Duration = Duration::from_millis(100);
/// Longest time that returning everything may take at the end.
const CLOSE: Duration = Duration::from_secs(5);

/// All counters of this node.
#[derive(Debug)]
pub struct Limiter {
    core: Arc<Core>,
}

/// Why a call's charges could not be taken. Whatever was taken before has been given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the refusing charge in the list that was given.
    pub index: usize,
    /// `limit`, `unreachable`, `overloaded` (too many counters) or (too many distinct keys) `rule`.
    pub code: Code,
    /// Units left.
    pub remaining: u64,
    /// When a retry may succeed; `None`: never (amount over max), or no hint (in flight).
    pub retry_after_ms: Option<u64>,
}

impl Limiter {
    /// No counters yet. Beyond `counters_max` of them a call that needs a new one is refused as overloaded. `clock` is
    /// the gateway's.
    pub fn new(handle: Handle, counters_max: usize, clock: Clock) -> Self {
        Self {
            core: Arc::new(Core::new(handle, counters_max, clock)),
        }
    }

    /// Counts from now on in these metrics.
    pub fn count_in(&self, ledger: Arc<Ledger>) {
        self.core.tally.count_in(ledger);
    }

    /// The work beside the requests: prefetches, returns, what the leader says. To be run as a task for as long as the
    /// node serves; without it a call still gets quota, but none is returned.
    pub fn run(&self) -> impl Future<Output = ()> + Send + use<> {
        let core = self.core.clone();
        async move { core.run().await }
    }

    /// What this node knows without asking.
    pub fn usage(&self) -> &dyn Usage {
        self
    }

    /// Counters of this node.
    pub fn len(&self) -> usize {
        self.core.counted.load(Ordering::Acquire)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Announces every limit of a view, before the view is put in force. Counters are kept where the identity is. When
    /// this returns, nothing beyond a lowered `max` is admitted, and a raised one is open. On an error nothing has changed.
    pub async fn define<'a>(
        &self,
        limits: impl IntoIterator<Item = &'a Arc<Limit>>,
        now: Now,
    ) -> Result<(), Error> {
        self.core.define(limits, now).await
    }

    /// Forgets counters that no longer matter; bounded work a call. The daemon calls it every few seconds.
    pub fn sweep(&self, now: Now) {
        self.core.turn(now);
        self.core.sweep(now);
    }

    /// Returns everything that is leased and ends the node's session, for a graceful stop: from now on calls that need
    /// quota are refused as unreachable. Bounded to a few seconds.
    pub async fn close(&self, now: Now) {
        self.close_within(CLOSE, now).await;
    }

    async fn close_within(&self, patience: Duration, now: Now) {
        if timeout(patience, self.core.close(now)).await.is_err() {
            tracing::warn!(
                "no answer to the goodbye: what is leased is lost until its windows end"
            );
        }
    }

    /// Takes every charge or none. Waits at most once, bounded, and only where quota must be fetched.
    ///
    /// Narrow scopes come first, so that a call that is refused by its own limit never holds what others share.
    pub async fn reserve(&self, charges: &[Charge<'_>], now: Now) -> Result<Tickets, Refused> {
        let mut taking = Taking {
            tickets: Tickets::default(),
            now,
        };
        let mut until = None;
        for index in in_order(charges) {
            match self.take(&charges[index], now, &mut until).await {
                Ok(Some(held)) => taking.tickets.held.push((index, held)),
                Ok(None) => {}
                Err(short) => {
                    return Err(Refused {
                        index,
                        code: short.code,
                        remaining: short.remaining,
                        retry_after_ms: short.retry_after_ms,
                    });
                }
            }
        }
        Ok(std::mem::take(&mut taking.tickets))
    }

    /// Takes one charge; `None` where there is nothing to take.
    async fn take(
        &self,
        charge: &Charge<'_>,
        now: Now,
        until: &mut Option<Instant>,
    ) -> Result<Option<Held>, Short> {
        let core = &self.core;
        let limit = charge.limit;
        if charge.amount == 0 {
            return Ok(None);
        }
        if charge.amount > limit.max && !limit.counts_only {
            let remaining = if limit.kind == Kind::InFlight {
                limit.max
            } else {
                let at_ms = core.handle.ledger_ms(now);
                limit.max.saturating_sub(core.charged(charge.key, at_ms))
            };
            return Err(Short::limit(remaining, None));
        }
        let counter = match core.counter(charge, now) {
            Err(_) if limit.counts_only => return Ok(None),
            found => found?,
        };
        let rate = match (&counter.state, limit.kind) {
            (State::Gate { .. }, Kind::InFlight) => {
                return counter
                    .enter(charge.amount, limit)
                    .map(|place| Some(Held::Place(place)));
            }
            (State::Rate(rate), Kind::Rate(_)) => rate,
            // Two limits with one hash: never skipped.
            _ => return Err(Short::UNREACHABLE),
        };
        let units = |ticket| Held::Units {
            counter: counter.clone(),
            limit: limit.clone(),
            ticket,
        };
        if let Some(ticket) = rate.bucket.try_take(charge.amount, now) {
            if rate.bucket.take_low() {
                counter.timers.set_sooner(&counter, now.boot_ns);
            }
            return Ok(Some(units(ticket)));
        }
        let until = *until.get_or_insert_with(|| Instant::now() + WAIT);
        let short = match waiting::fetch(core, &counter, rate, charge, until).await {
            Ok(ticket) => return Ok(Some(units(ticket))),
            Err(short) => short,
        };
        if matches!(short.code, Code::Rule | Code::Overloaded) {
            // It may hold nothing but a name that a caller chose.
            core.put_to_rest(&counter, now);
        }
        if limit.counts_only {
            return Ok(None);
        }
        if short.code == Code::Unreachable && limit.on_unreachable == OnUnreachable::Allow {
            let outage = rate
                .take_outage(charge.amount, limit.max, &core.handle, now)
                .ok_or(short);
            core.tally.unreachable(match outage {
                Ok(_) => "allowed",
                Err(_) => core.why_unreachable(),
            });
            let outage = outage?;
            return Ok(Some(Held::Outage {
                counter: counter.clone(),
                limit: limit.clone(),
                outage,
            }));
        }
        if short.code == Code::Unreachable {
            core.tally.unreachable(core.why_unreachable());
        }
        Err(short)
    }
}

/// Narrow scopes first, then as the document has them.
fn in_order(charges: &[Charge<'_>]) -> SmallVec<[usize; 8]> {
    let mut order: SmallVec<[usize; 8]> = (0..charges.len()).collect();
    order.sort_by_key(|index| {
        charges
            .get(*index)
            .map(|charge| match (charge.limit.scope, charge.keys_max) {
                (Scope::Session, _) => 0,
                (Scope::Grant, _) => 1,
                // A part of what a server's callers share.
                (Scope::Server | Scope::All, Some(_)) => 2,
                (Scope::Server, None) => 3,
                (Scope::All, None) => 4,
            })
    });
    order
}

impl Usage for Limiter {
    fn used(&self, _limit: &Limit, key: CounterKey, _unix_ms: u64) -> u64 {
        let now = (self.core.clock)();
        self.core.charged(key, self.core.handle.ledger_ms(now))
    }

    fn refused(
        &self,
        limit: &Limit,
        key: CounterKey,
        amount: u64,
        _unix_ms: u64,
    ) -> Option<Option<u64>> {
        if amount == 0 {
            return None;
        }
        if amount > limit.max {
            return Some(None);
        }
        let now = (self.core.clock)();
        let at_ms = self.core.handle.ledger_ms(now);
        let beyond = |used: u64| used.checked_add(amount).is_none_or(|sum| sum > limit.max);
        if limit.counts_only && limit.kind != Kind::InFlight {
            let (used, end_ms) = self.core.usage_of(key, at_ms)?;
            return beyond(used).then(|| Some(end_ms.saturating_sub(at_ms).max(1)));
        }
        let counter = self.core.counters.get(&key)?;
        match &counter.state {
            State::Gate { inside, .. } => beyond(inside.load(Ordering::Acquire)).then_some(None),
            State::Rate(rate) => {
                let denial = rate.lock().holder.refusal(amount, now)?;
                Some(Short::of(denial, at_ms).retry_after_ms)
            }
        }
    }
}

/// The tables under these locks are changed in single steps: after a panic elsewhere they are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
