//! Keys that come twice, found in time linear in the bytes, whatever the bytes are.
//!
//! Most objects are small: each key becomes a word, a filter of 64 bits says that the word is new, and only where it
//! cannot is the short list of the object's keys searched. From [`LISTED_MAX`] keys on they go into a table.

use super::{Reason, table::Table, text};
use smallvec::SmallVec;
use std::cell::Cell;

/// Up to this many keys of an object are listed; beyond, they are hashed.
const LISTED_MAX: usize = 32;
/// A thread keeps room for this many nested objects, with their listed keys, for its next body.
const OUTER_KEPT: usize = 256;

/// Where a key stands in the body, between its quotes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeySpan {
    pub start: usize,
    pub end: usize,
}

impl KeySpan {
    /// The key as it is written.
    pub(super) fn raw(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether two keys mean the same.
    pub(super) fn same(self, other: KeySpan, bytes: &[u8]) -> bool {
        let (a, b) = (self.raw(bytes), other.raw(bytes));
        if a == b {
            return true;
        }
        let plain = |key| memchr::memchr(b'\\', key).is_none();
        if plain(a) && plain(b) {
            return false;
        }
        decode(a) == decode(b)
    }
}

/// What a key means; most that are written with escapes fit without an allocation.
pub(super) fn decode(raw: &[u8]) -> SmallVec<[u8; 128]> {
    let mut decoded = SmallVec::new();
    let first = memchr::memchr(b'\\', raw).unwrap_or(raw.len());
    // The escapes were validated when the key was passed.
    let _ = text::unescape_into(raw, first, |piece| decoded.extend_from_slice(piece));
    decoded
}

/// A listed key.
#[derive(Clone, Copy, Debug)]
struct Listed {
    word: u64,
    key: KeySpan,
}

/// An open object.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Bits of the words of its keys.
    filter: u64,
    /// Where its keys start in the list.
    first: u32,
    /// How many keys the body had when it began, and how many it may have with this object's.
    before: u32,
    limit: u32,
    /// How deep it is nested.
    depth: u32,
    /// Its name in the table; 0 while its keys are listed.
    object: u32,
}

/// What is used again by the thread's next body: no allocation for one that is no larger than those before.
#[derive(Debug, Default)]
struct Scratch {
    outer: Vec<Open>,
    listed: Vec<Listed>,
    table: Option<Box<Table>>,
}

thread_local! {
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// The keys of all objects that are open in one body.
#[derive(Debug)]
pub(super) struct Keys {
    object_max: u32,
    body_max: u32,
    /// Keys of the body so far.
    taken: u32,
    open: Open,
    /// The objects around it.
    outer: Vec<Open>,
    /// The keys of all open objects whose keys are listed, innermost last.
    listed: Vec<Listed>,
    table: Option<Box<Table>>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        let mut scratch = Scratch {
            outer: std::mem::take(&mut self.outer),
            listed: std::mem::take(&mut self.listed),
            table: self.table.take(),
        };
        scratch.outer.clear();
        scratch.listed.clear();
        scratch.outer.shrink_to(OUTER_KEPT);
        scratch.listed.shrink_to(OUTER_KEPT * LISTED_MAX);
        if let Some(table) = &mut scratch.table {
            table.close_all();
        }
        // At the thread's very end nothing is kept any more.
        let _ = SCRATCH.try_with(|kept| kept.set(Some(scratch)));
    }
}

impl Keys {
    pub(super) fn new(object_max: usize, body_max: usize) -> Self {
        let kept = SCRATCH.try_with(Cell::take).ok().flatten();
        let Scratch {
            outer,
            listed,
            table,
        } = kept.unwrap_or_default();
        Self {
            object_max: object_max.try_into().unwrap_or(u32::MAX),
            body_max: body_max.try_into().unwrap_or(u32::MAX),
            taken: 0,
            open: Open::default(),
            outer,
            listed,
            table,
        }
    }

    /// An object begins, nested this deep.
    #[inline(always)]
    pub(super) fn enter(&mut self, depth: u32) {
        self.outer.push(self.open);
        self.open = Open {
            first: self.listed.len() as u32,
            before: self.taken,
            limit: self
                .body_max
                .min(self.taken.saturating_add(self.object_max)),
            depth,
            ..Open::default()
        };
    }

    /// How deep the innermost open object is nested; 0 when none is open.
    #[inline(always)]
    pub(super) fn depth(&self) -> u32 {
        self.open.depth
    }

    /// The innermost object ends.
    #[inline(always)]
    pub(super) fn leave(&mut self) {
        self.listed.truncate(self.open.first as usize);
        if self.open.object != 0 {
            self.table.iter_mut().for_each(|table| table.close());
        }
        let inner = self.taken - self.open.before;
        self.open = self.outer.pop().unwrap_or_default();
        // Its keys are none of the outer object's.
        self.open.limit = self.body_max.min(self.open.limit.saturating_add(inner));
    }

    /// Takes the next key of the innermost object, or says why it may not stand there.
    #[inline(always)]
    pub(super) fn take(&mut self, bytes: &[u8], key: KeySpan, escaped: bool) -> Result<(), Reason> {
        if self.taken >= self.open.limit {
            return too_many();
        }
        self.taken += 1;
        let word = if escaped {
            word_of_escaped(key.raw(bytes))?
        } else {
            word(bytes, key)
        };
        let listed = self.listed.len().wrapping_sub(self.open.first as usize);
        if self.open.object != 0 || listed >= LISTED_MAX {
            return self.take_hashed(bytes, key, escaped);
        }
        let bit = 1 << (word.wrapping_mul(MIX) >> 58);
        if self.open.filter & bit != 0 && self.is_listed(bytes, word, key) {
            return Err(Reason::DuplicateKey);
        }
        self.open.filter |= bit;
        self.listed.push(Listed { word, key });
        Ok(())
    }

