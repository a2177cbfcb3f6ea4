//! SHELL. Bytes between nodes: QUIC, both sides authenticated, every queue bounded.
//!
//! ```text
//!              votes, heartbeats, extras ─┐
//! link to      appends                   ─┼─ one uni stream each ──►  peer (raft: voters only)
//! each voter   a snapshot                ─┘
//!              requests ──── one bidi stream ────►  peer, which sends answers and pushes back on it
//! ```
//!
//! A node keeps one connection to each voter but itself and opens all streams on it; what comes in on connections that
//! others made is theirs. Nothing that sends waits: what does not fit is lost, which Raft and the lease protocol bear.

use crate::{
    tls::Credentials,
    wire::{Extra, Push, Request, Response},
};
use proto::command::{NodeId, Role};
use raft::eraftpb::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
};

/// Request ids are below this: the rest of the number tells connections of one asker apart.
pub const REQUEST_IDS: u64 = 1 << 48;

/// What a transport is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// Who it is.
    pub credentials: Credentials,
    /// The socket on which peers and lease clients are heard. `None`: nobody is, and any port is used to ask.
    pub socket: Option<UdpSocket>,
    /// Where snapshots that come in are written, an existing directory on the log's disk.
    pub snapshots: PathBuf,
    /// Bounds.
    pub bounds: Bounds,
}

/// Bounds of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most events that wait for the reader, of each kind; beyond that peers wait (QUIC's flow control).
    pub events_max: usize,
    /// Most bytes that wait to be sent on one stream. Beyond: lost (raft, pushes), refused (requests), or the asker's
    /// connection is closed (answers: it does not read).
    pub queue_bytes_max: usize,
    /// Most connections that others made and keep.
    pub connections_max: usize,
    /// Largest snapshot that is taken in, bytes.
    pub snapshot_bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            events_max: 4_096,
            queue_bytes_max: 16 << 20,
            connections_max: 2_048,
            snapshot_bytes_max: 16 << 30,
        }
    }
}

/// Who belongs to the cluster, as far as this node has applied or was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Present nodes, learners as voters.
    pub nodes: BTreeMap<NodeId, Peer>,
    /// Nodes that were taken out, as far as known: never heard, whatever their certificate says.
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

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A raft message; `message.from` is the authenticated sender, `message.to` this node.
    Raft(Message),
    /// A voter says something beside Raft.
    Extra(NodeId, Extra),
    /// A snapshot has come in whole. The message holds no machine state: that is in the file.
    Snapshot(Message, SnapshotFile),
    /// What [`Transport::send_snapshot`] came to.
    SnapshotSent {
        /// To whom.
        to: NodeId,
        /// The receiver has it whole.
        ok: bool,
    },
    /// A node asks.
    Request {
        /// Who.
        from: NodeId,
        /// For [`Transport::send_response`]; opaque.
        id: u64,
        /// What.
        request: Request,
    },
    /// A voter answers.
    Response {
        /// Who.
        from: NodeId,
        /// As in [`Transport::send_request`].
        id: u64,
        /// What.
        response: Response,
    },
    /// A voter says something by itself.
    Push(NodeId, Push),
    /// This node's connection to a voter stands: it can be asked.
    Connected(NodeId),
    /// It is gone; what was asked on it will not be answered. Said once for each `Connected`.
    Lost(NodeId),
}

/// A snapshot's data on disk; the file goes when this is dropped, unless it was moved away.
#[derive(Debug)]
pub struct SnapshotFile {
    /// Where; synced.
    pub path: PathBuf,
    /// How long.
    pub bytes: u64,
    /// What was checked.
    pub sha256: [u8; 32],
}

/// Why a request was not sent: it is certain that nobody has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// There is no connection (yet).
    #[error("not connected")]
    NotConnected,
    /// The queue is full.
    #[error("the queue is full")]
    Full,
    /// The request is larger than a peer takes.
    #[error("the request is too large")]
    TooLarge,
}

/// The way to the other nodes; clones share it. All that sends returns at once, from any thread.
#[derive(Clone, Debug)]
pub struct Transport {}

/// Where events come out.
#[derive(Debug)]
pub struct Incoming {}

impl Transport {
    /// Starts on the current tokio runtime, with no peers.
    pub fn start(_settings: Settings) -> io::Result<(Self, Incoming)> {
        todo!()
    }
    /// Where it is heard, or asks from.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }
    /// From now on these belong to the cluster. Connections are made to voters that are new or have moved; those of
    /// nodes that are gone are closed at once, both ways.
    pub fn set_members(&self, _members: Members) {
        todo!()
    }
    /// Answers those who want to join. Before this they are told that nobody is known to have the CA's key.
    pub fn serve_joins(&self, _desk: crate::join::Desk) {
        todo!()
    }
    /// To `message.to`, or lost.
    pub fn send_raft(&self, _message: &Message) {
        todo!()
    }
    /// To a voter, or lost.
    pub fn send_extra(&self, _to: NodeId, _extra: &Extra) {
        todo!()
    }
    /// A snapshot's message with the file that holds its data, which must stay until [`Event::SnapshotSent`] is said.
    /// One at a time a peer: a second one replaces the first, which then was not sent.
    pub fn send_snapshot(&self, _message: Message, _file: PathBuf) {
        todo!()
    }
    /// To a voter. `id` is below [`REQUEST_IDS`].
    pub fn send_request(&self, _to: NodeId, _id: u64, _request: &Request) -> Result<(), Unsent> {
        todo!()
    }
    /// To who asked, on the connection on which it asked, if that still stands.
    pub fn send_response(&self, _to: NodeId, _id: u64, _response: &Response) {
        todo!()
    }
    /// To a node that has asked something on a connection that still stands, or lost.
    pub fn send_push(&self, _to: NodeId, _push: &Push) {
        todo!()
    }
    /// Closes all connections, having sent what waits, for at most a second.
    pub async fn close(&self) {
        todo!()
    }
}

impl Incoming {
    /// The next event, peers' first; `None` after [`Transport::close`].
    pub async fn next(&mut self) -> Option<Event> {
        todo!()
    }
    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        todo!()
    }
}
