//! The log as raft reads it: in memory, from the last compaction on. What is on the disk is the shell's.

use crate::membership::Configuration;
use proto::command::NodeId;
use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
};
use std::{cell::Cell, collections::VecDeque};

/// What an entry costs beside its data.
const ENTRY_BYTES: u64 = 64;

/// Entries, and the newest snapshot's metadata and manifest.
pub(super) struct Store {
    hard_state: HardState,
    /// Index and term of the entry before the first.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// Bytes of `entries`.
    bytes: u64,
    /// Bytes appended since the last image was begun.
    since_image: u64,
    snapshot: Snapshot,
    /// A peer needs a snapshot that holds it as a member, and there is none.
    wanted: Cell<bool>,
}

impl Store {
    /// From what the disk holds. Errors: it contradicts itself.
    pub(super) fn new(
        mut hard_state: HardState,
        snapshot: Snapshot,
        entries: Vec<Entry>,
    ) -> std::result::Result<Self, String> {
        let meta = snapshot.get_metadata();
        let (index, term) = (meta.index, meta.term);
        if index > 0 && Configuration::read(meta.get_conf_state()).is_none() {
            return Err("the snapshot's configuration cannot be".to_owned());
        }
        let mut entries = VecDeque::from(entries);
        let follow_on = entries
            .iter()
            .zip(entries.iter().skip(1))
            .all(|(a, b)| a.index.checked_add(1) == Some(b.index) && a.term <= b.term);
        if !follow_on
            || entries
                .front()
                .is_some_and(|first| first.index == 0 || first.term == 0)
        {
            return Err("the entries of the log do not follow one another".to_owned());
        }
        if entries.back().is_some_and(|last| last.index < index) {
            entries.clear();
        }
        let before = match entries.front().map(|first| (first.index, first.term)) {
            Some((first, _)) if first > index + 1 => {
                return Err(format!(
                    "entries {} to {} are missing",
                    index + 1,
                    first - 1
                ));
            }
            Some((first, _)) if first == index + 1 => (index, term),
            // The first one is given up for its term.
            Some(first) => {
                entries.pop_front();
                first
            }
            None => (index, term),
        };
        let last = before.0 + entries.len() as u64;
        // A snapshot holds what is committed; the hard state beside it may be older.
        hard_state.commit = hard_state.commit.max(index);
        hard_state.term = hard_state.term.max(term);
        if hard_state.commit > last {
            return Err(format!(
                "{} entries are committed, but the log ends at {last}",
                hard_state.commit
            ));
        }
        let bytes = entries.iter().map(entry_bytes).sum();
        let since_image = entries
            .iter()
            .filter(|entry| entry.index > index)
            .map(entry_bytes)
            .sum();
        Ok(Self {
            hard_state,
            before,
            entries,
            bytes,
            since_image,
            snapshot,
            wanted: Cell::new(false),
        })
    }

