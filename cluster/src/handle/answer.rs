//! What a handle answers.

use crate::{
    replica::{Figures, Stop},
    wire::{At, Response},
};
use proto::{
    command::{MemberRefusal, NodeId},
    control,
    limit::ledger::{Refusal, Session, Standing},
    time::Now,
};

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No leader answered in time, or this node stopped: nothing is known, no limit was reached.
    #[error("the ledger cannot be reached")]
    Unreachable,
    /// The ledger said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The control plane said no.
    #[error(transparent)]
    Control(#[from] control::Refusal),
    /// Membership said no.
    #[error(transparent)]
    Member(#[from] MemberRefusal),
    /// This node may not ask that: it was removed, or its role does not allow it.
    #[error("the cluster does not let this node do that")]
    Forbidden,
}

/// An answer to [`super::Handle::lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How the asker stands, or why there is nothing.
    pub verdict: Result<Standing, Refusal>,
    /// The moment in replicated history.
    pub at: At,
    /// The session under which it was asked.
    pub session: Session,
    /// Both clocks of this node before the question was sent for the first time: what the answer grants holds from here.
    pub sent: Now,
}

/// What came of [`super::Handle::operate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operated {
    /// Done.
    Done,
    /// A credit: units given back.
    Credited(u128),
    /// A change of the control plane: its new version.
    Version(u64),
}

/// How much this node knows of the control plane, and how fresh that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// The control version that was complete here when the stamp was taken. [`super::Handle::control`] shows at least this one.
    pub version: u64,
    /// Boot clock before the question was asked that a majority has confirmed since, nanoseconds; 0: never.
    pub asked_ns: u64,
}

/// What this node knows of the cluster without asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Who leads, as far as this node has heard.
    pub leader: Option<NodeId>,
    /// Raft's term, as last heard.
    pub term: u64,
    /// Questions of this node that wait for an answer.
    pub outstanding: usize,
    /// Committed index (voters).
    pub committed: u64,
    /// Applied index (voters).
    pub applied: u64,
    /// Bytes of the log on the disk (voters).
    pub log_bytes: u64,
    /// The rest (voters).
    pub figures: Option<Figures>,
}

/// Why a node had to stop by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its disk fails or is full.
    #[error("{0}")]
    Storage(String),
    /// It cannot or must not go on.
    #[error(transparent)]
    Stopped(Stop),
}

impl Failure {
    /// With what the process should end: 74 where the log could not be kept (an input or output error in sysexits), 77
    /// where the node was removed (no permission), else 70 (an internal error).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Storage(_) => 74,
            Self::Stopped(Stop::Removed) => 77,
            Self::Stopped(_) => 70,
        }
    }
}

/// What an answer that was not hoped for means.
pub(super) fn refusal(response: Response) -> Error {
    match response {
        Response::Refused(refusal) => Error::Refused(refusal),
        Response::Control(refusal) => Error::Control(refusal),
        Response::Member(refusal) => Error::Member(refusal),
        Response::Forbidden | Response::Removed => Error::Forbidden,
        _ => Error::Unreachable,
    }
}
