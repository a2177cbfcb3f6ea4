//! When each counter is looked at next.

use super::{counter::Counter, lock};
use proto::limit::CounterKey;
use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::Ordering},
};
use tokio::sync::Notify;

/// Every active counter by when it is due, boot clock nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: Mutex<BTreeSet<(u64, CounterKey)>>,
    /// Something is due sooner than was thought.
    pub(super) woken: Notify,
}

impl Timers {
    /// Looks at a counter then, whatever was said before; `None`: not at all.
    pub(super) fn set(&self, counter: &Counter, due_ns: Option<u64>) {
        let due_ns = due_ns.unwrap_or(u64::MAX);
        let mut due = lock(&self.due);
        let former_ns = counter.due_ns.swap(due_ns, Ordering::AcqRel);
        if former_ns == due_ns {
            return;
        }
        due.remove(&(former_ns, counter.key));
        if due_ns == u64::MAX {
            return;
        }
        let sooner = due.first().is_none_or(|first| due_ns < first.0);
        due.insert((due_ns, counter.key));
        drop(due);
        if sooner {
            self.woken.notify_one();
        }
    }

    /// Looks at a counter then, if not sooner.
    pub(super) fn set_sooner(&self, counter: &Counter, due_ns: u64) {
        if due_ns < counter.due_ns.load(Ordering::Acquire) {
            self.set(counter, Some(due_ns));
        }
    }

    /// The next one that is due.
    pub(super) fn first(&self) -> Option<(u64, CounterKey)> {
        lock(&self.due).first().copied()
    }

    /// Takes one out whose counter is gone.
    pub(super) fn forget(&self, entry: (u64, CounterKey)) {
        lock(&self.due).remove(&entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.due).len()
    }
}
