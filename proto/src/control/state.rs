//! The control plane's state: the machine's, and each node's copy of it.

use super::{
    BODY_BYTES_MAX, BY_BYTES_MAX, BYTES_MAX, Change, Kind, NAME_BYTES_MAX, PAGE_RESOURCES_MAX,
    Page, Position, RESOURCES_MAX, Refusal, Resource, TOMBSTONES_MAX,
};
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

/// Bytes that a resource takes in a page beside its body, about.
const RESOURCE_BYTES: usize = 256;

/// Every resource, at its newest version: as the machine holds it, and as nodes learn it page by page. A clone shares the
/// documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The newest version that was applied or read.
    version: u64,
    /// The newest version when reading began (readers).
    since: u64,
    /// The newest version that was heard of.
    newest: u64,
    /// The version of the newest deletion that was forgotten.
    floor: u64,
    /// By kind, then name; deleted ones too.
    names: BTreeMap<Kind, BTreeMap<Arc<str>, Arc<Entry>>>,
    /// The same by version.
    versions: BTreeMap<u64, Arc<Entry>>,
    /// The versions of deleted ones.
    tombstones: BTreeSet<u64>,
    /// Of all bodies.
    bytes: usize,
    /// Of the digests.
    sum: u64,
}

/// A resource and the digest of everything in it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    resource: Resource,
    digest: u64,
}

