//! Who belongs to the cluster and where: told to the transport and the client, and noted for the next start.
//!
//! A voter reads it off its machine, a lease client asks when the leader's answers say that it has changed.

use super::{Driver, Waiter};
use crate::{
    handle::{Failure, Shared},
    identity::Identity,
    machine::Machine,
    replica::Stop,
    transport::{Members, Peer, Transport},
    wire::{Operate, Request, Response},
};
use proto::{
    command::{NodeId, Role},
    limit::ledger::Refusal,
    time::Now,
};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that were taken out and are remembered.
const REMOVED_MAX: usize = 4_096;
/// Pause between questions that got no answer.
const RETRY_NS: u64 = 1_000_000_000;

/// Pause between warnings.
const WARN_NS: u64 = 60_000_000_000;

/// What is known of the membership.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    members: Members,
    /// The version of `members`; `None`: as the identity remembered it.
    version: Option<u64>,
    /// The version that the leader told of.
    told: u64,
    /// A question is out.
    is_asking: bool,
    retry_ns: u64,
    /// When this voter's address may be told again.
    address_ns: u64,
    /// When what is wrong may be said again.
    warned_ns: u64,
    /// Voters that did not let this node in when it last knocked.
    refusing: BTreeSet<NodeId>,
    /// Those that are being taken out, as far as this voter has applied: they may never hear who else is.
    leaving: BTreeSet<NodeId>,
}

impl Roll {
    /// Begins with what was noted at the last run.
    pub(super) fn begin(
        &mut self,
        identity: &Identity,
        transport: Option<&Transport>,
        shared: &Shared,
    ) {
        shared.voters.send_replace(identity.voters());
        for (node, address) in identity.voters() {
            let role = Role::Voter;
            self.members.nodes.insert(node, Peer { address, role });
        }
        if let Some(transport) = transport {
            transport.set_members(self.members.clone());
        }
    }

    /// The leader's version.
    pub(super) fn told(&mut self, version: u64) {
        self.told = version;
    }

    /// Somebody leads who is not known here.
    pub(super) fn is_behind(&mut self) {
        self.version = None;
    }

    /// A voter let this node in.
    pub(super) fn let_in(&mut self, node: NodeId) {
        self.refusing.remove(&node);
    }

    /// A voter did not let this node in. Whether that settles it: half of the others that stay, for one may be dead.
    pub(super) fn refused(&mut self, node: NodeId, own: NodeId) -> bool {
        self.refusing.insert(node);
        let stays = |node: &NodeId| *node != own && !self.leaving.contains(node);
        let others = || self.voters().filter(|(node, _)| stays(node));
        let refusing = others().filter(|(node, _)| self.refusing.contains(node));
        refusing.count() * 2 >= others().count()
    }

    /// Whether another voter could lead.
    pub(super) fn has_others(&self) -> bool {
        self.voters().count() > 1
    }

    /// The members as a voter's machine has them. Who was noted at the last run and is neither there nor removed joined after
    /// what has been applied again so far: it is not turned away, for it would take that for its removal.
    fn applied(&self, machine: &Machine) -> BTreeMap<NodeId, Peer> {
        let noted = self.members.nodes.iter();
        let newer = noted.filter(|(node, _)| !machine.removed(**node));
        let newer = newer.map(|(node, peer)| (*node, peer.clone()));
        let members = machine.members().map(|(node, entry)| {
            let (address, role) = (entry.address.clone(), entry.role);
            (node, Peer { address, role })
        });
        newer.chain(members).collect()
    }

    fn voters(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        let nodes = self.members.nodes.iter();
        nodes
            .filter(|(_, peer)| peer.role == Role::Voter)
            .map(|(node, peer)| (*node, peer))
    }

    pub(super) fn address_answered(&mut self, response: Option<Response>, now: Now) {
        if !matches!(response, Some(Response::Done { .. })) {
            tracing::warn!(
                ?response,
                "this node's address is not known to the cluster yet"
            );
        }
        self.address_ns = now.boot_ns.saturating_add(RETRY_NS);
    }

    /// Takes the present members over; whether anything changed.
    fn take(&mut self, nodes: BTreeMap<NodeId, Peer>, version: u64) -> bool {
        self.version = Some(version);
        if nodes == self.members.nodes {
            return false;
        }
        let former = std::mem::replace(&mut self.members.nodes, nodes);
        let removed: BTreeSet<NodeId> = former
            .into_keys()
            .filter(|node| !self.members.nodes.contains_key(node))
            .collect();
        self.members.removed.extend(removed);
        while self.members.removed.len() > REMOVED_MAX {
            self.members.removed.pop_first();
        }
        true
    }
}

impl Driver {
    /// Sees to it that the membership known here is the newest, and that ours is right.
    pub(super) fn roll_call(&mut self, now: Now) {
        let Some(voter) = &self.voter else {
            let is_old = self
                .roll
                .version
                .is_none_or(|known| known != self.roll.told);
            if is_old && !self.roll.is_asking && self.roll.retry_ns <= now.boot_ns {
                self.roll.is_asking = true;
                self.ask_as(Waiter::Members, Request::Members, now);
            }
            return;
        };
        let machine = voter.replica.machine();
        let version = machine.members_version();
        if machine.index() > 0 && self.roll.version != Some(version) {
            let nodes = self.roll.applied(machine);
            let leaving = machine.members().filter(|(_, entry)| entry.leaving);
            self.roll.leaving = leaving.map(|(node, _)| node).collect();
            if self.roll.take(nodes, version) {
                self.spread(now);
            }
        }
        let own = self.roll.members.nodes.get(&self.shared.node);
        let has_moved = own.is_some_and(|own| own.address != self.address);
        if has_moved && self.client.session().is_some() && self.roll.address_ns <= now.boot_ns {
            // Until it is answered.
            self.roll.address_ns = u64::MAX;
            let address = self.address.clone();
            let request = Request::Operate(Operate::Address { address });
            self.ask_as(Waiter::Address, request, now);
        }
    }

