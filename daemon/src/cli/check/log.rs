//! Names that a configuration and a running gateway's cluster both have: neither may take the other's place.

use crate::{
    admin::ask,
    config::{self, Loaded},
};
use anyhow::Context as _;
use http::Method;
use proto::{
    admin::control::{Named, RESOURCES, Resource, Resources, kind_word},
    control::Kind,
};
use std::path::Path;

/// What stands in the log of the gateway at a socket.
pub(super) struct Log(Vec<Resource>);

impl Log {
    /// Asks the gateway.
    pub(super) fn of(socket: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut all = Vec::new();
        for kind in [Kind::Server, Kind::Policy, Kind::Grant] {
            let named = Named {
                kind,
                name: String::new(),
                if_version: None,
            };
            let target = named.target(RESOURCES);
            let body = runtime.block_on(ask(socket, Method::GET, &target))?;
            let found: Resources = serde_json::from_slice(&body)
                .context("the gateway speaks another version of the admin API")?;
            let of_log = found.resources.into_iter().filter(|r| r.origin == "log");
            all.extend(of_log);
        }
        Ok(Self(all))
    }

    /// In few words.
    pub(super) fn summary(&self) -> String {
        let count = |kind| self.0.iter().filter(|r| r.kind == kind).count();
        let (servers, policies) = (count(Kind::Server), count(Kind::Policy));
        let grants = count(Kind::Grant);
        format!("in the log; servers: {servers}, policies: {policies}, grants: {grants}")
    }

    /// A line for every name that both have.
    pub(super) fn conflicts(&self, files: &Loaded) -> Vec<String> {
        let kinds = [Kind::Server, Kind::Policy, Kind::Grant];
        let taken = kinds.map(|kind| (kind, config::names(files, kind)));
        let both = self.0.iter().filter(|resource| {
            let mut taken = taken.iter();
            taken.any(|(kind, names)| *kind == resource.kind && names.contains(&*resource.name))
        });
        both.map(|resource| {
            let (kind, name) = (kind_word(resource.kind), &resource.name);
            let by = resource.by.as_deref().unwrap_or("somebody");
            format!(
                "error: the {kind} `{name}` is in the cluster's log too (put by {by}): a gateway of that cluster \
                 refuses this configuration"
            )
        })
        .collect()
    }
}
