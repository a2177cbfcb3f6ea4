//! Nodes and their sessions: one at a time a node, and what is remembered of those that ended badly.

use super::{Refusal, Session};
use crate::{command::NodeId, digest::Digest};
use std::collections::{BTreeMap, HashMap};

/// Sessions of one node that ended badly and are remembered; those before them count as if they had returned everything.
const LOST_PER_NODE_MAX: usize = 16;
/// Such sessions of all nodes, removed ones too.
const LOST_MAX: usize = 16_384;

/// How a node's newest session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum State {
    Live,
    /// It returned more than it was granted.
    Quarantined,
    Ended,
}

/// A node, by its newest session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) nonce: u64,
    pub(super) session: Session,
    pub(super) state: State,
    /// Its bit in the limits' sets.
    pub(super) slot: u16,
    pub(super) rules_max: u32,
    /// Of the secret with which it hashes identities.
    pub(super) secret_check: u64,
    /// The newest view that the session began to define, and whether all of it was heard.
    pub(super) revision: u64,
    pub(super) whole: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    live: HashMap<Session, NodeId, foldhash::fast::RandomState>,
    /// Sessions that ended without returning what they held.
    lost: BTreeMap<Session, NodeId>,
    /// The last session number that was given out.
    last: u64,
}

/// What a hello comes to.
pub(super) enum Hello {
    /// It is known.
    Known(Session),
    /// A new session; the node's former one has ended.
    New(Session, u16),
}

impl Nodes {
    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(super) fn lost(&self) -> impl Iterator<Item = (Session, NodeId)> {
        self.lost.iter().map(|(session, node)| (*session, *node))
    }

    pub(super) fn last_session(&self) -> u64 {
        self.last
    }

    pub(super) fn is_live(&self, session: Session) -> bool {
        self.live.contains_key(&session)
    }

    /// Whether a session ended without returning what it held.
    pub(super) fn is_lost(&self, session: Session) -> bool {
        self.lost.contains_key(&session)
    }

    /// Only live sessions in good standing are heard.
    pub(super) fn admit(&self, session: Session) -> Result<NodeId, Refusal> {
        if let Some(node) = self.live.get(&session) {
            return Ok(*node);
        }
        let quarantined = |node: &Node| node.session == session && node.state == State::Quarantined;
        if self.nodes.values().any(quarantined) {
            Err(Refusal::Quarantined)
        } else {
            Err(Refusal::UnknownSession)
        }
    }

    /// Opens a node's session, or finds it again.
    pub(super) fn hello(
        &mut self,
        id: NodeId,
        nonce: u64,
        secret_check: u64,
        rules_max: u32,
        nodes_max: usize,
    ) -> Result<Hello, Refusal> {
        let differs = |node: &Node| {
            node.id != id && node.state == State::Live && node.secret_check != secret_check
        };
        if self.nodes.values().any(differs) {
            return Err(Refusal::Secret);
        }
        let known = self.nodes.get(&id).copied();
        let slot = match known {
            Some(known) if known.nonce == nonce => {
                return match known.state {
                    State::Live => Ok(Hello::Known(known.session)),
                    State::Quarantined => Err(Refusal::Quarantined),
                    State::Ended => Err(Refusal::UnknownSession),
                };
            }
            Some(known) if known.nonce > nonce => return Err(Refusal::UnknownSession),
            Some(known) => known.slot,
            None if self.nodes.len() >= nodes_max => return Err(Refusal::NodesFull),
            None => self.free_slot()?,
        };
        let last = self.last.checked_add(1).ok_or(Refusal::Overflow)?;
        if let Some(known) = known.filter(|known| known.state == State::Live) {
            self.lose(known.session);
        }
        self.last = last;
        let session = Session(last);
        self.live.insert(session, id);
        let node = Node {
            id,
            nonce,
            session,
            state: State::Live,
            slot,
            rules_max,
            secret_check,
            revision: 0,
            whole: false,
        };
        self.nodes.insert(id, node);
        Ok(Hello::New(session, slot))
    }

    /// Ends a live session; its node's slot. Remembers it if it ended badly.
    pub(super) fn end(&mut self, session: Session, state: State, is_lost: bool) -> Option<u16> {
        let id = *self.live.get(&session)?;
        if is_lost {
            self.lose(session);
        }
        self.live.remove(&session);
        let node = self.nodes.get_mut(&id)?;
        node.state = state;
        Some(node.slot)
    }

    /// Forgets a node whose session has ended.
    pub(super) fn remove(&mut self, id: NodeId) {
        self.nodes.remove(&id);
    }

    /// Ends every session, and forgets what was lost.
    pub(super) fn end_all(&mut self) {
        self.live.clear();
        self.lost.clear();
        for node in self.nodes.values_mut() {
            node.state = State::Ended;
        }
    }

    /// Numbers that another history may have given out are not given out again.
    pub(super) fn skip(&mut self, sessions: u64) {
        self.last = self.last.saturating_add(sessions);
    }

    fn lose(&mut self, session: Session) {
        let Some(node) = self.live.remove(&session) else {
            return;
        };
        self.lost.insert(session, node);
        let own: Vec<Session> = self
            .lost
            .iter()
            .filter(|(_, of)| **of == node)
            .map(|(session, _)| *session)
            .collect();
        if own.len() > LOST_PER_NODE_MAX
            && let Some(oldest) = own.first()
        {
            self.lost.remove(oldest);
        } else if self.lost.len() > LOST_MAX {
            self.lost.pop_first();
        }
    }

    fn free_slot(&self) -> Result<u16, Refusal> {
        let mut taken: Vec<u16> = self.nodes.values().map(|node| node.slot).collect();
        taken.sort_unstable();
        let gap = taken
            .iter()
            .enumerate()
            .find(|(at, slot)| *at != usize::from(**slot))
            .map_or(taken.len(), |(at, _)| at);
        u16::try_from(gap).map_err(|_| Refusal::NodesFull)
    }

    /// Puts a node of a dump back; false if it does not fit the others.
    pub(super) fn restore(&mut self, node: Node, nodes_max: usize) -> bool {
        let fits = node.id != NodeId(0)
            && self.nodes.len() < nodes_max
            && usize::from(node.slot) < nodes_max
            && node.session.0 <= self.last
            && self
                .nodes
                .values()
                .all(|other| other.slot != node.slot && other.session != node.session);
        if !fits || self.nodes.insert(node.id, node).is_some() {
            return false;
        }
        if node.state == State::Live {
            self.live.insert(node.session, node.id);
        }
        true
    }

    /// Puts a lost session of a dump back.
    pub(super) fn restore_lost(&mut self, session: Session, node: NodeId) -> bool {
        session.0 <= self.last
            && self.lost.len() < LOST_MAX
            && !self.live.contains_key(&session)
            && self.lost.insert(session, node).is_none()
    }

    pub(super) fn digest(&self) -> u64 {
        let lost = self
            .lost
            .iter()
            .map(|(session, node)| Digest::new("lost").word(session.0).word(node.0).finish());
        self.nodes
            .values()
            .map(Node::digest)
            .chain(lost)
            .fold(0, u64::wrapping_add)
    }
}

impl Node {
    fn digest(&self) -> u64 {
        Digest::new("node")
            .word(self.id.0)
            .word(self.nonce)
            .word(self.session.0)
            .word(match self.state {
                State::Live => 0,
                State::Quarantined => 1,
                State::Ended => 2,
            })
            .word(self.slot.into())
            .word(self.rules_max.into())
            .word(self.secret_check)
            .word(self.revision)
            .word(self.whole.into())
            .finish()
    }
}
