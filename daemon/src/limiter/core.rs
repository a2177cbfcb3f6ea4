//! What the limiter's parts share: the tables of counters and definitions, and the session in force.

use super::{
    counter::{Counter, Short, State},
    lock,
    parked::{Known, Parked},
    rate::{self, Rate},
    tally::Tally,
    timers::Timers,
    work::GATE_NS,
};
use cluster::handle::{Clock, Error, Handle};
use dashmap::{DashMap, mapref::entry::Entry};
use proto::{
    limit::{
        Charge, CounterKey, Identity, Kind, Limit,
        bucket::Bucket,
        lease::{GiveBack, Holder, Subject},
        ledger::{Definition, Session},
    },
    policy::Code,
    time::Now,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Groups that are remembered to have no room for another key.
const FULL_MAX: usize = 4_096;
/// For how long.
const FULL_NS: u64 = 5_000_000_000;

/// See [`super::Limiter`].
pub(super) struct Core {
    pub(super) handle: Handle,
    pub(super) clock: Clock,
    /// Active counters.
    pub(super) counters: DashMap<CounterKey, Arc<Counter>, foldhash::fast::RandomState>,
    /// Counters at rest. One moves between the tables only under the first one's lock.
    pub(super) parked: Parked,
    /// Those of both tables.
    pub(super) counted: AtomicUsize,
    counters_max: usize,
    pub(super) timers: Arc<Timers>,
    /// The session in force, 0: none.
    pub(super) session: AtomicU64,
    /// The same, and the latest time of the ledger's that was heard in it.
    pub(super) heard: Mutex<(Session, u64)>,
    /// One announcement at a time.
    pub(super) defining: tokio::sync::Mutex<()>,
    pub(super) revision: AtomicU64,
    /// The limits of the view in force.
    pub(super) definitions: Mutex<Arc<Vec<Definition>>>,
    /// Their `max`.
    pub(super) defined: Mutex<HashMap<Identity, u64>>,
    /// Returns that are to be told: at most one a counter in every half second.
    pub(super) returns: Mutex<Vec<(Session, GiveBack)>>,
    /// Messages of returns on their way, and other tasks.
    pub(super) giving: AtomicUsize,
    pub(super) tasks: AtomicUsize,
    /// Groups without room for another key: until when that is believed (boot clock), and their window's end.
    full: Mutex<HashMap<CounterKey, (u64, u64)>>,
    pub(super) closed: AtomicBool,
    pub(super) tally: Tally,
    seeds: AtomicU64,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn new(handle: Handle, counters_max: usize, clock: Clock) -> Self {
        let seed = u64::from_le_bytes(crate::clock::random());
        Self {
            handle,
            clock,
            counters: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            parked: Parked::new(counters_max),
            counted: AtomicUsize::new(0),
            counters_max,
            timers: Arc::default(),
            session: AtomicU64::new(0),
            heard: Mutex::new((Session(0), 0)),
            defining: tokio::sync::Mutex::default(),
            revision: AtomicU64::new(0),
            definitions: Mutex::default(),
            defined: Mutex::default(),
            returns: Mutex::default(),
            giving: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            full: Mutex::default(),
            closed: AtomicBool::new(false),
            tally: Tally::default(),
            seeds: AtomicU64::new(seed),
        }
    }

    /// The session in force: its limits are defined.
    pub(super) fn session(&self) -> Option<Session> {
        let session = self.session.load(Ordering::Acquire);
        (session > 0).then_some(Session(session))
    }

    /// Why quota could not be had, for the metrics.
    pub(super) fn why_unreachable(&self) -> &'static str {
        match self.session() {
            _ if self.closed.load(Ordering::Acquire) => "stopping",
            None => "no_session",
            Some(_) => "no_answer",
        }
    }

    /// See [`super::Limiter::define`].
    pub(super) async fn define<'a>(
        self: &Arc<Self>,
        limits: impl IntoIterator<Item = &'a Arc<Limit>>,
        now: Now,
    ) -> Result<(), Error> {
        let definitions: Vec<Definition> = limits
            .into_iter()
            .filter_map(|limit| rate::definition(limit))
            .collect();
        let _defining = self.defining.lock().await;
        let revision = self.revision.fetch_add(1, Ordering::AcqRel) + 1;
        let session = self.handle.define(revision, &definitions).await?;
        let fresh: HashMap<Identity, u64> =
            definitions.iter().map(|d| (d.identity, d.max)).collect();
        *lock(&self.definitions) = Arc::new(definitions);
        let former = std::mem::replace(&mut *lock(&self.defined), fresh.clone());
        self.enter(session);
        let changed = |identity: &Identity| fresh.get(identity) != former.get(identity);
        // A limit's first definition may be new to the view and yet have counters: it was away for a while.
        let touched: Vec<Arc<Counter>> = self
            .counters
            .iter()
            .filter(|counter| changed(&counter.limit.identity))
            .map(|counter| counter.value().clone())
            .collect();
        for counter in touched {
            if let Some(rate) = counter.as_rate() {
                let mut inner = rate.lock();
                inner.holder.recall(&rate.bucket, None, now);
                inner.holder.redefined();
                self.pump(&counter, rate, &mut inner, now);
            }
        }
        Ok(())
    }

    /// The charge's counter, made on its first call.
    pub(super) fn counter(&self, charge: &Charge<'_>, now: Now) -> Result<Arc<Counter>, Short> {
        if let Some(counter) = self.counters.get(&charge.key) {
            return Ok(counter.value().clone());
        }
        self.activate(charge.key, || {
            if let Some(short) = self.is_full(charge, now) {
                return Err(short);
            }
            if self.counted.fetch_add(1, Ordering::AcqRel) >= self.counters_max {
                self.counted.fetch_sub(1, Ordering::AcqRel);
                return Err(Short::OVERLOADED);
            }
            let timers = self.timers.clone();
            Ok(match charge.limit.kind {
                Kind::Rate(window) => {
                    let subject = rate::subject(charge, window);
                    let holder = Holder::new(subject, self.session(), self.seed());
                    Counter::rate(charge, Rate::new(Bucket::default(), holder), timers)
                }
                Kind::InFlight => Counter::gate(charge, timers),
            })
        })
    }

    /// An active counter: the one there is, or the one at rest, or a new one.
    fn activate(
        &self,
        key: CounterKey,
        make: impl FnOnce() -> Result<Counter, Short>,
    ) -> Result<Arc<Counter>, Short> {
        let counter = match self.counters.entry(key) {
            Entry::Occupied(known) => return Ok(known.get().clone()),
            Entry::Vacant(place) => {
                let counter = match self.parked.take(key).and_then(|known| self.revive(known)) {
                    Some(revived) => revived,
                    None => make()?,
                };
                place.insert(Arc::new(counter)).value().clone()
            }
        };
        if let State::Gate { .. } = &counter.state {
            self.timers
                .set_sooner(&counter, (self.clock)().boot_ns.saturating_add(GATE_NS));
        }
        // A session that began meanwhile has not seen it in the table.
        if let (Some(rate), Some(session)) = (counter.as_rate(), self.session()) {
            rate.lock().holder.session(&rate.bucket, session);
        }
        Ok(counter)
    }

    fn revive(&self, known: Known) -> Option<Counter> {
        let Kind::Rate(window) = known.limit.kind else {
            return None;
        };
        let subject = Subject {
            identity: known.limit.identity,
            key: known.key,
            window,
            // The next charge says it again.
            group: None,
        };
        let bucket = Bucket::default();
        let end_ns = self.handle.boot_ns(known.rest.end_ms);
        let (session, seed) = (self.session(), self.seed());
        let holder = Holder::wake(subject, session, &bucket, (&known.rest, end_ns), seed);
        Some(Counter {
            key: known.key,
            limit: known.limit,
            names: known.names,
            state: State::Rate(Box::new(Rate::new(bucket, holder))),
            timers: self.timers.clone(),
            due_ns: AtomicU64::new(u64::MAX),
        })
    }

    /// Makes a counter at rest active.
    pub(super) fn wake(&self, key: CounterKey) {
        if self.parked.look(key).is_some() {
            // Nothing is made anew.
            let _ = self.activate(key, || Err(Short::UNREACHABLE));
        }
    }

    fn seed(&self) -> u64 {
        self.seeds
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Units charged in the counter's present window, as far as this node knows.
    pub(super) fn charged(&self, key: CounterKey, at_ms: u64) -> u64 {
        if let Some(counter) = self.counters.get(&key)
            && let State::Gate { inside, .. } = &counter.state
        {
            return inside.load(Ordering::Acquire);
        }
        self.usage_of(key, at_ms).map_or(0, |usage| usage.0)
    }

    /// Units charged in the counter's present window, and that window's end; `None`: nothing is known of one.
    pub(super) fn usage_of(&self, key: CounterKey, at_ms: u64) -> Option<(u64, u64)> {
        let counter = self.counters.get(&key).map(|found| found.value().clone());
        let (charged, end_ms) = match counter {
            Some(counter) => {
                let rate = counter.as_rate()?;
                let view = rate.lock().holder.view(&rate.bucket);
                (view.charged, view.end_ms)
            }
            None => {
                let rest = self.parked.look(key)?.rest;
                (rest.charged(), rest.end_ms)
            }
        };
        (at_ms < end_ms).then_some((charged, end_ms))
    }

    /// The ledger has no room for another key of this charge's limit.
    pub(super) fn note_full(&self, charge: &Charge<'_>, end_ms: u64, now: Now) {
        let Some(group) = group(charge) else {
            return;
        };
        let mut full = lock(&self.full);
        if full.len() >= FULL_MAX {
            full.retain(|_, (until_ns, _)| now.boot_ns < *until_ns);
        }
        if full.len() < FULL_MAX {
            full.insert(group, (now.boot_ns.saturating_add(FULL_NS), end_ms));
        }
    }

    /// Whether a new key of this charge's limit is known to find no room.
    fn is_full(&self, charge: &Charge<'_>, now: Now) -> Option<Short> {
        let (until_ns, end_ms) = *lock(&self.full).get(&group(charge)?)?;
        let at_ms = self.handle.ledger_ms(now);
        (now.boot_ns < until_ns && at_ms < end_ms).then(|| Short {
            code: Code::Rule,
            remaining: 0,
            retry_after_ms: Some(end_ms - at_ms),
        })
    }
}

fn group(charge: &Charge<'_>) -> Option<CounterKey> {
    let Kind::Rate(window) = charge.limit.kind else {
        return None;
    };
    Some(rate::subject(charge, window).group?.key)
}
