//! The keys of objects with many, in one table that every body uses again.
//!
//! Open addressing with linear probing, at most half full. Keys are hashed with a seed that nobody outside knows; should
//! one need more than [`PROBES_MAX`] steps all the same, the table hashes anew with SipHash, so that no input whatever
//! makes the search longer than a constant for each key.

use super::{
    keys::{KeySpan, MIX, decode, eight, word},
    plain::{Kernel, Plain},
};
use std::hash::{BuildHasher, RandomState};

/// More steps than a random hash needs in a table that is half full (beyond 64 once in 10^9 tables).
const PROBES_MAX: usize = 128;
const SLOTS_MIN: usize = 64;
/// A larger table is not kept for the next body: what a client's body may have at most, 512 KiB a thread.
const SLOTS_KEPT: usize = 32_768;

/// A key. Slots of objects before the table's first are empty: nothing is cleared between two bodies.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The object whose key it is.
    object: u32,
    hash: u32,
    /// Where it begins in the body, twice, and one more if it is written with escapes. It ends at its quote.
    place: usize,
}

impl Slot {
    #[inline(always)]
    fn new(object: u32, hash: u32, key: KeySpan, escaped: bool) -> Self {
        Self {
            object,
            hash,
            place: key.start << 1 | usize::from(escaped),
        }
    }

    fn escaped(self) -> bool {
        self.place & 1 != 0
    }

    /// Where it stands.
    fn key(self, bytes: &[u8]) -> KeySpan {
        let start = self.place >> 1;
        // It was read before, so it ends.
        let end = Plain::string(bytes, start).map_or(bytes.len(), |end| end.at());
        KeySpan { start, end }
    }

    /// Whether it means the same as another key.
    #[inline(always)]
    fn means(self, bytes: &[u8], key: KeySpan, escaped: bool) -> bool {
        if self.escaped() || escaped {
            return self.key(bytes).same(key, bytes);
        }
        let start = self.place >> 1;
        let end = start + (key.end - key.start);
        bytes.get(start..end) == Some(key.raw(bytes)) && bytes.get(end) == Some(&b'"')
    }
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
    filled: usize,
    /// Objects that are open.
    open: usize,
    /// The first object of this filling, and the last.
    first: u32,
    last: u32,
    hash: Hash,
    seeds: (u64, u64),
    fast: foldhash::fast::RandomState,
    strong: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        let fast = foldhash::fast::RandomState::default();
        Self {
            slots: Vec::new(),
            filled: 0,
            open: 0,
            first: 1,
            last: 0,
            hash: Hash::Fast,
            seeds: (fast.hash_one(1), fast.hash_one(2)),
            fast,
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
        self.last += 1;
        self.last
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
        if self.last > u32::MAX / 2 {
            // Names begin anew: slots of thousands of millions of objects ago would count again.
            self.slots.clear();
            self.last = 0;
        }
        self.first = self.last + 1;
    }

    /// Whether the key is the object's first of its meaning; it is remembered.
    #[inline(always)]
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
            if let Some(new) = self.place(bytes, object, key, escaped, hash) {
                return new;
            }
            self.out_of_probes(bytes);
        }
    }

    /// `None`: too many steps.
    #[inline(always)]
    fn place(
        &mut self,
        bytes: &[u8],
        object: u32,
        key: KeySpan,
        escaped: bool,
        hash: u32,
    ) -> Option<bool> {
        let last = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & last;
        for _ in 0..PROBES_MAX {
            let slot = self.slots.get_mut(at)?;
            if slot.object < self.first {
                *slot = Slot::new(object, hash, key, escaped);
                self.filled += 1;
                return Some(true);
            }
            if slot.hash == hash && slot.object == object && slot.means(bytes, key, escaped) {
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
            let first = self.first;
            let mut live = old.iter().filter(|slot| slot.object >= first);
            // All of them differ, so no bytes are needed to place them; but one may need too many steps.
            let moved = live.all(|&slot| {
                let hash = hash_anew.map_or(slot.hash, |bytes| {
                    self.hash(bytes, slot.object, slot.key(bytes), slot.escaped())
                });
                self.place_new(Slot { hash, ..slot })
            });
            if moved {
                return;
            }
            self.slots = old;
            wanted *= 2;
        }
    }

    /// Places a key that is known to be new; false: too many steps.
    fn place_new(&mut self, new: Slot) -> bool {
        let last = self.slots.len().wrapping_sub(1);
        for step in 0..PROBES_MAX {
            let at = (new.hash as usize).wrapping_add(step) & last;
            match self.slots.get_mut(at) {
                Some(slot) if slot.object < self.first => {
                    *slot = new;
                    self.filled += 1;
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    #[inline(always)]
    fn hash(&self, bytes: &[u8], object: u32, key: KeySpan, escaped: bool) -> u32 {
        let hash = if escaped {
            self.hash_of_escaped(key.raw(bytes))
        } else {
            self.hash_of(bytes, key)
        };
        // The same key of another object belongs elsewhere.
        ((hash ^ u64::from(object).wrapping_mul(MIX)) >> 32) as u32
    }

    #[cold]
    #[inline(never)]
    fn hash_of_escaped(&self, raw: &[u8]) -> u64 {
        let mut decoded = decode(raw);
        let end = decoded.len();
        // As if more followed, as it does in the body.
        decoded.extend_from_slice(&[0; 8]);
        self.hash_of(&decoded, KeySpan { start: 0, end })
    }

    #[inline(always)]
    fn hash_of(&self, bytes: &[u8], key: KeySpan) -> u64 {
        match self.hash {
            Hash::Fast => self.fast_hash(bytes, key),
            Hash::Strong => self.strong.hash_one(key.raw(bytes)),
            #[cfg(test)]
            Hash::Constant => 7 << 32,
        }
    }

    /// Up to sixteen bytes are two words, multiplied with the seed in them; longer keys are hashed whole.
    #[inline(always)]
    fn fast_hash(&self, bytes: &[u8], key: KeySpan) -> u64 {
        let length = key.end - key.start;
        let (a, b) = match (eight(bytes, key.start), length) {
            (_, 0..8) => (word(bytes, key), 0),
            (Some(first), 8..=16) => (first, eight(bytes, key.end - 8).unwrap_or_default()),
            _ => return self.fast.hash_one(key.raw(bytes)),
        };
        let product = u128::from(a ^ self.seeds.0) * u128::from(b ^ self.seeds.1);
        product as u64 ^ (product >> 64) as u64
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
            bytes.push(b'"');
            keys.push(KeySpan { start, end });
        }
        (bytes, keys)
    }

    #[test]
    fn every_key_is_new_once_to_every_object() {
        let (bytes, keys) = keys(20_000);
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
    fn the_table_is_empty_again_when_its_objects_have_been_counted_through() {
        let (bytes, keys) = keys(10);
        let mut table = Table::default();
        let object = table.open();
        assert!(
            keys.iter()
                .all(|&key| table.insert(&bytes, object, key, false))
        );
        table.close();
        table.last = u32::MAX - 1;
        let object = table.open();
        assert!(
            keys.iter()
                .all(|&key| table.insert(&bytes, object, key, false))
        );
    }
}
