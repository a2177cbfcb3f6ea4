//! A process's way to its end, whoever brings it about.

use super::{
    END_GRACE, Run, Slot,
    child::Group,
    pipes::{Source, WriteError},
    router::Router,
};
use rustix::process::Signal;
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Running,
    /// It takes none any more.
    Ending,
    /// It is reaped, and everything of its group is killed.
    Gone,
}

/// What a process consists of.
pub struct Supervised {
    /// The child.
    pub group: Group,
    /// Its requests and streams.
    pub router: Arc<Router>,
    /// Its name for logs.
    pub source: Source,
    /// Its place in the pool.
    pub slot: Slot,
    /// Told how far it is.
    pub phase: watch::Sender<Phase>,
    /// True, or closed, when it shall end.
    pub ending: watch::Receiver<bool>,
    /// Reads its stdout.
    pub reader: JoinHandle<()>,
    /// Writes its stdin.
    pub writer: JoinHandle<Result<(), WriteError>>,
    /// Ends requests at their deadlines.
    pub keeper: JoinHandle<()>,
    /// When it was started.
    pub started: Instant,
}

/// Why a process comes to its end.
enum Cause {
    Exited,
    OutputEnded,
    Input(WriteError),
    SessionEnded,
    DaemonEnds,
}

impl Cause {
    fn is_ours(&self) -> bool {
        matches!(self, Cause::SessionEnded | Cause::DaemonEnds)
    }

    /// Whether replies that it wrote before may still be read.
    fn leaves_replies(&self) -> bool {
        matches!(self, Cause::Exited | Cause::Input(WriteError::Broken(_)))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Exited => f.write_str("it exited"),
            Cause::OutputEnded => f.write_str("its output ended"),
            Cause::Input(error) => error.fmt(f),
            Cause::SessionEnded => f.write_str("the session was ended"),
            Cause::DaemonEnds => f.write_str("the daemon is ending"),
        }
    }
}

/// Sees the process to its end.
pub async fn supervise(mut s: Supervised) {
    let mut closing = s.slot.closing();
    let (mut read, mut written) = (false, false);
    let cause = tokio::select! {
        biased;
        () = s.group.leader_ended() => Cause::Exited,
        // An error means that the handle was dropped.
        _ = s.ending.wait_for(|end| *end) => Cause::SessionEnded,
        _ = closing.wait_for(|closing| *closing) => Cause::DaemonEnds,
        _ = &mut s.reader => {
            read = true;
            Cause::OutputEnded
        }
        outcome = &mut s.writer => {
            written = true;
            match outcome {
                Ok(Err(error)) => Cause::Input(error),
                // Nobody can post any more: the handle was dropped.
                _ => Cause::SessionEnded,
            }
        }
    };
    let reason = cause.to_string();
    s.router.shut(&reason);
    s.phase.send_replace(Phase::Ending);
    if !cause.leaves_replies() {
        s.router.close(&reason);
    }
    if !written {
        // Its stdin goes with the task: a server that reads to the end of its input leaves by itself.
        s.writer.abort();
        let _ = s.writer.await;
    }
    if timeout(END_GRACE, s.group.leader_ended()).await.is_err() {
        s.group.signal(Signal::TERM);
        if timeout(END_GRACE, s.group.leader_ended()).await.is_err() {
            s.group.signal(Signal::KILL);
            s.group.leader_ended().await;
        }
    }
    // What the leader left behind usually holds its stdout open: it gets the same grace.
    s.group.signal(Signal::TERM);
    if !read && timeout(END_GRACE, &mut s.reader).await.is_err() {
        s.reader.abort();
    }
    s.group.signal(Signal::KILL);
    s.keeper.abort();
    s.router.close(&reason);
    let status = s.group.reap().await;
    let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
    let lived = s.started.elapsed();
    let (server, pid) = (&s.source.server, s.source.pid);
    let run = if cause.is_ours() {
        tracing::info!(%server, pid, reason, status, ?lived, "ended a server process");
        Run::Ended {
            answered: s.router.answered.load(Relaxed),
        }
    } else {
        s.source.counters.died.fetch_add(1, Relaxed);
        tracing::warn!(%server, pid, reason, status, ?lived, "a server process ended by itself");
        Run::Failed
    };
    s.slot.settle(run, Instant::now());
    s.phase.send_replace(Phase::Gone);
}
