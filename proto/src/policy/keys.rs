//! What is kept of a grant between its calls.

use super::Policy;
use crate::limit::{CounterKey, Limit, identity::counter_key};
use std::sync::{Arc, OnceLock};

/// The keys of the counters that one grant has under one policy, hashed when it first calls and kept with the two.
#[derive(Debug, Default)]
pub struct Keys(OnceLock<Box<[CounterKey]>>);

/// A copy may go to another grant: it begins empty.
impl Clone for Keys {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Keys {
    /// That of a limit per grant without a `key`, by its place among the policy's limits.
    pub(super) fn of(&self, policy: &Policy, grant: &str, limit: usize) -> Option<CounterKey> {
        let hashed = |limit: &Arc<Limit>| counter_key(&policy.secret, limit.identity, grant, None);
        let keys = self
            .0
            .get_or_init(|| policy.limits.iter().map(hashed).collect());
        keys.get(limit).copied()
    }
}
