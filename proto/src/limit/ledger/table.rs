//! Entries by key, each alive until the end of its window.
//!
//! ```text
//! key ──index (16 shards)──► slot ──► chunk of 256 slots, shared with frozen copies until one of them is written to
//! end ──ends──► list of the slots that end then, how many they are, the sum of their digests
//! ```
//!
//! When an end passes, its entries are gone at once: their number and digests are taken off together. Their slots are freed
//! later, a few with each command. So what is alive never depends on how far that has come.

use crate::{digest::Digest, limit::CounterKey};
use hashbrown::HashTable;
use std::{collections::BTreeMap, hash::BuildHasher, sync::Arc};

/// Slots of one chunk: what is copied when a chunk is written to that a frozen copy shares.
const CHUNK: usize = 256;
/// Parts of the index: one growing part stops the ledger for a sixteenth of the time.
const SHARDS: usize = 16;
/// No slot.
const NONE: u32 = u32::MAX;

/// What a table holds.
pub(super) trait Value: Clone + Default {
    /// Of the whole entry.
    fn digest(&self, key: CounterKey, end_ms: u64) -> u64;
}

/// One place. Free ones end at 0.
#[derive(Clone, Debug)]
struct Slot<T> {
    key: CounterKey,
    end_ms: u64,
    /// Of the list of the same end, or of free slots.
    next: u32,
    value: T,
}

type Chunks<T> = Vec<Arc<Vec<Slot<T>>>>;

/// The entries that end at one moment.
#[derive(Clone, Copy, Debug)]
struct Ending {
    head: u32,
    count: usize,
    sum: u64,
}

/// Where an entry is, until the table is changed otherwise than by [`Table::edit`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u32);

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    now_ms: u64,
    chunks: Chunks<T>,
    /// Slots ever used, and the first of those that are free again.
    slots: u32,
    free: u32,
    index: [HashTable<u32>; SHARDS],
    hasher: foldhash::fast::RandomState,
    ends: BTreeMap<u64, Ending>,
    /// First slots of lists whose end has passed.
    past: Vec<u32>,
    count: usize,
    sum: u64,
}

/// A table's entries as they were at some moment.
#[derive(Clone, Debug)]
pub(super) struct FrozenTable<T> {
    now_ms: u64,
    chunks: Chunks<T>,
}

