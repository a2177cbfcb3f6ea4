//! The audit trail: bounded queues before the sinks, back-pressure instead of loss.

use proto::audit::Record;
use std::net::IpAddr;

/// The handle that the gateway holds.
#[derive(Clone, Debug)]
pub struct Audit {}

/// A place in the queue, taken before a call is forwarded, so that its line cannot be lost.
#[derive(Debug)]
pub struct Slot {}

/// No place came free within `audit_wait`, or the sink refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Audit {
    /// Takes a place; waits at most `audit_wait`.
    pub async fn slot(&self, _wait: std::time::Duration) -> Result<Slot, Refused> {
        todo!()
    }
    /// Records a rejection before a grant was known: never waits, 10 lines a second a reason, the rest are counted.
    pub fn rejected(&self, _reason: &'static str, _source: IpAddr, _path: &str, _status: u16) {
        todo!()
    }
    /// Whether calls can be recorded now (`/readyz`).
    pub fn ready(&self) -> bool {
        todo!()
    }
    /// Writes out everything that is queued and syncs; used at shutdown.
    pub async fn close(&self) {
        todo!()
    }
}

impl Slot {
    /// Queues the record. Never waits, never fails.
    pub fn write(self, _record: Record) {
        todo!()
    }
}
