//! Transports that speak with each other over QUIC on loopback.

use cluster::{
    tls::Authority,
    transport::{Bounds, Event, Incoming, Members, Peer, Settings, Transport, Unsent},
    wire::{At, Extra, Push, Request, Response},
};
use proto::{
    command::{NodeId, Role},
    control::{Kind, Page, Resource},
};
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use std::{
    collections::BTreeMap,
    net::UdpSocket,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::timeout;

const CLUSTER: u128 = 7;
const MADE_MS: u64 = 1_785_230_400_000;
/// Longer than anything here should take, so that a failure is not a hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must happen where nothing should.
const QUIET: Duration = Duration::from_millis(300);

struct Node {
    id: NodeId,
    role: Role,
    address: String,
    transport: Transport,
    incoming: Incoming,
    dir: TempDir,
}

impl Node {
    fn start(authority: &Authority, id: u64, role: Role, socket: Option<UdpSocket>) -> Self {
        Self::bounded(authority, id, role, socket, Bounds::default())
    }

    fn bounded(
        authority: &Authority,
        id: u64,
        role: Role,
        socket: Option<UdpSocket>,
        bounds: Bounds,
    ) -> Self {
        let id = NodeId(id);
        let dir = tempfile::tempdir().unwrap();
        let address = socket.as_ref().map(|s| s.local_addr().unwrap().to_string());
        let (transport, incoming) = Transport::start(Settings {
            credentials: authority.issue(id, role, MADE_MS).unwrap(),
            socket,
            snapshots: dir.path().to_owned(),
            bounds,
        })
        .unwrap();
        Self {
            id,
            role,
            address: address.unwrap_or_default(),
            transport,
            incoming,
            dir,
        }
    }

    async fn next(&mut self) -> Event {
        let next = timeout(PATIENCE, self.incoming.next()).await;
        next.expect("something happens").expect("it goes on")
    }

    async fn until<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    async fn connected(&mut self, to: NodeId) {
        self.until(|event| matches!(event, Event::Connected(node) if node == to).then_some(()))
            .await;
    }

    async fn lost(&mut self, of: NodeId) {
        self.until(|event| matches!(event, Event::Lost(node) if node == of).then_some(()))
            .await;
    }

    async fn is_quiet(&mut self) {
        if let Ok(event) = timeout(QUIET, self.incoming.next()).await {
            panic!("nothing should happen, but {event:?}");
        }
    }
}

fn socket() -> Option<UdpSocket> {
    Some(UdpSocket::bind("127.0.0.1:0").unwrap())
}

fn authority() -> Authority {
    Authority::new(CLUSTER, MADE_MS).unwrap()
}

fn members(nodes: &[&Node]) -> Members {
    let peer = |node: &&Node| {
        let peer = Peer {
            address: node.address.clone(),
            role: node.role,
        };
        (node.id, peer)
    };
    Members {
        nodes: nodes.iter().map(peer).collect(),
        ..Members::default()
    }
}

fn meet(nodes: &[&Node]) {
    for node in nodes {
        node.transport.set_members(members(nodes));
    }
}

fn message(kind: MessageType, from: NodeId, to: NodeId, index: u64) -> Message {
    let mut message = Message {
        from: from.0,
        to: to.0,
        index,
        ..Message::default()
    };
    message.set_msg_type(kind);
    message
}

/// Two voters that know and hear each other.
async fn pair() -> (Node, Node) {
    let authority = authority();
    let mut a = Node::start(&authority, 1, Role::Voter, socket());
    let mut b = Node::start(&authority, 2, Role::Voter, socket());
    meet(&[&a, &b]);
    a.connected(b.id).await;
    b.connected(a.id).await;
    (a, b)
}

#[tokio::test]
async fn voters_hear_each_others_raft_messages_in_order_within_a_class() {
    let (a, mut b) = pair().await;
    for index in 0..200 {
        let mut append = message(MessageType::MsgAppend, a.id, b.id, index);
        append.entries.push(Entry {
            index: index + 1,
            data: vec![index as u8; 1_000].into(),
            ..Entry::default()
        });
        a.transport.send_raft(&append);
        a.transport
            .send_raft(&message(MessageType::MsgHeartbeat, a.id, b.id, index));
    }
    let hash = Extra::Hash {
        index: 1_024,
        hash: 5,
    };
    a.transport.send_extra(b.id, &hash);
    let (mut appends, mut beats, mut extras) = (Vec::new(), Vec::new(), 0);
    while appends.len() + beats.len() + extras < 401 {
        match b.next().await {
            Event::Raft(message) if message.get_msg_type() == MessageType::MsgAppend => {
                assert_eq!(message.entries[0].data[..], [message.index as u8; 1_000]);
                appends.push(message.index);
            }
            Event::Raft(message) => beats.push(message.index),
            Event::Extra(from, extra) => {
                assert_eq!((from, extra), (a.id, hash));
                extras += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let all: Vec<u64> = (0..200).collect();
    assert_eq!((&appends, &beats), (&all, &all));
}

#[tokio::test]
async fn a_lease_client_asks_a_voter_answers_and_pushes() {
    let authority = authority();
    let mut voter = Node::start(&authority, 1, Role::Voter, socket());
    let mut client = Node::start(&authority, 2, Role::Client, None);
    meet(&[&voter, &client]);
    client.connected(voter.id).await;
    let push = Push::Control { version: 9 };
    let ask = |id: u64| {
        client
            .transport
            .send_request(voter.id, id, &Request::Status)
    };
    for id in 0..1_000 {
        ask(id).unwrap();
    }
    for wanted in 0..1_000 {
        match voter.next().await {
            Event::Request { from, id, request } => {
                assert_eq!((from, &request), (client.id, &Request::Status));
                assert_eq!(id % cluster::transport::REQUEST_IDS, wanted);
                let at = At {
                    now_ms: wanted,
                    term: 1,
                };
                voter
                    .transport
                    .send_response(from, id, &Response::Done { at });
            }
            other => panic!("{other:?}"),
        }
    }
    voter.transport.send_push(client.id, &push);
    for wanted in 0..1_000 {
        match client.next().await {
            Event::Response { from, id, response } => {
                assert_eq!((from, id), (voter.id, wanted));
                assert!(matches!(response, Response::Done { at } if at.now_ms == wanted));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        matches!(client.next().await, Event::Push(from, heard) if (from, heard) == (voter.id, push))
    );
}

#[tokio::test]
async fn who_is_not_connected_is_told_so_at_once() {
    let authority = authority();
    let voter = Node::start(&authority, 1, Role::Voter, socket());
    let mut client = Node::start(&authority, 2, Role::Client, None);
    let send = |client: &Node| client.transport.send_request(voter.id, 1, &Request::Status);
    assert_eq!(
        send(&client),
        Err(Unsent::NotConnected),
        "it is not a member"
    );
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut all = members(&[&voter]);
    all.nodes.get_mut(&voter.id).unwrap().address = nobody.local_addr().unwrap().to_string();
    client.transport.set_members(all);
    assert_eq!(send(&client), Err(Unsent::NotConnected), "nobody is there");
    client.is_quiet().await;
    // It is found where it moved.
    client.transport.set_members(members(&[&voter]));
    client.connected(voter.id).await;
    assert_eq!(send(&client), Ok(()));
}

#[tokio::test]
async fn a_removed_node_is_cut_off_at_once_and_not_let_in_again() {
    let authority = authority();
    let mut voter = Node::start(&authority, 1, Role::Voter, socket());
    let mut client = Node::start(&authority, 2, Role::Client, None);
    meet(&[&voter, &client]);
    client.connected(voter.id).await;
    let began = Instant::now();
    voter.transport.set_members(members(&[&voter]));
    client.lost(voter.id).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let refused = client.next().await;
    assert!(
        matches!(refused, Event::Refused(node) if node == voter.id),
        "{refused:?}"
    );
    // It is told why, and does not try again at once.
    let asked = client.transport.send_request(voter.id, 1, &Request::Status);
    assert_eq!(asked, Err(Unsent::NotConnected));
    client.is_quiet().await;
    voter.is_quiet().await;
}

#[tokio::test]
async fn a_node_of_another_authority_gets_nowhere() {
    let (ours, theirs) = (authority(), authority());
    let mut voter = Node::start(&ours, 1, Role::Voter, socket());
    let mut stranger = Node::start(&theirs, 2, Role::Voter, socket());
    meet(&[&voter, &stranger]);
    stranger.is_quiet().await;
    voter.is_quiet().await;
}

#[tokio::test]
async fn another_node_behind_a_members_address_is_not_taken_for_it() {
    let authority = authority();
    let voter = Node::start(&authority, 1, Role::Voter, socket());
    let mut client = Node::start(&authority, 2, Role::Client, None);
    let mut all = members(&[&voter]);
    let peer = all.nodes.remove(&voter.id).unwrap();
    all.nodes = BTreeMap::from([(NodeId(3), peer)]);
    client.transport.set_members(all);
    client.is_quiet().await;
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let authority = authority();
    let first = Node::start(&authority, 1, Role::Voter, socket());
    let address = first.address.clone();
    let mut client = Node::start(&authority, 2, Role::Client, None);
    meet(&[&first, &client]);
    client.connected(first.id).await;
    first.transport.close().await;
    client.lost(NodeId(1)).await;
    drop(first);
    let socket = loop {
        // The old endpoint gives its port back when its last task has ended.
        match UdpSocket::bind(&address) {
            Ok(socket) => break socket,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let mut second = Node::start(&authority, 1, Role::Voter, Some(socket));
    meet(&[&second, &client]);
    client.connected(second.id).await;
    client
        .transport
        .send_request(second.id, 77, &Request::Status)
        .unwrap();
    let heard = second.next().await;
    assert!(matches!(heard, Event::Request { from, .. } if from == client.id));
}

#[tokio::test]
async fn an_answer_for_an_earlier_connection_is_not_given_to_the_next() {
    let authority = authority();
    let mut voter = Node::start(&authority, 1, Role::Voter, socket());
    let mut client = Node::start(&authority, 2, Role::Client, None);
    meet(&[&voter, &client]);
    client.connected(voter.id).await;
    let request_id = |event| match event {
        Event::Request { id, .. } => Some(id),
        _ => None,
    };
    client
        .transport
        .send_request(voter.id, 5, &Request::Status)
        .unwrap();
    let old = voter.until(request_id).await;
    client.transport.close().await;
    let mut client = Node::start(&authority, 2, Role::Client, None);
    meet(&[&voter, &client]);
    client.connected(voter.id).await;
    client
        .transport
        .send_request(voter.id, 5, &Request::Status)
        .unwrap();
    let new = voter.until(request_id).await;
    assert_ne!(old, new);
    voter
        .transport
        .send_response(client.id, old, &Response::Unknown);
    voter
        .transport
        .send_response(client.id, new, &Response::Forbidden);
    let heard = client.next().await;
    assert!(
        matches!(
            heard,
            Event::Response {
                id: 5,
                response: Response::Forbidden,
                ..
            }
        ),
        "{heard:?}"
    );
    client.is_quiet().await;
}

fn snapshot(from: NodeId, to: NodeId, dir: &Path, bytes: usize) -> (Message, std::path::PathBuf) {
    let file = dir.join("to-send");
    let content: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
    std::fs::write(&file, content).unwrap();
    let mut message = message(MessageType::MsgSnapshot, from, to, 0);
    message.snapshot = Some(Snapshot {
        data: b"manifest".to_vec().into(),
        metadata: Some(SnapshotMetadata {
            index: 500,
            term: 3,
            conf_state: Some(ConfState::default()).into(),
            ..SnapshotMetadata::default()
        })
        .into(),
        ..Snapshot::default()
    })
    .into();
    (message, file)
}

#[tokio::test]
async fn a_snapshot_comes_in_whole_while_heartbeats_go_by() {
    let (mut a, mut b) = pair().await;
    for bytes in [0, 1, 5_500_000] {
        let (message, file) = snapshot(a.id, b.id, a.dir.path(), bytes);
        a.transport.send_snapshot(message.clone(), file.clone());
        a.transport
            .send_raft(&self::message(MessageType::MsgHeartbeat, a.id, b.id, 1));
        let beat = |event: &Event| matches!(event, Event::Raft(_));
        let (first, second) = (b.next().await, b.next().await);
        assert!(beat(&first) != beat(&second));
        let [Event::Snapshot(heard, received)] = [if beat(&first) { second } else { first }] else {
            panic!("not a snapshot");
        };
        assert_eq!((heard, received.bytes), (message, bytes as u64));
        assert!(std::fs::read(&received.path).unwrap() == std::fs::read(&file).unwrap());
        let path = received.path.clone();
        drop(received);
        assert!(!path.exists(), "nobody wanted it");
        let sent = a.next().await;
        assert!(
            matches!(sent, Event::SnapshotSent { to, ok: true } if to == b.id),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_sent_or_taken_is_said_not_to_be_sent() {
    let authority = authority();
    let mut a = Node::start(&authority, 1, Role::Voter, socket());
    let bounds = Bounds {
        snapshot_bytes_max: 1_000,
        ..Bounds::default()
    };
    let mut b = Node::bounded(&authority, 2, Role::Voter, socket(), bounds);
    let failed = |event: Event| match event {
        Event::SnapshotSent { ok, .. } => Some(!ok),
        _ => None,
    };
    let (message, file) = snapshot(a.id, b.id, a.dir.path(), 30_000_000);
    a.transport.send_snapshot(message.clone(), file.clone());
    assert!(a.until(failed).await, "it is not connected");
    meet(&[&a, &b]);
    a.connected(b.id).await;
    a.transport
        .send_snapshot(message.clone(), a.dir.path().join("missing"));
    assert!(a.until(failed).await, "there is no such file");
    a.transport.send_snapshot(message.clone(), file.clone());
    assert!(a.until(failed).await, "it is too large");
    b.connected(a.id).await;
    b.is_quiet().await;
    let left = std::fs::read_dir(b.dir.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left of it");
    // The connection goes with the node; the snapshot that was under way is accounted for.
    a.transport.send_snapshot(message, file);
    a.transport.set_members(members(&[&a]));
    assert!(a.until(failed).await);
}

#[tokio::test]
async fn what_waits_when_a_node_stops_still_arrives() {
    let authority = authority();
    let mut voter = Node::start(&authority, 1, Role::Voter, socket());
    let mut client = Node::start(&authority, 2, Role::Client, None);
    meet(&[&voter, &client]);
    client.connected(voter.id).await;
    for id in 0..5_000 {
        client
            .transport
            .send_request(voter.id, id, &Request::Status)
            .unwrap();
    }
    let transport = client.transport.clone();
    let closing = tokio::spawn(async move { transport.close().await });
    for _ in 0..5_000 {
        assert!(matches!(voter.next().await, Event::Request { .. }));
    }
    closing.await.unwrap();
    while let Some(event) = timeout(PATIENCE, client.incoming.next()).await.unwrap() {
        assert!(matches!(event, Event::Lost(_)), "{event:?}");
    }
}

#[tokio::test]
async fn an_asker_that_does_not_read_loses_its_connection_and_nobody_else_does() {
    let authority = authority();
    let mut voter = Node::start(&authority, 1, Role::Voter, socket());
    let bounds = Bounds {
        events_max: 1,
        ..Bounds::default()
    };
    let mut deaf = Node::bounded(&authority, 2, Role::Client, None, bounds);
    let mut other = Node::start(&authority, 3, Role::Client, None);
    meet(&[&voter, &deaf, &other]);
    deaf.connected(voter.id).await;
    other.connected(voter.id).await;
    deaf.transport
        .send_request(voter.id, 1, &Request::Status)
        .unwrap();
    let id = voter
        .until(|event| match event {
            Event::Request { id, .. } => Some(id),
            _ => None,
        })
        .await;
    let document = Resource {
        kind: Kind::Policy,
        name: "large".to_owned(),
        version: 1,
        changed_ms: 0,
        by: String::new(),
        body: Some(vec![7; 1 << 20].into()),
    };
    let large = Response::Fresh {
        at: At { now_ms: 0, term: 0 },
        page: Page {
            resources: vec![document],
            ..Page::default()
        },
        members_version: 0,
    };
    // Its flow control window and its queue fill; then it is cut off, and what it is sent is nowhere.
    for _ in 0..100 {
        voter.transport.send_response(deaf.id, id, &large);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    deaf.lost(voter.id).await;
    other
        .transport
        .send_request(voter.id, 1, &Request::Status)
        .unwrap();
    let heard = voter
        .until(|event| match event {
            Event::Request { from, .. } => Some(from),
            _ => None,
        })
        .await;
    assert_eq!(heard, other.id);
}
