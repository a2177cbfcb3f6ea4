//! What comes out of a transport.

use crate::wire::{Extra, Push, Request, Response};
use proto::command::NodeId;
use raft::eraftpb::Message;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A raft message; `message.from` is the authenticated sender, `message.to` this node.
    Raft(Message),
    /// A voter says something beside Raft.
    Extra(NodeId, Extra),
    /// A snapshot has come in whole. The message holds no machine state: that is in the file.
    Snapshot(Message, SnapshotFile),
    /// What [`super::Transport::send_snapshot`] came to.
    SnapshotSent {
        /// To whom.
        to: NodeId,
        /// The receiver has it whole, and is done with its [`SnapshotFile`].
        ok: bool,
    },
    /// A node asks.
    Request {
        /// Who.
        from: NodeId,
        /// For [`super::Transport::send_response`]; opaque.
        id: u64,
        /// What.
        request: Request,
    },
    /// A voter answers.
    Response {
        /// Who.
        from: NodeId,
        /// As in [`super::Transport::send_request`].
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
    /// A voter does not let this node in: it knows that it was removed.
    Refused(NodeId),
}

/// A snapshot's data on disk; the file goes when this is dropped, unless it was moved away, and the sender is told that it
/// may send what comes after it.
#[derive(Debug)]
pub struct SnapshotFile {
    /// Where; synced.
    pub path: PathBuf,
    /// How long.
    pub bytes: u64,
    /// What was checked.
    pub sha256: [u8; 32],
    /// Dropped with this: the sender is told.
    pub(super) _done: oneshot::Sender<()>,
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        // Moved away, or not wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}
