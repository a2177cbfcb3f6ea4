//! CORE. A node's dealings with the voters: whom to ask, what to ask again, which session is ours.

use crate::wire::{Push, Request, Response};
use proto::{command::NodeId, limit::ledger::Session, time::Now};

/// What the shell must do.
#[derive(Debug)]
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
        /// As [`Client::ask`] returned it.
        ticket: u64,
        /// `None`: unreachable until its deadline.
        response: Option<Response>,
    },
    /// A session began: whatever was held under another one is void.
    Session(Session),
    /// The leader says something.
    Push(Push),
}

/// A node's dealings with the voters.
pub struct Client {}

impl Client {
    /// Asks the leader, whoever it is, again and again until `deadline_ns` (boot clock). Idempotent requests only.
    pub fn ask(&mut self, _request: Request, _deadline_ns: u64, _now: Now) -> u64 {
        todo!()
    }
    /// An answer came.
    pub fn receive(&mut self, _from: NodeId, _id: u64, _response: Response, _now: Now) {
        todo!()
    }
    /// A push came.
    pub fn pushed(&mut self, _from: NodeId, _push: Push, _now: Now) {
        todo!()
    }
    /// The connection to a voter was lost, or could not be made.
    pub fn lost(&mut self, _node: NodeId, _now: Now) {
        todo!()
    }
    /// What is to be done now.
    pub fn poll(&mut self, _now: Now) -> Option<Action> {
        todo!()
    }
    /// When to poll again at the latest, boot clock nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        todo!()
    }
}
