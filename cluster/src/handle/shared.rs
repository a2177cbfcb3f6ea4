//! What driver and handles share.

use super::{Clock, Failure, LedgerClock, Local, PUSHES_MAX};
use crate::{
    transport::Watcher,
    wire::{At, Push, Request, Response},
};
use proto::{
    command::{NodeId, Role},
    control::Control,
    limit::{HashKey, ledger::Session},
    time::Now,
};
use rustls::pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};
use tokio::sync::{broadcast, oneshot, watch};

/// A question on its way to the driver.
#[derive(Debug)]
pub(crate) enum ToDriver {
    /// For the leader.
    Ask {
        request: Request,
        deadline_ns: u64,
        answer: oneshot::Sender<Option<Response>>,
    },
    /// Write the machine's state into a file.
    Snapshot {
        path: PathBuf,
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// Stop: close connections, sync the log.
    Shutdown { answer: oneshot::Sender<()> },
}

/// What driver and handles share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) cluster: u128,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) secret: HashKey,
    pub(crate) local_addr: Option<SocketAddr>,
    pub(crate) authority: Option<CertificateDer<'static>>,
    pub(crate) connections: Watcher,
    pub(crate) clock: Clock,
    pub(crate) time: Mutex<LedgerClock>,
    pub(crate) session: watch::Sender<Option<Session>>,
    pub(crate) control: watch::Sender<Arc<Control>>,
    pub(crate) fresh_version: AtomicU64,
    pub(crate) fresh_ns: AtomicU64,
    pub(crate) pushes: broadcast::Sender<Push>,
    pub(crate) local: watch::Sender<Local>,
    pub(crate) failed: watch::Sender<Option<Failure>>,
    pub(crate) voters: watch::Sender<BTreeMap<NodeId, String>>,
}

impl Shared {
    pub(crate) fn new(identity: Known, clock: Clock, now: Now) -> Self {
        Self {
            node: identity.node,
            cluster: identity.cluster,
            role: identity.role,
            name: identity.name,
            secret: identity.secret,
            local_addr: identity.local_addr,
            authority: identity.authority,
            connections: identity.connections,
            clock,
            time: Mutex::new(LedgerClock::new(now)),
            session: watch::Sender::new(None),
            control: watch::Sender::new(Arc::default()),
            fresh_version: AtomicU64::new(0),
            fresh_ns: AtomicU64::new(0),
            pushes: broadcast::Sender::new(PUSHES_MAX),
            local: watch::Sender::new(Local::default()),
            failed: watch::Sender::new(None),
            voters: watch::Sender::default(),
        }
    }

    /// An answer that went through the log was heard.
    pub(crate) fn hear(&self, at: At, now: Now) {
        self.time
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hear(at, now);
    }
}

/// Who this node is.
pub(crate) struct Known {
    pub(crate) node: NodeId,
    pub(crate) cluster: u128,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) secret: HashKey,
    pub(crate) local_addr: Option<SocketAddr>,
    /// The cluster's authority, where there is one.
    pub(crate) authority: Option<CertificateDer<'static>>,
    /// Its connections to others.
    pub(crate) connections: Watcher,
}
