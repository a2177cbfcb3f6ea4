//! What the tasks of one transport share.

use super::{
    Bounds, Event, Link,
    endpoint::{Close, close},
    members,
    serve::Asker,
    snapshot,
};
use crate::{
    join::{Desk, Gate},
    tls::Who,
};
use proto::command::{NodeId, Role};
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch},
};

/// The endpoint, who is known and connected, and where events go.
pub(super) struct Shared {
    pub(super) who: Who,
    pub(super) runtime: Handle,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) bounds: Bounds,
    pub(super) members: RwLock<members::Table>,
    pub(super) links: RwLock<HashMap<NodeId, Link>>,
    pub(super) askers: RwLock<HashMap<NodeId, Asker>>,
    pub(super) desk: RwLock<Option<Desk>>,
    pub(super) joins: Gate,
    pub(super) inbox: snapshot::Inbox,
    /// Held by the snapshot that comes in.
    pub(super) snapshots: Mutex<()>,
    pub(super) numbers: AtomicU64,
    pub(super) serials: AtomicU16,
    pub(super) counts: Counts,
    /// Leave to put a large request together.
    pub(super) large: Arc<Semaphore>,
    pub(super) peers: mpsc::Sender<Event>,
    pub(super) answers: mpsc::Sender<Event>,
    pub(super) asks: mpsc::Sender<(Event, Option<OwnedSemaphorePermit>)>,
    pub(super) closed: watch::Sender<bool>,
}

/// What a transport has come to, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections to voters that stand.
    pub voters: usize,
    /// Connections of others that stand.
    pub askers: usize,
    /// Raft messages and extras that were lost here since the start, for want of a connection or room.
    pub raft_lost: u64,
    /// Pushes that were.
    pub pushes_lost: u64,
    /// Connections that were closed since the start because their node did not read its answers.
    pub slow: u64,
}

/// Reads a transport's [`Stats`] without keeping it.
#[derive(Clone, Default)]
pub struct Watcher(pub(super) Weak<Shared>);

impl Watcher {
    /// What it has come to; zeros where there is none, or none any more.
    pub fn stats(&self) -> Stats {
        let Some(shared) = self.0.upgrade() else {
            return Stats::default();
        };
        let links = read(&shared.links);
        let is_up = |link: &&Link| !link.queues.requests.is_closed();
        Stats {
            voters: links.values().filter(is_up).count(),
            askers: read(&shared.askers).len(),
            raft_lost: shared.counts.raft_lost.load(Ordering::Relaxed),
            pushes_lost: shared.counts.pushes_lost.load(Ordering::Relaxed),
            slow: shared.counts.slow.load(Ordering::Relaxed),
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) raft_lost: AtomicU64,
    pub(super) pushes_lost: AtomicU64,
    pub(super) slow: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is behind these locks is replaced whole or entry by entry, so what another thread left is sound.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Whether a certificate's holder is heard at all.
    pub(super) fn welcome(&self, who: Who) -> bool {
        who.cluster == self.who.cluster && who.node != self.who.node && self.admits(who.node)
    }
    pub(super) fn admits(&self, node: NodeId) -> bool {
        read(&self.members).admits(node)
    }
    /// Whether a node may speak Raft.
    pub(super) fn votes(&self, node: NodeId, certified: Role) -> bool {
        read(&self.members).votes(node, certified)
    }
    pub(super) fn enter(&self, node: NodeId, asker: Asker) {
        let connection = asker.connection.clone();
        if let Some(before) = write(&self.askers).insert(node, asker) {
            close(&before.connection, Close::Replaced);
        }
        // It may have been taken out while it came in.
        if !self.admits(node) {
            close(&connection, Close::Forbidden);
        }
    }
    pub(super) fn leave(&self, node: NodeId, serial: u16) {
        let mut askers = write(&self.askers);
        if askers
            .get(&node)
            .is_some_and(|asker| asker.serial == serial)
        {
            askers.remove(&node);
        }
    }
    pub(super) fn desk(&self) -> Option<Desk> {
        read(&self.desk).clone()
    }
    // Nobody reads after the end: events are lost then.
    pub(super) async fn peer(&self, event: Event) {
        let _ = self.peers.send(event).await;
    }
    pub(super) async fn answer(&self, event: Event) {
        let _ = self.answers.send(event).await;
    }
    pub(super) async fn ask(&self, event: Event, leave: Option<OwnedSemaphorePermit>) {
        let _ = self.asks.send((event, leave)).await;
    }
}
