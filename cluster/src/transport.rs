//! SHELL. Bytes between nodes: QUIC, both sides authenticated, every queue bounded.
//!
//! ```text
//!              votes, heartbeats, extras ─┐
//! link to      appends                   ─┼─ one uni stream each ──►  peer (raft: voters only)
//! each voter   a snapshot                ─┘
//!              requests ──── one bidi stream ────►  peer, which sends answers and pushes back on it
//! ```
//!
//! A node keeps one connection to each voter but itself and opens all streams on it; what comes in on connections that
//! others made is theirs. Nothing that sends waits: what does not fit is lost, which Raft and the lease protocol bear.

mod endpoint;
mod event;
mod link;
mod members;
mod queue;
mod serve;
mod shared;
mod snapshot;
mod streams;
#[cfg(test)]
mod tests;

pub(crate) use endpoint::{Close, asking, close, joining, preamble};
pub use event::{Event, SnapshotFile};
pub(crate) use link::resolve;
pub use members::{Members, Peer};
pub use shared::{Stats, Watcher};
pub(crate) use streams::{Reader, class};

use crate::{
    codec::{self, ToAsker},
    join::{Desk, Gate},
    tls::Credentials,
    wire::{Extra, Push, Request, Response},
};
use link::Link;
use proto::command::{NodeId, Role};
use queue::Queue;
use raft::eraftpb::Message;
use serve::Asker;
use shared::{Counts, Shared, count, read, write};
use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU16, AtomicU64},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep},
};

/// Request ids are below this: the rest of the number tells connections of one asker apart.
pub const REQUEST_IDS: u64 = 1 << 48;

/// What a transport is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// Who it is.
    pub credentials: Credentials,
    /// The socket on which peers and lease clients are heard. `None`: nobody is, and any port is used to ask.
    pub socket: Option<UdpSocket>,
    /// Where snapshots that come in are written, an existing directory on the log's disk.
    pub snapshots: PathBuf,
    /// Bounds.
    pub bounds: Bounds,
}

/// Bounds of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most events that wait for the reader, of each kind; beyond that peers wait (QUIC's flow control).
    pub events_max: usize,
    /// Most bytes that wait to be sent to one voter, of entries and of requests each. Beyond: lost, or [`Unsent::Full`].
    pub queue_bytes_max: usize,
    /// Most bytes of answers and pushes that wait for one asker. Beyond, it does not read: its connection is closed.
    pub answer_bytes_max: usize,
    /// Most connections that others made and keep.
    pub connections_max: usize,
    /// Largest snapshot that is taken in, bytes.
    pub snapshot_bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            events_max: 4_096,
            queue_bytes_max: 16 << 20,
            answer_bytes_max: 1 << 20,
            connections_max: 2_048,
            snapshot_bytes_max: 16 << 30,
        }
    }
}

/// Why a request was not sent: it is certain that nobody has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// There is no connection (yet).
    #[error("not connected")]
    NotConnected,
    /// The queue is full.
    #[error("the queue is full")]
    Full,
    /// The request is larger than a peer takes.
    #[error("the request is too large")]
    TooLarge,
}

/// Large requests that are put together or wait for the reader at once.
const LARGE_MAX: usize = 16;
/// How long [`Transport::close`] waits for what was sent to arrive, and then for the connections to end.
const CLOSE: Duration = Duration::from_millis(500);

/// The way to the other nodes; clones share it. All that sends returns at once, from any thread.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

/// Where events come out.
pub struct Incoming {
    peers: mpsc::Receiver<Event>,
    answers: mpsc::Receiver<Event>,
    asks: mpsc::Receiver<(Event, Option<OwnedSemaphorePermit>)>,
    closed: watch::Receiver<bool>,
}

