//! The one place that reads clocks and dice for the gateway.

use proto::{id::RequestId, time::Now};
use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

/// Reads both clocks.
pub fn now() -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let boot_ns = boot_ns();
    Now { unix_ms, boot_ns }
}

/// Fills with random bytes from the system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("invariant: the system's random generator answers");
    bytes
}

/// Reads the boot clock alone, nanoseconds.
pub fn boot_ns() -> u64 {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64
}

/// Request ids that are drawn at a time: a call of the generator costs more than a hundred ids.
const DRAWN: usize = 128;

thread_local! {
    static IDS: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// A fresh request id.
pub fn request_id() -> RequestId {
    IDS.with_borrow_mut(|ids| {
        if ids.is_empty() {
            let bytes = random::<{ DRAWN * 16 }>();
            ids.extend(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|id| u128::from_le_bytes(*id)),
            );
        }
        RequestId(ids.pop().expect("invariant: some were drawn just now"))
    })
}
