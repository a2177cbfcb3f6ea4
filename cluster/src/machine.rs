//! CORE. What every voter applies: the ledger, the control plane, the members. Deterministic, never panics.

use proto::{
    command::{Batch, NodeId, Reply, Role},
    limit::ledger::Bounds,
};
use raft::eraftpb::ConfState;
use std::sync::Arc;

/// Most bytes of one chunk of an [`Image`], unless one resource alone is larger.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Why a machine cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log or the image is written by rules that this build does not know.
    #[error("rules version {0} is not known to this build")]
    Rules(u32),
    /// Bytes that no build of this project writes.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

/// The replicated state machine.
pub struct Machine {}

/// A member as replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name for people.
    pub name: String,
    /// `host:port`; empty for a lease client.
    pub address: String,
    /// What it is, or is to be.
    pub role: Role,
    /// The highest rules version that it announced; 0: none yet.
    pub rules_max: u32,
    /// A voter that is being taken out.
    pub leaving: bool,
}

impl Machine {
    /// The state of a new cluster whose first voter is `node`, at index 1.
    pub fn found(
        _cluster: u128,
        _bounds: Bounds,
        _node: NodeId,
        _name: &str,
        _address: &str,
    ) -> Self {
        todo!()
    }
    /// A new cluster from what is left of another one: the control plane stays, live windows count as used up, all other
    /// members are gone. At index 1.
    pub fn refound(self, _cluster: u128, _node: NodeId, _name: &str, _address: &str) -> Self {
        todo!()
    }
    /// Applies one batch; one reply a command, in order.
    pub fn apply(&mut self, _index: u64, _batch: &Batch) -> Result<Vec<Reply>, Error> {
        todo!()
    }
    /// Takes note of the configuration that raft has after this index.
    pub fn apply_conf(&mut self, _index: u64, _conf_state: &ConfState) {
        todo!()
    }
    /// Takes note of an entry that says nothing.
    pub fn apply_nothing(&mut self, _index: u64) {
        todo!()
    }
    /// The last index applied.
    pub fn index(&self) -> u64 {
        todo!()
    }
    /// The cluster.
    pub fn cluster(&self) -> u128 {
        todo!()
    }
    /// Replicated time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        todo!()
    }
    /// A member.
    pub fn member(&self, _node: NodeId) -> Option<&Entry> {
        todo!()
    }
    /// Members in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        std::iter::empty()
    }
    /// Grows with every change of membership.
    pub fn members_version(&self) -> u64 {
        todo!()
    }
    /// Whether the node was a member and is not any more.
    pub fn removed(&self, _node: NodeId) -> bool {
        todo!()
    }
    /// Equal on every replica at equal index.
    pub fn hash(&self) -> u64 {
        todo!()
    }
    /// The state as it is now, to be written while the machine goes on.
    pub fn image(&self) -> Image {
        todo!()
    }
}

/// A state, frozen: written as chunks by [`Image::chunk`], read back by a [`Loader`].
#[derive(Clone)]
pub struct Image {
    /// Names the file; what the snapshot's `data` says of it.
    pub manifest: Manifest,
    _state: Arc<()>,
}

/// What a raft snapshot carries: which chunks make its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The index of the state.
    pub index: u64,
    /// Of the state, as [`Machine::hash`].
    pub hash: u64,
}

impl Manifest {
    /// As a snapshot's data.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// From a snapshot's data, a peer's or the log's.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Error> {
        todo!()
    }
}

impl Image {
    /// The chunks in order, each made when it is asked for. The last one says that it is the last.
    pub fn chunks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        std::iter::empty()
    }
}

/// Reads an image.
pub struct Loader {}

impl Loader {
    /// For the image that the manifest describes.
    pub fn new(_manifest: Manifest, _bounds: Bounds) -> Self {
        todo!()
    }
    /// The next chunk; any bytes are survived.
    pub fn chunk(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        todo!()
    }
    /// The machine, if every chunk came and the hash is as promised.
    pub fn finish(self) -> Result<Machine, Error> {
        todo!()
    }
}
