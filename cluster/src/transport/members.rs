//! Who belongs to the cluster, and what that allows.

use proto::command::{NodeId, Role};
use std::collections::{BTreeMap, BTreeSet};

/// Who belongs to the cluster, as far as this node has applied or was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Present nodes, learners as voters.
    pub nodes: BTreeMap<NodeId, Peer>,
    /// Nodes that were taken out, as far as known: never heard, whatever their certificate says. Those that were among
    /// `nodes` before and are not now are remembered anyway.
    pub removed: BTreeSet<NodeId>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `host:port`; empty for a lease client.
    pub address: String,
    /// What it is.
    pub role: Role,
}

/// Most nodes that were taken out and are remembered.
const GONE_MAX: usize = 65_536;

/// [`Members`], and who was once among them.
#[derive(Debug, Default)]
pub(super) struct Table {
    present: BTreeMap<NodeId, Role>,
    gone: BTreeSet<NodeId>,
}

impl Table {
    pub(super) fn set(&mut self, members: Members) {
        let present = members.nodes.into_iter();
        let present: BTreeMap<_, _> = present.map(|(node, peer)| (node, peer.role)).collect();
        self.gone.extend(self.present.keys());
        self.gone.extend(members.removed);
        self.gone.retain(|node| !present.contains_key(node));
        while self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
        self.present = present;
    }

    /// Whether a node with the cluster's certificate is heard. One that this node has not heard of yet is: it may have
    /// joined since, and this node may be behind; the leader knows.
    pub(super) fn admits(&self, node: NodeId) -> bool {
        !self.gone.contains(&node)
    }

    /// Whether a node may speak Raft. Membership says so; of one that this node has not heard of yet, its certificate
    /// does, because a voter that was away while the others were replaced must hear of it from them.
    pub(super) fn votes(&self, node: NodeId, certified: Role) -> bool {
        let role = self.present.get(&node).copied();
        self.admits(node) && role.unwrap_or(certified) == Role::Voter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_rules_and_the_certificate_speaks_only_for_the_unknown() {
        let peer = |role| Peer {
            address: String::new(),
            role,
        };
        let members = |nodes: &[(u64, Role)], removed: &[u64]| Members {
            nodes: (nodes.iter())
                .map(|(node, role)| (NodeId(*node), peer(*role)))
                .collect(),
            removed: removed.iter().copied().map(NodeId).collect(),
        };
        let mut table = Table::default();
        table.set(members(&[(1, Role::Voter), (2, Role::Client)], &[9]));
        for (node, certified, admitted, votes) in [
            (1, Role::Voter, true, true),
            (2, Role::Voter, true, false),
            (3, Role::Voter, true, true),
            (3, Role::Client, true, false),
            (9, Role::Voter, false, false),
        ] {
            assert_eq!(table.admits(NodeId(node)), admitted, "{node}");
            assert_eq!(table.votes(NodeId(node), certified), votes, "{node}");
        }
        table.set(members(&[(2, Role::Client)], &[]));
        assert!(!table.votes(NodeId(1), Role::Voter), "it was taken out");
        assert!(!table.admits(NodeId(9)), "it stays out");
    }
}
