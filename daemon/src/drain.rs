//! Shutting down in order: say so, keep accepting for a while, stop accepting, finish, end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::watch;

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// `/readyz` says 503 and replies carry `Connection: close`; connections are still accepted.
    Draining,
    /// Nothing is accepted any more; what is in flight may finish.
    Stopping,
    /// What is still in flight is cut.
    Ended,
}

/// The phase, shared.
#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::channel(Phase::Running).0)
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }
    /// Advances; a phase never goes back.
    pub fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let moved = to > *phase;
            if moved {
                *phase = to;
            }
            moved
        });
    }
    /// A receiver of phases.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
    /// Waits until this phase or a later one is reached.
    pub async fn reached(receiver: &mut watch::Receiver<Phase>, phase: Phase) {
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}

/// Waits until nothing is accepted any more. But for the first, a poll costs one atomic load: it is the same task that
/// polls it each time.
pub struct Stopping {
    phases: watch::Receiver<Phase>,
    reached: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Stopping {
    /// Begins to wait.
    pub fn new(drain: &Drain) -> Self {
        Self {
            phases: drain.subscribe(),
            reached: None,
        }
    }
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.reached.is_some() && matches!(self.phases.has_changed(), Ok(false)) {
            // The task's waker is registered already.
            return Poll::Pending;
        }
        let Self { phases, reached } = &mut *self;
        let reached = reached.get_or_insert_with(|| {
            let mut phases = phases.clone();
            Box::pin(async move { Drain::reached(&mut phases, Phase::Stopping).await })
        });
        reached.as_mut().poll(cx)
    }
}
