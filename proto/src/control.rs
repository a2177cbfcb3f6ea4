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

/// Part of what changed after a version, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The reader's state must be thrown away first: what it knows is older than what deleted resources are remembered.
    pub from_nothing: bool,
    /// Changed resources in the order of their versions, deleted ones among them.
    pub resources: Vec<Resource>,
    /// What the reader knows when it has taken this page in.
    pub upto: u64,
    /// The newest version there is; the reader is complete when `upto` has reached it.
    pub newest: u64,
}

/// Every resource, at its newest version: as the machine holds it, and as nodes learn it page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {}
