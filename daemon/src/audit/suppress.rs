//! Rejections before a grant is known cost anybody nothing to provoke: a few lines a second, the rest as a number.

use foldhash::fast::RandomState;
use proto::audit::Suppressed;
use std::collections::HashMap;

/// Lines a second for one reason.
pub(super) const LINES_A_SECOND: u64 = 10;
/// Counts that wait for the writer; beyond, a reason's seconds are added up.
const DUE_MAX: usize = 1_024;

/// Who gets a line.
#[derive(Debug, Default)]
pub(super) struct Suppressor {
    /// By reason: words of the code, so there are few.
    reasons: HashMap<&'static str, Second, RandomState>,
    due: Vec<Suppressed>,
    total: u64,
}

#[derive(Debug, Default)]
struct Second {
    unix_s: u64,
    lines: u64,
    suppressed: u64,
}

impl Suppressor {
    /// Whether this rejection gets a line of its own; if not, it is counted.
    pub(super) fn admit(&mut self, reason: &'static str, unix_s: u64) -> bool {
        let second = self.second(reason, unix_s);
        if second.lines < LINES_A_SECOND {
            second.lines += 1;
            return true;
        }
        second.suppressed += 1;
        self.total += 1;
        false
    }

    /// A rejection that was admitted found the queue full: it is counted instead.
    pub(super) fn dropped(&mut self, reason: &'static str, unix_s: u64) {
        self.second(reason, unix_s).suppressed += 1;
        self.total += 1;
    }

    /// The counts of all seconds but this one. `None`: of this one too.
    pub(super) fn take(&mut self, unix_s: Option<u64>) -> Vec<Suppressed> {
        let mut due = std::mem::take(&mut self.due);
        for (reason, second) in &mut self.reasons {
            if second.suppressed > 0 && unix_s != Some(second.unix_s) {
                due.push(second.finish(reason));
            }
        }
        due
    }

    /// Everything that was ever counted instead of written.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn second(&mut self, reason: &'static str, unix_s: u64) -> &mut Second {
        let second = self.reasons.entry(reason).or_default();
        if second.unix_s != unix_s {
            if second.suppressed > 0 {
                let count = second.finish(reason);
                let full = self.due.len() >= DUE_MAX;
                let mut same = self.due.iter_mut().rev().filter(|d| d.reason == reason);
                match same.next() {
                    Some(last) if full => last.count += count.count,
                    _ => self.due.push(count),
                }
            }
            *second = Second {
                unix_s,
                ..Second::default()
            };
        }
        second
    }
}

impl Second {
    fn finish(&mut self, reason: &'static str) -> Suppressed {
        Suppressed {
            unix_s: self.unix_s,
            reason,
            count: std::mem::take(&mut self.suppressed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(suppressor: &mut Suppressor, reason: &'static str, unix_s: u64, n: u64) -> u64 {
        (0..n).filter(|_| suppressor.admit(reason, unix_s)).count() as u64
    }

    #[test]
    fn ten_lines_a_second_a_reason_pass_and_the_rest_is_counted_exactly() {
        let mut s = Suppressor::default();
        assert_eq!(admitted(&mut s, "wrong_token", 7, 95), 10);
        assert_eq!(admitted(&mut s, "no_token", 7, 10), 10);
        assert_eq!(admitted(&mut s, "wrong_token", 8, 12), 10);
        s.dropped("no_token", 8);
        assert!(s.take(Some(8)).contains(&Suppressed {
            unix_s: 7,
            reason: "wrong_token",
            count: 85
        }));
        assert_eq!(s.take(Some(8)), [], "a second that is not over waits");
        let mut rest = s.take(None);
        rest.sort_by_key(|r| r.reason);
        assert_eq!(
            rest,
            [
                Suppressed {
                    unix_s: 8,
                    reason: "no_token",
                    count: 1
                },
                Suppressed {
                    unix_s: 8,
                    reason: "wrong_token",
                    count: 2
                }
            ]
        );
        assert_eq!(s.take(None), []);
        assert_eq!(s.total(), 88);
    }

    #[test]
    fn counts_that_nobody_takes_are_added_up_in_bounded_space() {
        let mut s = Suppressor::default();
        for second in 0..5_000 {
            admitted(&mut s, "wrong_token", second, 11);
        }
        let due = s.take(None);
        assert!(due.len() <= DUE_MAX + 1);
        assert_eq!(due.iter().map(|d| d.count).sum::<u64>(), 5_000);
    }
}
