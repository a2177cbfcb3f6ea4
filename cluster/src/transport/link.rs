//! The connection that this node makes to one voter: made, kept, made again.

use super::{
    Close, Event, Queue, Shared, Shown, Unsent,
    endpoint::{close, preamble},
    snapshot,
    streams::{Reader, converse, write},
};
use crate::{
    codec::{self, Class, FromVoter},
    dice::Dice,
    tls::Who,
};
use proto::command::{NodeId, Role};
use quinn::{Connection, ConnectionError};
use raft::eraftpb::Message;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

/// Pause before the second attempt, and the longest one, milliseconds.
const PAUSES_MS: (u64, u64) = (50, 500);
/// How long one attempt may take. What is sent in it is repeated ever more rarely, so a new one is found sooner when a cut
/// is mended.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// A connection that stood for this long was a good one: after it the pauses begin anew.
const STOOD: Duration = Duration::from_secs(3);
/// Pause after a voter said that this node is not a member.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of beats that may wait: old ones are worth nothing.
const BEATS_BYTES_MAX: usize = 1 << 20;
/// Heartbeats go before everything else, snapshots after it.
const BEAT_PRIORITY: i32 = 1;
const SNAPSHOT_PRIORITY: i32 = -1;

/// A snapshot that is to be sent.
pub(super) type Job = (Message, PathBuf);

/// The sending half, for whoever has something for this voter.
pub(super) struct Link {
    pub(super) address: String,
    pub(super) queues: Arc<Queues>,
    task: Option<JoinHandle<()>>,
}

/// What waits for a voter.
pub(super) struct Queues {
    pub(super) beats: Arc<Queue>,
    pub(super) appends: Arc<Queue>,
    pub(super) requests: Arc<Queue>,
    job: Mutex<Option<Job>>,
    job_ready: Notify,
    stop: Notify,
}

impl Queues {
    fn each(&self) -> [&Arc<Queue>; 3] {
        [&self.beats, &self.appends, &self.requests]
    }
    pub(super) fn drain(&self) {
        self.each().iter().for_each(|queue| queue.drain());
    }
    pub(super) fn settled(&self) -> bool {
        self.each().iter().all(|queue| queue.settled())
    }
    /// Leaves a snapshot to be sent; what was left before and not begun comes back.
    pub(super) fn put_job(&self, job: Job) -> Option<Job> {
        let before = self.job().replace(job);
        self.job_ready.notify_one();
        before
    }
    async fn next_job(&self) -> Job {
        loop {
            let ready = self.job_ready.notified();
            if let Some(job) = self.job().take() {
                return job;
            }
            ready.await;
        }
    }
    fn job(&self) -> std::sync::MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.queues.stop.notify_one();
    }
}

impl Link {
    /// Begins to connect, and goes on until it is dropped. The link that it replaces has its last word first.
    pub(super) fn start(
        shared: &Arc<Shared>,
        node: NodeId,
        address: String,
        before: Option<Self>,
    ) -> Self {
        let bytes_max = shared.bounds.queue_bytes_max;
        let queues = Arc::new(Queues {
            beats: Arc::new(Queue::new(BEATS_BYTES_MAX.min(bytes_max))),
            appends: Arc::new(Queue::new(bytes_max)),
            requests: Arc::new(Queue::new(bytes_max)),
            job: Mutex::new(None),
            job_ready: Notify::new(),
            stop: Notify::new(),
        });
        let task = Task {
            shared: shared.clone(),
            queues: queues.clone(),
            is_up: AtomicBool::new(false),
            node,
            address: address.clone(),
        };
        let before = before.and_then(|mut link| link.task.take());
        let task = shared.runtime.spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            task.keep().await;
        });
        Self {
            address,
            queues,
            task: Some(task),
        }
    }

    /// Leaves a raft message in the queue of its class.
    pub(super) fn put_raft(&self, message: &Message) -> Result<(), Unsent> {
        let queue = match codec::class_of(message) {
            Class::Append => &self.queues.appends,
            _ => &self.queues.beats,
        };
        queue.put(|buffer| codec::put_raft(buffer, message))
    }
}

struct Task {
    shared: Arc<Shared>,
    queues: Arc<Queues>,
    /// That it is connected was said, that it is lost was not.
    is_up: AtomicBool,
    node: NodeId,
    address: String,
}

impl Task {
    async fn keep(self) {
        tokio::select! {
            () = self.connect_again_and_again() => {}
            () = self.queues.stop.notified() => {}
        }
        // If a connection stood, its streams ended with the future that was dropped; the event is still owed.
        self.down().await;
        self.forget_job().await;
    }

    async fn connect_again_and_again(&self) {
        let mut dice = Dice::new(u64::from_le_bytes(crate::identity::random()));
        let mut attempts = 0_u32;
        loop {
            let began = Instant::now();
            let mut is_refused = false;
            match timeout(ATTEMPT, self.connect(attempts)).await {
                Ok(Ok(connection)) => {
                    tracing::debug!(node = %Shown(self.node), "connected");
                    let held = Held(connection);
                    self.serve(&held.0).await;
                    is_refused = refused(&held.0);
                }
                Ok(Err(error)) => {
                    tracing::debug!(node = %Shown(self.node), address = self.address, %error, "cannot connect");
                }
                Err(_) => {
                    tracing::debug!(node = %Shown(self.node), address = self.address, "no answer");
                }
            }
            self.forget_job().await;
            attempts = match began.elapsed() > STOOD {
                true => 1,
                false => attempts.saturating_add(1),
            };
            if is_refused {
                tracing::warn!(node = %Shown(self.node), "this voter does not let this node in: it was removed from the cluster");
                self.shared.answer(Event::Refused(self.node)).await;
                sleep(REFUSED_PAUSE).await;
            } else {
                sleep(Duration::from_millis(dice.pause(attempts, PAUSES_MS))).await;
            }
        }
    }