/// A node's id for people.
struct Shown(NodeId);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.0)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("who", &self.shared.who.name())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl Transport {
    /// Starts on the current tokio runtime, with no peers.
    pub fn start(settings: Settings) -> io::Result<(Self, Incoming)> {
        let Settings {
            credentials,
            socket,
            snapshots,
            bounds,
        } = settings;
        let inbox = snapshot::Inbox {
            dir: snapshots,
            bytes_max: bounds.snapshot_bytes_max,
        };
        let listens = socket.is_some();
        if listens {
            inbox.sweep()?;
        }
        let (peers, peers_out) = mpsc::channel(bounds.events_max);
        let (answers, answers_out) = mpsc::channel(bounds.events_max);
        let (asks, asks_out) = mpsc::channel(bounds.events_max);
        let (closed, closed_out) = watch::channel(false);
        let shared = Arc::new(Shared {
            who: credentials.who,
            runtime: Handle::current(),
            endpoint: endpoint::open(&credentials, socket)?,
            bounds,
            members: RwLock::default(),
            links: RwLock::default(),
            askers: RwLock::default(),
            desk: RwLock::default(),
            joins: Gate::default(),
            inbox,
            snapshots: Mutex::new(()),
            numbers: AtomicU64::new(0),
            serials: AtomicU16::new(0),
            counts: Counts::default(),
            large: Arc::new(Semaphore::new(LARGE_MAX)),
            peers,
            answers,
            asks,
            closed,
        });
        if listens {
            shared.runtime.spawn(serve::accept(shared.clone()));
        }
        let incoming = Incoming {
            peers: peers_out,
            answers: answers_out,
            asks: asks_out,
            closed: closed_out,
        };
        Ok((Self { shared }, incoming))
    }

    /// Where it is heard, or asks from.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// From now on these belong to the cluster. Connections are made to voters that are new or have moved; those of
    /// nodes that are gone are closed at once, both ways.
    pub fn set_members(&self, members: Members) {
        let shared = &self.shared;
        let mut voters = members.nodes.clone();
        voters.retain(|node, peer| {
            peer.role == Role::Voter && !peer.address.is_empty() && *node != shared.who.node
        });
        write(&shared.members).set(members);
        let mut links = write(&shared.links);
        links.retain(|node, _| voters.contains_key(node));
        for (node, peer) in voters {
            let before = links.remove(&node);
            let link = match before {
                Some(link) if link.address == peer.address => link,
                before => Link::start(shared, node, peer.address, before),
            };
            links.insert(node, link);
        }
        drop(links);
        for (node, asker) in &*read(&shared.askers) {
            if !shared.admits(*node) {
                close(&asker.connection, Close::Forbidden);
            }
        }
    }

    /// Answers those who want to join. Before this they are told that nobody is known to have the CA's key.
    pub fn serve_joins(&self, desk: Desk) {
        *write(&self.shared.desk) = Some(desk);
    }

    /// To `message.to`, or lost.
    pub fn send_raft(&self, message: &Message) {
        let links = read(&self.shared.links);
        let link = links.get(&NodeId(message.to));
        match link.map_or(Err(Unsent::NotConnected), |link| link.put_raft(message)) {
            Ok(()) => {}
            Err(Unsent::TooLarge) => {
                // Nothing that is proposed is as large; losing it in silence would be hard to find.
                tracing::error!(to = %Shown(NodeId(message.to)), "a raft message cannot be encoded");
            }
            Err(_) => count(&self.shared.counts.raft_lost),
        }
    }

    /// To a voter, or lost.
    pub fn send_extra(&self, to: NodeId, extra: &Extra) {
        let links = read(&self.shared.links);
        let beats = links.get(&to).map(|link| &link.queues.beats);
        let put = |queue: &Arc<Queue>| queue.put(|buffer| codec::put_extra(buffer, extra)).is_ok();
        if !beats.is_some_and(put) {
            count(&self.shared.counts.raft_lost);
        }
    }

