//! What a hostile node with a certificate, or a stranger without one, can do: nothing but lose its connection.

use super::{
    endpoint::{asking, client, preamble},
    *,
};
use crate::{
    codec::{Class, VERSION},
    tls::Authority,
};
use bytes::BytesMut;
use quinn::{Connection, ConnectionError, SendStream};
use raft::eraftpb::MessageType;
use std::thread::JoinHandle;
use tokio::{sync::oneshot, time::timeout};

const MADE_MS: u64 = 1_785_230_400_000;
const VOTER: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const CLIENT: NodeId = NodeId(3);
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    authority: Authority,
    transport: Transport,
    incoming: Incoming,
    _dir: tempfile::TempDir,
}

fn world() -> World {
    let authority = Authority::new(7, MADE_MS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (transport, incoming) = Transport::start(Settings {
        credentials: authority.issue(VOTER, Role::Voter, MADE_MS).unwrap(),
        socket: Some(UdpSocket::bind("127.0.0.1:0").unwrap()),
        snapshots: dir.path().to_owned(),
        bounds: Bounds::default(),
    })
    .unwrap();
    let peer = |role| Peer {
        address: String::new(),
        role,
    };
    transport.set_members(Members {
        nodes: [(OTHER, peer(Role::Voter)), (CLIENT, peer(Role::Client))].into(),
        ..Members::default()
    });
    World {
        authority,
        transport,
        incoming,
        _dir: dir,
    }
}

impl World {
    async fn connect(&self, node: NodeId, role: Role) -> Connection {
        let credentials = self.authority.issue(node, role, MADE_MS).unwrap();
        self.connect_as(&credentials).await
    }

    async fn connect_as(&self, credentials: &Credentials) -> Connection {
        let endpoint = asking().unwrap();
        let to = self.transport.local_addr().unwrap();
        let name = self.transport.shared.who.name();
        let connecting = endpoint.connect_with(client(credentials).unwrap(), to, &name);
        connecting.unwrap().await.unwrap()
    }

    async fn is_quiet(&mut self) {
        if let Ok(event) = timeout(Duration::from_millis(100), self.incoming.next()).await {
            panic!("nothing should happen, but {event:?}");
        }
    }
}

async fn uni(connection: &Connection, class: Class) -> SendStream {
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&preamble(class)).await.unwrap();
    stream
}

/// That the connection is closed by the other side, for this reason.
async fn closed(connection: &Connection, why: Close) {
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(closed) = closed else {
        panic!("{closed:?}");
    };
    assert_eq!(closed.error_code, why.code(), "{closed:?}");
}

fn beat(from: NodeId, to: NodeId) -> Message {
    let mut message = Message {
        from: from.0,
        to: to.0,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgHeartbeat);
    message
}

#[tokio::test]
async fn a_lease_client_that_speaks_raft_is_cut_off() {
    let mut world = world();
    // Its certificate may even say that it is a voter: membership has the last word.
    for role in [Role::Client, Role::Voter] {
        let connection = world.connect(CLIENT, role).await;
        let mut stream = uni(&connection, Class::Beat).await;
        let mut buffer = BytesMut::new();
        codec::put_raft(&mut buffer, &beat(CLIENT, VOTER)).unwrap();
        let _ = stream.write_all(&buffer).await;
        closed(&connection, Close::Forbidden).await;
    }
    world.is_quiet().await;
}

#[tokio::test]
async fn a_voter_that_speaks_for_another_or_to_another_is_cut_off() {
    let mut world = world();
    for message in [beat(CLIENT, VOTER), beat(OTHER, OTHER)] {
        let connection = world.connect(OTHER, Role::Voter).await;
        let mut stream = uni(&connection, Class::Beat).await;
        let mut buffer = BytesMut::new();
        codec::put_raft(&mut buffer, &message).unwrap();
        stream.write_all(&buffer).await.unwrap();
        closed(&connection, Close::Nonsense).await;
    }
    // On the wrong stream.
    let connection = world.connect(OTHER, Role::Voter).await;
    let mut stream = uni(&connection, Class::Append).await;
    let mut buffer = BytesMut::new();
    codec::put_raft(&mut buffer, &beat(OTHER, VOTER)).unwrap();
    stream.write_all(&buffer).await.unwrap();
    closed(&connection, Close::Nonsense).await;
    world.is_quiet().await;
}

