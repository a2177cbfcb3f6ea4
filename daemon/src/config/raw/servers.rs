//! A server behind the gateway, as typed.

use crate::config::units::{ByteSize, HumanDuration, Text};
use proto::doc::{Entries, Spanned};
use schemars::JsonSchema;
use serde::Deserialize;

/// A server: a streamable HTTP endpoint (`url`) or a child process (`command`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// `http` or `https` URL of a streamable HTTP endpoint. Default: none; a server has this or `command`.
    pub url: Option<Spanned<String>>,
    /// Headers added to every request to `url`. Default: none.
    pub headers: Option<Spanned<Entries<Spanned<Text>>>>,
    /// PEM file with the authorities to trust for `url` instead of the system's. Default: the system's.
    pub ca_file: Option<Spanned<String>>,

    /// Program to start, found in PATH when it holds no `/`. Default: none; a server has this or `url`.
    pub command: Option<Spanned<String>>,
    /// Its arguments. Default: none.
    pub args: Option<Spanned<Vec<String>>>,
    /// Its environment beyond PATH, HOME, LANG and TMPDIR. Default: none.
    pub env: Option<Spanned<Entries<Spanned<Text>>>>,
    /// Names of the gateway's environment variables that are passed on. Default: none.
    pub pass_env: Option<Spanned<Vec<Spanned<String>>>>,
    /// Its working directory. Default: the gateway's.
    pub dir: Option<Spanned<String>>,
    /// How processes are shared: `session` = one a session. Default: `session`.
    pub processes: Option<Spanned<Processes>>,
    /// Most processes at once, at least 1. Default: `bounds.processes_server`.
    pub processes_max: Option<Spanned<u64>>,
    /// Numeric user and group to run as; needs a gateway that runs as root. Default: the gateway's.
    pub user: Option<Spanned<User>>,
    /// Most memory of a process (address space), at least `16MiB`. Default: not limited.
    pub memory: Option<Spanned<ByteSize>>,
    /// Most processor time of a process, whole seconds, at least `1s`. Default: not limited.
    pub cpu: Option<Spanned<HumanDuration>>,
    /// Most open files of a process, at least 16. Default: the gateway's.
    pub files: Option<Spanned<u64>>,

    /// Methods passed on although the MCP versions that Tollgate knows do not have them, at most 64. Default: none.
    pub extra_methods: Vec<Spanned<String>>,
    /// Absolute timeout of one call, at least `100ms`. Default: `bounds.upstream_timeout`.
    pub timeout: Option<Spanned<HumanDuration>>,
    /// Most calls in flight, at least 1. Default: `bounds.calls_server`.
    pub calls: Option<Spanned<u64>>,
}

/// How processes are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Processes {
    /// One process a session.
    Session,
}

/// Numeric user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id. Required.
    pub uid: u32,
    /// Group id. Required.
    pub gid: u32,
}
