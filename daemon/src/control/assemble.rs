//! One view from files and log. What did not change is not read, compiled or bound again.

use super::hold::{Held, WHY_MAX, hold, sentences};
use crate::{
    config::{Bindings, Loaded, LogGrant, Sources, Surroundings, compile, log, watch::Seen},
    view::{Binding, Grant, Origin, Server, Unresolved, View},
};
use foldhash::fast::RandomState;
use proto::{
    control::{Control, Kind, Resource},
    grant::TokenHash,
    id::ServerName,
    policy::{Policy, dialect},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

/// A grant under its tokens, as it was last bound.
#[derive(Clone, Debug)]
struct Bound {
    version: u64,
    barred: bool,
    tokens: Vec<(TokenHash, Arc<Grant>)>,
}

/// A policy compiled for a server.
#[derive(Clone, Debug)]
struct Compiled {
    /// The version of the document in the log; 0: it stands in the files.
    version: u64,
    policy: Result<Arc<Policy>, Vec<String>>,
}

/// Puts views together, and remembers what it read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembler {
    servers: HashMap<String, Arc<Held<Server>>, RandomState>,
    policies: HashMap<String, Arc<Held<dialect::Loaded>>, RandomState>,
    grants: HashMap<String, Arc<Held<LogGrant>>, RandomState>,
    bound: HashMap<String, Bound, RandomState>,
    /// By policy, then server.
    compiled: HashMap<String, HashMap<ServerName, Compiled, RandomState>, RandomState>,
    /// Policies on servers whose limits the ledger does not take, and why.
    refused: HashMap<(String, ServerName), String, RandomState>,
}

/// What became of the log's resources.
#[derive(Default)]
struct Outcome {
    unresolved: BTreeMap<(Kind, String), Unresolved>,
}

