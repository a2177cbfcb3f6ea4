//! The control plane's part of what is replicated: named documents, ordered with the spending.
//!
//! A resource's body is opaque here: the daemon checks what it means before it proposes it, and again before a view that
//! holds it takes effect. Versions count up by one with every change, over all resources; a reader that knows
//! everything up to a version asks for what came after.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest body of one resource, bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Longest name of a resource, bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One grant, JSON as an entry of `grants` in the configuration (without its id, which is the name).
    Grant,
    /// A policy's document in any dialect, as written.
    Policy,
    /// One server, JSON as an entry of `servers` in the configuration.
    Server,
}

/// One resource at its newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name, unique among its kind.
    pub name: String,
    /// The control version at which it was last changed.
    pub version: u64,
    /// Replicated time of that change, milliseconds since 1970.
    pub changed_ms: u64,
    /// Who changed it: the admin's name as the admin plane knows it, bounded.
    pub by: String,
    /// The document; `None`: deleted.
    pub body: Option<Arc<[u8]>>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub name: String,
    /// The new document; `None` deletes.
    pub body: Option<Arc<[u8]>>,
    /// Carried out only if the resource's version is this one (0: there is none, or it is deleted); `None`: always.
    pub expect: Option<u64>,
    /// Who.
    pub by: String,
}

/// Why a change was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// `expect` does not hold.
    #[error("it was changed meanwhile: its version is {version}")]
    Changed {
        /// Its version now; 0: there is none.
        version: u64,
    },
    /// There is no such resource to delete.
    #[error("there is none of this name")]
    Unknown,
    /// Name or body too long.
    #[error("the name or the document is too long")]
    TooLarge,
    /// The table or its bytes are full.
    #[error("the control plane is full")]
    Full,
}

/// How much of the control plane a reader has: everything up to `upto`, in order, if it began to read when `since` was the
/// newest version. Deletions up to `since` never concern it: it has not read what they deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Everything up to this version was read.
    pub upto: u64,
    /// The newest version when reading began from nothing.
    pub since: u64,
}

/// Part of what changed after a position, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The position that it continues; where its `upto` is 0 the reader's state is thrown away first.
    pub after: Position,
    /// Changed resources in the order of their versions, deleted ones among them.
    pub resources: Vec<Resource>,
    /// What the reader has when it has taken this page in.
    pub upto: u64,
    /// The newest version there is; the reader is complete when `upto` has reached it.
    pub newest: u64,
}

/// Every resource, at its newest version: as the machine holds it, and as nodes learn it page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {}

/// One piece of the control plane's state; opaque, at most some 4 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {}

/// Why records are not a control plane's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records are not a control plane's state: {0}")]
pub struct LoadError(pub &'static str);

/// A page that does not continue what the reader has; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page of the control plane does not continue what is known")]
pub struct Stale;

impl Control {
    /// Carries a change out; its version.
    pub fn apply(&mut self, _change: &Change, _now_ms: u64) -> Result<u64, Refusal> {
        Err(Refusal::Full)
    }

    /// The newest version that was applied or read.
    pub fn version(&self) -> u64 {
        0
    }

    /// For a reader: how much it has.
    pub fn position(&self) -> Position {
        Position::default()
    }

    /// For a reader: it has everything up to the newest version that it has heard of. Only then may what it has be put in
    /// force.
    pub fn is_complete(&self) -> bool {
        true
    }

    /// What comes after a reader's position, at most `bytes_max` bytes of documents, unless one alone is larger.
    pub fn page(&self, _after: Position, _bytes_max: usize) -> Page {
        Page::default()
    }

    /// Takes a page in; whether anything changed.
    pub fn adopt(&mut self, _page: Page) -> Result<bool, Stale> {
        Ok(false)
    }

    /// A resource that is not deleted.
    pub fn get(&self, _kind: Kind, _name: &str) -> Option<&Resource> {
        None
    }

    /// Every resource of a kind that is not deleted, by name.
    pub fn iter(&self, _kind: Kind) -> impl Iterator<Item = &Resource> {
        std::iter::empty()
    }

    /// Equal for equal states, however they came about. Costs nothing.
    pub fn hash(&self) -> u64 {
        0
    }

    /// Everything in it, in pieces. A clone of it is cheap and changes no more.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::empty()
    }

    /// The state that was written as records.
    pub fn load(records: impl IntoIterator<Item = Record>) -> Result<Self, LoadError> {
        records.into_iter().for_each(drop);
        Ok(Self::default())
    }
}
