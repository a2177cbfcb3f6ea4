//! One view from files and log. What did not change is not read, compiled or bound again.

use super::{
    bind::{Bind, Bound, Compiled},
    hold::{Held, WHY_MAX, hold},
};
use crate::{
    config::{Bindings, Loaded, LogGrant, Sources, Surroundings, log, names, watch::Seen},
    view::{Grant, Origin, Server, Unresolved, View},
};
use foldhash::fast::RandomState;
use proto::{
    control::{Control, Kind, Resource},
    grant::TokenHash,
    id::ServerName,
    policy::dialect,
};
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
};

/// Puts views together, and remembers what it read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembler {
    servers: HashMap<String, Arc<Held<Server>>, RandomState>,
    pub(super) policies: HashMap<String, Arc<Held<dialect::Loaded>>, RandomState>,
    grants: HashMap<String, Arc<Held<LogGrant>>, RandomState>,
    pub(super) bound: HashMap<String, Bound, RandomState>,
    /// Grows with every change of what grants are bound to.
    pub(super) epoch: u64,
    /// By policy, then server.
    pub(super) compiled: HashMap<String, HashMap<ServerName, Compiled, RandomState>, RandomState>,
    /// Policies on servers whose limits the ledger does not take, and why.
    pub(super) refused: HashMap<(String, ServerName), String, RandomState>,
}

/// What became of the log's resources.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    unresolved: BTreeMap<(Kind, String), Unresolved>,
}

impl Outcome {
    pub(super) fn cannot(&mut self, resource: &Resource, why: impl IntoIterator<Item = String>) {
        let key = (resource.kind, resource.name.clone());
        let entry = self.unresolved.entry(key).or_insert_with(|| Unresolved {
            kind: resource.kind,
            name: resource.name.clone(),
            version: resource.version,
            why: Vec::new(),
        });
        for why in why {
            if entry.why.len() < WHY_MAX && !entry.why.contains(&why) {
                entry.why.push(why);
            }
        }
    }
}

impl Outcome {
    /// What was found for one grant, found again.
    pub(super) fn merge(&mut self, other: &Self) {
        for (key, found) in &other.unresolved {
            match self.unresolved.get_mut(key) {
                None => {
                    self.unresolved.insert(key.clone(), found.clone());
                }
                Some(known) => {
                    let room = WHY_MAX.saturating_sub(known.why.len());
                    let new = found.why.iter().filter(|why| !known.why.contains(why));
                    let new: Vec<_> = new.take(room).cloned().collect();
                    known.why.extend(new);
                }
            }
        }
    }
}

/// Names that stand both in the files and in the log.
pub(super) fn conflicts(files: &Loaded, control: &Control) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    for kind in [Kind::Server, Kind::Policy, Kind::Grant] {
        let taken = names(files, kind);
        let both = control
            .iter(kind)
            .filter(|resource| taken.contains(&*resource.name));
        found.extend(both.map(|resource| (kind, resource.name.clone())));
    }
    found
}

impl Assembler {
    /// The files were read again: what was read with them in mind is read anew.
    pub(super) fn files_changed(&mut self) {
        self.servers.clear();
        self.compiled.clear();
        self.refused.clear();
        self.epoch += 1;
    }

    /// The ledger refuses the limits of these policies: until the log changes they count as unresolved.
    pub(super) fn refuse(
        &mut self,
        policies: impl IntoIterator<Item = (String, ServerName)>,
        why: &str,
    ) {
        let refused = policies.into_iter().map(|key| (key, why.to_owned()));
        self.refused.extend(refused);
        self.epoch += 1;
    }

    /// The log changed: what was refused may fit now.
    pub(super) fn accept(&mut self) {
        if !self.refused.is_empty() {
            self.refused.clear();
            self.epoch += 1;
        }
    }

