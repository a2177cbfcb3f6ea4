//! Counters at rest: nothing in hand, nothing to say, but not to be forgotten while their window lives.
//!
//! What is kept of a counter is a few dozen bytes: its totals as variable-length integers, and its names. The tables
//! are so many and so small that each is nearly full when the node has as many counters as it may.

use super::{counter::Names, lock};
use proto::limit::{CounterKey, Kind, Limit, lease::Rest, ledger::Session};
use smallvec::SmallVec;
use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A table of 2,048 places holds seven eighths of that before it grows; this many leave it some room for chance.
const SHARD_FULL: usize = 1_640;

type Key = [u64; 2];
type Hasher = foldhash::fast::RandomState;

/// All counters at rest.
#[derive(Debug)]
pub(super) struct Parked {
    shards: Vec<Mutex<Shard>>,
    hasher: Hasher,
    /// Where the next sweep goes on.
    next: AtomicUsize,
}

/// The totals of one session; void under another.
#[derive(Debug, Default)]
struct Shard {
    session: Option<Session>,
    counters: HashMap<Key, Record, Hasher>,
}

#[derive(Debug)]
struct Record {
    limit: Arc<Limit>,
    bytes: Box<[u8]>,
}

/// One of them, taken out or looked at.
#[derive(Debug)]
pub(super) struct Known {
    pub key: CounterKey,
    pub limit: Arc<Limit>,
    pub names: Names,
    pub rest: Rest,
}

impl Parked {
    pub(super) fn new(counters_max: usize) -> Self {
        let shards = counters_max.div_ceil(SHARD_FULL).max(1);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: Hasher::default(),
            next: AtomicUsize::new(0),
        }
    }

    /// Puts a counter to rest; `false` where its totals are of a session that is not the present one.
    pub(super) fn put(
        &self,
        key: CounterKey,
        limit: &Arc<Limit>,
        names: &Names,
        rest: &Rest,
    ) -> bool {
        let Some(shard) = self.shard(key) else {
            return false;
        };
        let mut shard = lock(shard);
        if shard.session != Some(rest.session) {
            return false;
        }
        let record = Record {
            limit: limit.clone(),
            bytes: write(names, rest),
        };
        shard.counters.insert(halves(key), record);
        true
    }

    /// Takes a counter out.
    pub(super) fn take(&self, key: CounterKey) -> Option<Known> {
        let mut shard = lock(self.shard(key)?);
        let session = shard.session?;
        let record = shard.counters.remove(&halves(key))?;
        record.read(key, session)
    }

    /// Looks at a counter.
    pub(super) fn look(&self, key: CounterKey) -> Option<Known> {
        let shard = lock(self.shard(key)?);
        shard.counters.get(&halves(key))?.read(key, shard.session?)
    }

    /// Looks at all of them; a question for people.
    pub(super) fn for_each(&self, mut look: impl FnMut(Known)) {
        for shard in &self.shards {
            let shard = lock(shard);
            let Some(session) = shard.session else {
                continue;
            };
            for (halves, record) in &shard.counters {
                if let Some(known) = record.read(whole(*halves), session) {
                    look(known);
                }
            }
        }
    }

    /// Another session begins: all totals are void. Says how many there were.
    pub(super) fn clear(&self, session: Session) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            if shard.session != Some(session) {
                count += shard.counters.len();
                shard.session = Some(session);
                shard.counters = HashMap::default();
            }
        }
        count
    }

    /// Forgets counters of the next shards whose window the ledger was heard to be past, until about so many were
    /// looked at. Says how many it forgot, and the key of one that would be due at `about_ms` but was not heard to be.
    pub(super) fn sweep(
        &self,
        most: usize,
        heard_ms: u64,
        about_ms: u64,
    ) -> (usize, Option<CounterKey>) {
        let (mut seen, mut gone, mut due) = (0, 0, None);
        for _ in 0..self.shards.len() {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = self.shards.get(next % self.shards.len().max(1)) else {
                break;
            };
            let mut shard = lock(shard);
            let before = shard.counters.len();
            shard.counters.retain(|halves, record| {
                let end_ms = record.end_ms();
                if end_ms > heard_ms && end_ms <= about_ms {
                    due = Some(whole(*halves));
                }
                end_ms > heard_ms
            });
            gone += before - shard.counters.len();
            if shard.counters.len() < shard.counters.capacity() / 4 {
                shard.counters.shrink_to_fit();
            }
            seen += before;
            if seen >= most {
                break;
            }
        }
        (gone, due)
    }

    fn shard(&self, key: CounterKey) -> Option<&Mutex<Shard>> {
        let hash = self.hasher.hash_one(halves(key));
        self.shards.get(hash as usize % self.shards.len().max(1))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).counters.len())
            .sum()
    }
}

