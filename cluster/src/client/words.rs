//! What a client is told, and what it says.

use crate::wire::{Push, Request, Response};
use proto::{command::NodeId, limit::ledger::Session};

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send over the connection to this voter (made if there is none).
    Send {
        /// Whom.
        to: NodeId,
        /// Echoed in the answer.
        id: u64,
        /// What.
        request: Request,
    },
    /// A question has its answer, or was given up.
    Answer {
        /// As [`super::Client::ask`] returned it.
        ticket: u64,
        /// `None`: unreachable until its deadline, or too much was outstanding.
        response: Option<Response>,
    },
    /// A session began: whatever was held under another one is void.
    Session(Session),
    /// The leader says something.
    Push(Push),
    /// This one is said to lead and is none of [`super::Client::set_voters`]: what is known of the members is old. Any voter
    /// answers [`Request::Members`].
    UnknownLeader(NodeId),
}

/// What a client is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Greater than at any start before; the low [`super::NONCE_SPARE_BITS`] are 0.
    pub nonce: u64,
    /// Hash of the identity secret.
    pub secret_check: u64,
    /// The highest rules version that this build knows.
    pub rules_max: u32,
    /// Most questions outstanding; the next is answered `None` at once.
    pub outstanding_max: usize,
    /// For jitter.
    pub seed: u64,
}
