//! Connections that others make to this node: who they are, and what they may say.

use super::{
    Close, Event, Queue, REQUEST_IDS, Shared, Shown,
    endpoint::{VOTER_WINDOW, close, kind},
    snapshot::TAKEN,
    streams::{Reader, class, converse},
};
use crate::{
    codec::{self, Class, FromPeer},
    join,
    tls::{Alpn, Who},
};
use proto::command::{NodeId, Role};
use quinn::{Connection, Incoming, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Handshakes at once; beyond half of them a stranger must show that its address is its own.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// Nodes that join at once.
pub(super) const JOINS_MAX: usize = 8;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// From a snapshot's being read to its being in force, or nearly: a leader that asked sooner would send it again.
const INSTALL: Duration = Duration::from_millis(250);
/// How long a stream may take to say what it is.
const OPENING: Duration = Duration::from_secs(5);

/// The way back to a node that asks.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) connection: Connection,
    pub(super) answers: Arc<Queue>,
    /// Tells connections of one node apart; the upper bits of the ids of its requests.
    pub(super) serial: u16,
    role: Role,
}

/// What one connection's tasks share.
struct Guest {
    shared: Arc<Shared>,
    asker: Asker,
    node: NodeId,
}

/// Hears everybody until the endpoint closes.
pub(super) async fn accept(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(shared.bounds.connections_max));
    let joins = Arc::new(Semaphore::new(JOINS_MAX));
    while let Some(incoming) = shared.endpoint.accept().await {
        let busy = handshakes.available_permits() <= HANDSHAKES_MAX / 2;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // It cannot fail: that it may be done was just asked.
            let _ = incoming.retry();
            continue;
        }
        let permits = handshakes.clone().try_acquire_owned();
        let (Ok(handshake), Ok(connection)) = (permits, connections.clone().try_acquire_owned())
        else {
            incoming.refuse();
            continue;
        };
        let (shared, joins) = (shared.clone(), joins.clone());
        let runtime = shared.runtime.clone();
        runtime.spawn(async move {
            let _connection: OwnedSemaphorePermit = connection;
            greet(shared, incoming, handshake, joins).await;
        });
    }
}

async fn greet(
    shared: Arc<Shared>,
    incoming: Incoming,
    handshake: OwnedSemaphorePermit,
    joins: Arc<Semaphore>,
) {
    let connection = match timeout(HANDSHAKE, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    drop(handshake);
    match kind(&connection) {
        Some(Alpn::Join) => {
            let Ok(_join) = joins.try_acquire_owned() else {
                return close(&connection, Close::Slow);
            };
            let desk = shared.desk();
            join::serve(&connection, shared.who.node, desk.as_ref(), &shared.joins).await;
        }
        Some(Alpn::Cluster) => match who(&connection) {
            Some(who) if shared.welcome(who) => serve(shared, connection, who).await,
            who => {
                tracing::info!(?who, from = %connection.remote_address(), "not a member");
                close(&connection, Close::Forbidden);
            }
        },
        None => close(&connection, Close::Nonsense),
    }
}

/// Who shows a certificate under the cluster's CA.
fn who(connection: &Connection) -> Option<Who> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Who::of(chain.first()?).ok()
}

async fn serve(shared: Arc<Shared>, connection: Connection, who: Who) {
    let asker = Asker {
        connection: connection.clone(),
        answers: Arc::new(Queue::new(shared.bounds.answer_bytes_max)),
        serial: shared.serials.fetch_add(1, Ordering::Relaxed),
        role: who.role,
    };
    shared.enter(who.node, asker.clone());
    let guest = Arc::new(Guest {
        shared,
        asker,
        node: who.node,
    });
    let mut streams = JoinSet::new();
    loop {
        let why = tokio::select! {
            _ = connection.closed() => break,
            ended = streams.join_next(), if !streams.is_empty() => match ended {
                Some(Ok(Err(why))) => why,
                _ => continue,
            },
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    streams.spawn(peer(guest.clone(), stream));
                    continue;
                }
                Err(_) => break,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) if guest.asker.answers.is_closed() => {
                    guest.asker.answers.open();
                    streams.spawn(asks(guest.clone(), send, receive));
                    continue;
                }
                Ok(_) => Close::Nonsense,
                Err(_) => break,
            },
        };
        if why != Close::Done {
            tracing::warn!(node = %Shown(guest.node), ?why, "a connection is closed");
        }
        close(&connection, why);
        break;
    }
    guest.asker.answers.close();
    guest.shared.leave(guest.node, guest.asker.serial);
}

