//! A grant of the log, bound to the servers and policies that it names.

use super::{
    assemble::{Assembler, Outcome},
    hold::sentences,
};
use crate::{
    config::{Bindings, Loaded, LogGrant, compile, log},
    view::{Binding, Grant, Origin, Server},
};
use foldhash::fast::RandomState;
use proto::{
    control::{Control, Kind, Resource},
    grant::TokenHash,
    id::ServerName,
    policy::Policy,
};
use std::{collections::HashMap, sync::Arc};

/// A grant under its tokens, as it was last bound.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    version: u64,
    barred: bool,
    /// See [`Assembler::epoch`].
    epoch: u64,
    tokens: Vec<(TokenHash, Arc<Grant>)>,
    cannot: Outcome,
}

/// A policy compiled for a server.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    /// The version of the document in the log; 0: it stands in the files.
    version: u64,
    policy: Result<Arc<Policy>, Vec<String>>,
}

/// What a grant is bound amid.
pub(super) struct Bind<'a> {
    pub(super) files: &'a Loaded,
    pub(super) control: &'a Control,
    pub(super) known: &'a HashMap<&'a str, Arc<Server>, RandomState>,
    pub(super) outcome: &'a mut Outcome,
    pub(super) resource: &'a Resource,
}

impl Assembler {
    /// A grant under its tokens, bound to the servers and policies that are known now.
    pub(super) fn bind(
        &mut self,
        grant: &LogGrant,
        barred: bool,
        mut site: Bind<'_>,
    ) -> Vec<(TokenHash, Arc<Grant>)> {
        let version = site.resource.version;
        let known = self.bound.get(&site.resource.name);
        let known = known.filter(|bound| bound.version == version && bound.barred == barred);
        if let Some(bound) = known
            && bound.epoch == self.epoch
        {
            site.outcome.merge(&bound.cannot);
            return bound.tokens.clone();
        }
        let outer = std::mem::take(site.outcome);
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
        let cannot = std::mem::replace(site.outcome, outer);
        site.outcome.merge(&cannot);
        let known = self.bound.get(&site.resource.name);
        let known = known.filter(|bound| bound.version == version && bound.barred == barred);
        let tokens = match known.and_then(|bound| Some((bound, bound.tokens.first()?))) {
            // Nothing of what it needs has changed: whoever compares views sees the very same grant.
            Some((bound, (_, former)))
                if same(&former.servers, &bindings) && former.unresolved == unresolved =>
            {
                bound.tokens.clone()
            }
            _ => (grant.typed).grants(Origin::Log, barred, bindings, unresolved),
        };
        let bound = Bound {
            version,
            barred,
            epoch: self.epoch,
            tokens: tokens.clone(),
            cannot,
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
        let keys = Default::default();
        Ok(Binding {
            server,
            policy,
            keys,
        })
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
