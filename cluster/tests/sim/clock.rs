//! What a host's clocks show at a moment of true time.

use proto::time::Now;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;

/// A host's clocks. The boot clock drifts a little and restarts with the machine; the wall clock may show anything.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Boot clock at true time 0, nanoseconds; negative once the machine was started later.
    base_ns: i128,
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
            base_ns: base_ns.into(),
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
            boot_ns: u64::try_from(boot_ns.max(0)).unwrap_or(u64::MAX),
        }
    }

    /// The moment of true time at which the boot clock shows this, rounded up; never before `true_ns`.
    pub fn true_ns(&self, boot_ns: u64, true_ns: u64) -> u64 {
        let run_ns = (i128::from(boot_ns) - self.base_ns).max(0);
        let at_ns = run_ns * 1_000_000_000 / (1_000_000_000 + i128::from(self.drift_ppb)) + 1;
        u64::try_from(at_ns).unwrap_or(u64::MAX).max(true_ns)
    }

    /// The machine starts anew: the boot clock begins at a second.
    pub fn reboot(&mut self, true_ns: u64) {
        self.base_ns = i128::from(SECOND) - self.run_ns(true_ns);
    }

    fn run_ns(&self, true_ns: u64) -> i128 {
        let true_ns = i128::from(true_ns);
        true_ns + true_ns * i128::from(self.drift_ppb) / 1_000_000_000
    }
}
