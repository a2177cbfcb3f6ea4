//! Digests of records: the sum of those of all records tells whether two states are equal, whatever the order in which
//! they came about. They guard against mistakes, not against forgery: the key is public.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// A digest being made; the same on every platform.
pub(crate) struct Digest(SipHasher13);

impl Digest {
    /// Of a kind of record.
    pub(crate) fn new(kind: &str) -> Self {
        let mut digest = Self(SipHasher13::new_with_keys(0, kind.len() as u64));
        digest.0.write(kind.as_bytes());
        digest
    }
    pub(crate) fn word(mut self, word: u64) -> Self {
        self.0.write(&word.to_le_bytes());
        self
    }
    pub(crate) fn wide(mut self, wide: u128) -> Self {
        self.0.write(&wide.to_le_bytes());
        self
    }
    /// With its length, so that no two lists of bytes meet.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
        self
    }
    pub(crate) fn finish(self) -> u64 {
        self.0.finish()
    }
}
