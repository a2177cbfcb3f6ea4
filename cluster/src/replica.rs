//! CORE. One voter: raft, the machine, the desk where requests become batches and batches become answers, the clock.

use crate::wire::{Push, Request, Response};
use proto::{command::NodeId, time::Now};
use raft::eraftpb::{ConfState, Entry, HardState, Message, Snapshot};

/// What was found in the log at the start.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// Voters and learners as of the snapshot (or of `init`).
    pub conf_state: ConfState,
    /// The newest snapshot: metadata, and the machine's state as its data.
    pub snapshot: Snapshot,
    /// Entries after it.
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
    /// Bytes of entries kept in memory and log after the newest snapshot before the next one is made.
    pub snapshot_after_bytes: u64,
    /// Bounds of the ledger.
    pub ledger: proto::limit::ledger::Bounds,
    /// For election jitter.
    pub seed: u64,
}

/// What the shell must do, in this order: send `messages`; write `persist`, then tell [`Replica::persisted`], which
/// makes the messages that had to wait for it; send answers and pushes.
#[derive(Debug, Default)]
pub struct Effects {
    /// To other voters.
    pub messages: Vec<Message>,
    /// To the log.
    pub persist: Option<Persist>,
    /// To askers, by the id of their request.
    pub responses: Vec<(NodeId, u64, Response)>,
    /// To nodes.
    pub pushes: Vec<(NodeId, Push)>,
}

/// One atomic write to the log.
#[derive(Debug)]
pub struct Persist {
    /// Told back with [`Replica::persisted`].
    pub number: u64,
    /// A snapshot replaces everything before it.
    pub snapshot: Option<Snapshot>,
    /// Entries; those of equal or greater index are replaced.
    pub entries: Vec<Entry>,
    /// Where it changed.
    pub hard_state: Option<HardState>,
    /// Entries up to this index may be forgotten (a snapshot holds them).
    pub compact_to: Option<u64>,
    /// Whether it must be on the disk before it counts.
    pub must_sync: bool,
}

/// One voter.
pub struct Replica {}

impl Replica {
    /// Starts from what the log holds.
    pub fn new(_settings: Settings, _recovered: Recovered, _now: Now) -> Result<Self, String> {
        todo!()
    }
    /// Time passes; called every `tick_ms` and whenever it is convenient.
    pub fn tick(&mut self, _now: Now) {
        todo!()
    }
    /// A message of a peer that was authenticated as `message.from`.
    pub fn step(&mut self, _message: Message, _now: Now) {
        todo!()
    }
    /// A request of an authenticated node.
    pub fn request(&mut self, _from: NodeId, _id: u64, _request: Request, _now: Now) {
        todo!()
    }
    /// What is to be done now; `None`: nothing.
    pub fn poll(&mut self, _now: Now) -> Option<Effects> {
        todo!()
    }
    /// A write is on the disk.
    pub fn persisted(&mut self, _number: u64, _now: Now) {
        todo!()
    }
}
