//! What the limiter does beside the requests: it asks and tells the ledger what holders want, hears what it says, and
//! puts to rest or forgets what no longer matters. Every step is bounded; nothing here is waited for by a request.

use super::{
    core::Core,
    counter::{Counter, State},
    lock,
    rate::{Inner, Rate},
};
use cluster::wire::{Push, RETURNS_MAX};
use proto::{
    limit::{
        CounterKey,
        lease::{Ask, GiveBack, Heard, Question, Todo},
        ledger::Session,
    },
    time::Now,
};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::broadcast::error::RecvError, task::yield_now, time::sleep};

/// Counters that one turn looks at.
const TURN_MAX: usize = 4_096;
/// Messages of returns that are on their way at once.
const GIVING_MAX: usize = 16;
/// A counter that cannot be put to rest yet (a call in flight has its ticket) is looked at again after this long.
const LOOK_NS: u64 = 2_000_000_000;
/// A gate that nobody holds is looked at again after this long.
pub(super) const GATE_NS: u64 = 10_000_000_000;
/// Pause before limits are defined again for a new session, where that failed.
const DEFINE_PAUSE: Duration = Duration::from_millis(250);
/// Longest sleep: a timer that was missed by a clock's jump is noticed by then.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// Counters at rest that one sweep looks at.
const SWEPT_MAX: usize = 65_536;

