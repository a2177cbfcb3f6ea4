//! The thread that writes the log, so that the loop goes on while the disk works.

use crate::{handle::Synced, log::Log, replica::Persist};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};
use tokio::sync::mpsc;

/// Writes that wait for the disk; while there are so many the replica is not asked for more.
const QUEUED_MAX: usize = 256;
/// Writes that become one, and their bytes of entries.
const MERGED_MAX: usize = 128;
const MERGED_BYTES: usize = 8 << 20;
/// Entries' bytes written until files are cleared away.
const PURGE_EVERY_BYTES: usize = 16 << 20;

/// What the disk says.
#[derive(Debug)]
pub(crate) enum Written {
    /// This write and all before it are on the disk.
    Upto(u64),
    /// Nothing more will be written.
    Failed(String),
}

/// The loop's side.
pub(crate) struct Writer {
    to: Option<SyncSender<Persist>>,
    queued: usize,
    engine_bytes: Box<dyn Fn() -> u64 + Send>,
}

impl Writer {
    /// Starts the thread. What it says comes out of the receiver, which closes when the thread has ended.
    pub(crate) fn start(
        log: Log,
        synced: Synced,
    ) -> std::io::Result<(Self, mpsc::Receiver<Written>)> {
        let (to, from) = sync_channel(QUEUED_MAX);
        let (say, said) = mpsc::channel(QUEUED_MAX + 1);
        let engine_bytes = Box::new(log.gauge());
        thread::Builder::new()
            .name("log".into())
            .spawn(move || run(log, &from, &say, &synced))?;
        let writer = Self {
            to: Some(to),
            queued: 0,
            engine_bytes,
        };
        Ok((writer, said))
    }

    /// Bytes of the log's files.
    pub(crate) fn bytes(&self) -> u64 {
        (self.engine_bytes)()
    }

    /// Whether there is room for one more write.
    pub(crate) fn has_room(&self) -> bool {
        self.queued < QUEUED_MAX
    }

    /// Whether everything is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued == 0
    }

    /// Queues a write; only where there is room.
    pub(crate) fn write(&mut self, persist: Persist) -> Result<(), String> {
        let to = self.to.as_ref().ok_or("the log is closed")?;
        match to.try_send(persist) {
            Ok(()) => {
                self.queued += 1;
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err("the log's queue is full".into()),
            Err(TrySendError::Disconnected(_)) => Err("the log's thread ended".into()),
        }
    }

    /// A write was answered.
    pub(crate) fn written(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }

    /// No more writes: the thread ends when it has written what is queued.
    pub(crate) fn close(&mut self) {
        self.to = None;
    }
}

fn run(mut log: Log, from: &Receiver<Persist>, say: &mpsc::Sender<Written>, synced: &Synced) {
    // The engine panics where it cannot sync: nothing after that is believed.
    let ended = panic::catch_unwind(AssertUnwindSafe(|| serve(&mut log, from, say, synced)));
    let why = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("the log cannot be written: {error}"),
        Err(_) => "the log cannot be synced".to_owned(),
    };
    let _ = say.blocking_send(Written::Failed(why));
}

fn serve(
    log: &mut Log,
    from: &Receiver<Persist>,
    say: &mpsc::Sender<Written>,
    synced: &Synced,
) -> Result<(), raft_engine::Error> {
    let (purge, purges) = sync_channel::<()>(1);
    let purger = log.purger();
    let clearing = thread::Builder::new().name("log-purge".into());
    clearing.spawn(move || {
        while purges.recv().is_ok() {
            if let Err(error) = purger() {
                tracing::warn!(%error, "old files of the log cannot be cleared away");
            }
        }
    })?;
    let mut unpurged = 0;
    let mut writes = Vec::new();
    while let Ok(first) = from.recv() {
        let mut bytes = size(&first);
        writes.push(first);
        while writes.len() < MERGED_MAX
            && bytes < MERGED_BYTES
            && let Ok(next) = from.try_recv()
        {
            bytes += size(&next);
            writes.push(next);
        }
        let begun = Instant::now();
        log.write(&writes)?;
        if writes.iter().any(|write| write.must_sync) {
            synced(begun.elapsed());
        }
        for write in writes.drain(..) {
            // Answered one by one: the loop counts them.
            if say.blocking_send(Written::Upto(write.number)).is_err() {
                return Ok(());
            }
        }
        unpurged += bytes;
        if unpurged >= PURGE_EVERY_BYTES {
            unpurged = 0;
            let _ = purge.try_send(());
        }
    }
    Ok(())
}

fn size(write: &Persist) -> usize {
    write
        .entries
        .iter()
        .map(|entry| entry.data.len() + 64)
        .sum()
}