impl Record {
    fn read(&self, key: CounterKey, session: Session) -> Option<Known> {
        let mut rest: &[u8] = &self.bytes;
        let mut next = || read(&mut rest);
        let window = u64::try_from(next()?).ok()?;
        let granted_total = next()?;
        let returned_total = next()?;
        let refunded = u64::try_from(next()?).ok()?;
        let others = u64::try_from(next()?).ok()?;
        let scope = u64::try_from(next()?).ok()?;
        let text = std::str::from_utf8(rest).ok()?;
        Some(Known {
            key,
            limit: self.limit.clone(),
            names: Names::from_parts(text, u16::try_from(scope >> 1).ok()?, scope & 1 == 1),
            rest: Rest {
                session,
                window,
                end_ms: self.end_of(window),
                granted_total,
                returned_total,
                others,
                refunded,
            },
        })
    }

    fn end_ms(&self) -> u64 {
        let window = read(&mut &*self.bytes).and_then(|window| u64::try_from(window).ok());
        window.map_or(0, |window| self.end_of(window))
    }

    fn end_of(&self, window: u64) -> u64 {
        match self.limit.kind {
            Kind::Rate(length) => length.bounds_ms(window).1,
            Kind::InFlight => 0,
        }
    }
}

fn halves(key: CounterKey) -> Key {
    [key.0 as u64, (key.0 >> 64) as u64]
}

fn whole(halves: Key) -> CounterKey {
    CounterKey(u128::from(halves[0]) | u128::from(halves[1]) << 64)
}

fn write(names: &Names, rest: &Rest) -> Box<[u8]> {
    let (text, scope_bytes, has_key) = names.parts();
    // On the stack first: one allocation of the right size, nothing shrunk.
    let mut bytes: SmallVec<[u8; 128]> = SmallVec::new();
    for number in [
        rest.window.into(),
        rest.granted_total,
        rest.returned_total,
        rest.refunded.into(),
        rest.others.into(),
        u128::from(scope_bytes) << 1 | u128::from(has_key),
    ] {
        let mut number: u128 = number;
        // Seven bits a byte, the lowest first; the top bit says that more follow.
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes.extend_from_slice(text.as_bytes());
    Box::from(&*bytes)
}

fn read(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0;
    for shift in (0..128).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u128::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_to_rest_is_found_again_exactly() {
        let parked = Parked::new(100_000);
        let limit = Arc::new(super::super::tests::plain(1, 10));
        let (session, other) = (Session(5), Session(6));
        assert_eq!(parked.clear(session), 0);
        for (window, total) in [(0, 0), (29_498_399, 300), (u64::MAX >> 1, u128::MAX)] {
            for key in [None, Some(""), Some("s:7")] {
                let names = Names::new("grant-ü", key);
                let rest = Rest {
                    session,
                    window,
                    end_ms: limit_end(window),
                    granted_total: total,
                    returned_total: total / 2,
                    others: 7,
                    refunded: 1 << 40,
                };
                let key = CounterKey(total << 3 | 1);
                assert!(parked.put(key, &limit, &names, &rest));
                assert_eq!(parked.look(key).unwrap().rest, rest);
                let known = parked.take(key).unwrap();
                assert_eq!((known.rest, &known.names), (rest, &names));
                assert!(parked.take(key).is_none());
                let stale = Rest {
                    session: other,
                    ..rest
                };
                assert!(!parked.put(key, &limit, &known.names, &stale));
            }
        }
    }

    fn limit_end(window: u64) -> u64 {
        proto::limit::Window::Duration(60_000).bounds_ms(window).1
    }
}
