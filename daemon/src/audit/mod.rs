//! The audit trail: bounded queues before the sinks, back-pressure instead of loss.
//!
//! ```text
//! slot ──► Slot::write ──► queue ──┐
//! rejected ──► suppress ──► queue ─┴► writer (its own thread) ──► batch ──► sink: file | stdout | syslog
//! ```
//! A place in the queue is taken before a call is forwarded and freed when the writer takes the record. The writer
//! keeps a line until the sink has it; while the sink fails, calls are refused.

mod batch;
mod closed;
mod file;
mod sink;
mod suppress;
mod syslog;
mod writer;

use crate::clock;
use anyhow::Context as _;
use proto::audit::{Operation, Record, Rejection};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use suppress::Suppressor;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};
use writer::{CLOSE_WAIT, Command, Writer};

/// Rejections that wait for the writer; beyond, they are counted as suppressed.
const REJECTIONS: usize = 256;
/// Operations of operators that wait for the writer; beyond, operators wait.
const OPERATIONS: usize = 64;
/// Commands that wait for the writer.
const COMMANDS: usize = 4;

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

/// The handle that the gateway holds. The writer ends when it is closed or when every handle is gone.
#[derive(Clone, Debug)]
pub struct Audit {
    records: mpsc::Sender<Box<Record>>,
    rejections: mpsc::Sender<Rejection>,
    operations: mpsc::Sender<Operation>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// A place in the queue, taken before a call is forwarded, so that its line cannot be lost. Dropping it frees it.
#[derive(Debug)]
pub struct Slot(mpsc::OwnedPermit<Box<Record>>);

/// A place for the line of an operator's change, taken before it is tried. Dropping it frees it.
#[derive(Debug)]
pub struct OperationSlot(mpsc::OwnedPermit<Operation>);

/// No place came free within `audit_wait`, or the sink refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What handles and writer share.
#[derive(Debug)]
struct Shared {
    /// The sink takes lines and has room for more calls.
    ready: AtomicBool,
    refused: AtomicU64,
    /// Wakes the writer while it lets lines gather.
    hurry: Notify,
    suppressor: Mutex<Suppressor>,
}

impl Shared {
    /// Whether that is a change.
    fn set_ready(&self, ready: bool) -> bool {
        self.ready.swap(ready, Relaxed) != ready
    }
}

impl Audit {
    /// Opens the sink and starts its writer. Errors: the sink cannot be opened, or no thread be made.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        let out = sink::open(settings.sink, now_ms())?;
        Self::start_with(out, settings.queue, now_ms)
    }

