//! SHELL. A voter's log on the disk (raft-engine), and the machine's states beside it.
//!
//! One batch of the engine is atomic: hard state, the newest snapshot's metadata with its configuration, and entries are
//! written together. Entries that a snapshot holds are forgotten in the same batch that names it; its file was synced
//! before. Nothing here repairs: a log that contradicts itself stops the node, which is then removed and joined again.

mod files;

use crate::{
    disk,
    handle::OpenError,
    machine::{Image, Manifest},
    replica::{Persist, Recovered},
    snapshot_file,
};
use proto::{command::NodeId, limit::ledger::Bounds};
use raft::eraftpb::{Entry, HardState, Snapshot};
use raft_engine::{Command, Config, LogBatch, MessageExt, ReadableSize};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

type Engine = raft_engine::Engine<files::Files>;

/// There is one raft group.
const GROUP: u64 = 1;
/// Whose log it is: cluster and node, little-endian.
const OWNER: &[u8] = b"owner";
const HARD_STATE: &[u8] = b"hard_state";
const SNAPSHOT: &[u8] = b"snapshot";
/// Bytes of one file of the log.
const FILE_BYTES: u64 = 32 << 20;
/// Bytes of log beyond which files are cleared away.
const PURGE_BYTES: u64 = 128 << 20;
/// What to do about damage.
pub(crate) const REMEDY: &str = "remove this node from the cluster, empty the directory and join again \
    (a node that is alone: `tollgate cluster restore` from a snapshot)";

/// Names the index of an entry to the engine.
#[derive(Clone, Copy, Debug)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = Entry;
    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// A voter's log.
pub struct Log {
    engine: Arc<Engine>,
    dir: PathBuf,
    snapshots: PathBuf,
    owner: [u8; 24],
    /// As last written: an installed snapshot starts the log anew.
    hard_state: HardState,
}

impl Log {
    /// Opens the log of this node in these directories, which are made where they are missing.
    pub fn open(
        dir: &Path,
        snapshots: &Path,
        cluster: u128,
        node: NodeId,
    ) -> Result<Self, OpenError> {
        for dir in [dir, snapshots] {
            disk::make_dir(dir).map_err(disk::at(dir))?;
        }
        let text = dir.to_str().ok_or_else(|| {
            OpenError::Unusable(format!("{}: the path is not UTF-8", dir.display()))
        })?;
        let config = Config {
            dir: text.to_owned(),
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(FILE_BYTES),
            purge_threshold: ReadableSize(PURGE_BYTES),
            recovery_threads: 1,
            ..Config::default()
        };
        // The engine panics on some damage instead of answering.
        let opened = std::panic::catch_unwind(|| {
            Engine::open_with_file_system(config, Arc::new(files::Files))
        });
        let engine = match opened {
            Ok(Ok(engine)) => Arc::new(engine),
            Ok(Err(error)) => return Err(damaged(dir, error.to_string())),
            Err(_) => return Err(damaged(dir, "it cannot be replayed".into())),
        };
        let mut owner = [0; 24];
        owner[..16].copy_from_slice(&cluster.to_le_bytes());
        owner[16..].copy_from_slice(&node.0.to_le_bytes());
        let log = Self {
            engine,
            dir: dir.to_owned(),
            snapshots: snapshots.to_owned(),
            owner,
            hard_state: HardState::default(),
        };
        match log.engine.get(GROUP, OWNER) {
            Some(found) if found != owner => Err(damaged(
                dir,
                "it is the log of another node or cluster".into(),
            )),
            _ => Ok(log),
        }
    }

    /// Whether it was begun: a joining node's log is begun before anything is in it.
    pub fn is_begun(&self) -> bool {
        self.engine.get(GROUP, OWNER).is_some()
    }

    /// Begins the log: empty for a node that joins; with its first state for one that begins a cluster.
    pub fn begin(&mut self, first: Option<(&Recovered, &Image)>) -> Result<(), OpenError> {
        let mut batch = LogBatch::default();
        let full = |error: raft_engine::Error| damaged(&self.dir, error.to_string());
        batch
            .put(GROUP, OWNER.to_vec(), self.owner.to_vec())
            .map_err(full)?;
        if let Some((recovered, image)) = first {
            snapshot_file::write(&self.snapshots, image).map_err(disk::at(&self.snapshots))?;
            put(&mut batch, HARD_STATE, &recovered.hard_state).map_err(full)?;
            put(&mut batch, SNAPSHOT, &recovered.snapshot).map_err(full)?;
            batch
                .add_entries::<Indexed>(GROUP, &recovered.entries)
                .map_err(full)?;
        }
        self.engine.write(&mut batch, true).map_err(full)?;
        disk::sync_parent(&self.dir.join("any")).map_err(disk::at(&self.dir))
    }

