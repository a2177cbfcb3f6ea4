//! The audit trail: bounded queues before the sinks, back-pressure instead of loss.

use proto::audit::Record;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// What the audit trail is written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where lines go.
    pub sink: Sink,
    /// Places in the queue before the sink, at least 1: so many calls may be between admission and the written line.
    pub queue: usize,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq)]
pub enum Sink {
    /// A file, made with mode 0600, appended to and rotated.
    File(FileSettings),
    /// Standard output, one line a record.
    Stdout,
    /// RFC 5424 messages, facility 13 (log audit), severity informational.
    Syslog(SyslogTarget),
}

/// The file sink.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSettings {
    /// The open file; closed ones stand beside it as `<path>.<time>`. Its directory must exist.
    pub path: PathBuf,
    /// The file is closed before a line would make it longer than this, bytes.
    pub rotate_bytes: u64,
    /// The file is closed when it is this old.
    pub rotate_age: Option<Duration>,
    /// Closed files that are kept; older ones are removed (never under `retain_required`).
    pub keep: usize,
    /// Bytes of the file system that are left free by removing the oldest closed files; 0: never looked at.
    pub min_free: u64,
    /// Nothing is ever removed: below `min_free` calls are refused until there is space again.
    pub retain_required: bool,
}

/// Where syslog listens. Datagrams may be lost beyond this machine and nothing is encrypted, so only loopback
/// addresses are taken: a local relay forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// A datagram socket such as `/dev/log`.
    Unix(PathBuf),
    /// One message a datagram.
    Udp(SocketAddr),
    /// Octet-counted messages (RFC 6587).
    Tcp(SocketAddr),
}

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
    /// Opens the sink and starts its writer.
    pub fn start(_settings: Settings) -> anyhow::Result<Self> {
        todo!()
    }
    /// Takes a place; waits at most `audit_wait`.
    pub async fn slot(&self, _wait: Duration) -> Result<Slot, Refused> {
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
    /// Places of the queue that are taken.
    pub fn queued(&self) -> usize {
        todo!()
    }
    /// Calls refused so far.
    pub fn refused(&self) -> u64 {
        todo!()
    }
    /// Rejections counted instead of written so far.
    pub fn suppressed(&self) -> u64 {
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
