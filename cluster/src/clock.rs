//! CORE. Whose clock is replicated time (limits.md §4).
//!
//! Within a term time is the leader's wall clock at its election plus what its boot clock has counted since; steps of the
//! wall clock are ignored. Voters tell each other their clocks, so that one that is off does not stand for election.

use proto::{command::NodeId, time::Now};
use std::collections::BTreeMap;

/// A candidate that is farther than this from the median of the voters' clocks yields, milliseconds.
pub const OFF_MS_MAX: u64 = 500;
/// Without a leader for this long, the voter nearest to replicated time stands, whatever its clock shows.
pub const YIELD_NS_MAX: u64 = 5_000_000_000;
/// Without a leader for this long, any voter stands: the nearest one may lack entries.
pub const YIELD_NS_LAST: u64 = 3 * YIELD_NS_MAX;
/// A clock that was read longer ago counts as unreachable.
pub const HEARD_NS_MAX: u64 = 3_000_000_000;
/// A wall clock this far behind replicated time at the start is not believed, milliseconds.
pub const BEHIND_MS_MAX: u64 = 3_600_000;
/// A wall clock this far ahead of replicated time at the start is not believed, milliseconds.
pub const AHEAD_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// A stamp is never farther ahead of the last one plus what the boot clock has counted since, milliseconds.
pub const LEAP_MS_MAX: u64 = 3_600_000;

/// Why this node's clock is not believed. `tollgate cluster accept-clock` is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Replicated time was ahead of the wall clock when the node started.
    #[error("the wall clock is {by_ms} ms behind the cluster's time")]
    Behind {
        /// By how much.
        by_ms: u64,
    },
    /// The wall clock has leapt ahead of replicated time.
    #[error("the wall clock is {by_ms} ms ahead of the cluster's time")]
    Ahead {
        /// By how much.
        by_ms: u64,
    },
}

/// A voter's clocks and what it knows of the others'.
#[derive(Clone, Debug)]
pub struct Clock {
    me: NodeId,
    /// At this node's election.
    base: Option<Now>,
    /// What other voters' wall clocks show.
    others: BTreeMap<NodeId, Reading>,
    /// Replicated time, and the boot clock when it was heard; `None`: there has been none.
    heard: Option<Heard>,
    problem: Option<Problem>,
}

/// A wall clock read over the network, by half the round trip.
#[derive(Clone, Copy, Debug)]
struct Reading {
    unix_ms: u64,
    /// This node's boot clock at that moment.
    boot_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    now_ms: u64,
    boot_ns: u64,
}

impl Clock {
    /// At a node's start; `now_ms`: replicated time as the disk knows it, 0: it knows none.
    pub fn new(me: NodeId, now_ms: u64, now: Now) -> Self {
        let behind_ms = now_ms.saturating_sub(now.unix_ms);
        let ahead_ms = now.unix_ms.saturating_sub(now_ms);
        let problem = match now_ms {
            0 => None,
            _ if behind_ms > BEHIND_MS_MAX => Some(Problem::Behind { by_ms: behind_ms }),
            _ if ahead_ms > AHEAD_MS_MAX => Some(Problem::Ahead { by_ms: ahead_ms }),
            _ => None,
        };
        Self {
            me,
            base: None,
            others: BTreeMap::new(),
            // How long the node was off is not known: the next stamp may be as far ahead as the wall clock was found.
            heard: None,
            problem,
        }
    }

    /// This node was elected.
    pub fn elected(&mut self, now: Now) {
        self.base = Some(now);
    }

    /// This node does not lead any more.
    pub fn deposed(&mut self) {
        self.base = None;
    }

    /// A batch stamped `now_ms` was applied.
    pub fn applied(&mut self, now_ms: u64, now: Now) {
        self.heard = Some(Heard {
            now_ms,
            boot_ns: now.boot_ns,
        });
        if self.problem.is_some() && now_ms.abs_diff(now.unix_ms) < BEHIND_MS_MAX {
            self.problem = None;
        }
    }

    /// The operator says that this node's clock is right: replicated time is `now_ms` from here on.
    pub fn accepted(&mut self, now_ms: u64, now: Now) {
        self.problem = None;
        if self.base.is_some() {
            self.base = Some(Now {
                unix_ms: now_ms,
                ..now
            });
        }
        self.heard = Some(Heard {
            now_ms,
            boot_ns: now.boot_ns,
        });
    }

