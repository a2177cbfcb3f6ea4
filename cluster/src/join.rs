//! SHELL. How a node gets in: a one-time token, a pinned CA, a certificate signed where the CA's key is.
//!
//! ```text
//! joiner                                                                       any voter
//!   token = CA fingerprint + secret ──TLS, CA pinned, no certificate yet──►
//!   secret, own public key, its signature, name, address, role ───────────►    has the CA's key?
//!                                                                               no: who has it ──► asked next
//!                                                                               yes: ledger burns the token and adds
//!                                                                                    the node (Operate::Join)
//!   ◄────────────── certificate, voters, identity secret ──────────────────    signs
//! ```
//!
//! The private key never leaves the joiner, and no X.509 of a stranger's is parsed: it sends a bare public key.

mod ask;
mod serve;
mod token;

pub use ask::join;
pub(crate) use serve::{Gate, serve};
pub use token::{NotAToken, Token};

use crate::tls::{Authority, Credentials};
use proto::{
    command::{MemberRefusal, NodeId, Role},
    limit::HashKey,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

/// What a candidate's signature is about.
const PROOF_OF: &[u8] = b"tollgate join: this key is mine\0";

/// What a stranger sends.
#[derive(Serialize, Deserialize)]
struct Question {
    secret: [u8; 16],
    key: Vec<u8>,
    proof: Vec<u8>,
    name: String,
    address: String,
    role: Role,
}

/// What it hears.
#[derive(Serialize, Deserialize)]
enum Answer {
    Joined {
        cert: Vec<u8>,
        secret: [u8; 16],
        voters: Vec<(NodeId, String)>,
        authority: NodeId,
    },
    /// Another node has the CA's key.
    Elsewhere(Option<String>),
    Member(MemberRefusal),
    Unreachable,
    Busy,
    Malformed,
}

/// Who wants in, as the ledger is asked (`Operate::Join`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Hash of its token.
    pub token: [u8; 32],
    /// The id that it will have. The same candidate asking again (its answer was lost) has the same id.
    pub node: NodeId,
    /// Its name for people.
    pub name: String,
    /// `host:port`; empty for a lease client.
    pub address: String,
    /// As what.
    pub role: Role,
}

/// What a node that was let in is told.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The secret with which identities are hashed.
    pub secret: HashKey,
    /// The voters and where they listen.
    pub voters: BTreeMap<NodeId, String>,
}

/// Why it was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The ledger says no.
    #[error(transparent)]
    Member(#[from] MemberRefusal),
    /// The ledger cannot be reached, or too many ask; ask again.
    #[error("the cluster cannot be reached, or is busy; ask again")]
    Unreachable,
}

/// Has the ledger let a candidate in. A candidate whose node is a member already with the same name, address and role is
/// let in again: its first answer was lost.
pub type Admit = Arc<
    dyn Fn(Candidate) -> Pin<Box<dyn Future<Output = Result<Admitted, Refused>> + Send>>
        + Send
        + Sync,
>;

/// What a node does for those who want in.
#[derive(Clone)]
pub enum Desk {
    /// It has the CA's key.
    Here {
        /// The key.
        authority: Arc<Authority>,
        /// The ledger's say.
        admit: Admit,
        /// The wall clock, milliseconds since 1970.
        unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    },
    /// Another node has it: its `host:port`, where known.
    Elsewhere(Arc<dyn Fn() -> Option<String> + Send + Sync>),
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Desk::Here { .. } => "Desk::Here",
            Desk::Elsewhere(_) => "Desk::Elsewhere",
        })
    }
}

/// What a joining node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its name for people.
    pub name: String,
    /// Where it will be reached, `host:port`; empty for a lease client.
    pub address: String,
    /// As what.
    pub role: Role,
}

/// What it got.
#[derive(Debug)]
pub struct Joined {
    /// Its credentials, the key made here.
    pub credentials: Credentials,
    /// The secret with which identities are hashed.
    pub secret: HashKey,
    /// The voters and where they listen.
    pub voters: BTreeMap<NodeId, String>,
    /// Who has the CA's key.
    pub authority: NodeId,
}

/// Why it got nothing.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No address was given.
    #[error("no address of the cluster was given")]
    NoAddress,
    /// Nobody answers there, or not one of the cluster that the token is for.
    #[error("{address}: {problem}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        problem: String,
    },
    /// The cluster says no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The node that has the CA's key cannot be named by the one that was asked.
    #[error("{0} does not have the key of the cluster's CA and does not know who has")]
    NoAuthority(String),
    /// The cluster does not understand the question.
    #[error(
        "the cluster cannot read the request: is the name 1 to 64 bytes and the address `host:port`?"
    )]
    Malformed,
    /// The answer makes no sense.
    #[error("the cluster's answer makes no sense: {0}")]
    Answer(String),
    /// Something is wrong here.
    #[error("{0}")]
    Local(String),
}