    #[inline(never)]
    fn is_listed(&self, bytes: &[u8], word: u64, key: KeySpan) -> bool {
        let listed = self.listed.get(self.open.first as usize..);
        let mut listed = listed.unwrap_or_default().iter();
        listed.any(|other| other.word == word && other.key.same(key, bytes))
    }

    #[inline(never)]
    fn take_hashed(&mut self, bytes: &[u8], key: KeySpan, escaped: bool) -> Result<(), Reason> {
        let table = self.table.get_or_insert_default();
        if self.open.object == 0 {
            self.open.object = table.open();
            for listed in self.listed.drain(self.open.first as usize..) {
                let escaped = memchr::memchr(b'\\', listed.key.raw(bytes)).is_some();
                table.insert(bytes, self.open.object, listed.key, escaped);
            }
        }
        if table.insert(bytes, self.open.object, key, escaped) {
            Ok(())
        } else {
            Err(Reason::DuplicateKey)
        }
    }
}

#[cold]
fn too_many() -> Result<(), Reason> {
    Err(Reason::TooManyKeys)
}

/// An odd number without pattern (the golden ratio's fraction).
pub(super) const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Eight bytes of a key, the first lowest.
#[inline(always)]
pub(super) fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*eight))
}

/// A word that keys of the same meaning share: up to eight bytes are the word, longer keys give both their ends. (No key
/// holds a zero byte, so that a short key's length shows.)
#[inline(always)]
pub(super) fn word(bytes: &[u8], key: KeySpan) -> u64 {
    let length = key.end - key.start;
    match eight(bytes, key.start) {
        Some(first) if length < 8 => first & ((1 << (8 * length)) - 1),
        Some(first) => {
            let last = eight(bytes, key.end - 8).unwrap_or_default();
            first ^ last.rotate_left(23) ^ (length as u64).wrapping_mul(MIX)
        }
        None => word_at_the_end(key.raw(bytes)),
    }
}

/// The same where eight bytes from the key's start would be behind the body's end.
#[cold]
fn word_at_the_end(key: &[u8]) -> u64 {
    let mut padded = [0; 8];
    for (to, &from) in padded.iter_mut().zip(key) {
        *to = from;
    }
    u64::from_le_bytes(padded)
}

#[cold]
fn word_of_escaped(raw: &[u8]) -> Result<u64, Reason> {
    let mut decoded = decode(raw);
    // Only an escape can bring this character: a bare one is a control character.
    if decoded.contains(&0) {
        return Err(Reason::NulKey);
    }
    let end = decoded.len();
    // As if more followed, as it does in the body.
    decoded.extend_from_slice(&[0; 8]);
    Ok(word(&decoded, KeySpan { start: 0, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the keys of one object, given as they are written; how many were taken before one was refused.
    fn taken(written: &[&str]) -> (usize, Option<Reason>) {
        let bytes = written.join("\"") + "\"";
        let mut keys = Keys::new(usize::MAX, usize::MAX);
        keys.enter(1);
        let mut start = 0;
        for (n, raw) in written.iter().enumerate() {
            let end = start + raw.len();
            if let Err(reason) =
                keys.take(bytes.as_bytes(), KeySpan { start, end }, raw.contains('\\'))
            {
                return (n, Some(reason));
            }
            start = end + 1;
        }
        (written.len(), None)
    }

    #[test]
    fn keys_are_the_same_only_if_they_mean_the_same() {
        let duplicate = Some(Reason::DuplicateKey);
        assert_eq!(taken(&["a", "b", "", "ab", "aa", "aaaaaaaa"]), (6, None));
        assert_eq!(taken(&["", "a", ""]), (2, duplicate));
        assert_eq!(taken(&["amount", r"am\u006funt"]), (1, duplicate));
        assert_eq!(taken(&[r"\u0061", r"\u0061"]), (1, duplicate));
        assert_eq!(taken(&["/a/long/key", r"\/a\/long\/key"]), (1, duplicate));
        assert_eq!(taken(&["😀", r"\ud83d\ude00"]), (1, duplicate));
        assert_eq!(taken(&["a", r"a\u0000"]), (1, Some(Reason::NulKey)));
        // Both ends and the length are equal.
        assert_eq!(
            taken(&["12345678a12345678", "12345678b12345678"]),
            (2, None)
        );
        assert_eq!(taken(&["12345678", "123456781234567812345678"]), (2, None));
    }

    #[test]
    fn a_duplicate_is_found_at_every_place_of_an_object_of_any_size() {
        let listed = LISTED_MAX;
        for size in [2, listed, listed + 1, listed + 2, 100, 1_024] {
            let names: Vec<String> = (0..size).map(|n| format!("key{n}")).collect();
            let mut written: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(taken(&written), (size, None));
            for twice in [0, size / 2, size - 1] {
                written.push(&names[twice]);
                assert_eq!(taken(&written), (size, Some(Reason::DuplicateKey)));
                written.pop();
            }
        }
    }
}
