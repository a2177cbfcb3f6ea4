//! What goes into a voter and what comes out of it.

use crate::{
    machine::{self, Image, Machine},
    wire::{Extra, Push, Response},
};
use proto::command::NodeId;
use raft::eraftpb::{Entry, HardState, Message, Snapshot};

/// What was found on the disk at the start.
#[derive(Default)]
pub struct Recovered {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// The newest snapshot: its metadata, and as its data the [`machine::Manifest`]. Empty: a node that is joining.
    pub snapshot: Snapshot,
    /// The snapshot's machine; `None` where there is no snapshot.
    pub machine: Option<Machine>,
    /// Entries in order; those that the snapshot holds may be among them.
    pub entries: Vec<Entry>,
}

/// What a voter is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Itself.
    pub node: NodeId,
    /// The cluster.
    pub cluster: u128,
    /// Milliseconds of one tick of raft's.
    pub tick_ms: u64,
    /// Ticks without a leader until an election; at least 2 x `heartbeat_ticks`.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Bytes of entries after the newest snapshot before the next one is made.
    pub snapshot_after_bytes: u64,
    /// Commands that one node may send in a second, and in a burst.
    pub node_commands_per_s: u32,
    /// Requests that wait for the log or a quorum at once; beyond them: [`Response::Unknown`].
    pub requests_max: usize,
    /// Bounds of the ledger.
    pub ledger: proto::limit::ledger::Bounds,
    /// The highest rules version that this node knows: [`proto::command::RULES_VERSION`], but in tests of upgrades.
    pub rules_max: u32,
    /// For election jitter.
    pub seed: u64,
    /// Faults planted by the simulation.
    #[cfg(feature = "faults")]
    pub faults: proto::faults::Faults,
}

/// What the shell must do: send `messages` and `extras` at once; write `persist` (writes in the order in which they came;
/// several may become one), then tell [`super::Replica::persisted`]; send answers and pushes at once.
#[derive(Default)]
pub struct Effects {
    /// To other voters. Before a `MsgSnapshot` the receiver must have the chunks of its manifest: they go first, on a
    /// stream of their own; then [`super::Replica::snapshot_sent`]. A message may be lost, so a full queue drops it.
    pub messages: Vec<Message>,
    /// To other voters; may be lost.
    pub extras: Vec<(NodeId, Extra)>,
    /// To the log.
    pub persist: Option<Persist>,
    /// A state to write as a file of chunks, off the loop and synced; then [`super::Replica::image_written`]. One at a time.
    pub image: Option<Image>,
    /// To askers, by the id of their request.
    pub responses: Vec<(NodeId, u64, Response)>,
    /// To nodes; may be lost.
    pub pushes: Vec<(NodeId, Push)>,
    /// This voter must end; nothing else is in these effects.
    pub stop: Option<Stop>,
}

/// Why a voter must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// It was taken out of the cluster: it cannot know by itself, those that stay turn it away.
    #[error("this node was removed from the cluster: empty its data directory to join anew")]
    Removed,
    /// It cannot apply what was committed.
    #[error("entry {index} cannot be applied: {error}")]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        error: machine::Error,
    },
    /// A majority has another state at this index.
    #[error("the state at entry {index} differs from that of the majority")]
    Diverged {
        /// Which.
        index: u64,
    },
    /// What a peer says contradicts what is committed here: one of the logs is damaged.
    #[error("the log contradicts a peer's: {0}")]
    Log(String),
}

/// One atomic write to the log.
#[derive(Debug, Default)]
pub struct Persist {
    /// Told back with [`super::Replica::persisted`].
    pub number: u64,
    /// A snapshot of a peer's, whose chunks are on the disk: every entry in the log is dropped first.
    pub install: Option<Snapshot>,
    /// Entries; what the log has at these indexes and beyond goes.
    pub entries: Vec<Entry>,
    /// Where it changed.
    pub hard_state: Option<HardState>,
    /// The newest snapshot is this one (its chunks are on the disk), and entries up to this index may be forgotten.
    pub compact: Option<(Snapshot, u64)>,
    /// Whether it must be on the disk before it counts.
    pub must_sync: bool,
}

impl Effects {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.extras.is_empty()
            && self.persist.is_none()
            && self.image.is_none()
            && self.responses.is_empty()
            && self.pushes.is_empty()
            && self.stop.is_none()
    }
}

/// How a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Raft's term.
    pub term: u64,
    /// It leads.
    pub leads: bool,
    /// Last index in the log, committed, applied.
    pub last: u64,
    /// See `last`.
    pub committed: u64,
    /// See `last`.
    pub applied: u64,
    /// Index of the newest snapshot.
    pub snapshot: u64,
    /// Bytes of entries in memory.
    pub log_bytes: u64,
    /// Requests waiting.
    pub requests: usize,
    /// Elections that this node began.
    pub elections: u64,
    /// Messages of peers that were ignored because they do not fit.
    pub ignored: u64,
    /// Requests refused for the rate or the bound.
    pub refused: u64,
    /// Batches and commands proposed.
    pub batches: u64,
    /// See `batches`.
    pub commands: u64,
    /// This node's wall clock less the median of the reachable voters', milliseconds.
    pub clock_offset_ms: i64,
    /// The clock is waited for: `accept-clock`.
    pub clock_problem: bool,
}
