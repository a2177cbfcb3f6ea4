//! The ledger's time, as a node can tell without asking.

use crate::wire::At;
use proto::time::Now;

/// An estimate this far above what an answer says was made before the replicated clock was set back.
const BACK_NS: i128 = 30_000_000_000;

/// Replicated time by this node's boot clock.
///
/// An answer carries the time at which its command was proposed, so the ledger's time is at least that when the answer
/// is heard. Within a term replicated time runs as fast as a boot clock: the highest such estimate is the nearest one.
/// A new term may have another clock. Before the first answer the wall clock at the start serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerClock {
    /// Replicated time less the boot clock, nanoseconds.
    offset_ns: i128,
    /// Of the answer that the estimate comes from; `None`: from none yet.
    term: Option<u64>,
}

impl LedgerClock {
    /// Nothing was heard yet.
    pub fn new(now: Now) -> Self {
        Self {
            offset_ns: offset_ns(now.unix_ms, now),
            term: None,
        }
    }

    /// An answer that went through the log was heard.
    pub fn hear(&mut self, at: At, now: Now) {
        if self.term.is_some_and(|term| at.term < term) {
            return;
        }
        let heard_ns = offset_ns(at.now_ms, now);
        let is_newer = self.term != Some(at.term);
        if is_newer || heard_ns > self.offset_ns || self.offset_ns - heard_ns > BACK_NS {
            self.offset_ns = heard_ns;
            self.term = Some(at.term);
        }
    }

    /// The ledger's time, milliseconds since 1970.
    pub fn ledger_ms(&self, now: Now) -> u64 {
        let ns = i128::from(now.boot_ns) + self.offset_ns;
        u64::try_from((ns / 1_000_000).max(0)).unwrap_or(u64::MAX)
    }

    /// When the boot clock will show a moment of the ledger's time, nanoseconds; 0: before the boot.
    pub fn boot_ns(&self, ledger_ms: u64) -> u64 {
        let ns = i128::from(ledger_ms) * 1_000_000 - self.offset_ns;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

fn offset_ns(ledger_ms: u64, now: Now) -> i128 {
    i128::from(ledger_ms) * 1_000_000 - i128::from(now.boot_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now {
        unix_ms: 6_000_000,
        boot_ns: 5_000_000_000,
    };

    fn later(ms: u64) -> Now {
        Now {
            unix_ms: 0,
            boot_ns: START.boot_ns + ms * 1_000_000,
        }
    }

    #[test]
    fn it_follows_the_boot_clock_and_ignores_steps_of_the_wall_clock() {
        let clock = LedgerClock::new(START);
        assert_eq!(clock.ledger_ms(later(1_500)), 6_001_500);
        assert_eq!(clock.boot_ns(6_001_500), later(1_500).boot_ns);
        assert_eq!(clock.boot_ns(0), 0);
    }

    #[test]
    fn the_quickest_answer_of_a_term_counts_and_a_new_term_starts_anew() {
        let mut clock = LedgerClock::new(START);
        let at = |now_ms, term| At { now_ms, term };
        clock.hear(at(1_000_000, 3), later(0));
        assert_eq!(clock.ledger_ms(later(0)), 1_000_000);
        clock.hear(at(1_000_100, 3), later(150));
        assert_eq!(clock.ledger_ms(later(150)), 1_000_150, "a slow answer");
        clock.hear(at(1_000_200, 3), later(190));
        assert_eq!(clock.ledger_ms(later(190)), 1_000_200, "a quicker one");
        clock.hear(at(999_000, 4), later(200));
        assert_eq!(clock.ledger_ms(later(200)), 999_000, "another leader");
        clock.hear(at(1_000_300, 3), later(200));
        assert_eq!(clock.ledger_ms(later(200)), 999_000, "the former one");
        clock.hear(at(900_000, 4), later(201));
        assert_eq!(clock.ledger_ms(later(201)), 900_000, "set back");
    }
}
