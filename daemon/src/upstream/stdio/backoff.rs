//! When a command that keeps dying may be started again. No clock: time comes in.

use std::time::{Duration, Instant};

/// A process that ends by itself within this time of its start counts as a failed start.
pub const QUICK: Duration = Duration::from_secs(5);
/// The pause after the first failed start; it doubles with each further one.
pub const FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(30);

/// How one run of the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It could not be started, or ended by itself.
    Failed,
    /// Tollgate ended it; `answered` says whether it had answered anything.
    Ended {
        /// Whether at least one reply came from it.
        answered: bool,
    },
}

/// The memory of one server's failed starts.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    last_failure: Option<Instant>,
    not_before: Option<Instant>,
}

impl Backoff {
    /// How long the next start must still wait; `None` = start now.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.not_before
            .map(|at| at.saturating_duration_since(now))
            .filter(|left| !left.is_zero())
    }

    /// Failed starts in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes note of a run. Processes that were already running when the last failure was noted count as that same
    /// failure, so that a crash of many at once is one step and not the longest pause.
    pub fn note(&mut self, run: Run, started: Instant, now: Instant) {
        let quick = now.saturating_duration_since(started) < QUICK;
        match run {
            Run::Failed if quick => {
                if self.last_failure.is_some_and(|last| started < last) {
                    return;
                }
                let pause = FIRST
                    .saturating_mul(1 << self.failures.min(10))
                    .min(LONGEST);
                self.failures = self.failures.saturating_add(1);
                self.last_failure = Some(now);
                self.not_before = Some(now + pause);
            }
            Run::Ended { answered: false } if quick => {}
            _ => *self = Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_from_half_a_second_to_thirty() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(backoff.pause(now), None);
            backoff.note(Run::Failed, now, now + 10 * MS);
            now += 10 * MS;
            let pause = backoff.pause(now).unwrap();
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(
            pauses,
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
    }

    #[test]
    fn many_that_die_together_are_one_failure() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        for n in 0..8 {
            backoff.note(Run::Failed, start, start + (100 + n) * MS);
        }
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn a_long_run_or_an_answer_forgives() {
        let start = Instant::now();
        for (run, lived_ms, failures) in [
            (Run::Failed, 6_000, 0),
            (Run::Ended { answered: true }, 10, 0),
            (Run::Ended { answered: false }, 6_000, 0),
            (Run::Ended { answered: false }, 10, 1),
            (Run::Failed, 10, 2),
        ] {
            let mut backoff = Backoff::default();
            backoff.note(Run::Failed, start, start);
            let started = start + 1_000 * MS;
            backoff.note(run, started, started + lived_ms * MS);
            assert_eq!(backoff.failures(), failures, "{run:?} after {lived_ms} ms");
        }
    }
}
