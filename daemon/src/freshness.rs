//! How old this node's knowledge of the cluster's control plane is, for the request path: one atomic load.
//!
//! A stamp says: at this moment of the boot clock, before the question was sent, what is in force here was the newest
//! there was. It is put here only once a view with all of that is in force, so that a view that is late ages too.

use proto::time::Now;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// See the module.
#[derive(Debug)]
pub struct Freshness {
    /// Boot clock of the newest confirmed question, nanoseconds; 0: never.
    asked_ns: AtomicU64,
    /// The last time that the ledger told, milliseconds since 1970.
    heard_ms: AtomicU64,
    max_ns: u64,
}

impl Freshness {
    /// Nothing is confirmed yet. `max`: grants from the log are refused when what is known is older.
    pub fn new(max: Duration) -> Self {
        Self {
            asked_ns: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            max_ns: u64::try_from(max.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// What is in force was the newest when the boot clock showed this; stamps only grow.
    pub fn confirm(&self, asked_ns: u64) {
        self.asked_ns.fetch_max(asked_ns, Ordering::Release);
    }

    /// The ledger's time was told.
    pub fn hear(&self, ledger_ms: u64) {
        self.heard_ms.store(ledger_ms, Ordering::Release);
    }

    /// Whether grants from the log may be served.
    pub fn is_fresh(&self, now: Now) -> bool {
        let asked_ns = self.asked_ns.load(Ordering::Acquire);
        asked_ns != 0 && now.boot_ns.saturating_sub(asked_ns) <= self.max_ns
    }

    /// Age of what is known; `None`: nothing was confirmed yet.
    pub fn age(&self, now: Now) -> Option<Duration> {
        let asked_ns = self.asked_ns.load(Ordering::Acquire);
        let age_ns = now.boot_ns.saturating_sub(asked_ns);
        (asked_ns != 0).then(|| Duration::from_nanos(age_ns))
    }

    /// How old it may be.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The time that expiry is compared with: a wall clock that is behind does not prolong a grant.
    pub fn expiry_ms(&self, now: Now) -> u64 {
        now.unix_ms.max(self.heard_ms.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_ms: u64) -> Now {
        Now {
            unix_ms: 1_000,
            boot_ns: boot_ms * 1_000_000,
        }
    }

    #[test]
    fn a_stamp_ages_on_the_boot_clock_and_only_a_newer_one_takes_its_place() {
        let fresh = Freshness::new(Duration::from_secs(5));
        assert!(!fresh.is_fresh(at(1)), "nothing was ever confirmed");
        fresh.confirm(at(10_000).boot_ns);
        assert!(fresh.is_fresh(at(15_000)) && !fresh.is_fresh(at(15_001)));
        fresh.confirm(at(9_000).boot_ns);
        assert_eq!(fresh.age(at(12_000)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn expiry_is_judged_by_the_later_of_the_wall_clock_and_what_the_ledger_told() {
        let fresh = Freshness::new(Duration::from_secs(5));
        assert_eq!(fresh.expiry_ms(at(0)), 1_000);
        fresh.hear(7_000);
        assert_eq!(fresh.expiry_ms(at(0)), 7_000);
        fresh.hear(500);
        assert_eq!(fresh.expiry_ms(at(0)), 1_000);
    }
}
