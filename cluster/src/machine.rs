//! CORE. What every voter applies: the ledger, the control plane, the members. Deterministic, never panics.
//!
//! Whatever decides is in the log or in the state: the same entries make the same state on every voter, whose hash says so.

mod image;
mod members;

pub use image::{CHUNK_BYTES, Image, Loader, Manifest};
pub use members::Entry;

use crate::membership::Configuration;
use members::Members;
use proto::{
    command::{Batch, Command, MemberRefusal, NodeId, RULES_VERSION, Reply},
    control::Control,
    limit::ledger::{Bounds, Ledger},
    time::Now,
};

/// Why a machine cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Written by rules that this build does not know.
    #[error("rules version {0} is not known to this build")]
    Rules(u32),
    /// Bytes that no build of this project writes, or not all of them.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// The replicated state machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The highest rules that this build knows; not part of the state.
    rules_max: u32,
    /// The last index applied.
    index: u64,
    cluster: u128,
    rules_version: u32,
    members: Members,
    ledger: Ledger,
    control: Control,
}

impl Machine {
    /// The state of a new cluster whose first voter is `node`, at index 1. Its time begins with its first batch.
    pub fn found(cluster: u128, bounds: Bounds, node: NodeId, name: &str, address: &str) -> Self {
        Self {
            rules_max: RULES_VERSION,
            index: 1,
            cluster,
            rules_version: RULES_VERSION,
            members: Members::first(node, name, address),
            ledger: Ledger::new(bounds),
            control: Control::default(),
        }
    }

    /// The state of a node that has none yet and waits for a snapshot.
    pub(crate) fn joining(cluster: u128, bounds: Bounds) -> Self {
        Self {
            rules_max: RULES_VERSION,
            index: 0,
            cluster,
            rules_version: RULES_VERSION,
            members: Members::default(),
            ledger: Ledger::new(bounds),
            control: Control::default(),
        }
    }

    /// A new cluster from what is left of another one: the control plane stays, live windows count as used up, all other
    /// members are gone and their ids with them. At index 1.
    pub fn refound(
        mut self,
        cluster: u128,
        node: NodeId,
        name: &str,
        address: &str,
        now: Now,
    ) -> Self {
        let former: Vec<NodeId> = self.members.iter().map(|(node, _)| node).collect();
        former
            .iter()
            .for_each(|node| self.ledger.remove_node(*node));
        self.ledger.recover_used_up(now.unix_ms);
        self.members = self.members.refound(node, name, address);
        self.cluster = cluster;
        self.index = 1;
        self
    }

    /// Applies one batch; one reply a command, in order. Errors: it cannot be applied here, nothing was changed.
    pub fn apply(&mut self, index: u64, batch: &Batch) -> Result<Vec<Reply>, Error> {
        // Looked at before anything is changed: a node that stops here goes on from here with a newer build.
        let wanted = batch.commands.iter().filter_map(|command| match command {
            Command::SetRules { version } if self.may_set_rules(*version) => Some(*version),
            _ => None,
        });
        let newest = wanted.fold(batch.rules_version, u32::max);
        if newest > self.rules_max {
            return Err(Error::Rules(newest));
        }
        self.index = index;
        self.ledger.advance(batch.now_ms);
        Ok(batch
            .commands
            .iter()
            .map(|command| self.carry_out(command))
            .collect())
    }

    /// Takes note of the configuration that raft has after this index.
    pub fn apply_configuration(&mut self, index: u64, configuration: Configuration) {
        self.index = index;
        self.members.configured(configuration);
    }

    /// Takes note of an entry that says nothing.
    pub fn apply_nothing(&mut self, index: u64) {
        self.index = index;
    }

