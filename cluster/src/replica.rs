//! CORE. One voter: raft, the machine, the desk where requests become batches and batches become answers, the clock.
//!
//! The shell calls in ([`Replica::tick`], [`Replica::step`], [`Replica::request`] …), then [`Replica::poll`] until it
//! returns `None`, and carries out what it returns. Writes may be carried out behind its back: `poll` goes on meanwhile,
//! and [`Replica::persisted`] tells it of a write and of all before it.

use crate::{
    machine::{self, Image, Machine},
    wire::{Extra, Push, Request, Response},
};
use proto::{command::NodeId, time::Now};
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
    pub faults: Faults,
}

/// Faults that a simulation plants to prove that it would notice.
#[cfg(feature = "faults")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Leases are answered when they are proposed.
    pub grant_before_commit: bool,
    /// A write counts before the disk has it.
    pub acknowledge_before_fsync: bool,
}

/// What the shell must do: send `messages` and `extras` at once; write `persist` (writes in the order in which they came;
/// several may become one), then tell [`Replica::persisted`]; send answers and pushes at once.
#[derive(Default)]
pub struct Effects {
    /// To other voters. Before a `MsgSnapshot` the receiver must have the chunks of its manifest: they go first, on a
    /// stream of their own; then [`Replica::snapshot_sent`]. A message may be lost, so a full queue drops it.
    pub messages: Vec<Message>,
    /// To other voters; may be lost.
    pub extras: Vec<(NodeId, Extra)>,
    /// To the log.
    pub persist: Option<Persist>,
    /// A state to write as a file of chunks, off the loop and synced; then [`Replica::image_written`]. One at a time.
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
    /// It was taken out of the cluster.
    #[error("this node was removed from the cluster")]
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
    /// Told back with [`Replica::persisted`].
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

/// One voter.
pub struct Replica {}

/// What a new cluster begins with: to be written (chunks first), then started from.
pub fn founded(_machine: Machine, _node: NodeId) -> (Recovered, Image) {
    todo!()
}

impl Replica {
    /// Starts from what the disk holds. Errors: what was found contradicts itself.
    pub fn new(_settings: Settings, _recovered: Recovered, _now: Now) -> Result<Self, String> {
        todo!()
    }
    /// Time passes; called every `tick_ms`, and at [`Replica::deadline_ns`].
    pub fn tick(&mut self, _now: Now) {
        todo!()
    }
    /// A message of a peer that was authenticated as `message.from`. What does not fit is ignored and counted.
    pub fn step(&mut self, _message: Message, _now: Now) {
        todo!()
    }
    /// A `MsgSnapshot` whose chunks have come, were loaded and are on the disk.
    pub fn step_snapshot(&mut self, _message: Message, _machine: Machine, _now: Now) {
        todo!()
    }
    /// What a voter says beside raft.
    pub fn extra(&mut self, _from: NodeId, _extra: Extra, _now: Now) {
        todo!()
    }
    /// A request of an authenticated node. `id` is echoed in the answer; there is at most one.
    pub fn request(&mut self, _from: NodeId, _id: u64, _request: Request, _now: Now) {
        todo!()
    }
    /// What is to be done now; `None`: nothing.
    pub fn poll(&mut self, _now: Now) -> Option<Effects> {
        todo!()
    }
    /// When to call [`Replica::tick`] and `poll` again at the latest, beside every `tick_ms`; boot clock nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        todo!()
    }
    /// A write and all before it are on the disk.
    pub fn persisted(&mut self, _number: u64, _now: Now) {
        todo!()
    }
    /// The file of an image is on the disk, or could not be written.
    pub fn image_written(&mut self, _manifest: machine::Manifest, _ok: bool, _now: Now) {
        todo!()
    }
    /// A snapshot was delivered to a peer, or not.
    pub fn snapshot_sent(&mut self, _to: NodeId, _ok: bool) {
        todo!()
    }
    /// A message to a peer was lost, or its connection.
    pub fn unreachable(&mut self, _node: NodeId) {
        todo!()
    }
    /// Hands leadership to another voter, if there is one: the node is about to stop.
    pub fn resign(&mut self) {
        todo!()
    }
    /// Who leads, where known.
    pub fn leader(&self) -> Option<NodeId> {
        todo!()
    }
    /// What has been applied here.
    pub fn machine(&self) -> &Machine {
        todo!()
    }
    /// Figures for metrics.
    pub fn figures(&self) -> Figures {
        todo!()
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
