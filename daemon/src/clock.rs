//! The one place that reads clocks and dice for the gateway.

use proto::{id::RequestId, time::Now};
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads both clocks.
pub fn now() -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Now {
        unix_ms,
        boot_ns: boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64,
    }
}

/// Fills with random bytes from the system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("invariant: the system's random generator answers");
    bytes
}

/// A fresh request id.
pub fn request_id() -> RequestId {
    RequestId(u128::from_le_bytes(random()))
}

/// Nanoseconds since a reading.
pub fn since(began: Now) -> u64 {
    now().boot_ns.saturating_sub(began.boot_ns)
}