    fn start_with(
        out: Box<dyn sink::Out>,
        queue: usize,
        now_ms: fn() -> u64,
    ) -> anyhow::Result<Self> {
        let (records, records_taken) = mpsc::channel::<Box<Record>>(queue.max(1));
        let (rejections, rejections_taken) = mpsc::channel(REJECTIONS);
        let (operations, operations_taken) = mpsc::channel(OPERATIONS);
        let (commands, commands_taken) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            ready: AtomicBool::new(true),
            refused: AtomicU64::new(0),
            hurry: Notify::new(),
            suppressor: Mutex::default(),
        });
        let writer = Writer {
            out,
            shared: shared.clone(),
            records: records_taken,
            rejections: rejections_taken,
            operations: operations_taken,
            commands: commands_taken,
            now_ms,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || runtime.block_on(writer.run()))
            .context("the audit writer's thread could not be started")?;
        Ok(Self {
            records,
            rejections,
            operations,
            commands,
            shared,
        })
    }

    /// Takes a place if there is one now.
    pub fn try_slot(&self) -> Option<Slot> {
        if !self.shared.ready.load(Relaxed) {
            return None;
        }
        let permit = self.records.clone().try_reserve_owned().ok()?;
        self.hurry_if_short();
        Some(Slot(permit))
    }

    /// The writer takes its time, so that it is woken for many lines at once; not where places are running out.
    fn hurry_if_short(&self) {
        if self.records.capacity() < self.records.max_capacity() / 4 {
            self.shared.hurry.notify_one();
        }
    }

    /// Takes a place; waits at most `wait` (the bound `audit_wait`).
    pub async fn slot(&self, wait: Duration) -> Result<Slot, Refused> {
        let slot = self.place(wait).await.map(Slot);
        if slot.is_none() {
            self.shared.refused.fetch_add(1, Relaxed);
        }
        slot.ok_or(Refused)
    }

    async fn place(&self, wait: Duration) -> Option<mpsc::OwnedPermit<Box<Record>>> {
        if !self.shared.ready.load(Relaxed) {
            return None;
        }
        match self.records.clone().try_reserve_owned() {
            Ok(permit) => Some(permit),
            Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(records)) => {
                self.shared.hurry.notify_one();
                timeout(wait, records.reserve_owned()).await.ok()?.ok()
            }
        }
    }

    /// Takes a place for the line of an operator's change; waits at most `wait`.
    pub async fn operation_slot(&self, wait: Duration) -> Result<OperationSlot, Refused> {
        if !self.shared.ready.load(Relaxed) {
            return Err(Refused);
        }
        let reserved = timeout(wait, self.operations.clone().reserve_owned()).await;
        Ok(OperationSlot(
            reserved.map_err(|_| Refused)?.map_err(|_| Refused)?,
        ))
    }

    /// Records a rejection before a grant was known: never waits, 10 lines a second a reason, the rest are counted.
    pub fn rejected(&self, reason: &'static str, source: IpAddr, path: &str, status: u16) {
        let unix_ms = now_ms();
        let suppressor = || {
            let locked = self.shared.suppressor.lock();
            locked.unwrap_or_else(PoisonError::into_inner)
        };
        if !suppressor().admit(reason, unix_ms / 1_000) {
            return;
        }
        let rejection = Rejection::new(unix_ms, reason, source, path, status);
        if self.rejections.try_send(rejection).is_err() {
            suppressor().dropped(reason, unix_ms / 1_000);
        }
    }

    /// Whether calls can be recorded now (`/readyz`): the sink takes lines and a place is free.
    pub fn ready(&self) -> bool {
        self.shared.ready.load(Relaxed) && self.records.capacity() > 0
    }

    /// Places of the queue that are taken.
    pub fn queued(&self) -> usize {
        self.places() - self.records.capacity()
    }

    /// Places of the queue.
    pub fn places(&self) -> usize {
        self.records.max_capacity()
    }

    /// Calls refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Relaxed)
    }

    /// Rejections counted instead of written so far.
    pub fn suppressed(&self) -> u64 {
        let suppressor = self.shared.suppressor.lock();
        suppressor.unwrap_or_else(PoisonError::into_inner).total()
    }

    /// Opens the sink's target again after somebody moved it. (A file that is no longer at its path is noticed within
    /// a second anyway.)
    pub fn reopen(&self) {
        let _ = self.commands.try_send(Command::Reopen);
    }

    /// Writes out everything that is queued and syncs; used at shutdown. Places are refused from now on; waits at most
    /// some seconds for calls that hold one and for a sink that fails.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let close = async {
            if self.commands.send(Command::Close(done)).await.is_ok() {
                let _ = closed.await;
            }
        };
        if timeout(2 * CLOSE_WAIT, close).await.is_err() {
            tracing::error!("audit: the sink hangs; lines may be lost");
        }
    }
}

impl Slot {
    /// Queues the record. Never waits, never fails.
    pub fn write(self, record: Box<Record>) {
        self.0.send(record);
    }
}

impl OperationSlot {
    /// Queues the line. Never waits, never fails.
    pub fn write(self, operation: Operation) {
        self.0.send(operation);
    }
}

fn now_ms() -> u64 {
    clock::now().unix_ms
}

#[cfg(test)]
mod tests;
