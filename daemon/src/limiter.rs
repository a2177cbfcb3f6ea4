//! Between the gateway and the ledger: takes what a call is charged, and settles it once.
//!
//! ```text
//! reserve ──► counter ──try_take──► bucket            the usual way: no lock, no wait
//!                └─────── fetch ──► Handle ──► ledger  the one place where a request waits, at most 100 ms
//! settle  ──► refund: inside its window, once, at most refund_max  ·  in-flight places are freed on every path
//! ```

mod counter;
mod rate;
mod show;
#[cfg(test)]
pub(crate) mod tests;
mod tickets;

pub use cluster::memory::Error as DefineError;
pub use show::{Filter, Found, LimitState, SHOW_MAX};
pub use tickets::{Charged, Tickets};

use cluster::memory::{Error, Handle};
use counter::{Counter, Short, State};
use dashmap::{DashMap, mapref::entry::Entry};
use proto::{
    limit::{Charge, CounterKey, Identity, Kind, Limit, OnUnreachable},
    policy::{Code, compile::Usage},
    time::Now,
};
use rate::{Look, definition};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tickets::{Held, Taking};
use tokio::time::{Instant, timeout_at};

/// Longest time that a call waits for quota, over all its charges.
const WAIT: Duration = Duration::from_millis(100);
/// A counter that nobody holds is looked at again after this long.
const LOOK_MS: u64 = 10_000;
/// A counter that somebody asks for at the moment is looked at again after this long.
const BUSY_MS: u64 = 1_000;
/// Counters that one sweep looks at.
const SWEPT_MAX: usize = 16_384;

/// All counters of this node.
#[derive(Debug)]
pub struct Limiter {
    handle: Handle,
    counters: DashMap<CounterKey, Arc<Counter>, foldhash::fast::RandomState>,
    counted: AtomicUsize,
    counters_max: usize,
    /// Every counter, by when the sweep looks at it next.
    schedule: Mutex<BTreeSet<(u64, CounterKey)>>,
    /// The `max` of every limit of the view in force.
    defined: Mutex<HashMap<Identity, u64>>,
    /// The ledger's time less the wall clock's, milliseconds, as last seen.
    ahead_ms: AtomicI64,
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
    /// No counters yet. Beyond `counters_max` of them a call that needs a new one is refused as overloaded.
    pub fn new(handle: Handle, counters_max: usize) -> Self {
        Self {
            handle,
            counters: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            counted: AtomicUsize::new(0),
            counters_max,
            schedule: Mutex::default(),
            defined: Mutex::default(),
            ahead_ms: AtomicI64::new(0),
        }
    }

    /// What this node knows without asking.
    pub fn usage(&self) -> &dyn Usage {
        self
    }

    /// Counters of this node.
    pub fn len(&self) -> usize {
        self.counted.load(Ordering::Acquire)
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
        self.note(now);
        let definitions: Vec<_> = limits.into_iter().filter_map(|l| definition(l)).collect();
        self.handle.define(&definitions, true, now).await?;
        let fresh: HashMap<Identity, u64> =
            definitions.iter().map(|d| (d.identity, d.max)).collect();
        let former = lock(&self.defined).clone();
        let changed = |identity: &Identity| fresh.get(identity) != former.get(identity);
        // A limit's first definition may be new to the view and yet have counters: it was away for a while, or its first
        // call came before its view's announcement.
        let touched: Vec<Arc<Counter>> = self
            .counters
            .iter()
            .filter(|counter| changed(&counter.limit.identity))
            .map(|counter| counter.value().clone())
            .collect();
        for counter in touched {
            if let State::Rate(rate) = &counter.state {
                rate.recall(counter.key, &self.handle, now).await;
                if let Some(max) = fresh.get(&counter.limit.identity) {
                    rate.redefine(*max);
                }
            }
        }
        *lock(&self.defined) = fresh;
        Ok(())
    }