    /// Takes entries in; those at the same indexes and beyond go.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.before.0 + 1) as usize;
        for gone in self.entries.drain(keep.min(self.entries.len())..) {
            self.bytes -= entry_bytes(&gone);
        }
        let more: u64 = entries.iter().map(entry_bytes).sum();
        self.bytes += more;
        self.since_image += more;
        self.entries.extend(entries.iter().cloned());
    }

    pub(super) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// A peer's snapshot takes the place of everything.
    pub(super) fn install(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        self.before = (meta.index, meta.term);
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.entries.clear();
        (self.bytes, self.since_image) = (0, 0);
        self.snapshot = snapshot;
    }

    /// An own snapshot was written: what it holds is forgotten but for a tail of so many bytes, and nothing after `keep`
    /// is. The index up to which entries are gone.
    pub(super) fn compact(
        &mut self,
        snapshot: Snapshot,
        tail_bytes: u64,
        keep: Option<u64>,
    ) -> u64 {
        let upto = keep.unwrap_or(u64::MAX).min(snapshot.get_metadata().index);
        let mut tail = self
            .entries
            .iter()
            .filter(|e| e.index <= upto)
            .map(entry_bytes)
            .sum::<u64>();
        while tail > tail_bytes
            && let Some(first) = self.entries.pop_front_if(|first| first.index <= upto)
        {
            tail -= entry_bytes(&first);
            self.bytes -= entry_bytes(&first);
            self.before = (first.index, first.term);
        }
        self.snapshot = snapshot;
        self.before.0
    }

    /// An image is begun.
    pub(super) fn image_begun(&mut self) {
        self.since_image = 0;
        self.wanted.set(false);
    }
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
    pub(super) fn since_image(&self) -> u64 {
        self.since_image
    }
    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }
    /// Whether a peer waits for a newer snapshot.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.get()
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64 + ENTRY_BYTES
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.snapshot.get_metadata().get_conf_state().clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let first = self.before.0 + 1;
        if low < first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > first + self.entries.len() as u64 || low > high {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let most = max_size.into().unwrap_or(u64::MAX);
        let range = (low - first) as usize..(high - first) as usize;
        let mut size = 0u64;
        let fits = |entry: &&Entry| {
            let is_first = size == 0;
            size = size.saturating_add(entry_bytes(entry));
            is_first || size <= most
        };
        Ok(self
            .entries
            .range(range)
            .take_while(fits)
            .cloned()
            .collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        match index.checked_sub(self.before.0) {
            None => Err(Error::Store(StorageError::Compacted)),
            Some(0) => Ok(self.before.1),
            Some(at) => self
                .entries
                .get(at as usize - 1)
                .map(|entry| entry.term)
                .ok_or(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.before.0 + self.entries.len() as u64)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let meta = self.snapshot.get_metadata();
        // A node ignores a snapshot that does not know it.
        let knows =
            Configuration::read(meta.get_conf_state()).is_some_and(|c| c.contains(NodeId(to)));
        if meta.index == 0 || meta.index < request_index || !knows {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range
            .map(|index| Entry {
                index,
                term,
                data: vec![0; 36].into(),
                ..Entry::default()
            })
            .collect()
    }

    fn snapshot(index: u64, term: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (index, term);
        meta.mut_conf_state().set_voters(vec![1, 2]);
        snapshot
    }

    fn hard_state(term: u64, commit: u64) -> HardState {
        HardState {
            term,
            commit,
            ..HardState::default()
        }
    }

    #[test]
    fn what_the_disk_holds_is_taken_in_or_found_contradictory() {
        for (found, first, last) in [
            (
                Store::new(hard_state(2, 7), snapshot(5, 2), entries(6..=9, 2)),
                6,
                9,
            ),
            (
                Store::new(hard_state(2, 7), snapshot(5, 2), entries(3..=9, 2)),
                4,
                9,
            ),
            (
                Store::new(hard_state(1, 2), snapshot(5, 2), entries(3..=4, 2)),
                6,
                5,
            ),
            (
                Store::new(hard_state(0, 0), Snapshot::default(), Vec::new()),
                1,
                0,
            ),
        ] {
            let store = found.unwrap();
            assert_eq!(
                (store.first_index(), store.last_index()),
                (Ok(first), Ok(last))
            );
        }
        for (state, entries) in [
            (hard_state(2, 7), entries(7..=9, 2)),
            (hard_state(2, 10), entries(6..=9, 2)),
            (
                hard_state(2, 7),
                [entries(6..=7, 2), entries(9..=9, 2)].concat(),
            ),
            (
                hard_state(2, 7),
                [entries(6..=7, 2), entries(8..=8, 1)].concat(),
            ),
        ] {
            assert!(Store::new(state, snapshot(5, 2), entries).is_err());
        }
    }

    #[test]
    fn entries_are_replaced_compacted_and_cut_to_size() {
        let mut store = Store::new(hard_state(1, 5), snapshot(5, 1), entries(6..=9, 1)).unwrap();
        store.append(&entries(8..=8, 2));
        assert_eq!(store.last_index(), Ok(8));
        assert_eq!(
            (store.term(7), store.term(8), store.term(5)),
            (Ok(1), Ok(2), Ok(1))
        );
        assert!(store.term(4).is_err() && store.term(9).is_err());
        let some = store
            .entries(6, 9, Some(250), GetEntriesContext::empty(false))
            .unwrap();
        assert_eq!(some.len(), 2);
        let one = store
            .entries(6, 9, Some(0), GetEntriesContext::empty(false))
            .unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(store.bytes(), 300);
        assert_eq!(store.compact(snapshot(7, 1), 100, None), 6);
        assert_eq!((store.bytes(), store.first_index()), (200, Ok(7)));
        assert_eq!(store.compact(snapshot(8, 2), 0, Some(6)), 6);
        assert_eq!(store.compact(snapshot(8, 2), 0, None), 8);
        assert_eq!(
            (store.bytes(), store.last_index(), store.term(8)),
            (0, Ok(8), Ok(2))
        );
    }

    #[test]
    fn a_snapshot_is_only_for_those_it_knows() {
        let store = Store::new(hard_state(1, 5), snapshot(5, 1), Vec::new()).unwrap();
        assert!(store.snapshot(0, 2).is_ok() && !store.is_wanted());
        assert!(store.snapshot(6, 2).is_err() && store.is_wanted());
        assert!(store.snapshot(0, 3).is_err());
    }
}