    /// Files that servers of the log refer to.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let seen = self.servers.values().flat_map(|held| &held.seen);
        seen.cloned().collect()
    }

    /// Puts a view together.
    pub(super) fn assemble(&mut self, files: &Loaded, control: &Control, revision: u64) -> View {
        let mut outcome = Outcome::default();
        let sources = Sources::default();
        let with = Surroundings {
            sources: &sources,
            bounds: &files.view.bounds,
            commands: files.settings.cluster.commands_from_log,
        };
        let read = |resource: &Resource, body: &[u8]| log::server(&resource.name, body, with);
        let mut changed = hold(&mut self.servers, control, Kind::Server, read);
        let read = |resource: &Resource, body: &[u8]| log::policy(&resource.name, body, with);
        changed |= hold(&mut self.policies, control, Kind::Policy, read);
        self.epoch += u64::from(changed);
        let read = |resource: &Resource, body: &[u8]| log::grant(&resource.name, body, with);
        hold(&mut self.grants, control, Kind::Grant, read);
        self.bound
            .retain(|name, _| control.get(Kind::Grant, name).is_some());
        self.compiled
            .retain(|name, _| files.policy(name).is_some() || self.policies.contains_key(name));

        let mut servers = files.view.servers.clone();
        let taken = names(files, Kind::Server);
        let mut known: HashMap<&str, Arc<Server>, RandomState> = HashMap::default();
        for (name, server) in &files.view.servers {
            known.insert(name, server.clone());
        }
        for resource in control.iter(Kind::Server) {
            let Some(held) = self.servers.get(&resource.name) else {
                continue;
            };
            outcome.told(resource, held);
            match &held.value {
                _ if taken.contains(&*resource.name) => {
                    // Which of the two a grant of the log means cannot be known.
                    known.remove(&*resource.name);
                    outcome.cannot(resource, [both(resource)]);
                }
                Some(server) if held.is_fine() => {
                    known.insert(&resource.name, server.clone());
                    servers.insert(server.name.clone(), server.clone());
                }
                _ => {}
            }
        }

        let taken = names(files, Kind::Policy);
        for resource in control.iter(Kind::Policy) {
            if let Some(held) = self.policies.get(&resource.name) {
                outcome.told(resource, held);
            }
            if taken.contains(&*resource.name) {
                outcome.cannot(resource, [both(resource)]);
            }
        }

        let mut grants = files.view.grants.clone();
        let taken = names(files, Kind::Grant);
        let held = std::mem::take(&mut self.grants);
        for resource in control.iter(Kind::Grant) {
            let Some(held) = held.get(&resource.name) else {
                continue;
            };
            outcome.told(resource, held);
            let double = taken.contains(&*resource.name);
            if double {
                outcome.cannot(resource, [both(resource)]);
            }
            let Some(grant) = &held.value else {
                continue;
            };
            let barred = double || !held.is_fine();
            let site = Bind {
                files,
                control,
                known: &known,
                outcome: &mut outcome,
                resource,
            };
            let bound = self.bind(grant, barred, site);
            for (hash, grant) in bound {
                insert(&mut grants, (hash, grant), resource, control, &mut outcome);
            }
        }
        drop(known);
        self.grants = held;

        let from_log = |name: &str| match control.get(Kind::Policy, name) {
            Some(_) if files.policy(name).is_none() => Origin::Log,
            _ => Origin::File,
        };
        View {
            revision,
            policies: View::used_policies(grants.values(), from_log),
            control: control.version(),
            unresolved: outcome.unresolved.into_values().collect(),
            grants,
            servers,
            bounds: files.view.bounds.clone(),
            hosts: files.view.hosts.clone(),
            origins: files.view.origins.clone(),
        }
    }
}

impl Outcome {
    fn told<T>(&mut self, resource: &Resource, held: &Held<T>) {
        if !held.is_fine() {
            self.cannot(resource, held.why.iter().cloned());
        }
    }
}

fn both(resource: &Resource) -> String {
    let (kind, name) = (log::kind_word(resource.kind), &resource.name);
    format!("a {kind} `{name}` is in this node's files too: take one of the two away")
}

/// One token leads to one grant. Where two claim it, it is refused, except that the log does not take a good token away
/// from a grant of this node's files; it does once its own grant is revoked.
fn insert(
    grants: &mut HashMap<TokenHash, Arc<Grant>, RandomState>,
    (hash, grant): (TokenHash, Arc<Grant>),
    resource: &Resource,
    control: &Control,
    outcome: &mut Outcome,
) {
    let mut place = match grants.entry(hash) {
        Entry::Vacant(place) => {
            place.insert(grant);
            return;
        }
        Entry::Occupied(place) => place,
    };
    let other = place.get();
    let whose = match other.origin {
        Origin::File => format!("the grant `{}` of this node's files", other.id),
        Origin::Log => format!("the grant `{}`", other.id),
    };
    outcome.cannot(resource, [format!("its token is also that of {whose}")]);
    if other.origin == Origin::Log
        && let Some(twin) = control.get(Kind::Grant, &other.id)
    {
        let why = format!("its token is also that of the grant `{}`", grant.id);
        outcome.cannot(twin, [why]);
    }
    let revoked = grant.revoked || other.revoked;
    if other.origin == Origin::Log || revoked {
        let refused = Grant {
            id: grant.id.clone(),
            label: grant.label.clone(),
            expires_ms: grant.expires_ms,
            revoked,
            origin: Origin::Log,
            former: grant.former,
            barred: true,
            unresolved: Vec::new(),
            servers: Bindings::default(),
        };
        place.insert(Arc::new(refused));
    }
}
