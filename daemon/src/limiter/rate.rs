//! A counter of amounts in windows: its bucket, its holder, and the calls that wait for it.

use super::lock;
use cluster::handle::Handle;
use proto::{
    limit::{
        Charge, HashKey, Kind, Limit, Settled, Window,
        bucket::{Bucket, Ticket},
        identity::counter_key,
        lease::{Call, Denial, Holder, Subject},
        ledger::{Definition, Group},
    },
    time::Now,
};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Units admitted while the ledger could not be reached.
#[derive(Debug)]
pub(super) struct Outage {
    pub window: u64,
    pub amount: u64,
    end_ns: u64,
}

/// What a waiting call is told.
pub(super) type Told = Result<Ticket, Denial>;

/// A counter of amounts in windows.
#[derive(Debug)]
pub(super) struct Rate {
    pub bucket: Bucket,
    inner: Mutex<Inner>,
}

/// Everything but the bucket; short sections without a wait.
#[derive(Debug)]
pub(super) struct Inner {
    pub holder: Holder,
    /// Calls that wait, and how they are told.
    pub calls: Vec<(Call, oneshot::Sender<Told>)>,
    /// Admitted without the ledger, and in which window (`on_unreachable: allow`).
    outage: u64,
    outage_window: u64,
}

impl Rate {
    pub(super) fn new(bucket: Bucket, holder: Holder) -> Self {
        Self {
            bucket,
            inner: Mutex::new(Inner {
                holder,
                calls: Vec::new(),
                outage: 0,
                outage_window: 0,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Gives back what was admitted without the ledger, inside its window.
    pub(super) fn refund_outage(&self, outage: Outage, now: Now) -> Settled {
        let mut inner = self.lock();
        if inner.outage_window != outage.window || now.boot_ns >= outage.end_ns {
            return Settled::Charged;
        }
        inner.outage = inner.outage.saturating_sub(outage.amount);
        Settled::Refunded
    }

    /// Admits without the ledger, at most `max` in a window.
    pub(super) fn take_outage(
        &self,
        amount: u64,
        max: u64,
        handle: &Handle,
        now: Now,
    ) -> Option<Outage> {
        let mut inner = self.lock();
        let length = inner.holder.subject().window;
        let window = length.id(handle.ledger_ms(now));
        if inner.outage_window != window {
            (inner.outage_window, inner.outage) = (window, 0);
        }
        inner.outage = inner.outage.checked_add(amount).filter(|sum| *sum <= max)?;
        Some(Outage {
            window,
            end_ns: handle.boot_ns(length.bounds_ms(window).1),
            amount,
        })
    }
}

impl Inner {
    /// Whether units were admitted without the ledger in the window that runs now.
    pub(super) fn is_out(&self, at_ms: u64) -> bool {
        self.outage > 0 && self.holder.subject().window.id(at_ms) == self.outage_window
    }
}

/// What a charge's holder is about.
pub(super) fn subject(charge: &Charge<'_>, window: Window) -> Subject {
    Subject {
        identity: charge.limit.identity,
        key: charge.key,
        window,
        group: charge.keys_max.map(|keys_max| Group {
            // The identity is secret and the same on every node, so it can key the hash of the group.
            key: counter_key(
                &HashKey(charge.limit.identity.0.to_le_bytes()),
                charge.limit.identity,
                charge.scope_value,
                None,
            ),
            keys_max,
        }),
    }
}

/// What the ledger must know of a limit; `None` for one that it does not count.
pub(super) fn definition(limit: &Limit) -> Option<Definition> {
    let Kind::Rate(window) = limit.kind else {
        return None;
    };
    Some(Definition {
        identity: limit.identity,
        window,
        max: if limit.counts_only {
            u64::MAX
        } else {
            limit.max
        },
    })
}
