//! A ledger of this process alone, in memory: what the daemon runs on until it opens a one-voter cluster through
//! [`crate::handle`]. Then this file goes.

use proto::{
    command::NodeId,
    limit::{
        CounterKey, Identity, lease,
        ledger::{Bounds, Definition, Group, Ledger, Refusal, Session, Standing},
    },
    time::Now,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Past counters that one call of [`Handle::tend`] clears away.
const TENDED_MAX: usize = 16_384;

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be reached: nothing is known, no limit was reached.
    #[error("the ledger cannot be reached")]
    Unreachable,
    /// The ledger said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A question for quota: see [`lease::Ask`], whose session the handle fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The limit.
    pub identity: Identity,
    /// The counter.
    pub key: CounterKey,
    /// The window to which the totals belong.
    pub window_hint: u64,
    /// Units that would be welcome.
    pub want: u64,
    /// Units that are needed.
    pub min: u64,
    /// The last `granted_total` heard.
    pub seen_granted: u128,
    /// Everything returned in the window.
    pub returned_total: u128,
    /// The bound of distinct keys, where the limit has one.
    pub group: Option<Group>,
}

/// Quota that is no longer needed: see [`lease::GiveBack`], whose session the handle fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GiveBack {
    /// The counter.
    pub key: CounterKey,
    /// The window to which the total belongs.
    pub window: u64,
    /// Everything returned in the window.
    pub returned_total: u128,
}

/// What the ledger says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its time, milliseconds since 1970.
    pub now_ms: u64,
    /// Counters that it holds.
    pub counters: usize,
    /// Limits that are defined.
    pub limits: usize,
    /// Its bounds.
    pub bounds: Bounds,
}

/// A way to the ledger; clones share it.
#[derive(Clone)]
pub struct Handle {
    node: Option<Arc<Node>>,
    epoch: Now,
}

/// This process's own ledger and its only session.
struct Node {
    ledger: Mutex<Ledger>,
    session: Session,
    bounds: Bounds,
    /// Of the last view.
    revision: AtomicU64,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("reachable", &self.node.is_some())
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// A ledger of this process alone, empty. Its time is the wall clock at this moment plus what the boot clock has
    /// counted since: steps of the wall clock are ignored.
    pub fn single(bounds: Bounds, now: Now) -> Result<Self, Error> {
        let mut ledger = Ledger::new(bounds);
        ledger.advance(now.unix_ms);
        let session = ledger.hello(NodeId(1), 1, 0, 1)?;
        Ok(Self {
            node: Some(Arc::new(Node {
                ledger: Mutex::new(ledger),
                session,
                bounds,
                revision: AtomicU64::new(0),
            })),
            epoch: now,
        })
    }

    /// A node that has no ledger: every question is answered [`Error::Unreachable`].
    pub fn disconnected(now: Now) -> Self {
        Self {
            node: None,
            epoch: now,
        }
    }

    /// The ledger's time, as far as this node can tell without asking, milliseconds since 1970.
    pub fn ledger_ms(&self, now: Now) -> u64 {
        let passed_ns = now.boot_ns.saturating_sub(self.epoch.boot_ns);
        self.epoch.unix_ms.saturating_add(passed_ns / 1_000_000)
    }

    /// When this node's boot clock will show a moment of the ledger's time, nanoseconds.
    pub fn boot_ns(&self, ledger_ms: u64) -> u64 {
        let ahead_ms = ledger_ms.saturating_sub(self.epoch.unix_ms);
        self.epoch
            .boot_ns
            .saturating_add(ahead_ms.saturating_mul(1_000_000))
    }

    /// Defines limits: all or none. `whole`: limits defined before and not named here go out of force.
    pub async fn define(
        &self,
        definitions: &[Definition],
        whole: bool,
        now: Now,
    ) -> Result<(), Error> {
        let step = u64::from(whole);
        let revision = self
            .node
            .as_ref()
            .map(|node| {
                node.revision
                    .fetch_add(step, Ordering::AcqRel)
                    .saturating_add(step)
            })
            .unwrap_or_default();
        self.apply(now, |ledger, session| {
            ledger.define(session, revision, definitions, whole)
        })
    }