/// One piece of the control plane's state; opaque, at most some 4 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record(Piece);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    /// Comes first.
    Meta {
        version: u64,
        floor: u64,
    },
    Resource(Resource),
}

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
    pub fn apply(&mut self, change: &Change, now_ms: u64) -> Result<u64, Refusal> {
        let body_bytes = change.body.as_ref().map_or(0, |body| body.len());
        if change.name.is_empty()
            || change.name.len() > NAME_BYTES_MAX
            || change.by.len() > BY_BYTES_MAX
            || body_bytes > BODY_BYTES_MAX
        {
            return Err(Refusal::TooLarge);
        }
        let known = self.get(change.kind, &change.name);
        let version = known.map_or(0, |known| known.version);
        if change.expect.is_some_and(|expected| expected != version) {
            return Err(Refusal::Changed { version });
        }
        if change.body.is_none() && known.is_none() {
            return Err(Refusal::Unknown);
        }
        let bytes = self
            .bytes
            .saturating_sub(known.map_or(0, Resource::bytes))
            .saturating_add(body_bytes);
        if known.is_none() && self.len() >= RESOURCES_MAX || bytes > BYTES_MAX {
            return Err(Refusal::Full);
        }
        let version = self.version.checked_add(1).ok_or(Refusal::Full)?;
        self.put(Resource {
            kind: change.kind,
            name: change.name.clone(),
            version,
            changed_ms: now_ms,
            by: change.by.clone(),
            body: change.body.clone(),
        });
        (self.version, self.newest) = (version, version);
        while self.tombstones.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.tombstones.pop_first()
        {
            self.floor = oldest;
            if let Some(entry) = self.versions.get(&oldest).cloned() {
                self.forget(&entry.resource);
            }
        }
        Ok(version)
    }

    /// The newest version that was applied or read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Resources that are not deleted.
    pub fn len(&self) -> usize {
        self.versions.len().saturating_sub(self.tombstones.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// For a reader: how much it has.
    pub fn position(&self) -> Position {
        Position {
            upto: self.version,
            since: self.since,
        }
    }

    /// For a reader: it has everything up to the newest version that it has heard of. Only then may what it has be put in
    /// force.
    pub fn is_complete(&self) -> bool {
        self.version >= self.newest
    }

    /// What comes after a reader's position, at most `bytes_max` bytes of documents, unless one alone is larger. A reader
    /// that may have missed a deletion, or knows more than there is, begins anew.
    pub fn page(&self, after: Position, bytes_max: usize) -> Page {
        let has_missed = self.floor > after.upto.max(after.since);
        let after = if after.upto == 0 || has_missed || after.upto > self.version {
            Position {
                upto: 0,
                since: self.version,
            }
        } else {
            after
        };
        let (mut upto, mut bytes) = (after.upto, 0usize);
        let mut resources = Vec::new();
        let mut is_whole = true;
        for (version, entry) in self
            .versions
            .range((Bound::Excluded(after.upto), Bound::Unbounded))
        {
            let resource = &entry.resource;
            // What was deleted before reading began was never read.
            if resource.body.is_none() && *version <= after.since {
                upto = *version;
                continue;
            }
            bytes = bytes.saturating_add(resource.bytes().saturating_add(RESOURCE_BYTES));
            let is_full = bytes > bytes_max || resources.len() >= PAGE_RESOURCES_MAX;
            if is_full && !resources.is_empty() {
                is_whole = false;
                break;
            }
            resources.push(resource.clone());
            upto = *version;
        }
        Page {
            after,
            resources,
            upto: if is_whole { self.version } else { upto },
            newest: self.version,
        }
    }

    /// Takes a page in; whether anything changed, be it only the version. A page may come twice or late: what is known never becomes older.
    pub fn adopt(&mut self, page: Page) -> Result<bool, Stale> {
        let is_first = page.after.upto == 0;
        let mut last = page.after.upto;
        let in_order = page.resources.iter().all(|resource| {
            let is_next = resource.version > last && resource.version <= page.upto;
            last = resource.version;
            is_next && resource.is_sized()
        });
        let continues = page.after.since == self.since && page.after.upto <= self.version;
        if !in_order
            || page.newest < self.newest
            || page.upto < page.after.upto
            || page.upto > page.newest
            || !(is_first || continues)
        {
            return Err(Stale);
        }
        let bodies = page.resources.iter().map(Resource::bytes);
        let bytes = bodies.fold(0, usize::saturating_add);
        let known = if is_first {
            (0, 0)
        } else {
            (self.bytes, self.len())
        };
        if known.0.saturating_add(bytes) > 2 * BYTES_MAX
            || known.1.saturating_add(page.resources.len()) > 2 * RESOURCES_MAX
        {
            return Err(Stale);
        }
        let has_changed = page.upto > self.version || is_first && self.version > 0;
        if is_first {
            *self = Self {
                since: page.after.since,
                ..Self::default()
            };
        }
        self.newest = page.newest;
        for resource in page.resources {
            if resource.version <= self.version {
                continue;
            }
            if resource.body.is_some() {
                self.put(resource);
            } else {
                // A reader tells nobody else of deletions.
                self.forget(&resource);
            }
        }
        self.version = self.version.max(page.upto);
        Ok(has_changed)
    }

    /// A resource that is not deleted.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        let entry = self.names.get(&kind)?.get(name)?;
        entry.resource.body.is_some().then_some(&entry.resource)
    }

    /// Every resource of a kind that is not deleted, by name.
    pub fn iter(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.names
            .get(&kind)
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|entry| &entry.resource)
            .filter(|resource| resource.body.is_some())
    }

    /// Equal for equal states of machines, however they came about. Costs nothing.
    pub fn hash(&self) -> u64 {
        Digest::new("control")
            .word(self.version)
            .word(self.floor)
            .word(self.sum)
            .finish()
    }

    /// Everything in it, in pieces. A clone of it is cheap and changes no more.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let meta = Piece::Meta {
            version: self.version,
            floor: self.floor,
        };
        let resources = self.versions.values();
        std::iter::once(meta)
            .chain(resources.map(|entry| Piece::Resource(entry.resource.clone())))
            .map(Record)
    }

    /// The state that was written as records.
    pub fn load(records: impl IntoIterator<Item = Record>) -> Result<Self, LoadError> {
        let mut records = records.into_iter();
        let Some(Record(Piece::Meta { version, floor })) = records.next() else {
            return Err(LoadError("they begin otherwise"));
        };
        let mut control = Self {
            version,
            newest: version,
            floor,
            ..Self::default()
        };
        let mut last = 0;
        for Record(piece) in records {
            let Piece::Resource(resource) = piece else {
                return Err(LoadError("they begin twice"));
            };
            let fits = resource.version > last
                && resource.version <= version
                && resource.is_sized()
                && control.len() < RESOURCES_MAX
                && control.bytes.saturating_add(resource.bytes()) <= BYTES_MAX;
            if !fits {
                return Err(LoadError("a resource does not fit"));
            }
            last = resource.version;
            let (kind, name) = (resource.kind, resource.name.as_str());
            if control
                .names
                .get(&kind)
                .is_some_and(|names| names.contains_key(name))
            {
                return Err(LoadError("a resource comes twice"));
            }
            control.put(resource);
        }
        Ok(control)
    }

    /// Puts a resource in place of its former version.
    fn put(&mut self, resource: Resource) {
        self.forget(&resource);
        let entry = Arc::new(Entry {
            digest: resource.digest(),
            resource,
        });
        let resource = &entry.resource;
        self.bytes = self.bytes.saturating_add(resource.bytes());
        self.sum = self.sum.wrapping_add(entry.digest);
        if resource.body.is_none() {
            self.tombstones.insert(resource.version);
        }
        self.versions.insert(resource.version, entry.clone());
        let names = self.names.entry(resource.kind).or_default();
        names.insert(resource.name.as_str().into(), entry);
    }

    /// Takes the known version of a resource out.
    fn forget(&mut self, resource: &Resource) {
        let names = self.names.get_mut(&resource.kind);
        let Some(former) = names.and_then(|names| names.remove(resource.name.as_str())) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(former.resource.bytes());
        self.sum = self.sum.wrapping_sub(former.digest);
        self.tombstones.remove(&former.resource.version);
        self.versions.remove(&former.resource.version);
    }
}

impl Resource {
    /// Of its body.
    fn bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.len())
    }

    fn is_sized(&self) -> bool {
        !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && self.by.len() <= BY_BYTES_MAX
            && self.bytes() <= BODY_BYTES_MAX
    }

    fn digest(&self) -> u64 {
        Digest::new("resource")
            .word(match self.kind {
                Kind::Grant => 0,
                Kind::Policy => 1,
                Kind::Server => 2,
            })
            .bytes(self.name.as_bytes())
            .word(self.version)
            .word(self.changed_ms)
            .bytes(self.by.as_bytes())
            .word(self.body.is_some().into())
            .bytes(self.body.as_deref().unwrap_or_default())
            .finish()
    }
}

#[cfg(test)]
mod tests;
