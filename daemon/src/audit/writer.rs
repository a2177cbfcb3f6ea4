//! The writer: one thread that formats lines and writes them, and holds what the sink does not take.

use super::{Shared, batch::Batch, sink::Out};
use proto::audit::{Operation, Record, Rejection};
use std::{
    io,
    pin::pin,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};

/// Records that the writer takes in one go, beside those in the queue.
const BATCH: usize = 1_024;
/// How long lines gather after some were written: a call of the system and a change of threads for each would cost more
/// than all that makes the lines; but while many wait, they push what requests need out of the processor's caches. A line
/// that comes alone is written at once.
const GATHER: Duration = Duration::from_millis(2);
/// How often the sink is looked after and suppressed counts are written.
const TICK: Duration = Duration::from_millis(250);
/// Pauses between tries of a sink that fails.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// How long closing waits for calls that hold a place, and for a sink that fails.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// What the handle asks of the writer.
pub(super) enum Command {
    /// Open the sink's target again.
    Reopen,
    /// Write everything, sync, end.
    Close(oneshot::Sender<()>),
}

/// The writer's half of the queues.
pub(super) struct Writer {
    pub(super) out: Box<dyn Out>,
    pub(super) shared: Arc<Shared>,
    pub(super) records: mpsc::Receiver<Box<Record>>,
    pub(super) rejections: mpsc::Receiver<Rejection>,
    pub(super) operations: mpsc::Receiver<Operation>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) now_ms: fn() -> u64,
}

/// Why the loop ended.
enum End {
    /// Asked to.
    Closed(oneshot::Sender<()>),
    /// Every handle is gone.
    Dropped,
}

impl Writer {
    /// Runs until it is closed or every handle is gone.
    pub(super) async fn run(mut self) {
        let mut batch = Batch::default();
        let end = self.serve(&mut batch).await;
        self.shared.set_ready(false);
        let deadline = Instant::now() + CLOSE_WAIT;
        self.drain(&mut batch, deadline).await;
        if !batch.is_empty() {
            tracing::error!(lines = batch.len(), "audit: lines could not be written");
        }
        if let Err(error) = self.out.sync() {
            tracing::error!(%error, "audit: the sink could not be synced");
        }
        if let End::Closed(done) = end {
            let _ = done.send(());
        }
    }

    async fn serve(&mut self, batch: &mut Batch) -> End {
        let mut records = Vec::with_capacity(BATCH);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gathering = false;
        let mut gathered = pin!(sleep_until(Instant::now()));
        loop {
            // Rejections may come first: there are at most a few lines a second of them.
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Reopen) => self.out.reopen(),
                    Some(Command::Close(done)) => return End::Closed(done),
                    None => return End::Dropped,
                },
                _ = tick.tick() => {
                    let now_ms = (self.now_ms)();
                    self.shared.set_ready(self.out.tick(now_ms));
                    self.push_suppressed(batch, Some(now_ms / 1_000));
                }
                Some(rejection) = self.rejections.recv() => batch.push(|out| rejection.write_line(out)),
                Some(operation) = self.operations.recv() => batch.push(|out| operation.write_line(out)),
                n = self.records.recv_many(&mut records, BATCH), if !gathering => match n {
                    0 => return End::Dropped,
                    _ => push_records(batch, records.drain(..)),
                },
                () = self.shared.hurry.notified(), if gathering => gathering = false,
                () = gathered.as_mut(), if gathering => gathering = false,
            }
            if batch.is_empty() {
                continue;
            }
            if let Some(done) = self.write(batch, None).await {
                return End::Closed(done);
            }
            gathering = true;
            gathered.as_mut().reset(Instant::now() + GATHER);
        }
    }

    /// Takes what is still queued and what calls that hold a place will write, until the deadline.
    async fn drain(&mut self, batch: &mut Batch, deadline: Instant) {
        self.records.close();
        self.rejections.close();
        self.operations.close();
        let mut records = Vec::with_capacity(BATCH);
        while let Ok(1..) = timeout_at(deadline, self.records.recv_many(&mut records, BATCH)).await
        {
            push_records(batch, records.drain(..));
            self.write(batch, Some(deadline)).await;
        }
        while let Ok(Some(operation)) = timeout_at(deadline, self.operations.recv()).await {
            batch.push(|out| operation.write_line(out));
        }
        while let Ok(rejection) = self.rejections.try_recv() {
            batch.push(|out| rejection.write_line(out));
        }
        self.push_suppressed(batch, None);
        self.write(batch, Some(deadline)).await;
    }

    /// Writes the batch, however long it takes, or until the deadline. Returns early when asked to close.
    async fn write(
        &mut self,
        batch: &mut Batch,
        mut deadline: Option<Instant>,
    ) -> Option<oneshot::Sender<()>> {
        let mut pause = RETRY_FIRST;
        while !batch.is_empty() {
            let Err(error) = self.out.write(batch, (self.now_ms)()) else {
                break;
            };
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return None;
            }
            if pause > RETRY_FIRST {
                self.sink_failed(&error, batch);
            }
            let retry = deadline.unwrap_or(now + pause).min(now + pause);
            tokio::select! {
                biased;
                command = self.commands.recv(), if deadline.is_none() => match command {
                    Some(Command::Reopen) => self.out.reopen(),
                    Some(Command::Close(done)) => return Some(done),
                    None => deadline = Some(now + CLOSE_WAIT),
                },
                () = sleep_until(retry) => {}
            }
            pause = (pause * 2).min(RETRY_LAST);
        }
        batch.clear();
        if pause > RETRY_FIRST
            && deadline.is_none()
            && self.shared.set_ready(self.out.tick((self.now_ms)()))
        {
            tracing::info!("audit: lines are written again");
        }
        None
    }

    /// One failed try is nothing yet; from the second on calls are refused, so that what is held stays bounded.
    fn sink_failed(&self, error: &io::Error, batch: &Batch) {
        if self.shared.set_ready(false) {
            tracing::error!(%error, held = batch.len(), "audit: lines cannot be written: calls are refused");
        }
    }

    fn push_suppressed(&self, batch: &mut Batch, unix_s: Option<u64>) {
        let mut suppressor = self
            .shared
            .suppressor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let due = suppressor.take(unix_s);
        drop(suppressor);
        for suppressed in due {
            batch.push(|out| suppressed.write_line(out));
        }
    }
}

fn push_records(batch: &mut Batch, records: std::vec::Drain<'_, Box<Record>>) {
    for record in records {
        batch.push(|out| record.write_line(out));
    }
}