#[tokio::test]
async fn bytes_that_make_no_sense_cost_the_connection() {
    let mut world = world();
    let too_large = u32::MAX.to_le_bytes();
    let empty = 0_u32.to_le_bytes();
    let random = [4, 0, 0, 0, VERSION, 99, 99, 99];
    let version = [2, 0, 0, 0, VERSION + 1, 0];
    for bytes in [&too_large[..], &empty, &random, &version] {
        for class in [Class::Beat, Class::Append] {
            let connection = world.connect(OTHER, Role::Voter).await;
            let mut stream = uni(&connection, class).await;
            stream.write_all(bytes).await.unwrap();
            closed(&connection, Close::Nonsense).await;
        }
        let connection = world.connect(CLIENT, Role::Client).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&preamble(Class::Request)).await.unwrap();
        send.write_all(bytes).await.unwrap();
        closed(&connection, Close::Nonsense).await;
    }
    let connection = world.connect(CLIENT, Role::Client).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(b"GET /").await.unwrap();
    closed(&connection, Close::Nonsense).await;
    world.is_quiet().await;
}

#[tokio::test]
async fn a_request_with_an_id_that_could_be_another_connections_is_refused() {
    let mut world = world();
    let connection = world.connect(CLIENT, Role::Client).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let mut buffer = BytesMut::from(&preamble(Class::Request)[..]);
    codec::put_request(&mut buffer, REQUEST_IDS, &Request::Status).unwrap();
    send.write_all(&buffer).await.unwrap();
    closed(&connection, Close::Nonsense).await;
    world.is_quiet().await;
}

#[tokio::test]
async fn a_torn_or_falsified_snapshot_leaves_nothing() {
    let mut world = world();
    let mut message = beat(OTHER, VOTER);
    message.set_msg_type(MessageType::MsgSnapshot);
    let mut whole = BytesMut::new();
    codec::put_raft(&mut whole, &message).unwrap();
    codec::put(&mut whole, Class::Snapshot, &8_u64).unwrap();
    codec::put_chunk(&mut whole, 8).fill(7);
    codec::put(&mut whole, Class::Snapshot, &[0_u8; 32]).unwrap();
    for end in [0, 3, 20, whole.len() - 40, whole.len() - 1, whole.len()] {
        let connection = world.connect(OTHER, Role::Voter).await;
        let mut stream = uni(&connection, Class::Snapshot).await;
        stream.write_all(&whole[..end]).await.unwrap();
        let _ = stream.finish();
        // It is refused, or its end is taken note of; the connection goes on.
        let _ = timeout(PATIENCE, stream.stopped()).await.unwrap();
        let mut beats = uni(&connection, Class::Beat).await;
        let mut buffer = BytesMut::new();
        codec::put_raft(&mut buffer, &beat(OTHER, VOTER)).unwrap();
        beats.write_all(&buffer).await.unwrap();
        let heard = timeout(PATIENCE, world.incoming.next()).await.unwrap();
        assert!(matches!(heard, Some(Event::Raft(_))), "{heard:?}");
    }
    world.is_quiet().await;
    let left = std::fs::read_dir(&world.transport.shared.inbox.dir).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn who_has_no_certificate_is_heard_only_about_joining() {
    let mut world = world();
    let endpoint = asking().unwrap();
    let pin = crate::tls::sha256(world.authority.cert());
    let config = endpoint::joining(pin).unwrap();
    let to = world.transport.local_addr().unwrap();
    let connecting = endpoint.connect_with(config, to, "any.tollgate.internal");
    let connection = connecting.unwrap().await.unwrap();
    let mut stream = uni(&connection, Class::Beat).await;
    let mut buffer = BytesMut::new();
    codec::put_raft(&mut buffer, &beat(OTHER, VOTER)).unwrap();
    let _ = stream.write_all(&buffer).await;
    closed(&connection, Close::Done).await;
    world.is_quiet().await;
}

/// A voter's endpoint in a thread of its own, until it is told to die as a process does: without a word to anybody.
fn mortal(credentials: Credentials, socket: UdpSocket) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (die, dies) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let held = runtime.block_on(async {
            let endpoint = endpoint::open(&credentials, Some(socket)).unwrap();
            let mut connections = Vec::new();
            tokio::select! {
                _ = dies => {}
                () = async {
                    while let Some(incoming) = endpoint.accept().await {
                        connections.push(incoming.await);
                    }
                } => {}
            }
            (endpoint, connections)
        });
        // First what would send a last word.
        drop(runtime);
        drop(held);
    });
    (die, thread)
}