    /// A voter does not know this node as a member. The one way in which a node that was removed ends: a voter turns away
    /// whom it has applied to be removed, and by then a majority of those that stay has it on the disk that they can do
    /// without (see the leader's `propose`), whatever the one that says so has synced.
    pub(super) fn turned_away(&mut self, node: NodeId) {
        if self.roll.refused(node, self.shared.node) {
            self.fail(Failure::Stopped(Stop::Removed));
        }
    }

    /// What an operator must know of: this node will not be heard as it is.
    pub(super) fn look_at_refusals(&mut self, from: NodeId, response: &Response, now: Now) {
        match response {
            Response::Removed => self.turned_away(from),
            Response::Refused(Refusal::Secret) if self.roll.warned_ns <= now.boot_ns => {
                self.roll.warned_ns = now.boot_ns.saturating_add(WARN_NS);
                tracing::error!(
                    "the cluster does not hear this node: its `identity_secret` is not that of the other nodes"
                );
            }
            _ => {}
        }
    }

    /// The answer to a lease client's question.
    pub(super) fn members(&mut self, response: Option<Response>, now: Now) {
        self.roll.is_asking = false;
        self.roll.retry_ns = now.boot_ns.saturating_add(RETRY_NS);
        let Some(Response::Members {
            members,
            members_version,
            ..
        }) = response
        else {
            return;
        };
        let nodes = members.into_iter().map(|member| {
            let (address, role) = (member.address, member.role);
            (member.node, Peer { address, role })
        });
        if self.roll.take(nodes.collect(), members_version) {
            self.spread(now);
        }
        // A follower may have answered that is behind: what it knows is asked again when the leader is heard.
        self.roll.told = self.roll.told.max(members_version);
    }

    /// Tells everybody here, and notes it for the next start.
    fn spread(&mut self, now: Now) {
        if let Some(transport) = &self.transport {
            transport.set_members(self.roll.members.clone());
        }
        let voters: BTreeMap<NodeId, String> = self
            .roll
            .voters()
            .map(|(node, peer)| (node, peer.address.clone()))
            .collect();
        if voters.is_empty() {
            return;
        }
        self.shared.voters.send_replace(voters.clone());
        self.client
            .set_voters(voters.keys().copied().collect(), now);
        if self.identity.voters() != voters {
            self.identity.set_voters(voters);
            if let Some(own) = self.roll.members.nodes.get(&self.shared.node) {
                self.identity.address.clone_from(&own.address);
            }
            if let Err(error) = self.data.save(&self.identity) {
                tracing::warn!(%error, "the voters' addresses cannot be noted for the next start");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{
        command::{Batch, Command, Member, RULES_VERSION},
        limit::ledger::Bounds,
    };

    fn peer(node: u64) -> (NodeId, Peer) {
        let (address, role) = (format!("n{node}:1"), Role::Voter);
        (NodeId(node), Peer { address, role })
    }

    fn roll(nodes: &[u64]) -> Roll {
        let mut roll = Roll::default();
        roll.members.nodes = nodes.iter().map(|node| peer(*node)).collect();
        roll
    }

    #[test]
    fn who_joined_after_what_was_applied_again_is_not_turned_away() {
        let mut machine = Machine::found(7, Bounds::default(), NodeId(1), "n1", "n1:1");
        let join = Member::Join {
            token: Some([2; 32]),
            node: NodeId(2),
            name: "n2".to_owned(),
            address: "n2:1".to_owned(),
            role: Role::Voter,
        };
        let token = Member::Token {
            hash: [2; 32],
            role: Role::Voter,
            expires_ms: u64::MAX,
        };
        let remove = Member::Remove { node: NodeId(2) };
        let mut apply = |changes: Vec<Member>| {
            let batch = Batch {
                now_ms: 1,
                rules_version: RULES_VERSION,
                commands: changes.into_iter().map(Command::Member).collect(),
            };
            machine.apply(machine.index() + 1, &batch).unwrap();
            let nodes = roll(&[1, 2, 3]).applied(&machine);
            nodes.into_keys().map(|node| node.0).collect::<Vec<u64>>()
        };
        assert_eq!(apply(vec![token, join]), [1, 2, 3]);
        assert_eq!(apply(vec![remove]), [1, 3]);
    }

    #[test]
    fn half_of_those_that_stay_must_turn_a_node_away() {
        let mut five = roll(&[1, 2, 3, 4, 5]);
        assert!(!five.refused(NodeId(1), NodeId(5)));
        five.let_in(NodeId(1));
        assert!(!five.refused(NodeId(2), NodeId(5)) && five.refused(NodeId(3), NodeId(5)));
        // The others that go do not hear of it either.
        let mut four_go = roll(&[1, 2, 3, 4, 5]);
        four_go.leaving = (2..=5).map(NodeId).collect();
        assert!(four_go.refused(NodeId(1), NodeId(5)));
    }
}
