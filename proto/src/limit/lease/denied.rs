//! Refusals that were heard, so that a used-up limit is not asked for again with every call.

use super::{Denial, MS};

/// A refusal is believed this long at first, then twice as long each time, up to this or a tenth of the window.
const BELIEVED_NS: (u64, u64) = (250 * MS, 5_000 * MS);

/// A refusal that was heard. It is dropped with a newer generation, term, session, window or definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    /// The smallest amount that was refused.
    from: u64,
    /// Units that were left.
    pub(super) remaining: u64,
    /// The counter's generation then.
    pub(super) generation: u64,
    /// Until when nobody asks again, boot clock nanoseconds, and how long that is.
    until_ns: u64,
    believed_ns: u64,
}

impl Denied {
    /// Remembers that this amount was refused. While refusals follow each other they are believed longer and longer.
    pub(super) fn hear(
        former: Option<Self>,
        (amount, remaining, generation): (u64, u64, u64),
        window_ns: u64,
        (now_ns, dice): (u64, u64),
    ) -> Self {
        let longest = BELIEVED_NS.1.min((window_ns / 10).max(MS));
        let believed_ns = former
            .map_or(BELIEVED_NS.0, |former| former.believed_ns.saturating_mul(2))
            .min(longest);
        // A quarter of it by chance: nodes that were refused together do not come back together.
        let jitter = dice.checked_rem(believed_ns / 4).unwrap_or(0);
        Self {
            from: former.map_or(amount, |former| former.from.min(amount)),
            remaining,
            generation,
            until_ns: now_ns.saturating_add(believed_ns - jitter),
            believed_ns,
        }
    }

    /// Whether this amount was refused, or more than was.
    pub(super) fn covers(&self, amount: u64) -> bool {
        amount >= self.from
    }

    /// Until when nobody asks again.
    pub(super) fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// Whether nobody asks again yet.
    pub(super) fn is_believed(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// What a refused call is told.
    pub(super) fn denial(&self, end_ms: u64) -> Denial {
        Denial::Limit {
            remaining: self.remaining,
            end_ms,
        }
    }
}