#[tokio::test]
async fn a_voter_that_died_and_is_back_resets_what_stood_before() {
    let authority = Authority::new(7, MADE_MS).unwrap();
    let voter = authority.issue(VOTER, Role::Voter, MADE_MS).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let again = Credentials {
        key: voter.key.clone_key(),
        ca: voter.ca.clone(),
        cert: voter.cert.clone(),
        who: voter.who,
    };
    let name = voter.who.name();
    let (die, thread) = mortal(voter, socket);
    let other = authority.issue(OTHER, Role::Voter, MADE_MS).unwrap();
    let endpoint = asking().unwrap();
    let connecting = endpoint.connect_with(client(&other).unwrap(), address, &name);
    let connection = connecting.unwrap().await.unwrap();
    // Until both know that the handshake is complete: before that there is nothing to reset.
    tokio::time::sleep(Duration::from_millis(300)).await;
    die.send(()).unwrap();
    thread.join().unwrap();
    let (_die, _thread) = mortal(again, UdpSocket::bind(address).unwrap());
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    // Not by the time that it takes to notice silence.
    assert_eq!(closed, ConnectionError::Reset);
}

#[tokio::test]
async fn one_node_has_one_connection_the_newest() {
    let mut world = world();
    let first = world.connect(CLIENT, Role::Client).await;
    let second = world.connect(CLIENT, Role::Client).await;
    closed(&first, Close::Replaced).await;
    let (mut send, _receive) = second.open_bi().await.unwrap();
    let mut buffer = BytesMut::from(&preamble(Class::Request)[..]);
    codec::put_request(&mut buffer, 1, &Request::Status).unwrap();
    send.write_all(&buffer).await.unwrap();
    let heard = timeout(PATIENCE, world.incoming.next()).await.unwrap();
    assert!(
        matches!(heard, Some(Event::Request { from: CLIENT, .. })),
        "{heard:?}"
    );
}

#[tokio::test]
async fn large_requests_wait_for_leave_and_small_ones_pass() {
    let mut world = world();
    let large = world.transport.shared.large.clone();
    let all = large.acquire_many_owned(LARGE_MAX as u32).await.unwrap();
    let connection = world.connect(CLIENT, Role::Client).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let change = proto::control::Change {
        kind: proto::control::Kind::Policy,
        name: "large".to_owned(),
        body: Some(vec![1; 300_000].into()),
        expect: None,
        by: String::new(),
    };
    let request = Request::Operate(crate::wire::Operate::Control(change));
    let mut buffer = BytesMut::from(&preamble(Class::Request)[..]);
    codec::put_request(&mut buffer, 1, &Request::Status).unwrap();
    codec::put_request(&mut buffer, 2, &request).unwrap();
    send.write_all(&buffer).await.unwrap();
    let small = timeout(PATIENCE, world.incoming.next()).await.unwrap();
    assert!(matches!(
        small,
        Some(Event::Request {
            request: Request::Status,
            ..
        })
    ));
    world.is_quiet().await;
    drop(all);
    let heard = timeout(PATIENCE, world.incoming.next()).await.unwrap();
    assert!(matches!(heard, Some(Event::Request { request: heard, .. }) if heard == request));
    assert_eq!(world.transport.shared.large.available_permits(), LARGE_MAX);
}
