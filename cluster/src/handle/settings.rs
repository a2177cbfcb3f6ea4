//! What a node is opened with.

use proto::{
    limit::{HashKey, ledger::Bounds},
    time::Now,
};
use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Reads both clocks.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Is told how long each write that had to be on the disk took.
pub type Synced = Arc<dyn Fn(Duration) + Send + Sync>;

/// What a node is opened with.
#[derive(Clone)]
pub struct Settings {
    /// Where its identity and, of a voter, its log live. Made if it is missing; one process at a time.
    pub data_dir: PathBuf,
    /// Its name for people, used when an identity is made; at most 64 bytes.
    pub name: String,
    /// Where a voter listens for other nodes; `None`: nowhere, it is alone.
    pub listen: Option<SocketAddr>,
    /// `host:port` where others reach `listen`; `None`: as the identity says.
    pub advertise: Option<String>,
    /// Whether an empty directory becomes a cluster of its own. Not where the configuration names a cluster to join.
    pub bootstrap: bool,
    /// Overrides the secret of the cluster that identities of limits are hashed with; one that begins here has it from the
    /// start. The cluster refuses nodes that have another one.
    pub identity_secret: Option<HashKey>,
    /// Pause between questions how fresh the control plane known here is; well below `freshness_max`.
    pub fresh_every: Duration,
    /// Bounds of the ledger: equal on every voter, since they decide what is refused.
    pub ledger: Bounds,
    /// Raft's times.
    pub timing: Timing,
    /// Bytes of log after which the machine's state is written as a snapshot and the log shortened.
    pub snapshot_after_bytes: u64,
    /// Is told how long writes took.
    pub synced: Synced,
    /// Reads both clocks.
    pub clock: Clock,
}

/// Raft's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Milliseconds of a tick.
    pub tick_ms: u64,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader until an election (up to twice as many, by chance).
    pub election_ticks: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_ticks: 12,
        }
    }
}

impl Settings {
    /// A node alone, with its data there, and every bound at its default.
    pub fn alone(data_dir: PathBuf, clock: Clock) -> Self {
        Self {
            data_dir,
            name: "node".into(),
            listen: None,
            advertise: None,
            bootstrap: true,
            identity_secret: None,
            fresh_every: Duration::from_secs(1),
            ledger: Bounds::default(),
            timing: Timing::default(),
            snapshot_after_bytes: 64 << 20,
            synced: Arc::new(|_| ()),
            clock,
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("data_dir", &self.data_dir)
            .field("name", &self.name)
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("bootstrap", &self.bootstrap)
            .field("ledger", &self.ledger)
            .field("timing", &self.timing)
            .field("snapshot_after_bytes", &self.snapshot_after_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory cannot be made, read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has the directory.
    #[error(
        "{path} is in use by another process: each node has a data directory of its own (`cluster.data_dir`)",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The directory is empty and must not become a cluster of its own.
    #[error(
        "{path} is empty and this node is configured to belong to a cluster: run `tollgate cluster init` if it is the \
         first node, or `tollgate cluster join` with a token of `tollgate cluster token`",
        path = .0.display()
    )]
    NoIdentity(PathBuf),
    /// Others can read what must be secret.
    #[error("{path} can be read by others than its owner: run `chmod {mode:o}` on it", path = path.display())]
    Public {
        /// Which.
        path: PathBuf,
        /// The mode that it should have.
        mode: u32,
    },
    /// A file is damaged.
    #[error("{path} is damaged ({why}); {remedy}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How that was noticed.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Settings that cannot be used.
    #[error("{0}")]
    Unusable(String),
}