    async fn connect(&self, attempt: u32) -> io::Result<Connection> {
        let addresses = resolve(&self.address, self.shared.endpoint.local_addr()?).await?;
        let address = addresses[attempt as usize % addresses.len()];
        let peer = Who {
            cluster: self.shared.who.cluster,
            node: self.node,
            role: Role::Voter,
        };
        let connecting = self.shared.endpoint.connect(address, &peer.name());
        let connecting = connecting.map_err(io::Error::other)?;
        Ok(connecting.await?)
    }

    /// Until it breaks.
    async fn serve(&self, connection: &Connection) {
        let mut streams = JoinSet::new();
        if let Err(error) = self.open(connection, &mut streams).await {
            tracing::info!(node = %Shown(self.node), %error, "a connection did not last");
            return self.down().await;
        }
        self.is_up.store(true, Ordering::Relaxed);
        self.shared.answer(Event::Connected(self.node)).await;
        tokio::select! {
            _ = connection.closed() => {}
            _ = streams.join_next() => {}
        }
        // A stream that ends may be the first to tell of the connection's end; that keeps its own reason.
        match connection.close_reason() {
            Some(why) => tracing::info!(node = %Shown(self.node), %why, "connection lost"),
            None => {
                tracing::info!(node = %Shown(self.node), "connection lost: a stream ended");
                close(connection, Close::Done);
            }
        }
        // Nothing is heard after it is said to be lost.
        streams.shutdown().await;
        self.down().await;
    }

    async fn open(&self, connection: &Connection, streams: &mut JoinSet<()>) -> io::Result<()> {
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&preamble(Class::Request)).await?;
        for queue in self.queues.each() {
            queue.open();
        }
        streams.spawn(converse(send, self.queues.requests.clone()));
        let reader = Reader::new(receive, Class::Answer, None);
        let queues = self.queues.clone();
        streams.spawn(hear(self.shared.clone(), queues, self.node, reader));
        if self.shared.who.role == Role::Voter {
            for (class, priority, queue) in [
                (Class::Beat, BEAT_PRIORITY, &self.queues.beats),
                (Class::Append, 0, &self.queues.appends),
            ] {
                let stream = connection.open_uni().await?;
                stream.set_priority(priority)?;
                streams.spawn(write(stream, class, queue.clone()));
            }
            // Not among the streams, which end without a word when the connection does.
            self.shared.runtime.spawn(send_snapshots(
                self.shared.clone(),
                self.queues.clone(),
                connection.clone(),
                self.node,
            ));
        }
        Ok(())
    }

    async fn down(&self) {
        for queue in self.queues.each() {
            queue.close();
        }
        if self.is_up.swap(false, Ordering::Relaxed) {
            self.shared.answer(Event::Lost(self.node)).await;
        }
    }

    /// A snapshot that was not begun will not be sent.
    async fn forget_job(&self) {
        let job = self.queues.job().take();
        if job.is_some() {
            let (to, ok) = (self.node, false);
            self.shared.peer(Event::SnapshotSent { to, ok }).await;
        }
    }
}

/// Whether the other side closed it because this node is not a member.
fn refused(connection: &Connection) -> bool {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(why)) => why.error_code == Close::Forbidden.code(),
        _ => false,
    }
}

/// A connection that is closed when nobody looks after it any more.
struct Held(Connection);

impl Drop for Held {
    fn drop(&mut self) {
        close(&self.0, Close::Done);
    }
}

/// Addresses of a `host:port` that the socket can reach.
pub(crate) async fn resolve(address: &str, local: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host(address).await?;
    let found: Vec<_> = found.filter(|to| to.is_ipv4() || local.is_ipv6()).collect();
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "no address that this node's socket can reach",
        ));
    }
    Ok(found)
}

/// Answers and pushes, until there are no more.
async fn hear(shared: Arc<Shared>, queues: Arc<Queues>, from: NodeId, mut reader: Reader) {
    while let Ok(Some((frame, _))) = reader.next().await {
        let event = match codec::take_answer(&frame) {
            Ok(FromVoter::Response(id, response)) => Event::Response { from, id, response },
            Ok(FromVoter::Push(push)) => Event::Push(from, push),
            Err(error) => {
                tracing::warn!(node = %Shown(from), %error, "an answer that makes no sense");
                return;
            }
        };
        shared.answer(event).await;
    }
    // The voter ends its answers when it has read the last request, or stops.
    queues.requests.settle();
}

/// One snapshot after the other, until the connection ends; whatever was begun is said to have been sent or not.
async fn send_snapshots(
    shared: Arc<Shared>,
    queues: Arc<Queues>,
    connection: Connection,
    to: NodeId,
) {
    loop {
        let job = tokio::select! {
            job = queues.next_job() => job,
            _ = connection.closed() => return,
        };
        let (message, file) = job;
        let sent = async {
            let stream = connection.open_uni().await?;
            stream.set_priority(SNAPSHOT_PRIORITY)?;
            snapshot::send(stream, &message, &file).await
        };
        let sent = sent.await;
        if let Err(error) = &sent {
            tracing::warn!(node = %Shown(to), %error, "a snapshot was not sent");
        }
        let ok = sent.is_ok();
        shared.peer(Event::SnapshotSent { to, ok }).await;
    }
}