impl Outcome {
    fn cannot(&mut self, resource: &Resource, why: impl IntoIterator<Item = String>) {
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

/// The names of one kind that the files of a node take.
pub(super) fn names(files: &Loaded, kind: Kind) -> HashSet<&str> {
    match kind {
        Kind::Server => files.view.servers.keys().map(|name| &**name).collect(),
        Kind::Policy => files.policy_names().collect(),
        Kind::Grant => files.view.grants.values().map(|grant| &*grant.id).collect(),
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
    }

    /// The ledger refuses the limits of these policies: until the log changes they count as unresolved.
    pub(super) fn refuse(
        &mut self,
        policies: impl IntoIterator<Item = (String, ServerName)>,
        why: &str,
    ) {
        let refused = policies.into_iter().map(|key| (key, why.to_owned()));
        self.refused.extend(refused);
    }

    /// The log changed: what was refused may fit now.
    pub(super) fn accept(&mut self) {
        self.refused.clear();
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
        hold(&mut self.servers, control, Kind::Server, read);
        let read = |resource: &Resource, body: &[u8]| log::policy(&resource.name, body, with);
        hold(&mut self.policies, control, Kind::Policy, read);
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
            ..View::clone(&files.view)
        }
    }

    /// A grant under its tokens, bound to the servers and policies that are known now.
    fn bind(
        &mut self,
        grant: &LogGrant,
        barred: bool,
        mut site: Bind<'_>,
    ) -> Vec<(TokenHash, Arc<Grant>)> {
        let (mut bindings, mut unresolved) = (Bindings::default(), Vec::new());
        for (server, policy) in &grant.servers {
            match self.binding(server, policy.as_deref(), &mut site) {
                Ok(binding) => {
                    bindings.insert(binding.server.name.clone(), binding);
                }
                Err(why) => {
                    unresolved.push(ServerName::new(server));
                    // Nobody waits for what is refused anyway.
                    if !grant.typed.revoked {
                        site.outcome.cannot(site.resource, [why]);
                    }
                }
            }
        }
        let version = site.resource.version;
        if let Some(bound) = self.bound.get(&site.resource.name)
            && bound.version == version
            && bound.barred == barred
            && let Some((_, former)) = bound.tokens.first()
            && same(&former.servers, &bindings)
            && former.unresolved == unresolved
        {
            return bound.tokens.clone();
        }
        let tokens = grant
            .typed
            .grants(Origin::Log, barred, bindings, unresolved);
        let bound = Bound {
            version,
            barred,
            tokens: tokens.clone(),
        };
        self.bound.insert(site.resource.name.clone(), bound);
        tokens
    }

    fn binding(
        &mut self,
        server: &str,
        policy: Option<&str>,
        site: &mut Bind<'_>,
    ) -> Result<Binding, String> {
        let Some(found) = site.known.get(server) else {
            let (in_files, in_log) = (
                site.files.view.servers.contains_key(server),
                site.control.get(Kind::Server, server).is_some(),
            );
            return Err(match (in_files, in_log) {
                (true, true) => {
                    format!("the server `{server}` is both in this node's files and in the log")
                }
                (false, true) => format!("the server `{server}` is not in force on this node"),
                _ => format!(
                    "there is no server `{server}`, neither in the log nor in this node's files"
                ),
            });
        };
        let server = found.clone();
        let policy = match policy {
            Some(name) => Some(self.policy(&server.name, name, site)?),
            None => None,
        };
        Ok(Binding { server, policy })
    }

    fn policy(
        &mut self,
        server: &ServerName,
        name: &str,
        site: &mut Bind<'_>,
    ) -> Result<Arc<Policy>, String> {
        let in_log = site.control.get(Kind::Policy, name);
        let version = match (site.files.policy(name).is_some(), in_log) {
            (true, Some(_)) => {
                return Err(format!(
                    "the policy `{name}` is both in this node's files and in the log"
                ));
            }
            (true, None) => 0,
            (false, Some(resource)) => resource.version,
            (false, None) => {
                return Err(format!(
                    "there is no policy `{name}`, neither in the log nor in this node's files"
                ));
            }
        };
        let not_here = || format!("the policy `{name}` is not in force on this node");
        if let Some(why) = self.refused.get(&(name.to_owned(), server.clone())) {
            if let Some(resource) = in_log {
                site.outcome.cannot(resource, [why.clone()]);
            }
            return Err(format!(
                "the policy `{name}` on the server `{server}`: {why}"
            ));
        }
        let compiled = self.compiled.get(name).and_then(|sites| sites.get(server));
        let compiled = match compiled {
            Some(compiled) if compiled.version == version => compiled.clone(),
            _ => {
                let fresh = self.compile(server, name, version, site);
                let fresh = fresh.ok_or_else(not_here)?;
                let sites = self.compiled.entry(name.to_owned()).or_default();
                sites.insert(server.clone(), fresh.clone());
                fresh
            }
        };
        compiled.policy.map_err(|why| {
            if let Some(resource) = in_log {
                site.outcome.cannot(resource, why);
            }
            not_here()
        })
    }

    fn compile(
        &self,
        server: &ServerName,
        name: &str,
        version: u64,
        site: &Bind<'_>,
    ) -> Option<Compiled> {
        let policy = match version {
            0 => match site.files.compiled(server, name) {
                Some(policy) => Ok(policy),
                None => {
                    let document = site.files.policy(name)?;
                    compile(site.files, &document.file, name, &document.loaded, server)
                }
            },
            _ => {
                let held = self.policies.get(name)?;
                let document = held.value.as_ref().filter(|_| held.is_fine())?;
                let place = log::place(Kind::Policy, name);
                compile(site.files, &place, name, document, server)
            }
        };
        let policy = policy.map_err(|problems| sentences(&problems));
        Some(Compiled { version, policy })
    }
}

/// What a grant is bound amid.
struct Bind<'a> {
    files: &'a Loaded,
    control: &'a Control,
    known: &'a HashMap<&'a str, Arc<Server>, RandomState>,
    outcome: &'a mut Outcome,
    resource: &'a Resource,
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

fn same(old: &Bindings, new: &Bindings) -> bool {
    let alike = |a: &Option<Arc<Policy>>, b: &Option<Arc<Policy>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    };
    old.len() == new.len()
        && new.iter().all(|(name, binding)| {
            old.get(name).is_some_and(|old| {
                Arc::ptr_eq(&old.server, &binding.server) && alike(&old.policy, &binding.policy)
            })
        })
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
