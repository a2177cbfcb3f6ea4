//! The one place where the admin plane reads counters.

use crate::limiter::Limiter;
use proto::admin::{Limits, LimitsQuery};

/// The counters of this node that the query asks for.
pub(super) fn shown(_limiter: &Limiter, _query: &LimitsQuery, _unix_ms: u64) -> Limits {
    Limits {
        counters: Vec::new(),
        total: 0,
    }
}
