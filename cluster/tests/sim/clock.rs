//! What a host's clocks show at a moment of true time.

use proto::time::Now;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
const BILLION: i64 = 1_000_000_000;

/// A host's clocks. The boot clock drifts a little and restarts with the machine; the wall clock may show anything.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Boot clock at true time 0, nanoseconds; negative once the machine was started later.
    base_ns: i64,
    /// Parts in a billion that the boot clock runs fast.
    drift_ppb: i64,
    /// Wall clock less true time, milliseconds.
    pub offset_ms: i64,
    /// True time 0, milliseconds since 1970.
    start_ms: u64,
}

impl Clock {
    pub fn new(start_ms: u64, base_ns: u64, drift_ppb: i64, offset_ms: i64) -> Self {
        Self {
            base_ns: base_ns as i64,
            drift_ppb,
            offset_ms,
            start_ms,
        }
    }

    /// Both clocks at a moment of true time.
    pub fn now(&self, true_ns: u64) -> Now {
        let boot_ns = self.base_ns + self.run_ns(true_ns);
        let unix_ms = self.start_ms + true_ns / MS;
        Now {
            unix_ms: unix_ms.saturating_add_signed(self.offset_ms),
            boot_ns: u64::try_from(boot_ns).unwrap_or(0),
        }
    }

    /// The moment of true time at which the boot clock shows this, rounded up; never before `true_ns`.
    pub fn true_ns(&self, boot_ns: u64, true_ns: u64) -> u64 {
        let Ok(boot_ns) = i64::try_from(boot_ns) else {
            return u64::MAX;
        };
        let run_ns = boot_ns.saturating_sub(self.base_ns).max(0);
        // In two parts, so that no product is too large.
        let rate = BILLION + self.drift_ppb;
        let (whole, rest) = (run_ns / rate, run_ns % rate);
        let at_ns = whole
            .saturating_mul(BILLION)
            .saturating_add(rest * BILLION / rate);
        (at_ns.saturating_add(1) as u64).max(true_ns)
    }

    /// The machine starts anew: the boot clock begins at a second.
    pub fn reboot(&mut self, true_ns: u64) {
        self.base_ns = SECOND as i64 - self.run_ns(true_ns);
    }

    /// A run lasts minutes: no product is too large.
    fn run_ns(&self, true_ns: u64) -> i64 {
        let true_ns = true_ns as i64;
        true_ns + true_ns * self.drift_ppb / BILLION
    }
}
