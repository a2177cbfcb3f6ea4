//! What the admin API says of the cluster and its counters.
//!
//! Node and cluster ids are lower-case hexadecimal, 16 and 32 digits; counters' keys 32.

use crate::command::Role;
use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`
pub const CLUSTER: &str = "/v1/cluster";
/// `POST /v1/cluster/token` with [`NewToken`], answered by [`Token`]
pub const TOKEN: &str = "/v1/cluster/token";
/// `POST /v1/cluster/remove` with [`Remove`]
pub const REMOVE: &str = "/v1/cluster/remove";
/// `POST /v1/cluster/snapshot` with [`Snapshot`], answered by [`Snapped`]
pub const SNAPSHOT: &str = "/v1/cluster/snapshot";
/// `POST /v1/cluster/accept-clock`
pub const ACCEPT_CLOCK: &str = "/v1/cluster/accept-clock";
/// `POST /v1/limits/credit` with [`Pick`], answered by [`Credited`]
pub const CREDIT: &str = "/v1/limits/credit";
/// `POST /v1/limits/reset` with [`Pick`]
pub const RESET: &str = "/v1/limits/reset";

/// How the cluster is, as this node and, where it answers, its leader see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id.
    pub cluster: String,
    /// The node that was asked.
    pub node: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The leader, as far as this node has heard.
    pub leader: Option<String>,
    /// Raft's term, as far as this node has heard.
    pub term: u64,
    /// Committed index of this node's log (voters).
    pub committed: u64,
    /// Applied index of this node's log (voters).
    pub applied: u64,
    /// Bytes of this node's log on the disk (voters).
    pub log_bytes: u64,
    /// Age of this node's knowledge of the control plane, milliseconds; none: it never heard.
    pub fresh_age_ms: Option<u64>,
    /// What the leader says; none: nobody answered in time.
    pub led: Option<Led>,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// Replicated time, milliseconds since 1970.
    pub now_ms: u64,
    /// The rules in force.
    pub rules_version: u32,
    /// Live counters.
    pub counters: u64,
    /// Defined limits.
    pub limits: u64,
    /// The control plane's version.
    pub control_version: u64,
    /// Why the leader's clock is not trusted, if it is not.
    pub clock_problem: Option<String>,
    /// Every member, voters first, by name.
    pub members: Vec<Member>,
    /// Limits that nodes define differently: the smallest `max` rules.
    pub conflicts: Vec<Conflict>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// `host:port`; empty for a lease client.
    pub address: String,
    /// What it is.
    pub role: Role,
    /// It leads.
    pub leader: bool,
    /// A voter-to-be: catching up, or waiting for a second one so that the number of voters stays odd.
    pub learner: bool,
    /// It is being taken out.
    pub leaving: bool,
    /// The leader has heard of it lately.
    pub reachable: bool,
    /// The last index that it is known to have (voters).
    pub matched: u64,
    /// Its wall clock less the leader's, milliseconds, where known.
    pub clock_offset_ms: Option<i64>,
    /// The highest rules version that it knows.
    pub rules_max: u32,
}

/// A limit that is defined differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The limit's name where this node knows it, else its identity.
    pub limit: String,
    /// Its identity.
    pub identity: String,
    /// Names of nodes, each with the `max` that it defines.
    pub sources: Vec<(String, String)>,
}

/// Asks for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// As what the node may join.
    pub role: Role,
    /// How long it is good, seconds, 1 to 86,400.
    pub ttl_s: u64,
}

/// A token that lets one node in. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The token.
    pub token: String,
    /// Where the node may ask, each `host:port`.
    pub peers: Vec<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Takes nodes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Names or ids; a name that several nodes have is refused.
    pub nodes: Vec<String>,
}

/// Asks for a copy of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// A new file, absolute, on the gateway's machine. Default: one in `backups` in the data directory.
    pub path: Option<String>,
}

/// A copy was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapped {
    /// Where it is, on the gateway's machine.
    pub path: String,
    /// The index of the log that it holds everything up to.
    pub index: u64,
    /// Its length.
    pub bytes: u64,
}

/// Names one counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pick {
    /// The counter's key.
    pub counter: String,
}

/// What dead nodes held was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credited {
    /// Units, as a decimal number.
    pub credited: String,
}

/// An answer without content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// What one node has of a counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The node's name where it is known, else its id.
    pub node: String,
    /// Granted in the window, as a decimal number.
    pub granted: String,
    /// Of that given back.
    pub returned: String,
    /// Held by earlier runs of the node that ended without giving it back.
    pub lost: String,
}