    /// What is on the disk.
    pub fn recover(&mut self, bounds: Bounds) -> Result<Recovered, OpenError> {
        let bad = |why: &str| damaged(&self.dir, why.to_owned());
        let hard_state: HardState = self.message(HARD_STATE)?.unwrap_or_default();
        let snapshot: Snapshot = self.message(SNAPSHOT)?.unwrap_or_default();
        let at = snapshot.get_metadata().index;
        let mut machine = None;
        if at > 0 {
            let manifest = Manifest::decode(&snapshot.data).map_err(|e| bad(&e.to_string()))?;
            if manifest.index != at {
                return Err(bad("its snapshot is of another index"));
            }
            let path = snapshot_file::path(&self.snapshots, at);
            let loaded = snapshot_file::load(&path, manifest, bounds)
                .map_err(|error| damaged(&path, error.to_string()))?;
            machine = Some(loaded);
        }
        let mut entries = Vec::new();
        if let (Some(first), Some(last)) = (
            self.engine.first_index(GROUP),
            self.engine.last_index(GROUP),
        ) {
            if first > at + 1 {
                return Err(bad("entries are missing after its snapshot"));
            }
            self.engine
                .fetch_entries_to::<Indexed>(GROUP, first, last + 1, None, &mut entries)
                .map_err(|error| bad(&error.to_string()))?;
        }
        let last = entries.last().map_or(at, |entry| entry.index.max(at));
        if hard_state.commit > last {
            return Err(bad("it ends before what it has committed"));
        }
        snapshot_file::tidy(&self.snapshots, at, &[]).map_err(disk::at(&self.snapshots))?;
        self.hard_state = hard_state.clone();
        Ok(Recovered {
            hard_state,
            snapshot,
            machine,
            entries,
        })
    }

    /// Writes these, in order, as one atomic batch. After an error nothing more may be written or acknowledged.
    pub fn write(&mut self, writes: &[Persist]) -> Result<(), raft_engine::Error> {
        let mut batch = LogBatch::default();
        let mut sync = false;
        for write in writes {
            sync |= write.must_sync;
            if let Some(hard_state) = &write.hard_state {
                self.hard_state = hard_state.clone();
            }
            if let Some(snapshot) = &write.install {
                batch.add_command(GROUP, Command::Clean);
                batch.put(GROUP, OWNER.to_vec(), self.owner.to_vec())?;
                put(&mut batch, SNAPSHOT, snapshot)?;
                put(&mut batch, HARD_STATE, &self.hard_state)?;
            } else if let Some(hard_state) = &write.hard_state {
                put(&mut batch, HARD_STATE, hard_state)?;
            }
            batch.add_entries::<Indexed>(GROUP, &write.entries)?;
            if let Some((snapshot, upto)) = &write.compact {
                put(&mut batch, SNAPSHOT, snapshot)?;
                let index = upto.saturating_add(1);
                batch.add_command(GROUP, Command::Compact { index });
            }
        }
        if sync && batch.is_empty() {
            // The engine syncs nothing where nothing is written.
            batch.put(GROUP, OWNER.to_vec(), self.owner.to_vec())?;
        }
        self.engine.write(&mut batch, sync)?;
        Ok(())
    }

    /// Clears files away that hold nothing any more; may run beside [`Log::write`].
    pub fn purger(&self) -> impl Fn() -> Result<(), raft_engine::Error> + Send + 'static {
        let engine = Arc::downgrade(&self.engine);
        move || match engine.upgrade() {
            Some(engine) => engine.purge_expired_files().map(|_| ()),
            None => Ok(()),
        }
    }

    /// Tells the bytes of the log's files.
    pub fn gauge(&self) -> impl Fn() -> u64 + Send + 'static {
        let engine = Arc::downgrade(&self.engine);
        move || {
            engine
                .upgrade()
                .map_or(0, |engine| engine.get_used_size() as u64)
        }
    }

    fn message<M: protobuf::Message>(&self, key: &[u8]) -> Result<Option<M>, OpenError> {
        self.engine
            .get_message(GROUP, key)
            .map_err(|error| damaged(&self.dir, error.to_string()))
    }
}

/// Whether there is anything in a log's directory.
pub fn exists(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn put(
    batch: &mut LogBatch,
    key: &[u8],
    message: &impl protobuf::Message,
) -> Result<(), raft_engine::Error> {
    batch.put_message(GROUP, key.to_vec(), message)
}

fn damaged(path: &Path, why: String) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        why,
        remedy: REMEDY,
    }
}

#[cfg(test)]
mod tests;
