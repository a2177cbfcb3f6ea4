//! Who belongs to the cluster, who may join, and how raft is configured.

use super::fnv;
use crate::{
    codec,
    membership::{Configuration, LEARNERS_MAX, VOTERS_MAX},
};
use proto::command::{Member, MemberRefusal, NodeId, Role};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most members.
const MEMBERS_MAX: usize = 1_024;
/// Most ids that are remembered as used; beyond them nobody joins.
const REMOVED_MAX: usize = 65_536;
/// Most tokens that wait to be used.
const TOKENS_MAX: usize = 64;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest address, bytes: a host name and a port.
const ADDRESS_BYTES_MAX: usize = 260;

/// A member as replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name for people.
    pub name: String,
    /// `host:port`; empty for a lease client.
    pub address: String,
    /// What it is, or is to be.
    pub role: Role,
    /// A voter that is being taken out.
    pub leaving: bool,
}

/// Members, tokens, configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Members {
    version: u64,
    present: BTreeMap<NodeId, Entry>,
    removed: BTreeSet<NodeId>,
    tokens: BTreeMap<[u8; 32], Token>,
    configuration: Configuration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    role: Role,
    expires_ms: u64,
}

impl Members {
    /// A cluster of one voter.
    pub(super) fn first(node: NodeId, name: &str, address: &str) -> Self {
        let entry = Entry {
            name: name.to_owned(),
            address: address.to_owned(),
            role: Role::Voter,
            leaving: false,
        };
        let mut first = Self {
            version: 1,
            present: BTreeMap::from([(node, entry)]),
            ..Self::default()
        };
        first.configured(Configuration {
            voters: BTreeSet::from([node]),
            ..Configuration::default()
        });
        first
    }

    /// A cluster of one voter after another cluster: ids of that one are not used again.
    pub(super) fn refound(self, node: NodeId, name: &str, address: &str) -> Self {
        let mut first = Self::first(node, name, address);
        first.version = self.version + 1;
        first.removed = self.removed;
        first.removed.extend(self.present.into_keys());
        first.removed.remove(&node);
        first
    }

    /// Carries a change out; the node that is gone with it, if one is.
    pub(super) fn apply(
        &mut self,
        change: &Member,
        now_ms: u64,
    ) -> Result<Option<NodeId>, MemberRefusal> {
        self.tokens.retain(|_, token| token.expires_ms > now_ms);
        match change {
            Member::Token {
                hash,
                role,
                expires_ms,
            } => {
                if self.tokens.len() >= TOKENS_MAX && !self.tokens.contains_key(hash) {
                    return Err(MemberRefusal::TokensFull);
                }
                let (role, expires_ms) = (*role, *expires_ms);
                self.tokens.insert(*hash, Token { role, expires_ms });
                Ok(None)
            }
            Member::Join {
                token,
                node,
                name,
                address,
                role,
            } => {
                let entry = Entry {
                    name: name.clone(),
                    address: address.clone(),
                    role: *role,
                    leaving: false,
                };
                self.join(*token, *node, entry).map(|()| None)
            }
            Member::Address { node, address } => {
                let entry = self.present.get_mut(node).ok_or(MemberRefusal::Unknown)?;
                check_address(address, entry.role)?;
                if entry.address != *address {
                    entry.address.clone_from(address);
                    self.version += 1;
                }
                Ok(None)
            }
            Member::Remove { node } => self.remove(*node),
        }
    }

    fn join(
        &mut self,
        token: Option<[u8; 32]>,
        node: NodeId,
        entry: Entry,
    ) -> Result<(), MemberRefusal> {
        if self.present.get(&node) == Some(&entry) {
            return Ok(());
        }
        let hash = token.ok_or(MemberRefusal::Token)?;
        let known = self.tokens.get(&hash).ok_or(MemberRefusal::Token)?;
        if known.role != entry.role {
            return Err(MemberRefusal::Token);
        }
        if entry.name.is_empty() || entry.name.len() > NAME_BYTES_MAX {
            return Err(MemberRefusal::Name);
        }
        check_address(&entry.address, entry.role)?;
        if node == NodeId(0) || self.removed.contains(&node) || self.present.contains_key(&node) {
            return Err(MemberRefusal::Used);
        }
        let voters = self
            .present
            .values()
            .filter(|e| e.role == Role::Voter)
            .count();
        let has_room = self.present.len() < MEMBERS_MAX
            && self.removed.len() < REMOVED_MAX
            && (entry.role == Role::Client || voters < VOTERS_MAX + LEARNERS_MAX);
        if !has_room {
            return Err(MemberRefusal::Full);
        }
        self.tokens.remove(&hash);
        self.present.insert(node, entry);
        self.version += 1;
        Ok(())
    }

    /// A node that raft knows stays until raft has let it go and this is said again: then the second word is committed by
    /// those who stay, so that they know for good that they can do without it: a leader says it only when it knows the
    /// change to be committed. Any other node is gone at once.
    fn remove(&mut self, node: NodeId) -> Result<Option<NodeId>, MemberRefusal> {
        if self.removed.contains(&node) {
            return Ok(None);
        }
        let stays = |other: &NodeId| {
            *other != node && self.present.get(other).is_some_and(|entry| !entry.leaving)
        };
        let remains = self.configuration.voters.iter().any(stays);
        let entry = self.present.get_mut(&node).ok_or(MemberRefusal::Unknown)?;
        if !self.configuration.contains(node) {
            self.present.remove(&node);
            self.removed.insert(node);
            self.version += 1;
            return Ok(Some(node));
        }
        if self.configuration.voters.contains(&node) && !remains {
            return Err(MemberRefusal::LastVoter);
        }
        if !entry.leaving {
            entry.leaving = true;
            self.version += 1;
        }
        Ok(None)
    }

    /// Raft has a new configuration.
    pub(super) fn configured(&mut self, configuration: Configuration) {
        self.version += 1;
        self.configuration = configuration;
    }

    pub(super) fn configuration(&self) -> &Configuration {
        &self.configuration
    }
    pub(super) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.present.get(&node)
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.present.iter().map(|(node, entry)| (*node, entry))
    }
    pub(super) fn version(&self) -> u64 {
        self.version
    }
    pub(super) fn removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }
    pub(super) fn all_removed(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.removed.iter().copied()
    }

    /// Equal for equal members.
    pub(super) fn hash(&self) -> u64 {
        // Bounded tables of plain values: they are always encodable.
        codec::encode(self, usize::MAX).map_or(0, |bytes| fnv(&bytes))
    }
}

fn check_address(address: &str, role: Role) -> Result<(), MemberRefusal> {
    let is_missing = address.is_empty() && role == Role::Voter;
    if is_missing || address.len() > ADDRESS_BYTES_MAX {
        return Err(MemberRefusal::Name);
    }
    Ok(())
}
