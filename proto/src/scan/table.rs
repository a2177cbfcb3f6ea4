//! The keys of objects with many, in one table that every body uses again.
//!
//! Open addressing with linear probing, at most half full. Keys are hashed with a seed that nobody outside knows; should
//! one need more than [`PROBES_MAX`] steps all the same, the table hashes anew with SipHash, so that no input whatever
//! makes the search longer than a constant for each key.

use super::keys::{KeySpan, decode};
use std::hash::{BuildHasher, RandomState};

/// More steps than a random hash needs in a table that is half full (beyond 64 once in 10^9 tables).
const PROBES_MAX: usize = 128;
const SLOTS_MIN: usize = 64;
/// A larger table is not kept for the next body: 8,192 slots are 256 KiB a thread.
const SLOTS_KEPT: usize = 8_192;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Of which filling of the table it is: of another one than the table's, it is empty.
    filling: u32,
    /// The object whose key it is.
    object: u32,
    hash: u64,
    key: KeySpan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Fast,
    Strong,
    /// Every key has the same: what an attacker who knew the seed would choose.
    #[cfg(test)]
    Constant,
}

#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    filling: u32,
    filled: usize,
    /// Objects that are open, and how many there were in this filling.
    open: usize,
    objects: u32,
    hash: Hash,
    fast: foldhash::fast::RandomState,
    strong: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            filling: 1,
            filled: 0,
            open: 0,
            objects: 0,
            hash: Hash::Fast,
            fast: foldhash::fast::RandomState::default(),
            strong: RandomState::new(),
        }
    }
}

impl Table {
    /// A new object; its name.
    pub(super) fn open(&mut self) -> u32 {
        if self.open == 0 {
            self.empty();
        }
        self.open += 1;
        self.objects += 1;
        self.objects
    }

