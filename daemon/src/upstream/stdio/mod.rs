//! Servers that are child processes speaking JSON-RPC lines, one process a session.
//!
//! ```text
//!            ┌───────────────── Pool: counts, back-off ─────────────────┐
//! post ─► Router.register ─► lines ─► writer ─► stdin ┐
//!  ▲          │ requests in flight, by id and token   ├ child (own process group) ─► stderr ─► log
//!  └─ answer ─┤                                       │
//!             └─◄─ deliver ◄─ message::read ◄─ reader ◄ stdout
//! ```
//!
//! Every message of a child goes to exactly one place (L8):
//! - a reply, to the POST of its request; to nobody when that is over;
//! - progress with the token of a request in flight, to that POST, which becomes an event stream;
//! - anything else, to the GET stream if one is open; else to the newest POST that is an event stream already; else a
//!   *request* turns the newest waiting POST into one (but not `initialize`), so that somebody can answer it; else it
//!   waits, bounded, for the next stream that opens.
//!
//! A line that is not one strict JSON-RPC message never reaches a client: it is counted and logged. Where it pretends
//! to be a reply (an ambiguous one, say, with a key twice) that request fails at once.

mod backoff;
mod child;
mod message;
mod outlet;
mod pipes;
mod post;
mod process;
mod router;
mod supervise;
#[cfg(test)]
mod tests;

pub use process::Process;

use crate::{
    bounds::Bounds,
    metrics::Metrics,
    upstream::{Error, ErrorKind},
    view::StdioTarget,
};
use backoff::{Backoff, Run};
use proto::id::ServerName;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Without any message for a request for this long, its reply becomes an event stream.
const STREAM_AFTER: Duration = Duration::from_secs(2);
/// Comments on an idle event stream, so that nothing between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After its client's `notifications/cancelled` a request ends without a reply.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Between closing stdin, SIGTERM and SIGKILL.
const END_GRACE: Duration = Duration::from_secs(2);
/// Lines that wait for a child that reads slowly.
const LINES: usize = 16;
/// Bytes queued for a client that reads slowly; one message of any allowed size is always taken.
const STREAM_BYTES: usize = 256 << 10;
/// How long a child is held up by a client that reads nothing before that client's stream is cut.
const STALL: Duration = Duration::from_secs(5);
/// Messages that wait for a stream to open; the oldest is dropped and counted.
const WAITING: usize = 64;
/// Bytes of them.
const WAITING_BYTES: usize = 1 << 20;

/// What has happened to one server's processes since the daemon started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Processes started.
    pub started: AtomicU64,
    /// Processes that could not be started.
    pub not_started: AtomicU64,
    /// Processes that ended by themselves.
    pub died: AtomicU64,
    /// Lines of stdout that were no JSON-RPC message, and were skipped.
    pub skipped: AtomicU64,
    /// Messages that waited for a stream until there was no more room.
    pub dropped: AtomicU64,
    /// Replies to no request in flight (late ones, mostly).
    pub unmatched: AtomicU64,
}

/// All processes of stdio servers: how many there are, and which commands must pause.
pub struct Pool(Arc<Inner>);

struct Inner {
    metrics: Arc<Metrics>,
    servers: Mutex<HashMap<ServerName, Server>>,
    /// Processes that are not gone yet, of all servers.
    running: watch::Sender<usize>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct Server {
    processes: usize,
    backoff: Backoff,
    /// What the back-off is about: another command starts afresh.
    target: Option<StdioTarget>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} processes)", self.processes())
    }
}

impl Pool {
    /// A pool without processes.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            metrics,
            servers: Mutex::default(),
            running: watch::channel(0).0,
            closing: watch::channel(false).0,
        }))
    }

    /// Starts a process for a new session. Must be called within a runtime, on which the process's tasks will live.
    ///
    /// # Errors
    /// All of them `unsent`: `Overloaded` at `processes` of `bounds` or `processes_max` of the target, and once
    /// [`Pool::close`] was called; `Connect` when the command cannot be started, or has died within 5 s of its start
    /// and must pause (0.5 s, doubling to 30 s; a run that lasts, or that answered before it was ended, forgives).
    pub async fn start(
        &self,
        server: &ServerName,
        target: &StdioTarget,
        bounds: &Bounds,
    ) -> Result<Arc<Process>, Error> {
        let slot = self.reserve(server, target, bounds, Instant::now())?;
        Process::start(target, bounds, slot)
    }

    fn reserve(
        &self,
        name: &ServerName,
        target: &StdioTarget,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<Slot, Error> {
        let refuse = |kind, detail| {
            Err(Error {
                kind,
                unsent: true,
                detail,
            })
        };
        if *self.0.closing.borrow() {
            return refuse(ErrorKind::Overloaded, "the daemon is ending".into());
        }
        let mut servers = lock(&self.0.servers);
        let server = servers.entry(name.clone()).or_default();
        if server.target.as_ref() != Some(target) {
            server.backoff = Backoff::default();
            server.target = Some(target.clone());
        }
        if let Some(left) = server.backoff.pause(now) {
            let detail = format!(
                "server {name} keeps dying: {} failed starts in a row, the next one in {:.1} s",
                server.backoff.failures(),
                left.as_secs_f64()
            );
            return refuse(ErrorKind::Connect, detail);
        }
        if server.processes >= target.processes_max {
            let detail = format!("server {name} has {} processes", server.processes);
            return refuse(ErrorKind::Overloaded, detail);
        }
        let total = *self.0.running.borrow();
        if total >= bounds.processes {
            let detail = format!("{total} processes of stdio servers are running");
            return refuse(ErrorKind::Overloaded, detail);
        }
        server.processes += 1;
        self.0.running.send_modify(|running| *running += 1);
        self.0.metrics.processes(name, server.processes);
        Ok(Slot {
            pool: self.0.clone(),
            server: name.clone(),
            counters: server.counters.clone(),
            started: now,
        })
    }

    /// Processes of all servers, those being ended included.
    pub fn processes(&self) -> usize {
        *self.0.running.borrow()
    }

    /// The counters of a server; all zero for one that was never started.
    pub fn counters(&self, server: &ServerName) -> Arc<Counters> {
        lock(&self.0.servers)
            .get(server)
            .map(|server| server.counters.clone())
            .unwrap_or_default()
    }

    /// Ends all processes and starts no more. Returns when they are gone, after about 6 s at the latest.
    pub async fn close(&self) {
        self.0.closing.send_replace(true);
        let _ = self.0.running.subscribe().wait_for(|n| *n == 0).await;
    }
}

/// One process's place in the counts, given back when it is gone.
struct Slot {
    pool: Arc<Inner>,
    server: ServerName,
    counters: Arc<Counters>,
    started: Instant,
}

impl Slot {
    fn server(&self) -> &ServerName {
        &self.server
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.pool.metrics
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn closing(&self) -> watch::Receiver<bool> {
        self.pool.closing.subscribe()
    }

    /// Gives the place back and takes note of how the run ended.
    fn settle(self, run: Run, now: Instant) {
        if let Some(server) = lock(&self.pool.servers).get_mut(&self.server) {
            server.backoff.note(run, self.started, now);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(server) = lock(&self.pool.servers).get_mut(&self.server) {
            server.processes = server.processes.saturating_sub(1);
            self.pool.metrics.processes(&self.server, server.processes);
        }
        let running = &self.pool.running;
        running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

/// A lock whose holder panicked is still a lock: every change under it is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