impl Core {
    /// Does its work until the node's handle goes away.
    pub(super) async fn run(self: &Arc<Self>) {
        let mut pushes = self.handle.pushes();
        let mut session = self.handle.session();
        loop {
            let now = (self.clock)();
            let due_ns = self.timers.first().map_or(u64::MAX, |first| first.0);
            let pause = Duration::from_nanos(due_ns.saturating_sub(now.boot_ns)).min(SLEEP_MAX);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.timers.woken.notified() => {}
                push = pushes.recv() => match push {
                    Ok(push) => self.pushed(push),
                    // Lost pushes cost time only.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                changed = session.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let present = *session.borrow_and_update();
            if let Some(present) = present.filter(|present| self.session() != Some(*present)) {
                self.rejoin(present).await;
            }
            self.turn((self.clock)());
            // However much is due, others of this runtime have their turn.
            yield_now().await;
        }
    }

    /// One turn: what is due, and what is to be told.
    pub(super) fn turn(self: &Arc<Self>, now: Now) {
        for _ in 0..TURN_MAX {
            let Some(first) = self.timers.first().filter(|first| first.0 <= now.boot_ns) else {
                break;
            };
            let counter = self
                .counters
                .get(&first.1)
                .map(|found| found.value().clone());
            match counter {
                Some(counter) => self.look(&counter, first.0, now),
                None => self.timers.forget(first),
            }
        }
        self.give_back();
    }

    fn look(self: &Arc<Self>, counter: &Arc<Counter>, due_ns: u64, now: Now) {
        if let Some(rate) = counter.as_rate() {
            let mut inner = rate.lock();
            self.pump(counter, rate, &mut inner, now);
            let quiet = inner.holder.due_ns(&rate.bucket).is_none();
            drop(inner);
            if !quiet || self.put_to_rest(counter, now) {
                return;
            }
            self.timers.set(counter, Some(now.boot_ns + LOOK_NS));
        } else if !self.put_to_rest(counter, now) {
            self.timers.set(counter, Some(now.boot_ns + GATE_NS));
        }
        // Whatever happened: the same moment does not come twice.
        if counter.due_ns.load(Ordering::Acquire) == due_ns {
            self.timers.set(counter, Some(now.boot_ns + LOOK_NS));
        }
    }

    /// Does as a holder says, until it says nothing more, and notes when to look at it again.
    pub(super) fn pump(
        self: &Arc<Self>,
        counter: &Arc<Counter>,
        rate: &Rate,
        inner: &mut Inner,
        now: Now,
    ) {
        while let Some(todo) = inner.holder.poll(&rate.bucket, now) {
            let (call, told) = match todo {
                Todo::Ask(question) => {
                    self.ask(counter.clone(), question);
                    continue;
                }
                Todo::GiveBack(session, back) => {
                    lock(&self.returns).push((session, back));
                    self.timers.woken.notify_one();
                    continue;
                }
                Todo::Admit(call, ticket) => (call, Ok(ticket)),
                Todo::Deny(call, denial) => (call, Err(denial)),
            };
            let at = inner.calls.iter().position(|waits| waits.0 == call);
            let unheard = match at {
                Some(at) => inner.calls.swap_remove(at).1.send(told).err(),
                None => Some(told),
            };
            if let Some(Ok(ticket)) = unheard {
                inner.holder.roll_back(&rate.bucket, ticket, now);
            }
        }
        if inner.calls.is_empty() {
            inner.calls = Vec::new();
        }
        let due_ns = inner.holder.due_ns(&rate.bucket);
        // Nothing to do: it may be put to rest.
        self.timers.set(counter, due_ns.or(Some(now.boot_ns)));
    }

    /// Asks the ledger, in a task of its own: no caller's end cuts it short.
    fn ask(self: &Arc<Self>, counter: Arc<Counter>, question: Question) {
        let asking = Asking {
            core: self.clone(),
            counter,
            question: Some(question),
        };
        self.tasks.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            let answer = asking
                .core
                .handle
                .lease(question.session, question.ask)
                .await;
            let answer = answer.ok();
            asking.core.tally.leased(answer.as_ref());
            asking.answered(answer);
        });
    }

    /// Tells the ledger what is returned, many counters in a message.
    fn give_back(self: &Arc<Self>) {
        while self.giving.load(Ordering::Acquire) < GIVING_MAX {
            let mut returns = lock(&self.returns);
            let Some((session, _)) = returns.first().copied() else {
                return;
            };
            let mut batch = Vec::new();
            returns.retain(|(of, back)| {
                let takes = *of == session && batch.len() < RETURNS_MAX;
                if takes {
                    batch.push(*back);
                }
                !takes
            });
            drop(returns);
            self.giving.fetch_add(1, Ordering::AcqRel);
            let giving = Giving(self.clone());
            tokio::spawn(async move {
                let core = giving.0.clone();
                if core.handle.give_back(session, &batch).await.is_ok() {
                    core.acknowledged(session, &batch);
                }
                drop(giving);
            });
        }
    }

    fn acknowledged(self: &Arc<Self>, session: Session, batch: &[GiveBack]) {
        let now = (self.clock)();
        for back in batch {
            self.tell(
                back.key,
                |rate, inner| {
                    inner.holder.acknowledged(session, back);
                    let _ = rate;
                },
                now,
            );
        }
    }

    /// Tells a counter's holder something, if there is one.
    fn tell(self: &Arc<Self>, key: CounterKey, what: impl FnOnce(&Rate, &mut Inner), now: Now) {
        let counter = self.counters.get(&key).map(|found| found.value().clone());
        let Some(counter) = counter else {
            return;
        };
        if let Some(rate) = counter.as_rate() {
            let mut inner = rate.lock();
            what(rate, &mut inner);
            self.pump(&counter, rate, &mut inner, now);
        }
    }

    pub(super) fn pushed(self: &Arc<Self>, push: Push) {
        let now = (self.clock)();
        self.tally.pushed(&push);
        match push {
            Push::Recall {
                session,
                key,
                window,
                granted_total,
            } => {
                // A counter at rest may have been granted something that it never heard of.
                self.wake(key);
                self.tell(
                    key,
                    |rate, inner| {
                        let told = Some((session, window, granted_total));
                        inner.holder.recall(&rate.bucket, told, now);
                    },
                    now,
                );
            }
            Push::Renewed { key, generation } => {
                self.tell(key, |_, inner| inner.holder.renewed(generation), now);
            }
            Push::Control { .. } => {}
        }
    }

    /// Another session begins: limits are defined for it, then everything held under the former one is void.
    async fn rejoin(self: &Arc<Self>, session: Session) {
        let defining = self.defining.lock().await;
        if self.session() == Some(session) {
            // A view was announced meanwhile.
            return;
        }
        let definitions = lock(&self.definitions).clone();
        let revision = self.revision.fetch_add(1, Ordering::AcqRel) + 1;
        match self.handle.define(revision, &definitions).await {
            Ok(defined) => self.enter(defined),
            Err(error) => {
                tracing::warn!(%error, session = session.0, "limits could not be defined for a new session");
                drop(defining);
                sleep(DEFINE_PAUSE).await;
            }
        }
    }

    /// Puts a session in force whose limits are defined.
    pub(super) fn enter(self: &Arc<Self>, session: Session) {
        {
            let mut heard = lock(&self.heard);
            if self.session() == Some(session) {
                return;
            }
            *heard = (session, 0);
            self.session.store(session.0, Ordering::Release);
        }
        let void = self.parked.clear(session);
        self.counted.fetch_sub(void, Ordering::AcqRel);
        let now = (self.clock)();
        let all: Vec<Arc<Counter>> = self.counters.iter().map(|c| c.value().clone()).collect();
        for counter in all {
            if let Some(rate) = counter.as_rate() {
                let mut inner = rate.lock();
                inner.holder.session(&rate.bucket, session);
                self.pump(&counter, rate, &mut inner, now);
            }
        }
    }

    /// Forgets what the ledger was heard to be past. Where that is too long ago, it asks something that changes nothing.
    pub(super) fn sweep(self: &Arc<Self>, now: Now) {
        let (session, heard_ms) = *lock(&self.heard);
        let about_ms = self.handle.ledger_ms(now);
        let (gone, due) = self.parked.sweep(SWEPT_MAX, heard_ms, about_ms);
        self.counted.fetch_sub(gone, Ordering::AcqRel);
        let known = due.and_then(|key| self.parked.look(key));
        if let Some(known) = known {
            let ask = Ask {
                identity: known.limit.identity,
                key: known.key,
                window_hint: u64::MAX,
                want: 0,
                min: 0,
                seen_granted: 0,
                returned_total: 0,
                group: None,
                waiting: false,
            };
            let core = self.clone();
            self.tasks.fetch_add(1, Ordering::AcqRel);
            tokio::spawn(async move {
                if let Ok(heard) = core.handle.lease(session, ask).await {
                    core.note(session, heard.at.now_ms);
                }
                core.tasks.fetch_sub(1, Ordering::AcqRel);
            });
        }
        if self.counters.len() < self.counters.capacity() / 8 {
            self.counters.shrink_to_fit();
        }
    }

    /// The ledger was at this time when it answered a question of this session.
    fn note(&self, session: Session, now_ms: u64) {
        let mut heard = lock(&self.heard);
        if heard.0 == session {
            heard.1 = heard.1.max(now_ms);
        }
    }

    /// Puts a counter to rest that nobody else holds, or forgets it; says whether.
    pub(super) fn put_to_rest(&self, counter: &Arc<Counter>, now: Now) -> bool {
        let at_ms = self.handle.ledger_ms(now);
        let mut kept = false;
        // Two references: the table's and the caller's. Under the table's lock nobody finds it meanwhile.
        let gone = self.counters.remove_if(&counter.key, |_, found| {
            if !Arc::ptr_eq(found, counter) || Arc::strong_count(found) != 2 {
                return false;
            }
            let Some(rate) = counter.as_rate() else {
                return matches!(counter.state, State::Gate { .. });
            };
            let inner = rate.lock();
            if inner.is_out(at_ms) || !inner.calls.is_empty() {
                return false;
            }
            let heard_ms = lock(&self.heard).1;
            let past = inner.holder.is_past(heard_ms);
            kept = !past
                && inner.holder.rest(&rate.bucket, now).is_some_and(|rest| {
                    self.parked
                        .put(counter.key, &counter.limit, &counter.names, &rest)
                });
            past || kept
        });
        if gone.is_some() {
            self.timers.set(counter, None);
            if !kept {
                self.counted.fetch_sub(1, Ordering::AcqRel);
            }
        }
        gone.is_some()
    }

    /// Returns everything and ends the session.
    pub(super) async fn close(self: &Arc<Self>, now: Now) {
        self.closed.store(true, Ordering::Release);
        let Some(session) = self.session() else {
            return;
        };
        let mut returns = Vec::new();
        let all: Vec<Arc<Counter>> = self.counters.iter().map(|c| c.value().clone()).collect();
        for counter in all {
            if let Some(rate) = counter.as_rate() {
                let mut inner = rate.lock();
                inner.holder.recall(&rate.bucket, None, now);
                returns.extend(inner.holder.owed());
            }
        }
        if let Err(error) = self.handle.bye(session, &returns).await {
            tracing::warn!(%error, "what was leased could not be returned: it is lost until its windows end");
        }
    }
}