    /// Asks for quota. Dropping the future loses nothing: the next answer offers again what was not heard.
    pub async fn lease(&self, ask: Ask, now: Now) -> Result<Standing, Error> {
        self.apply(now, |ledger, session| {
            let ask = lease::Ask {
                identity: ask.identity,
                key: ask.key,
                window_hint: ask.window_hint,
                want: ask.want,
                min: ask.min,
                seen_granted: ask.seen_granted,
                returned_total: ask.returned_total,
                group: ask.group,
                waiting: true,
            };
            ledger.lease(session, &ask)
        })
    }

    /// Returns quota.
    pub async fn give_back(&self, returns: GiveBack, now: Now) -> Result<(), Error> {
        self.apply(now, |ledger, session| {
            let back = lease::GiveBack {
                key: returns.key,
                window: returns.window,
                returned_total: returns.returned_total,
            };
            ledger.give_back(session, &back)
        })
    }

    /// What the ledger says of itself.
    pub async fn show(&self, now: Now) -> Result<Shown, Error> {
        let bounds = self
            .node
            .as_ref()
            .map(|node| node.bounds)
            .unwrap_or_default();
        self.apply(now, |ledger, _| {
            Ok(Shown {
                now_ms: ledger.now_ms(),
                counters: ledger.counters(),
                limits: ledger.limits(),
                bounds,
            })
        })
    }

    /// Clears counters of past windows away, a bounded number a call.
    pub async fn tend(&self, now: Now) -> Result<(), Error> {
        self.apply(now, |ledger, _| {
            ledger.sweep(TENDED_MAX);
            Ok(())
        })
    }

    fn apply<T>(
        &self,
        now: Now,
        command: impl FnOnce(&mut Ledger, Session) -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        let node = self.node.as_ref().ok_or(Error::Unreachable)?;
        // A ledger that panicked half-way is not believed again.
        let mut ledger = node.ledger.lock().map_err(|_| Error::Unreachable)?;
        ledger.advance(self.ledger_ms(now));
        Ok(command(&mut ledger, node.session)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::limit::Window;
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    const START: Now = Now {
        unix_ms: 6_000_000,
        boot_ns: 5_000_000_000,
    };
    const LIMIT: Definition = Definition {
        identity: Identity(1),
        window: Window::Duration(60_000),
        max: 10,
    };
    const ASK: Ask = Ask {
        identity: Identity(1),
        key: CounterKey(2),
        window_hint: 100,
        want: 4,
        min: 1,
        seen_granted: 0,
        returned_total: 0,
        group: None,
    };

    /// The ledger in memory answers at once.
    fn now_or_never<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("the answer did not come at once"),
        }
    }

    fn later(ms: u64) -> Now {
        Now {
            unix_ms: 0,
            boot_ns: START.boot_ns + ms * 1_000_000,
        }
    }

    #[test]
    fn quota_is_leased_returned_and_shown() {
        let handle = Handle::single(Bounds::default(), START).unwrap();
        let asked = now_or_never(handle.lease(ASK, START));
        assert_eq!(asked, Err(Error::Refused(Refusal::Undefined)));
        now_or_never(handle.define(&[LIMIT], true, START)).unwrap();
        assert_eq!(now_or_never(handle.lease(ASK, START)).unwrap().remaining, 6);
        let returns = GiveBack {
            key: ASK.key,
            window: 100,
            returned_total: 3,
        };
        now_or_never(handle.give_back(returns, START)).unwrap();
        let shown = now_or_never(handle.show(START)).unwrap();
        assert_eq!(
            (shown.counters, shown.limits, shown.now_ms),
            (1, 1, 6_000_000)
        );
        now_or_never(handle.tend(later(60_000))).unwrap();
        assert_eq!(now_or_never(handle.show(START)).unwrap().counters, 0);
    }

    #[test]
    fn its_time_follows_the_boot_clock_and_ignores_steps_of_the_wall_clock() {
        let handle = Handle::disconnected(START);
        assert_eq!(handle.ledger_ms(later(1_500)), 6_001_500);
        assert_eq!(handle.boot_ns(6_001_500), later(1_500).boot_ns);
        assert_eq!(handle.boot_ns(0), START.boot_ns);
    }

    #[test]
    fn without_a_ledger_everything_is_unreachable() {
        let handle = Handle::disconnected(START);
        assert_eq!(
            now_or_never(handle.lease(ASK, START)),
            Err(Error::Unreachable)
        );
        assert_eq!(now_or_never(handle.show(START)), Err(Error::Unreachable));
    }
}
