//! Resources of the log as they were read: each is read again only when it has changed.

use crate::config::{FileProblem, Reading, watch::Seen};
use foldhash::fast::RandomState;
use proto::control::{Control, Kind, Resource};
use std::{collections::HashMap, sync::Arc};

/// Most sentences kept of what is wrong with one resource.
pub(super) const WHY_MAX: usize = 4;

/// A resource as it was read at a version.
#[derive(Debug)]
pub(super) struct Held<T> {
    version: u64,
    pub(super) value: Option<Arc<T>>,
    pub(super) why: Vec<String>,
    pub(super) seen: Vec<Seen>,
}

impl<T> Held<T> {
    fn new(version: u64, reading: Reading<T>) -> Self {
        Self {
            version,
            why: sentences(&reading.problems),
            value: reading.value.map(Arc::new),
            seen: reading.seen,
        }
    }

    pub(super) fn is_fine(&self) -> bool {
        self.why.is_empty()
    }
}

/// What is wrong, without what is only remarked.
pub(super) fn sentences(problems: &[FileProblem]) -> Vec<String> {
    let errors = problems.iter().filter(|problem| problem.is_error());
    errors.take(WHY_MAX).map(ToString::to_string).collect()
}

/// Reads what is new of a kind and forgets what is gone; whether there was any of it.
pub(super) fn hold<T>(
    held: &mut HashMap<String, Arc<Held<T>>, RandomState>,
    control: &Control,
    kind: Kind,
    read: impl Fn(&Resource, &[u8]) -> Reading<T>,
) -> bool {
    let before = held.len();
    held.retain(|name, held| {
        let found = control.get(kind, name);
        found.is_some_and(|resource| resource.version == held.version)
    });
    let mut changed = held.len() != before;
    for resource in control.iter(kind) {
        if let (false, Some(body)) = (held.contains_key(&resource.name), &resource.body) {
            let reading = read(resource, body);
            let fresh = Held::new(resource.version, reading);
            held.insert(resource.name.clone(), Arc::new(fresh));
            changed = true;
        }
    }
    changed
}
