//! SHELL. How a node gets in: a one-time token, a pinned CA, a certificate signed where the CA's key is.

use crate::tls::{Authority, Credentials};
use proto::{
    command::{MemberRefusal, NodeId, Role},
    limit::HashKey,
};
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

/// A one-time token as it is handed over: `tgj_`, the CA's fingerprint and 128 random bits. Never shown by `Debug`.
#[derive(Clone)]
pub struct Token {}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: `tgj_` and 64 characters of URL-safe base64")]
pub struct NotAToken;

impl Token {
    /// Makes one. Whoever makes it has the ledger take its [`Token::hash`] (`Operate::Token`).
    pub fn new(_authority: &rustls::pki_types::CertificateDer<'_>) -> Self {
        todo!()
    }
    /// Reads one; white space around it is ignored.
    pub fn parse(_text: &str) -> Result<Self, NotAToken> {
        todo!()
    }
    /// As it is handed over. Secret.
    pub fn reveal(&self) -> String {
        todo!()
    }
    /// What the ledger knows of it.
    pub fn hash(&self) -> [u8; 32] {
        todo!()
    }
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
    /// The ledger cannot be reached; ask again.
    #[error("the cluster cannot be reached; ask again")]
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
    },
    /// Another node has it: its `host:port`, where known.
    Elsewhere(Arc<dyn Fn() -> Option<String> + Send + Sync>),
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
    /// Nobody answers there.
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
    /// The answer makes no sense.
    #[error("{0}")]
    Answer(String),
}

/// Joins: asks each address in turn, follows to the node that has the CA's key, and asks again while it is worth it.
pub async fn join(
    _addresses: &[String],
    _token: &Token,
    _wish: &Wish,
) -> Result<Joined, JoinError> {
    todo!()
}
