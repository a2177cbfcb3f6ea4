//! The `cluster` section as typed.

use crate::config::units::{HumanDuration, SecretRef};
use proto::doc::Spanned;
use schemars::JsonSchema;
use serde::Deserialize;

/// The cluster that counts. Without this section a node is a cluster of one: the same code, durable counters, no
/// listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Directory of the node's identity, keys and (voters) log, made with mode 0700; one process at a time uses it.
    /// Default: `$STATE_DIRECTORY`; without that `/var/lib/tollgate` for root, else `tollgate` in `$XDG_STATE_HOME` or
    /// `~/.local/state`.
    pub data_dir: Option<Spanned<String>>,
    /// The node's name for people, 1 to 64 of `A-Z a-z 0-9 _ . -`. Default: the machine's name.
    pub name: Option<Spanned<String>>,
    /// IP address and UDP port where other nodes connect; always mutual TLS, so it may stand off loopback. Voters of a
    /// cluster of several need it. Default: none.
    pub listen: Option<Spanned<String>>,
    /// Host (name or IP address) and port by which other nodes reach `listen`. Default: `listen`; required where that
    /// is an unspecified address such as `0.0.0.0`.
    pub advertise: Option<Spanned<String>>,
    /// The cluster to join when the data directory has no identity yet; with it a node never begins a cluster of its
    /// own. Default: none.
    pub join: Option<Spanned<Join>>,
    /// What the node joins as: `voter` (holds the ledger; 1, 3 or 5 of them) or `client` (leases quota; any number).
    /// Default: `voter`.
    pub role: Option<Spanned<Role>>,
    /// Grants that are kept in the cluster are refused as `unreachable` when the node has not heard for this long
    /// whether they still hold; `1s` to `1h`. Default: `5s`.
    pub freshness_max: Option<Spanned<HumanDuration>>,
    /// Lets servers that are kept in the cluster be commands, which this node then starts. Whoever may write the cluster's
    /// control plane may then run programs here. Default: false.
    pub commands_from_log: bool,
}

/// How a node finds the cluster that it joins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Nodes of the cluster, each `host:port`, at most 16; the first that answers is used. Required.
    pub peers: Spanned<Vec<Spanned<String>>>,
    /// Where the one-time token of `tollgate cluster token` is; read when the node joins, not needed later. Default:
    /// none.
    pub token: Option<Spanned<SecretRef>>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds the ledger and votes.
    Voter,
    /// Leases quota; neither votes nor stores.
    Client,
}