impl<T: Value> Table<T> {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            chunks: Vec::new(),
            slots: 0,
            free: NONE,
            index: Default::default(),
            hasher: foldhash::fast::RandomState::default(),
            ends: BTreeMap::new(),
            past: Vec::new(),
            count: 0,
            sum: 0,
        }
    }

    /// Live entries.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The sum of the digests of live entries.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// Slots in use or waiting to be freed.
    #[cfg(test)]
    pub(super) fn occupied(&self) -> usize {
        self.index.iter().map(HashTable::len).sum()
    }

    /// Moves time on: entries whose end has come are gone.
    pub(super) fn expire(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        while let Some(first) = self.ends.first_entry() {
            if *first.key() > self.now_ms {
                return;
            }
            let ending = first.remove();
            self.count = self.count.saturating_sub(ending.count);
            self.sum = self.sum.wrapping_sub(ending.sum);
            self.past.push(ending.head);
        }
    }

    /// Frees at most this many slots of entries that are gone.
    pub(super) fn sweep(&mut self, most: usize) {
        for _ in 0..most {
            let Some(head) = self.past.last_mut() else {
                break;
            };
            let at = *head;
            let slot = slot_mut(&mut self.chunks, at);
            let (key, next) = (slot.key, slot.next);
            (slot.end_ms, slot.next, slot.value) = (0, self.free, T::default());
            self.free = at;
            if next == NONE {
                self.past.pop();
            } else {
                *head = next;
            }
            let hash = self.hasher.hash_one(key.0);
            // The key may have a younger entry elsewhere.
            if let Ok(found) = self.index[shard(key)].find_entry(hash, |i| *i == at) {
                found.remove();
            }
        }
        if self.count == 0 && self.past.is_empty() && self.slots > 0 {
            *self = Self {
                hasher: self.hasher.clone(),
                ..Self::new(self.now_ms)
            };
        }
    }

    /// Where the live entry of a key is.
    pub(super) fn find(&self, key: CounterKey) -> Option<Place> {
        let hash = self.hasher.hash_one(key.0);
        let at = self.index[shard(key)].find(hash, |i| slot(&self.chunks, *i).key == key)?;
        (slot(&self.chunks, *at).end_ms > self.now_ms).then_some(Place(*at))
    }

    /// The entry at a place, and when it ends.
    pub(super) fn at(&self, place: Place) -> (&T, u64) {
        let slot = slot(&self.chunks, place.0);
        (&slot.value, slot.end_ms)
    }

    /// The live entry of a key, and when it ends.
    pub(super) fn get(&self, key: CounterKey) -> Option<(&T, u64)> {
        self.find(key).map(|place| self.at(place))
    }

    /// Changes the entry at a place.
    pub(super) fn edit<R>(&mut self, place: Place, change: impl FnOnce(&mut T) -> R) -> R {
        let slot = slot_mut(&mut self.chunks, place.0);
        let before = slot.value.digest(slot.key, slot.end_ms);
        let result = change(&mut slot.value);
        let moved = slot
            .value
            .digest(slot.key, slot.end_ms)
            .wrapping_sub(before);
        if let Some(ending) = self.ends.get_mut(&slot.end_ms) {
            ending.sum = ending.sum.wrapping_add(moved);
        }
        self.sum = self.sum.wrapping_add(moved);
        result
    }

    /// Adds an entry for a key that has no live one. False if it would never be alive, or there is no place.
    pub(super) fn insert(&mut self, key: CounterKey, end_ms: u64, value: T) -> bool {
        if end_ms <= self.now_ms || self.find(key).is_some() {
            return false;
        }
        let digest = value.digest(key, end_ms);
        let Some(at) = self.place(Slot {
            key,
            end_ms,
            next: NONE,
            value,
        }) else {
            return false;
        };
        let ending = self.ends.entry(end_ms).or_insert(Ending {
            head: NONE,
            count: 0,
            sum: 0,
        });
        slot_mut(&mut self.chunks, at).next = ending.head;
        ending.head = at;
        ending.count += 1;
        ending.sum = ending.sum.wrapping_add(digest);
        self.count += 1;
        self.sum = self.sum.wrapping_add(digest);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash = hasher.hash_one(key.0);
        let index = &mut self.index[shard(key)];
        match index.find_mut(hash, |i| slot(chunks, *i).key == key) {
            // The former entry is gone; its slot waits to be freed.
            Some(former) => *former = at,
            None => {
                let hash_of = |i: &u32| hasher.hash_one(slot(chunks, *i).key.0);
                index.insert_unique(hash, at, hash_of);
            }
        }
        true
    }

    /// Puts a slot where there is room.
    fn place(&mut self, slot: Slot<T>) -> Option<u32> {
        if self.free != NONE {
            let at = self.free;
            let free = slot_mut(&mut self.chunks, at);
            self.free = free.next;
            *free = slot;
            return Some(at);
        }
        let at = self.slots;
        self.slots = at.checked_add(1).filter(|slots| *slots != NONE)?;
        if (at as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        let last = Arc::make_mut(self.chunks.last_mut()?);
        last.reserve_exact(CHUNK.saturating_sub(last.len()));
        last.push(slot);
        Some(at)
    }

    /// The entries as they are now; they are not copied.
    pub(super) fn freeze(&self) -> FrozenTable<T> {
        FrozenTable {
            now_ms: self.now_ms,
            chunks: self.chunks.clone(),
        }
    }
}

impl<T> FrozenTable<T> {
    /// Live entries with their keys and ends, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CounterKey, u64, &T)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .filter(|slot| slot.end_ms > self.now_ms)
            .map(|slot| (slot.key, slot.end_ms, &slot.value))
    }
}

fn shard(key: CounterKey) -> usize {
    (key.0 >> 124) as usize % SHARDS
}

fn slot<T>(chunks: &Chunks<T>, at: u32) -> &Slot<T> {
    let at = at as usize;
    &chunks[at / CHUNK][at % CHUNK]
}

fn slot_mut<T: Clone>(chunks: &mut Chunks<T>, at: u32) -> &mut Slot<T> {
    let at = at as usize;
    &mut Arc::make_mut(&mut chunks[at / CHUNK])[at % CHUNK]
}

/// The distinct keys of a group in its present window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) count: u32,
}

impl Value for Keys {
    fn digest(&self, key: CounterKey, end_ms: u64) -> u64 {
        Digest::new("group")
            .wide(key.0)
            .word(end_ms)
            .word(self.count.into())
            .finish()
    }
}
