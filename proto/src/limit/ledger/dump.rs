//! The ledger as records: for snapshots, and for hashes.

use serde::{Deserialize, Serialize};

/// One piece of a ledger's state; opaque, at most some 100 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {}

/// A state that changes no more.
#[derive(Clone, Debug)]
pub struct Frozen {}

impl Frozen {
    /// Everything in it, in pieces.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::empty()
    }
}

/// Why records are not a ledger's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records are not a ledger's state: {0}")]
pub struct LoadError(pub &'static str);