    /// The stamp of the leader's next batch. `now_ms`: replicated time as applied.
    pub fn stamp(&mut self, now_ms: u64, now: Now) -> Result<u64, Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let base = self.base.unwrap_or(now);
        let stamp = base.unix_ms.saturating_add(since_ms(base.boot_ns, now));
        if let Some(heard) = self.heard {
            let latest = heard
                .now_ms
                .saturating_add(since_ms(heard.boot_ns, now))
                .saturating_add(LEAP_MS_MAX);
            if heard.now_ms > 0 && stamp > latest {
                let by_ms = stamp - (latest - LEAP_MS_MAX);
                let problem = Problem::Ahead { by_ms };
                self.problem = Some(problem);
                return Err(problem);
            }
        }
        Ok(stamp.max(now_ms))
    }

    /// Why the clock is not believed, if it is not.
    pub fn problem(&self) -> Option<Problem> {
        self.problem
    }

    /// A voter's wall clock came back, as an answer to a question that was sent at `asked_ns`.
    pub fn heard(&mut self, node: NodeId, asked_ns: u64, unix_ms: u64, now: Now) {
        let Some(round_trip_ns) = now.boot_ns.checked_sub(asked_ns) else {
            return;
        };
        if node == self.me || round_trip_ns > HEARD_NS_MAX {
            return;
        }
        let boot_ns = asked_ns + round_trip_ns / 2;
        self.others.insert(node, Reading { unix_ms, boot_ns });
    }

    /// Only these vote.
    pub fn retain(&mut self, is_voter: impl Fn(NodeId) -> bool) {
        self.others.retain(|node, _| is_voter(*node));
    }

    /// A voter's wall clock less this node's, milliseconds, if it was heard lately.
    pub fn offset_ms(&self, node: NodeId, now: Now) -> Option<i64> {
        let reading = self.others.get(&node)?;
        let shows = reading.shows_ms(now)?;
        Some(shows.saturating_sub_unsigned(now.unix_ms))
    }

    /// Whether a voter's clock was heard lately and is near replicated time. `now_ms`: replicated time as applied.
    pub fn is_trusted(&self, node: NodeId, now_ms: u64, now: Now) -> bool {
        let shows = self
            .others
            .get(&node)
            .and_then(|reading| reading.shows_ms(now));
        let estimate = self.estimate_ms(now_ms, now);
        shows.is_some_and(|shows| shows.abs_diff(estimate) < LEAP_MS_MAX)
    }

    /// Replicated time as far as the boot clock tells.
    fn estimate_ms(&self, now_ms: u64, now: Now) -> i64 {
        to_i64(match self.heard {
            Some(heard) => heard.now_ms.saturating_add(since_ms(heard.boot_ns, now)),
            None => now_ms,
        })
    }

    /// This node's wall clock less the median of the reachable voters' (its own among them), milliseconds.
    pub fn off_ms(&self, now: Now) -> i64 {
        let mut shown: Vec<i64> = self
            .others
            .values()
            .filter_map(|r| r.shows_ms(now))
            .collect();
        shown.push(to_i64(now.unix_ms));
        shown.sort_unstable();
        let (low, high) = (shown[(shown.len() - 1) / 2], shown[shown.len() / 2]);
        let median = low.saturating_add((high.saturating_sub(low)) / 2);
        to_i64(now.unix_ms).saturating_sub(median)
    }

    /// Whether this node may stand for election. `leaderless_ns`: for how long nobody has led; `now_ms`: replicated time.
    pub fn may_stand(&self, leaderless_ns: u64, now_ms: u64, now: Now) -> bool {
        if self.off_ms(now).unsigned_abs() <= OFF_MS_MAX || leaderless_ns >= YIELD_NS_LAST {
            return true;
        }
        if leaderless_ns < YIELD_NS_MAX {
            return false;
        }
        let estimate = self.estimate_ms(now_ms, now);
        let own = (to_i64(now.unix_ms).abs_diff(estimate), self.me);
        self.others
            .iter()
            .filter_map(|(node, reading)| Some((reading.shows_ms(now)?, *node)))
            .all(|(shows, node)| own < (shows.abs_diff(estimate), node))
    }
}

