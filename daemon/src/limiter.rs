//! Between the gateway and the ledger: takes what a call is charged, and settles it once.

use proto::{
    limit::{Charge, Outcome, Settled},
    policy::{Code, compile::Usage},
    time::Now,
};
use smallvec::SmallVec;

/// All counters of this node.
pub struct Limiter {}

/// Why a call's charges could not be taken. Whatever was taken before has been given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the refusing charge in the list that was given.
    pub index: usize,
    /// `limit`, `unreachable` or (too many distinct keys) `rule`.
    pub code: Code,
    /// Units left.
    pub remaining: u64,
    /// When a retry may succeed; `None`: never (amount over max), or no hint (in flight).
    pub retry_after_ms: Option<u64>,
}

/// What a call holds. Dropped without [`Tickets::settle`] it stays charged (an ambiguous end); in-flight places are
/// freed either way.
#[derive(Debug, Default)]
pub struct Tickets {}

/// One line of the audit record's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The limit's identity hash.
    pub identity: u128,
    /// The window's id.
    pub window: u64,
    /// Units.
    pub amount: u64,
    /// What became of it.
    pub settled: Settled,
}

impl Limiter {
    /// What this node knows without asking.
    pub fn usage(&self) -> &dyn Usage {
        todo!()
    }
    /// Takes every charge or none. Waits at most once, bounded, and only where quota must be fetched.
    pub async fn reserve(&self, _charges: &[Charge<'_>], _now: Now) -> Result<Tickets, Refused> {
        todo!()
    }
}

impl Tickets {
    /// Settles every charge exactly once and says what became of each.
    pub fn settle(self, _outcome: Outcome, _now: Now) -> SmallVec<[Charged; 4]> {
        todo!()
    }
}