/// A question on its way. Dropped without an answer (a runtime that ends), it has failed.
struct Asking {
    core: Arc<Core>,
    counter: Arc<Counter>,
    question: Option<Question>,
}

impl Asking {
    fn answered(mut self, answer: Option<cluster::handle::Heard>) {
        let Some(question) = self.question.take() else {
            return;
        };
        let now = (self.core.clock)();
        if let Some(heard) = &answer {
            self.core.note(heard.session, heard.at.now_ms);
        }
        let Some(rate) = self.counter.as_rate() else {
            return;
        };
        let mut inner = rate.lock();
        match answer {
            Some(answer) => {
                let heard = Heard {
                    session: answer.session,
                    at: answer.at,
                    verdict: answer.verdict,
                };
                inner.holder.heard(&rate.bucket, &question, &heard, now);
            }
            None => inner.holder.failed(&question, now),
        }
        self.core.pump(&self.counter, rate, &mut inner, now);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let (Some(question), Some(rate)) = (self.question.take(), self.counter.as_rate()) {
            let now = (self.core.clock)();
            rate.lock().holder.failed(&question, now);
            self.counter.timers.set_sooner(&self.counter, now.boot_ns);
        }
        self.core.tasks.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A message of returns on its way.
struct Giving(Arc<Core>);

impl Drop for Giving {
    fn drop(&mut self) {
        self.0.giving.fetch_sub(1, Ordering::AcqRel);
        let waits = !self
            .0
            .returns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty();
        if waits {
            self.0.timers.woken.notify_one();
        }
    }
}
