//! Names for what the ledger knows by number.

use crate::view::View;
use ::cluster::wire::Status;
use proto::{
    command::NodeId,
    limit::{Identity, Limit},
};
use std::{collections::BTreeMap, sync::Arc};

/// Limits that one filter may mean.
const LABELLED_MAX: usize = 32;

/// Limits of the view in force.
#[derive(Default)]
pub(super) struct Limits {
    by_identity: BTreeMap<Identity, Arc<Limit>>,
}

impl Limits {
    pub(super) fn of(view: &View) -> Self {
        let bindings = view
            .grants
            .values()
            .flat_map(|grant| grant.servers.values());
        let policies = bindings.filter_map(|binding| binding.policy.as_ref());
        let limits = policies.flat_map(|policy| &policy.limits);
        Self {
            by_identity: limits
                .map(|limit| (limit.identity, limit.clone()))
                .collect(),
        }
    }

    pub(super) fn limit(&self, identity: Identity) -> Option<&Limit> {
        self.by_identity.get(&identity).map(|limit| &**limit)
    }

    /// Limits whose label contains this.
    pub(super) fn labelled(&self, text: &str) -> Vec<Identity> {
        let fits = |(_, limit): &(&Identity, &Arc<Limit>)| limit.label.contains(text);
        let found = self.by_identity.iter().filter(fits);
        found
            .map(|(identity, _)| *identity)
            .take(LABELLED_MAX)
            .collect()
    }
}

/// Nodes of the cluster.
#[derive(Default)]
pub(super) struct Nodes {
    by_id: BTreeMap<NodeId, String>,
}

impl Nodes {
    pub(super) fn of(status: &Status) -> Self {
        let members = status.members.iter();
        Self {
            by_id: members.map(|m| (m.node, m.name.clone())).collect(),
        }
    }

    /// The node's name, else its id.
    pub(super) fn name(&self, node: NodeId) -> String {
        let name = self.by_id.get(&node).filter(|name| !name.is_empty());
        name.cloned().unwrap_or_else(|| id(node))
    }
}

/// A node's id as it is shown.
pub(super) fn id(node: NodeId) -> String {
    format!("{:016x}", node.0)
}