    /// Takes every charge or none. Waits at most once, bounded, and only where quota must be fetched.
    pub async fn reserve(&self, charges: &[Charge<'_>], now: Now) -> Result<Tickets, Refused> {
        let mut taking = Taking {
            tickets: Tickets::default(),
            now,
        };
        let mut until = None;
        for (index, charge) in charges.iter().enumerate() {
            match self.take(charge, now, &mut until).await {
                Ok(held) => taking.tickets.held.extend(held),
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
        let limit = charge.limit;
        if charge.amount == 0 {
            return Ok(None);
        }
        if charge.amount > limit.max && !limit.counts_only {
            let remaining = if limit.kind == Kind::InFlight {
                limit.max
            } else {
                let at_ms = self.handle.ledger_ms(now);
                limit.max.saturating_sub(self.charged(charge.key, at_ms))
            };
            return Err(Short::limit(remaining, None));
        }
        let counter = match self.counter(charge, now) {
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
            return Ok(Some(units(ticket)));
        }
        let at_ms = self.handle.ledger_ms(now);
        if let Some(short) = rate.known().refusal(charge.amount, at_ms) {
            return Err(short);
        }
        self.note(now);
        let until = *until.get_or_insert_with(|| Instant::now() + WAIT);
        let short = match timeout_at(until, rate.fetch(&self.handle, charge, now)).await {
            Ok(Ok(ticket)) => {
                self.look_sooner(&counter, rate.bucket.span().deadline_ns, now);
                return Ok(Some(units(ticket)));
            }
            Ok(Err(short)) => short,
            Err(_) => Short::UNREACHABLE,
        };
        if matches!(short.code, Code::Rule | Code::Overloaded) {
            // It may hold nothing but a name that a caller chose.
            self.discard(&counter, now);
        }
        if limit.counts_only {
            return Ok(None);
        }
        if short.code == Code::Unreachable && limit.on_unreachable == OnUnreachable::Allow {
            let outage = rate
                .take_outage(charge.amount, limit.max, &self.handle, now)
                .ok_or(short)?;
            return Ok(Some(Held::Outage {
                counter: counter.clone(),
                limit: limit.clone(),
                outage,
            }));
        }
        Err(short)
    }

    /// The charge's counter, made on its first call.
    fn counter(&self, charge: &Charge<'_>, now: Now) -> Result<Arc<Counter>, Short> {
        if let Some(counter) = self.counters.get(&charge.key) {
            return Ok(counter.value().clone());
        }
        let counter = match self.counters.entry(charge.key) {
            Entry::Occupied(known) => return Ok(known.get().clone()),
            Entry::Vacant(place) => {
                if self.counted.fetch_add(1, Ordering::AcqRel) >= self.counters_max {
                    self.counted.fetch_sub(1, Ordering::AcqRel);
                    return Err(Short::OVERLOADED);
                }
                place.insert(Arc::new(Counter::new(charge))).value().clone()
            }
        };
        let due_ms = self.handle.ledger_ms(now).saturating_add(LOOK_MS);
        self.schedule(&counter, due_ms);
        Ok(counter)
    }

    /// Forgets counters that no longer matter, returns leases that are over, and lets the ledger clear up; bounded
    /// work a call. The daemon calls it every few seconds.
    pub async fn sweep(&self, now: Now) {
        self.note(now);
        for _ in 0..SWEPT_MAX {
            let now_ms = self.handle.ledger_ms(now);
            let due = match lock(&self.schedule).first() {
                Some(due) if due.0 <= now_ms => *due,
                _ => break,
            };
            let counter = self.counters.get(&due.1).map(|found| found.value().clone());
            match counter {
                Some(counter) => self.look(&counter, now).await,
                None => {
                    lock(&self.schedule).remove(&due);
                }
            }
        }
        // The ledger of a cluster clears up by itself; unreachable, there is nothing to do.
        let _ = self.handle.tend(now).await;
    }

    /// One counter's turn in the sweep.
    async fn look(&self, counter: &Arc<Counter>, now: Now) {
        let now_ms = self.handle.ledger_ms(now);
        let look = match &counter.state {
            State::Gate { .. } => None,
            State::Rate(rate) => rate.next_look(&self.handle, now),
        };
        let due_ms = match (look, &counter.state) {
            (Some(Look::Busy), _) => now_ms.saturating_add(BUSY_MS),
            (Some(Look::At(due_ms)), _) => due_ms,
            (Some(Look::Idle(due_ms)), State::Rate(rate)) => {
                rate.recall(counter.key, &self.handle, now).await;
                due_ms
            }
            _ if self.discard(counter, now) => return,
            _ => now_ms.saturating_add(LOOK_MS),
        };
        self.schedule(counter, due_ms.max(now_ms.saturating_add(1)));
    }

    /// Forgets a counter that nobody else holds and whose past does not matter; says whether.
    fn discard(&self, counter: &Arc<Counter>, now: Now) -> bool {
        let idle = |counter: &Counter| match &counter.state {
            State::Gate { .. } => true,
            State::Rate(rate) => rate.next_look(&self.handle, now).is_none(),
        };
        // Two references: the table's and the caller's. Under the table's lock nobody finds it meanwhile.
        let gone = self
            .counters
            .remove_if(&counter.key, |_, found| {
                Arc::ptr_eq(found, counter) && Arc::strong_count(found) == 2 && idle(found)
            })
            .is_some();
        if gone {
            self.counted.fetch_sub(1, Ordering::AcqRel);
            let mut schedule = lock(&self.schedule);
            schedule.remove(&(counter.due_ms.load(Ordering::Acquire), counter.key));
        }
        gone
    }

    /// Sets when the sweep looks at a counter next.
    fn schedule(&self, counter: &Counter, due_ms: u64) {
        let mut schedule = lock(&self.schedule);
        let former = counter.due_ms.swap(due_ms, Ordering::AcqRel);
        schedule.remove(&(former, counter.key));
        schedule.insert((due_ms, counter.key));
    }

    /// A lease was taken: it is to be returned when it ends unused.
    fn look_sooner(&self, counter: &Counter, deadline_ns: u64, now: Now) {
        let ahead_ms = deadline_ns.saturating_sub(now.boot_ns) / 1_000_000;
        let due_ms = self
            .handle
            .ledger_ms(now)
            .saturating_add(ahead_ms)
            .saturating_add(1);
        if due_ms < counter.due_ms.load(Ordering::Acquire) {
            self.schedule(counter, due_ms);
        }
    }

    /// Notes how far the ledger's time is from the wall clock's.
    fn note(&self, now: Now) {
        let ahead = self.handle.ledger_ms(now) as i64 - now.unix_ms as i64;
        if ahead != self.ahead_ms.load(Ordering::Relaxed) {
            self.ahead_ms.store(ahead, Ordering::Relaxed);
        }
    }

    /// The ledger's time at a reading of the wall clock.
    fn ledger_ms(&self, unix_ms: u64) -> u64 {
        unix_ms.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Units charged in the counter's present window, as far as this node knows.
    fn charged(&self, key: CounterKey, at_ms: u64) -> u64 {
        self.counters
            .get(&key)
            .map_or(0, |counter| match &counter.state {
                State::Rate(rate) => rate.charged(&rate.known(), at_ms),
                State::Gate { inside, .. } => inside.load(Ordering::Acquire),
            })
    }
}

impl Usage for Limiter {
    fn used(&self, _limit: &Limit, key: CounterKey, unix_ms: u64) -> u64 {
        self.charged(key, self.ledger_ms(unix_ms))
    }

    fn refused(
        &self,
        limit: &Limit,
        key: CounterKey,
        amount: u64,
        unix_ms: u64,
    ) -> Option<Option<u64>> {
        if amount == 0 {
            return None;
        }
        if amount > limit.max {
            return Some(None);
        }
        let at_ms = self.ledger_ms(unix_ms);
        let counter = self.counters.get(&key)?;
        let beyond = |used: u64| used.checked_add(amount).is_none_or(|sum| sum > limit.max);
        match &counter.state {
            State::Gate { inside, .. } => beyond(inside.load(Ordering::Acquire)).then_some(None),
            State::Rate(rate) => {
                let known = rate.known();
                if limit.counts_only {
                    let full = beyond(rate.charged(&known, at_ms));
                    return full.then(|| known.retry_ms(at_ms));
                }
                known
                    .refusal(amount, at_ms)
                    .map(|short| short.retry_after_ms)
            }
        }
    }
}

/// The tables under these locks are changed in single steps: after a panic elsewhere they are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
