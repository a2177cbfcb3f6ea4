//! What goes into the ledger and what comes out of it.

use super::super::{CounterKey, Identity, Window};
use crate::command::NodeId;
use serde::{Deserialize, Serialize};

/// Bounds of a ledger. They decide what is refused, so they are equal on every voter: part of the rules' version, never
/// of a node's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most counters with a live window. Beyond: [`Refusal::CountersFull`].
    pub counters_max: usize,
    /// Most limits defined at once. Beyond: [`Refusal::LimitsFull`].
    pub limits_max: usize,
    /// Most nodes. Beyond: [`Refusal::NodesFull`].
    pub nodes_max: usize,
    /// Longest time that a lease holds, milliseconds.
    pub hold_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            counters_max: 2_000_000,
            limits_max: 100_000,
            nodes_max: 1_024,
            hold_ms: 5_000,
        }
    }
}

/// A holder of leases: one run of one node. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session(pub u64);

/// What the ledger must know of a limit before it leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Which limit.
    pub identity: Identity,
    /// Its window, part of the identity.
    pub window: Window,
    /// Units that may be charged in a window, at most [`super::super::amount::UNITS_MAX`]; `u64::MAX` for a limit that
    /// counts but never refuses.
    pub max: u64,
}

/// Bounds the distinct `key` values of one limit, scope value and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Identity and scope value, hashed (the counter's key without its `key` value).
    pub key: CounterKey,
    /// Most distinct counters of the group in a window.
    pub keys_max: u32,
}

/// How the asker stands with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The counter's window.
    pub window: u64,
    /// That window's end, replicated milliseconds since 1970.
    pub end_ms: u64,
    /// Everything granted to the asker in the window.
    pub granted_total: u128,
    /// Everything that the asker returned in the window.
    pub returned_total: u128,
    /// Units out with holders or spent by them, the asker's included.
    pub used: u128,
    /// Units that can still be leased.
    pub remaining: u64,
    /// How long the lease holds, milliseconds.
    pub ttl_ms: u64,
    /// Grows with every credit and every raise of `max`: a refusal heard at an older one may be out of date.
    pub generation: u64,
}

/// Why a command was not carried out. Nothing was changed, except that a forged return closes its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Less than `min` is left. The standing may still offer units granted earlier.
    #[error("less than the amount asked for is left in the window")]
    Exhausted(Standing),
    /// The group has `keys_max` distinct keys in this window.
    #[error("too many distinct keys in the window")]
    KeysFull {
        /// When the window ends, milliseconds since 1970.
        end_ms: u64,
    },
    /// `counters_max` counters are live.
    #[error("too many live counters")]
    CountersFull,
    /// `limits_max` limits are defined.
    #[error("too many limits")]
    LimitsFull,
    /// `nodes_max` nodes have said hello.
    #[error("too many nodes")]
    NodesFull,
    /// No such limit is defined.
    #[error("the limit is not defined")]
    Undefined,
    /// The identity is defined with another window, or the key is another limit's.
    #[error("the limit is defined with another window, or the counter is another limit's")]
    Conflict,
    /// The session is unknown, or a newer one of its node has replaced it.
    #[error("the session is not current")]
    UnknownSession,
    /// The session returned more than it was granted: its node must say hello with a greater nonce.
    #[error("the session returned more than it was granted")]
    Quarantined,
    /// The node hashes identities with another secret than other nodes: they would count apart.
    #[error("the node's identity secret is not that of the other nodes")]
    Secret,
    /// The counter is not live, so there is nothing to credit or to reset.
    #[error("there is no such counter in its present window")]
    UnknownCounter,
    /// A number left its range.
    #[error("a number is out of range")]
    Overflow,
}

/// A question for counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Only this one.
    pub key: Option<CounterKey>,
    /// Only this limit's.
    pub identity: Option<Identity>,
    /// The fullest first; else in the order of keys.
    pub fullest: bool,
    /// At most this many, and at most [`ROWS_MAX`].
    pub most: usize,
}

/// Most rows in one answer to a question for counters.
pub const ROWS_MAX: usize = 1_000;

/// A counter in its present window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub key: CounterKey,
    /// Its limit.
    pub identity: Identity,
    /// The window's id.
    pub window: u64,
    /// Its end, replicated milliseconds since 1970.
    pub end_ms: u64,
    /// The `max` in force; 0: nobody defines the limit any more.
    pub max: u64,
    /// Granted and not returned: spent or out with holders. `max` where the window counts as used up.
    pub used: u128,
    /// Of that: held by sessions that ended without returning it; gone until the window ends, or credited.
    pub lost: u128,
    /// Who holds what, by node.
    pub holders: Vec<Holding>,
}

/// What one node has of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Who.
    pub node: NodeId,
    /// Granted to its newest session in the window.
    pub granted: u128,
    /// Returned by it.
    pub returned: u128,
    /// Out with sessions of this node that ended without returning it.
    pub lost: u64,
}

/// A live holder of a counter, to be recalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub node: NodeId,
    /// In which session.
    pub session: Session,
    /// Everything granted to it in the window.
    pub granted_total: u128,
    /// Granted and not returned: spent or held.
    pub out: u64,
}

/// A limit that live sessions define differently: the smallest `max` rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Which.
    pub identity: Identity,
    /// Who defines what: up to two nodes for each `max`, the smallest first, at most [`CONFLICT_SOURCES_MAX`].
    pub sources: Vec<(NodeId, u64)>,
}

/// Most conflicts that are listed.
pub const CONFLICTS_MAX: usize = 100;
/// Most sources of one conflict that are listed.
pub const CONFLICT_SOURCES_MAX: usize = 8;
