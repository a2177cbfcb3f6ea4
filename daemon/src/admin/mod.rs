//! The admin plane: what operators see and do, on a Unix socket that only they can open, or over TCP with proof.
//!
//! `listen` makes the sockets, `guard` turns away who may not ask, `routes` answers from `show`, `limits` and `cluster`;
//! `operate` sees that changes leave an audit line; `client` asks.

mod client;
mod cluster;
mod control;
mod guard;
mod limits;
mod listen;
mod names;
mod operate;
mod routes;
mod show;
mod tls;

pub use client::{ClientError, ask, send};
pub use listen::Listeners;

use crate::{
    audit::Audit, control::Ask, freshness::Freshness, limiter::Limiter, metrics::Metrics,
    view::Views,
};
use proto::grant::TokenHash;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};
use tokio::sync::{mpsc, watch};

/// Where the admin plane listens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// A Unix socket, made with mode 0600 (its directory with 0700 if it does not exist).
    pub unix: Option<PathBuf>,
    /// A TCP listener.
    pub tcp: Option<Tcp>,
}

/// Where the Unix socket is unless the configuration says otherwise: in `$XDG_RUNTIME_DIR`, else in `/run` for root,
/// else in a directory of this user's in the temporary directory.
pub fn default_socket() -> PathBuf {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = rustix::process::geteuid();
    let directory = match runtime_dir.filter(|directory| directory.is_absolute()) {
        Some(directory) => directory.join("tollgate"),
        None if uid.is_root() => PathBuf::from("/run/tollgate"),
        None => std::env::temp_dir().join(format!("tollgate-{}", uid.as_raw())),
    };
    directory.join("admin.sock")
}

/// A TCP listener of the admin plane: it needs `tls` with a client CA, or a token, or both; on loopback too.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    /// Where it listens.
    pub address: SocketAddr,
    /// Mutual TLS.
    pub tls: Option<Tls>,
    /// The SHA-256 of the token that callers send as `Authorization: Bearer`.
    pub token_sha256: Option<TokenHash>,
}

/// Mutual TLS: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose client certificates are let in.
    pub client_ca: PathBuf,
}

/// What the admin plane shows and does.
pub struct Plane {
    /// The view in force.
    pub views: Arc<Views>,
    /// The way to the ledger and the other nodes.
    pub cluster: ::cluster::handle::Handle,
    /// Where backups go unless an operator says otherwise.
    pub data_dir: PathBuf,
    /// How old what is known of the cluster's grants is.
    pub freshness: Arc<Freshness>,
    /// The counters of this node.
    pub limiter: Arc<Limiter>,
    /// The audit trail.
    pub audit: Audit,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Who puts views in force.
    pub keeper: mpsc::Sender<Ask>,
    /// When the gateway started.
    pub started: Instant,
    /// Whether it is draining.
    pub draining: Arc<AtomicBool>,
    /// How many sessions there are.
    pub sessions: Arc<dyn Fn() -> usize + Send + Sync>,
}

/// Opens the listeners and serves until `shutdown` turns true. Errors: a listener could not be made.
pub async fn serve(
    settings: Settings,
    plane: Arc<Plane>,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let listeners = Listeners::open(&settings)?;
    listeners.serve(plane, shutdown).await
}

#[cfg(test)]
mod tests;