    /// An object has ended.
    pub(super) fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// The body has ended.
    pub(super) fn close_all(&mut self) {
        self.open = 0;
        if self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
        }
    }

    fn empty(&mut self) {
        self.filled = 0;
        self.objects = 0;
        self.filling = self.filling.wrapping_add(1);
        if self.filling == 0 {
            // Slots of four thousand million fillings ago would count again.
            self.slots.clear();
            self.filling = 1;
        }
    }

    /// Whether the key is the object's first of its meaning; it is remembered.
    pub(super) fn insert(
        &mut self,
        bytes: &[u8],
        object: u32,
        key: KeySpan,
        escaped: bool,
    ) -> bool {
        loop {
            if 2 * self.filled >= self.slots.len() {
                self.move_to((2 * self.slots.len()).max(SLOTS_MIN), None);
            }
            let hash = self.hash(bytes, object, key, escaped);
            if let Some(new) = self.place(bytes, object, key, hash) {
                return new;
            }
            self.out_of_probes(bytes);
        }
    }

    /// `None`: too many steps.
    #[inline(always)]
    fn place(&mut self, bytes: &[u8], object: u32, key: KeySpan, hash: u64) -> Option<bool> {
        let last = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & last;
        for _ in 0..PROBES_MAX {
            let slot = self.slots.get_mut(at)?;
            if slot.filling != self.filling {
                *slot = Slot {
                    filling: self.filling,
                    object,
                    hash,
                    key,
                };
                self.filled += 1;
                return Some(true);
            }
            if slot.hash == hash && slot.object == object && slot.key.same(key, bytes) {
                return Some(false);
            }
            at = (at + 1) & last;
        }
        None
    }

    /// The keys collide: they are hashed by the other hash, or, where that is chance, spread wider.
    #[cold]
    #[inline(never)]
    fn out_of_probes(&mut self, bytes: &[u8]) {
        if self.hash == Hash::Strong {
            self.move_to(2 * self.slots.len(), None);
        } else {
            self.hash = Hash::Strong;
            self.move_to(self.slots.len(), Some(bytes));
        }
    }

    /// Moves all keys into a table of this many slots, hashed anew if the bytes are given.
    #[cold]
    #[inline(never)]
    fn move_to(&mut self, slots: usize, hash_anew: Option<&[u8]>) {
        let mut wanted = slots;
        loop {
            let old = std::mem::replace(&mut self.slots, vec![Slot::default(); wanted]);
            self.filled = 0;
            let filling = self.filling;
            let mut live = old.iter().filter(|slot| slot.filling == filling);
            // All of them differ, so no bytes are needed to place them; but one may need too many steps.
            let moved = live.all(|slot| {
                let hash = hash_anew.map_or(slot.hash, |bytes| {
                    let escaped = memchr::memchr(b'\\', slot.key.raw(bytes)).is_some();
                    self.hash(bytes, slot.object, slot.key, escaped)
                });
                self.place_new(slot.object, slot.key, hash)
            });
            if moved {
                return;
            }
            self.slots = old;
            wanted *= 2;
        }
    }

    /// Places a key that is known to be new; false: too many steps.
    fn place_new(&mut self, object: u32, key: KeySpan, hash: u64) -> bool {
        let last = self.slots.len().wrapping_sub(1);
        for step in 0..PROBES_MAX {
            let at = (hash as usize).wrapping_add(step) & last;
            match self.slots.get_mut(at) {
                Some(slot) if slot.filling != self.filling => {
                    *slot = Slot {
                        filling: self.filling,
                        object,
                        hash,
                        key,
                    };
                    self.filled += 1;
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    #[inline(always)]
    fn hash(&self, bytes: &[u8], object: u32, key: KeySpan, escaped: bool) -> u64 {
        let raw = key.raw(bytes);
        let hash = if escaped {
            self.hash_of(&decode(raw))
        } else {
            self.hash_of(raw)
        };
        // The same key of another object belongs elsewhere.
        hash ^ u64::from(object).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[inline(always)]
    fn hash_of(&self, key: &[u8]) -> u64 {
        match self.hash {
            Hash::Fast => self.fast.hash_one(key),
            Hash::Strong => self.strong.hash_one(key),
            #[cfg(test)]
            Hash::Constant => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> (Vec<u8>, Vec<KeySpan>) {
        let mut bytes = Vec::new();
        let mut keys = Vec::new();
        for n in 0..count {
            let start = bytes.len();
            bytes.extend_from_slice(format!("key {n}").as_bytes());
            let end = bytes.len();
            keys.push(KeySpan { start, end });
        }
        (bytes, keys)
    }

    #[test]
    fn every_key_is_new_once_to_every_object() {
        let (bytes, keys) = keys(3_000);
        let mut table = Table::default();
        let (outer, inner) = (table.open(), table.open());
        for object in [outer, inner] {
            assert!(
                keys.iter()
                    .all(|&key| table.insert(&bytes, object, key, false))
            );
        }
        for object in [outer, inner] {
            assert!(
                !keys
                    .iter()
                    .any(|&key| table.insert(&bytes, object, key, false))
            );
        }
        table.close();
        table.close();
        let next = table.open();
        assert!(
            keys.iter()
                .all(|&key| table.insert(&bytes, next, key, false))
        );
        table.close_all();
        assert!(table.slots.is_empty(), "a large table was kept");
    }

    #[test]
    fn keys_that_all_collide_are_hashed_by_another_hash() {
        let (bytes, keys) = keys(3_000);
        let mut table = Table {
            hash: Hash::Constant,
            ..Table::default()
        };
        let object = table.open();
        assert!(
            keys.iter()
                .all(|&key| table.insert(&bytes, object, key, false))
        );
        assert!(
            !keys
                .iter()
                .any(|&key| table.insert(&bytes, object, key, false))
        );
        assert_eq!(table.hash, Hash::Strong);
        assert!(table.slots.len() <= 4 * keys.len());
    }

    #[test]
    fn the_table_is_empty_again_when_its_fillings_have_been_counted_through() {
        let (bytes, keys) = keys(10);
        let mut table = Table::default();
        let object = table.open();
        assert!(
            keys.iter()
                .all(|&key| table.insert(&bytes, object, key, false))
        );
        table.close();
        table.filling = u32::MAX;
        let object = table.open();
        assert!(
            keys.iter()
                .all(|&key| table.insert(&bytes, object, key, false))
        );
    }
}
