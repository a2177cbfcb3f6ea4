//! A voter's disk: what is on it, what was written and not synced, what a crash leaves.

use cluster::{
    dice::Dice,
    machine::{Loader, Manifest},
    replica::{Persist, Recovered},
};
use proto::limit::ledger::Bounds;
use raft::eraftpb::{Entry, HardState, Snapshot};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

/// Chunks of an image.
pub type Chunks = Rc<Vec<Vec<u8>>>;

/// A log at one moment.
#[derive(Clone, Default)]
struct Log {
    hard_state: HardState,
    snapshot: Snapshot,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    fn write(&mut self, write: &Persist) {
        if let Some(snapshot) = &write.install {
            self.snapshot = snapshot.clone();
            self.entries.clear();
        }
        if let Some(first) = write.entries.first()
            && self
                .entries
                .last_key_value()
                .is_some_and(|(last, _)| *last >= first.index)
        {
            self.entries.split_off(&first.index);
        }
        for entry in &write.entries {
            self.entries.insert(entry.index, entry.clone());
        }
        if let Some(hard_state) = &write.hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some((snapshot, _)) = &write.compact {
            self.snapshot = snapshot.clone();
        }
    }

    /// What a snapshot holds is dropped.
    fn compact(&mut self, write: &Persist) {
        if let Some((_, upto)) = &write.compact {
            self.entries = self.entries.split_off(&(upto + 1));
        }
    }
}

/// A voter's disk.
#[derive(Default)]
pub struct Disk {
    durable: Log,
    /// Durable, and everything in `writes` too. Compacted entries stay, for the invariants.
    seen: Log,
    /// In order; those that need no sync become durable with the next that does.
    writes: VecDeque<Persist>,
    /// Files of states, each written and synced as a whole.
    images: BTreeMap<(u64, u64), Chunks>,
    /// When the last write in the queue will be done.
    pub busy_until_ns: u64,
}

impl Disk {
    /// A new cluster's first voter.
    pub fn found(&mut self, recovered: &Recovered, manifest: Manifest, chunks: Chunks) {
        self.durable = Log {
            hard_state: recovered.hard_state.clone(),
            snapshot: recovered.snapshot.clone(),
            entries: recovered
                .entries
                .iter()
                .map(|e| (e.index, e.clone()))
                .collect(),
        };
        self.seen = self.durable.clone();
        self.store(manifest, chunks);
    }

    /// Takes a write; it counts when [`Disk::synced`] is told its number.
    pub fn write(&mut self, write: Persist) {
        self.seen.write(&write);
        self.writes.push_back(write);
    }

    /// Everything up to this number is durable.
    pub fn synced(&mut self, number: u64) {
        while self.writes.front().is_some_and(|w| w.number <= number) {
            if let Some(write) = self.writes.pop_front() {
                self.durable.write(&write);
                self.durable.compact(&write);
            }
        }
        self.forget_images();
    }

    pub fn store(&mut self, manifest: Manifest, chunks: Chunks) {
        self.images.insert((manifest.index, manifest.hash), chunks);
    }

    /// The chunks of a state, if its file is here.
    pub fn image(&self, manifest: Manifest) -> Option<Chunks> {
        self.images.get(&(manifest.index, manifest.hash)).cloned()
    }

    /// An entry as the process wrote it, synced or not.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.seen.entries.get(&index)
    }

    /// The worst that a loss of power can do; then the process ends.
    pub fn lose_unsynced(&mut self) {
        self.writes.clear();
    }

    /// The process ends. With the power, what was not synced is lost from some write on; else the system writes it.
    /// Says how many writes were lost.
    pub fn crash(&mut self, power: bool, dice: &mut Dice) -> usize {
        let keep = if power {
            dice.below(self.writes.len() as u64 + 1) as usize
        } else {
            self.writes.len()
        };
        let lost = self.writes.len() - keep;
        for write in self.writes.drain(..).take(keep) {
            self.durable.write(&write);
            self.durable.compact(&write);
        }
        self.seen = self.durable.clone();
        self.busy_until_ns = 0;
        self.forget_images();
        lost
    }

    /// What a starting process finds.
    pub fn recover(&self, bounds: Bounds, rules_max: u32) -> Result<Recovered, String> {
        let machine = match self.durable.snapshot.get_data() {
            [] => None,
            data => {
                let manifest = Manifest::decode(data).map_err(|e| e.to_string())?;
                let chunks = self.image(manifest).ok_or("the image is not on the disk")?;
                Some(load(manifest, &chunks, bounds, rules_max)?)
            }
        };
        Ok(Recovered {
            hard_state: self.durable.hard_state.clone(),
            snapshot: self.durable.snapshot.clone(),
            machine,
            entries: self.durable.entries.values().cloned().collect(),
        })
    }

    /// Files of states older than the durable snapshot's.
    fn forget_images(&mut self) {
        let index = self.durable.snapshot.get_metadata().index;
        self.images.retain(|(at, _), _| *at >= index);
    }
}

/// Reads a state back.
pub fn load(
    manifest: Manifest,
    chunks: &[Vec<u8>],
    bounds: Bounds,
    rules_max: u32,
) -> Result<cluster::machine::Machine, String> {
    let mut loader = Loader::new(manifest, bounds).knowing(rules_max);
    for chunk in chunks {
        loader.chunk(chunk).map_err(|e| e.to_string())?;
    }
    loader.finish().map_err(|e| e.to_string())
}
