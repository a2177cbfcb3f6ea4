//! Everything that is replicated: one Raft entry is one [`Batch`].
//!
//! Applying a batch is deterministic and never fails as a whole: each command has a [`Reply`] of its own.

use crate::{
    control,
    limit::{
        CounterKey,
        lease::{Ask, GiveBack},
        ledger::{Definition, Refusal, Session, Standing},
    },
};
use serde::{Deserialize, Serialize};

/// The rules that this build applies by. A batch names the version it was made for; a node stops at one it does not know.
pub const RULES_VERSION: u32 = 1;
/// Most commands in one batch.
pub const COMMANDS_MAX: usize = 1_024;
/// Most bytes of one encoded batch; a control-plane command stands alone and may be as large as its document.
pub const BATCH_BYTES_MAX: usize = 64 << 10;

/// A node, voter or lease client: random, made when it joins, never 0, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// What a node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds the ledger and votes.
    Voter,
    /// Leases, and gets the control plane; stores nothing and does not vote.
    Client,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The proposer's clock, milliseconds since 1970.
    pub now_ms: u64,
    /// The rules to apply it by.
    pub rules_version: u32,
    /// In order.
    pub commands: Vec<Command>,
}

/// One change. The voter that receives a command of a session has made sure that it came over its node's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens a node's session. Idempotent by nonce; a greater nonce replaces the session.
    Hello {
        /// Whose.
        node: NodeId,
        /// Grows with every start of the node.
        nonce: u64,
        /// Hash of the secret that identities are hashed with: equal on all nodes, or they would count apart.
        secret_check: u64,
        /// The highest rules version that the node knows.
        rules_max: u32,
    },
    /// Defines limits, in pieces; with the last piece the session's limits of older revisions go out of force.
    Define {
        /// Whose.
        session: Session,
        /// Grows with every view of the session.
        revision: u64,
        /// This piece.
        definitions: Vec<Definition>,
        /// It is the last.
        last: bool,
    },
    /// Asks for quota.
    Lease {
        /// Whose.
        session: Session,
        /// What.
        ask: Ask,
    },
    /// Returns quota.
    Return {
        /// Whose.
        session: Session,
        /// What.
        back: GiveBack,
    },
    /// Closes a session that has returned everything.
    Bye {
        /// Whose.
        session: Session,
    },
    /// Ends a session whose node was not heard of for long: what it holds is lost until the windows end, or credited, and
    /// its definitions go out of force. A node that comes back after all says hello with a greater nonce.
    Gone {
        /// Whose.
        session: Session,
    },
    /// Gives back what dead sessions held of a counter in its present window.
    Credit {
        /// The counter.
        key: CounterKey,
    },
    /// Starts a counter's window anew: whatever was used is forgotten, whatever is out is recalled as far as it goes.
    Reset {
        /// The counter.
        key: CounterKey,
    },
    /// Sets the replicated clock, back too; live windows then count as used up.
    SetClock {
        /// Milliseconds since 1970.
        now_ms: u64,
    },
    /// Applies later batches by other rules.
    SetRules {
        /// Which.
        version: u32,
    },
    /// Changes a resource of the control plane.
    Control(control::Change),
    /// Changes who belongs to the cluster.
    Member(Member),
}

/// Who belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Member {
    /// Lets one node in.
    Token {
        /// SHA-256 of the token.
        hash: [u8; 32],
        /// As what.
        role: Role,
        /// Until when, replicated milliseconds.
        expires_ms: u64,
    },
    /// Burns a token and adds the node. A voter starts as a learner.
    Join {
        /// SHA-256 of the token; `None`: the first node, at `init`.
        token: Option<[u8; 32]>,
        /// The node.
        node: NodeId,
        /// Its name for people.
        name: String,
        /// Where peers reach it (voters), `host:port`.
        address: String,
        /// As what.
        role: Role,
    },
    /// The node was moved.
    Address {
        /// Which.
        node: NodeId,
        /// `host:port`.
        address: String,
    },
    /// Takes a node out: its sessions end, its id is never used again.
    Remove {
        /// Which.
        node: NodeId,
    },
}

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Carried out.
    Done,
    /// `Hello`: the session.
    Session(Session),
    /// `Lease`: how the asker stands.
    Lease(Result<Standing, Refusal>),
    /// `Credit`: units given back.
    Credited(u128),
    /// `Control`: the new control version.
    Version(u64),
    /// The ledger refuses.
    Refused(Refusal),
    /// The control plane refuses.
    Control(control::Refusal),
    /// Membership refuses.
    Member(MemberRefusal),
}

/// Why membership was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MemberRefusal {
    /// The token is unknown, used or expired, or was made for another role.
    #[error("the join token is unknown, used, expired, or for another role")]
    Token,
    /// There is no such node.
    #[error("there is no such node")]
    Unknown,
    /// The id was used before.
    #[error("the node id was used before")]
    Used,
    /// The table is full.
    #[error("the cluster has as many nodes as it may")]
    Full,
    /// The last voter cannot be removed.
    #[error("it is the last voter")]
    LastVoter,
    /// The name or the address is too long or empty.
    #[error("the name or the address is too long or empty")]
    Name,
    /// The secret that identities are hashed with is another one on that node.
    #[error("the node hashes identities with another secret")]
    Secret,
    /// A voter has not announced that it knows these rules, or they are older than those in force.
    #[error("the rules are older than those in force, or not every voter knows them")]
    Rules,
    /// As many tokens wait to be used as may.
    #[error("too many unused join tokens")]
    TokensFull,
}