    fn carry_out(&mut self, command: &Command) -> Reply {
        let done = |result| match result {
            Ok(()) => Reply::Done,
            Err(refusal) => Reply::Refused(refusal),
        };
        match command {
            Command::Hello { node, .. } if self.members.get(*node).is_none() => {
                Reply::Member(MemberRefusal::Unknown)
            }
            Command::Hello {
                node,
                nonce,
                secret_check,
                rules_max,
            } => match self.ledger.hello(*node, *nonce, *secret_check, *rules_max) {
                Ok(session) => Reply::Session(session),
                Err(refusal) => Reply::Refused(refusal),
            },
            Command::Define {
                session,
                revision,
                definitions,
                last,
            } => done(self.ledger.define(*session, *revision, definitions, *last)),
            Command::Lease { session, ask } => Reply::Lease(self.ledger.lease(*session, ask)),
            Command::Return { session, back } => done(self.ledger.give_back(*session, back)),
            Command::Bye { session } => done(self.ledger.bye(*session)),
            Command::Gone { session } => {
                self.ledger.gone(*session);
                Reply::Done
            }
            Command::Credit { key } => match self.ledger.credit(*key) {
                Ok(units) => Reply::Credited(units),
                Err(refusal) => Reply::Refused(refusal),
            },
            Command::Reset { key } => done(self.ledger.reset(*key)),
            Command::SetClock { now_ms } => {
                self.ledger.set_clock(*now_ms);
                Reply::Done
            }
            Command::SetRules { version } => {
                if !self.may_set_rules(*version) {
                    return Reply::Member(MemberRefusal::Rules);
                }
                self.rules_version = *version;
                Reply::Done
            }
            Command::Control(change) => match self.control.apply(change, self.ledger.now_ms()) {
                Ok(version) => Reply::Version(version),
                Err(refusal) => Reply::Control(refusal),
            },
            Command::Member(member) => match self.members.apply(member, self.ledger.now_ms()) {
                Ok(None) => Reply::Done,
                Ok(Some(removed)) => {
                    self.ledger.remove_node(removed);
                    Reply::Done
                }
                Err(refusal) => Reply::Member(refusal),
            },
        }
    }

    /// Rules never go back, and every voter has announced that it knows them.
    fn may_set_rules(&self, version: u32) -> bool {
        let knows = |node: &NodeId| {
            self.ledger
                .rules_max_of(*node)
                .is_some_and(|max| max >= version)
        };
        version >= self.rules_version && self.members.configuration().all_voters().iter().all(knows)
    }

    /// The last index applied.
    pub fn index(&self) -> u64 {
        self.index
    }
    /// The cluster.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }
    /// Replicated time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.ledger.now_ms()
    }
    /// The rules by which batches are made now.
    pub fn rules_version(&self) -> u32 {
        self.rules_version
    }
    /// Who was given what.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    /// Grants, policies and servers.
    pub fn control(&self) -> &Control {
        &self.control
    }
    /// Raft's configuration.
    pub fn configuration(&self) -> &Configuration {
        self.members.configuration()
    }
    /// A member.
    pub fn member(&self, node: NodeId) -> Option<&Entry> {
        self.members.get(node)
    }
    /// Members in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.members.iter()
    }
    /// Grows with every change of membership.
    pub fn members_version(&self) -> u64 {
        self.members.version()
    }
    /// Whether the node was a member and is not any more.
    pub fn removed(&self, node: NodeId) -> bool {
        self.members.removed(node)
    }
    /// Nodes that were members and are not any more.
    pub fn all_removed(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.all_removed()
    }
    /// The highest rules version that a node announced; 0: none yet.
    pub fn rules_max_of(&self, node: NodeId) -> u32 {
        self.ledger.rules_max_of(node).unwrap_or(0)
    }

    /// Equal on every replica at equal index.
    pub fn hash(&self) -> u64 {
        let parts = [
            self.index,
            self.cluster as u64,
            (self.cluster >> 64) as u64,
            u64::from(self.rules_version),
            self.members.hash(),
            self.ledger.hash(),
            self.control.hash(),
        ];
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        fnv(&bytes)
    }

    /// The state as it is now, to be written while the machine goes on; cheap.
    pub fn image(&self) -> Image {
        Image::new(self)
    }

    /// What this build knows, where a test wants it to know something else.
    pub fn set_rules_max(&mut self, rules_max: u32) {
        self.rules_max = rules_max;
    }

    /// The same machine with mistakes.
    #[cfg(feature = "faults")]
    pub fn with_faults(mut self, faults: proto::faults::Faults) -> Self {
        self.ledger = self.ledger.with_faults(faults);
        self
    }
}

/// FNV-1a: the same on every build. Finds differences, keeps nobody from making two states look the same.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
