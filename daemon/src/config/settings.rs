//! What a process is set up with, beside the view.

use crate::{admin, audit, telemetry};
use proto::{command::Role, limit::HashKey};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What a process is set up with. A reload changes the view; most of this needs a restart ([`needs_restart`]).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Threads that serve connections, at least 1.
    pub runtimes: usize,
    /// The audit trail.
    pub audit: audit::Settings,
    /// The admin plane.
    pub admin: admin::Settings,
    /// The node's place in its cluster.
    pub cluster: Cluster,
    /// The log.
    pub log: telemetry::Settings,
    /// The secret that identities and keys of limits are hashed with.
    pub secret: Secret,
    /// How often files are looked at for changes; `None` = only on SIGHUP.
    pub reload_interval: Option<Duration>,
}

/// The identity secret.
#[derive(Clone)]
pub struct Secret {
    /// The key in force.
    pub key: HashKey,
    /// Whether the configuration names it; else it is random and lives as long as the process.
    pub configured: bool,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.configured {
            "Secret(configured)"
        } else {
            "Secret(random)"
        })
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Its certificate; `None` = plain.
    pub tls: Option<TlsFiles>,
    /// What it serves.
    pub serve: Serve,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serve {
    /// `/mcp/<server>`
    pub mcp: bool,
    /// `/healthz` and `/readyz`
    pub health: bool,
    /// `/metrics`
    pub metrics: bool,
}

/// The files of one TLS listener, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Its private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// Authorities for client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client must show one (else it may).
    pub client_required: bool,
}

/// A node's place in its cluster. What the data directory says of a node that began or joined a cluster overrules `role`
/// and `join`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Identity, keys and log; absolute.
    pub data_dir: PathBuf,
    /// For people.
    pub name: String,
    /// Where other nodes connect; `None`: nobody can.
    pub listen: Option<SocketAddr>,
    /// `host:port` by which they reach it; set where `listen` is (and its port known).
    pub advertise: Option<String>,
    /// The cluster to join.
    pub join: Option<Join>,
    /// As what.
    pub role: Role,
    /// How old a node's knowledge of the cluster's grants may be.
    pub freshness_max: Duration,
    /// Whether servers of the log may be commands.
    pub commands_from_log: bool,
}

/// The cluster to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Each `host:port`, at least one.
    pub peers: Vec<String>,
    /// Where the one-time token is; read when it is needed.
    pub token: Option<JoinToken>,
}

/// Where a join token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinToken {
    /// In a file; absolute.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// The settings that differ and only take effect on restart, by the names of their keys.
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<String> {
    [
        ("listeners", old.listeners != new.listeners),
        ("runtimes", old.runtimes != new.runtimes),
        ("audit", old.audit != new.audit),
        ("admin", old.admin != new.admin),
        ("cluster", old.cluster != new.cluster),
        ("log", old.log != new.log),
        (
            "identity_secret",
            old.secret.configured != new.secret.configured
                || (new.secret.configured && old.secret.key.0 != new.secret.key.0),
        ),
        (
            "reload_interval",
            old.reload_interval != new.reload_interval,
        ),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect()
}