/// A stream of a voter's.
async fn peer(guest: Arc<Guest>, mut stream: RecvStream) -> Result<(), Close> {
    let known = [Class::Beat, Class::Append, Class::Snapshot];
    let opened = class(&mut stream, &known);
    let class = timeout(OPENING, opened).await.map_err(|_| Close::Slow)??;
    let shared = &guest.shared;
    if !shared.votes(guest.node, guest.asker.role) {
        return Err(Close::Forbidden);
    }
    guest
        .asker
        .connection
        .set_receive_window(VOTER_WINDOW.into());
    let mut reader = Reader::new(stream, class, None);
    if class == Class::Snapshot {
        snapshot(&guest, &mut reader).await;
        return Ok(());
    }
    while let Some((frame, _)) = reader.next().await? {
        match codec::take_peer(&frame).map_err(|_| Close::Nonsense)? {
            FromPeer::Raft(message) => {
                if codec::class_of(&message) != class || !guest.owns(&message) {
                    return Err(Close::Nonsense);
                }
                shared.peer(Event::Raft(*message)).await;
            }
            FromPeer::Extra(extra) => shared.peer(Event::Extra(guest.node, extra)).await,
        }
    }
    Ok(())
}

impl Guest {
    /// Whether a message comes from whom it says, and is for this node.
    fn owns(&self, message: &raft::eraftpb::Message) -> bool {
        message.from == self.node.0 && message.to == self.shared.who.node.0
    }
}

async fn snapshot(guest: &Guest, reader: &mut Reader) {
    let shared = &guest.shared;
    let received = {
        // One at a time: there is one leader. What waits here is held up by flow control.
        let _turn = shared.snapshots.lock().await;
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        shared.inbox.receive(reader, number).await
    };
    match received {
        Ok((message, file, done)) if guest.owns(&message) => {
            shared.peer(Event::Snapshot(message, file)).await;
            // However it ends, it has ended.
            let _ = done.await;
            sleep(INSTALL).await;
            reader.stop(TAKEN);
        }
        Ok(_) => tracing::warn!(node = %Shown(guest.node), "a snapshot for somebody else"),
        Err(error) => {
            tracing::warn!(node = %Shown(guest.node), %error, "a snapshot did not come in");
        }
    }
}

/// The stream of requests, and of answers in the other direction.
async fn asks(guest: Arc<Guest>, send: SendStream, mut receive: RecvStream) -> Result<(), Close> {
    let opened = class(&mut receive, &[Class::Request]);
    timeout(OPENING, opened).await.map_err(|_| Close::Slow)??;
    let shared = &guest.shared;
    let mut reader = Reader::new(receive, Class::Request, Some(shared.large.clone()));
    let requests = async {
        while let Some((frame, leave)) = reader.next().await? {
            let (id, request) = codec::take_request(&frame).map_err(|_| Close::Nonsense)?;
            if id >= REQUEST_IDS {
                return Err(Close::Nonsense);
            }
            let id = u64::from(guest.asker.serial) << REQUEST_IDS.trailing_zeros() | id;
            let from = guest.node;
            shared
                .ask(Event::Request { from, id, request }, leave)
                .await;
        }
        Ok(())
    };
    let answers = &guest.asker.answers;
    tokio::select! {
        ended = async {
            requests.await?;
            // The asker stops: it hears that all it said was read.
            answers.drain();
            pending().await
        } => ended,
        () = converse(send, answers.clone()) => Err(Close::Done),
    }
}