impl Reading {
    /// What that clock shows now, if it was read lately.
    fn shows_ms(&self, now: Now) -> Option<i64> {
        let age_ns = now.boot_ns.saturating_sub(self.boot_ns);
        (age_ns <= HEARD_NS_MAX).then(|| to_i64(self.unix_ms.saturating_add(age_ns / 1_000_000)))
    }
}

fn since_ms(boot_ns: u64, now: Now) -> u64 {
    now.boot_ns.saturating_sub(boot_ns) / 1_000_000
}

fn to_i64(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const DAY: u64 = 24 * 3_600_000;
    const T: u64 = 1_800_000_000_000;

    fn at(unix_ms: u64, boot_ms: u64) -> Now {
        Now {
            unix_ms,
            boot_ns: boot_ms * 1_000_000,
        }
    }

    #[test]
    fn within_a_term_steps_of_the_wall_clock_are_ignored_and_time_never_goes_back() {
        let mut clock = Clock::new(ME, T, at(T + 5, 100));
        clock.elected(at(T + 10, 200));
        assert_eq!(clock.stamp(T, at(T + 9 * DAY, 1_200)), Ok(T + 1_010));
        assert_eq!(clock.stamp(T, at(0, 2_200)), Ok(T + 2_010));
        assert_eq!(clock.stamp(T + 5_000, at(T, 3_200)), Ok(T + 5_000));
    }

    #[test]
    fn a_clock_that_is_far_off_at_the_start_waits_for_the_operator() {
        for (wall, is_believed) in [
            (T - BEHIND_MS_MAX, true),
            (T - BEHIND_MS_MAX - 1, false),
            (T + AHEAD_MS_MAX, true),
            (T + AHEAD_MS_MAX + 1, false),
        ] {
            let mut clock = Clock::new(ME, T, at(wall, 0));
            clock.elected(at(wall, 0));
            assert_eq!(clock.stamp(T, at(wall, 0)).is_ok(), is_believed, "{wall}");
            clock.accepted(wall, at(wall, 1_000));
            assert_eq!(clock.stamp(wall, at(wall, 2_000)), Ok(wall + 1_000));
        }
        assert_eq!(Clock::new(ME, 0, at(T, 0)).problem(), None);
    }

    #[test]
    fn a_running_leader_does_not_leap_more_than_an_hour() {
        let mut clock = Clock::new(ME, T, at(T, 0));
        clock.applied(T, at(T, 0));
        clock.elected(at(T + 2 * LEAP_MS_MAX, 1_000));
        let wall = at(T + 2 * LEAP_MS_MAX, 1_000);
        assert!(matches!(clock.stamp(T, wall), Err(Problem::Ahead { .. })));
        assert!(clock.problem().is_some());
        // Somebody else's time is near: the problem is over.
        clock.applied(T + 2 * LEAP_MS_MAX, wall);
        assert_eq!(clock.problem(), None);
    }

    #[test]
    fn a_candidate_that_is_off_the_median_yields_for_a_while() {
        let hear = |walls: &[u64], now: Now| {
            let mut clock = Clock::new(ME, T, now);
            clock.applied(T, now);
            for (other, wall) in walls.iter().enumerate() {
                let asked_ns = now.boot_ns - 10_000_000;
                clock.heard(NodeId(other as u64 + 2), asked_ns, wall - 5, now);
            }
            clock
        };
        let now = at(T, 1_000);
        let may = |walls: &[u64], leaderless_ns| hear(walls, now).may_stand(leaderless_ns, T, now);
        assert!(may(&[], 0));
        assert!(may(&[T + 400, T + 450], 0));
        assert!(may(&[T + 1_000], 0), "half a second from the middle of two");
        assert!(!may(&[T + 1_100], 0));
        assert!(!may(&[T + 700, T + 800], 0));
        assert!(may(&[T + 700, T - 800], 0));
        assert!(
            may(&[T + 700, T + 800], YIELD_NS_MAX),
            "nearest to replicated time"
        );
        let far = at(T + 5_000, 1_000);
        assert!(!hear(&[T, T], far).may_stand(YIELD_NS_MAX, T, far));
        assert!(hear(&[T, T], far).may_stand(YIELD_NS_LAST, T, far));
        assert_eq!(hear(&[T + 20], now).offset_ms(NodeId(2), now), Some(20));
        let later = at(T + 10_000, 11_000);
        assert_eq!(hear(&[T + 20], now).offset_ms(NodeId(2), later), None);
    }
}
