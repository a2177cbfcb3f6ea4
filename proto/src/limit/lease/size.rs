//! How much to ask for: what a hold's demand was, so that a crash loses little.

use super::MS;
use crate::limit::amount::UNITS_MAX;

/// A first lease is this many times the call's amount.
const FIRST: u64 = 4;
/// A lease that is used up sooner than this was too small: the next one is twice as large.
const SHORT_NS: u64 = 200 * MS;
/// For how long a lease should last: half of the time that the key has been in use.
const HOLD_NS: (u64, u64) = (200 * MS, 5_000 * MS);
/// Memory of the measured rate.
const MEMORY_NS: u64 = 1_000 * MS;
const SECOND_NS: u64 = 1_000 * MS;

/// The demand for one counter on this node.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    /// The last size; 0 before the first and after a rest.
    size: u64,
    /// Units a second.
    rate: u64,
    /// When it was last sized, and what was spent by then.
    sized_ns: u64,
    sized_spent: u128,
    /// Since when the key has been in use.
    since_ns: u64,
    /// The last figure seen, and when it was first seen.
    spent: u128,
    changed_ns: u64,
}

impl Demand {
    /// Notes what is spent by now; a change says that the key is in use.
    pub(super) fn observe(&mut self, spent: u128, now_ns: u64) {
        if spent != self.spent {
            (self.spent, self.changed_ns) = (spent, now_ns);
        }
    }

    /// A call came.
    pub(super) fn touch(&mut self, now_ns: u64) {
        self.changed_ns = now_ns;
    }

    /// When the key was last seen in use.
    pub(super) fn changed_ns(&self) -> u64 {
        self.changed_ns
    }

    /// When the last lease was sized.
    pub(super) fn sized_ns(&self) -> u64 {
        self.sized_ns
    }

    /// Whether anything was spent since the last lease.
    pub(super) fn is_used(&self) -> bool {
        self.spent > self.sized_spent
    }

    /// A new window: totals start at zero, habits stay.
    pub(super) fn roll(&mut self) {
        (self.spent, self.sized_spent) = (0, 0);
    }

    /// Nobody uses it any more: the next lease is a first one.
    pub(super) fn rest(&mut self) {
        self.size = 0;
        self.rate = 0;
    }

    /// Others need it more: grow again from half.
    pub(super) fn shrink(&mut self) {
        self.size /= 2;
        self.rate /= 2;
    }

    /// How many units to have in hand from now on, for calls of `amount`, with holds of at most `hold_ns`.
    pub(super) fn next(&mut self, amount: u64, hold_ns: u64, now_ns: u64) -> u64 {
        let passed_ns = now_ns.saturating_sub(self.sized_ns).max(1);
        let used = self.spent.saturating_sub(self.sized_spent);
        if self.size == 0 {
            self.since_ns = now_ns;
            self.size = amount.saturating_mul(FIRST);
        } else {
            self.measure(used, passed_ns);
            if passed_ns < SHORT_NS && used >= u128::from(self.size / 2) {
                self.size = self.size.saturating_mul(2);
            } else {
                let hold_ns = (now_ns.saturating_sub(self.since_ns) / 2)
                    .clamp(HOLD_NS.0, HOLD_NS.1)
                    .min(hold_ns.max(HOLD_NS.0));
                let units = u128::from(self.rate) * u128::from(hold_ns) / u128::from(SECOND_NS);
                self.size = u64::try_from(units).unwrap_or(UNITS_MAX);
            }
        }
        self.size = self.size.clamp(amount.max(1), UNITS_MAX.max(amount));
        (self.sized_ns, self.sized_spent) = (now_ns, self.spent);
        self.size
    }

    /// An average that forgets: the longer ago, the less it counts.
    fn measure(&mut self, used: u128, passed_ns: u64) {
        let sum = u128::from(self.rate)
            .saturating_mul(MEMORY_NS.into())
            .saturating_add(used.saturating_mul(SECOND_NS.into()));
        let rate = sum / (u128::from(MEMORY_NS) + u128::from(passed_ns));
        self.rate = u64::try_from(rate).unwrap_or(UNITS_MAX).min(UNITS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_used_up_at_once_doubles_and_then_follows_demand() {
        let mut demand = Demand::default();
        let (mut now, mut spent) = (0, 0u128);
        let mut size = demand.next(1, u64::MAX, now);
        assert_eq!(size, 4);
        // Ten seconds of 1,000 a second: never more than twice what the last hold used, and about a hold in the end.
        for _ in 0..10_000 {
            now += MS;
            spent += 1;
            demand.observe(spent, now);
            if spent - demand.sized_spent >= u128::from(size) {
                let before = size;
                size = demand.next(1, u64::MAX, now);
                assert!(u128::from(size) <= 2 * spent, "{size} after {spent}");
                assert!(size <= 2 * before.max(200), "{before} then {size}");
            }
        }
        assert!((2_000..=5_500).contains(&size), "{size}");
        demand.rest();
        assert_eq!(demand.next(7, u64::MAX, now), 28);
    }

    #[test]
    fn a_slow_key_asks_for_little_and_no_number_overflows() {
        let mut demand = Demand::default();
        let mut now = 0;
        demand.next(3, u64::MAX, now);
        for call in 1..10u128 {
            now += 20 * SECOND_NS;
            demand.observe(call * 3, now);
            let size = demand.next(3, u64::MAX, now);
            assert!(size <= 4, "{size}");
        }
        demand.observe(u128::MAX, now + 1);
        assert!(demand.next(u64::MAX, u64::MAX, now + 1) == u64::MAX);
        demand.observe(1, now + 2);
        assert!(demand.next(1, 0, now + 2) <= UNITS_MAX);
    }
}