    /// A snapshot's message with the file that holds its data, which must stay until [`Event::SnapshotSent`] is said:
    /// once for each call. One at a time a peer; one that waits behind another is given up for a newer one.
    pub fn send_snapshot(&self, message: Message, file: PathBuf) {
        let to = NodeId(message.to);
        let unsent = match read(&self.shared.links).get(&to) {
            Some(link) if !link.queues.beats.is_closed() => {
                link.queues.put_job((message, file)).is_some()
            }
            _ => true,
        };
        if unsent {
            let shared = self.shared.clone();
            let said = async move { shared.peer(Event::SnapshotSent { to, ok: false }).await };
            self.shared.runtime.spawn(said);
        }
    }

    /// To a voter. `id` is below [`REQUEST_IDS`].
    pub fn send_request(&self, to: NodeId, id: u64, request: &Request) -> Result<(), Unsent> {
        let links = read(&self.shared.links);
        let link = links.get(&to).ok_or(Unsent::NotConnected)?;
        let requests = &link.queues.requests;
        requests.put(|buffer| codec::put_request(buffer, id, request))
    }

    /// To who asked, on the connection on which it asked, if that still stands.
    pub fn send_response(&self, to: NodeId, id: u64, response: &Response) {
        let askers = read(&self.shared.askers);
        let Some(asker) = askers.get(&to) else {
            return;
        };
        if u64::from(asker.serial) != id / REQUEST_IDS {
            return;
        }
        let response = ToAsker::Response(id % REQUEST_IDS, response);
        match asker
            .answers
            .put(|buffer| codec::put_answer(buffer, &response))
        {
            Ok(()) | Err(Unsent::NotConnected) => {}
            Err(Unsent::Full) => {
                count(&self.shared.counts.slow);
                close(&asker.connection, Close::Slow);
            }
            Err(Unsent::TooLarge) => {
                tracing::error!(to = %Shown(to), "an answer is too large to be sent");
                let unknown = ToAsker::Response(id % REQUEST_IDS, &Response::Unknown);
                let _ = asker
                    .answers
                    .put(|buffer| codec::put_answer(buffer, &unknown));
            }
        }
    }

    /// To a node that is connected, or lost.
    pub fn send_push(&self, to: NodeId, push: &Push) {
        let askers = read(&self.shared.askers);
        let push = ToAsker::Push(push);
        let put = |asker: &Asker| {
            let answers = &asker.answers;
            answers.put_if_half_empty(|buffer| codec::put_answer(buffer, &push))
        };
        if askers.get(&to).is_none_or(|asker| put(asker).is_err()) {
            count(&self.shared.counts.pushes_lost);
        }
    }

    /// Reads what it has come to.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::downgrade(&self.shared))
    }

    /// Closes all connections, having sent what waits, for at most a second. [`Incoming::next`] ends.
    pub async fn close(&self) {
        let shared = &self.shared;
        let links = read(&shared.links)
            .values()
            .map(|l| l.queues.clone())
            .collect::<Vec<_>>();
        let answers = read(&shared.askers)
            .values()
            .map(|a| a.answers.clone())
            .collect::<Vec<_>>();
        links.iter().for_each(|queues| queues.drain());
        answers.iter().for_each(|queue| queue.drain());
        let end = Instant::now() + CLOSE;
        let sent = || links.iter().all(|q| q.settled()) && answers.iter().all(|q| q.settled());
        while !sent() && Instant::now() < end {
            sleep(Duration::from_millis(2)).await;
        }
        write(&shared.links).clear();
        shared.closed.send_replace(true);
        (shared.endpoint).close(Close::Stopped.code(), Close::Stopped.why());
        let _ = tokio::time::timeout(CLOSE, shared.endpoint.wait_idle()).await;
    }
}

impl Incoming {
    /// The next event: peers' first, then answers, then requests. `None` after [`Transport::close`].
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.try_next() {
            return Some(event);
        }
        tokio::select! {
            biased;
            event = self.peers.recv() => event,
            event = self.answers.recv() => event,
            event = self.asks.recv() => event.map(|(event, _)| event),
            _ = self.closed.wait_for(|closed| *closed) => None,
        }
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        (self.peers.try_recv().ok())
            .or_else(|| self.answers.try_recv().ok())
            .or_else(|| self.asks.try_recv().ok().map(|(event, _)| event))
    }
}
