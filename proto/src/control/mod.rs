//! The control plane's part of what is replicated: named documents, ordered with the spending.
//!
//! A resource's body is opaque here: the daemon checks what it means before it proposes it, and again before a view that
//! holds it takes effect. Versions count up by one with every change, over all resources; a reader that knows
//! everything up to a version asks for what came after.
//!
//! ```text
//! Change ──apply──► Control (machine) ──page(position)──► Page ──adopt──► Control (every node) ──► view, once complete
//! ```
//!
//! Deleted resources are remembered, so that readers hear of them, but not for ever: a reader that is older than the
//! newest deletion that was forgotten reads from nothing.

mod state;

pub use state::{Control, LoadError, Record, Stale};

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest body of one resource, bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Longest name of a resource, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest name of whoever changed a resource, bytes.
pub const BY_BYTES_MAX: usize = 256;
/// Most resources that are not deleted.
pub const RESOURCES_MAX: usize = 200_000;
/// Most bytes of all bodies together.
pub const BYTES_MAX: usize = 256 << 20;
/// Deleted resources that are remembered.
pub const TOMBSTONES_MAX: usize = 10_000;
/// Most resources in one page.
pub const PAGE_RESOURCES_MAX: usize = 4_096;

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
    /// Name, body or whoever changes it too long, or no name.
    #[error("the name is empty, or the name or the document is too long")]
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
