//! Nodes that are let in over QUIC on loopback.

use cluster::{
    join::{Admit, Admitted, Candidate, Desk, JoinError, Refused, Token, Wish, join},
    tls::Authority,
    transport::{Bounds, Event, Incoming, Members, Peer, Settings, Transport},
};
use proto::{
    command::{MemberRefusal, NodeId, Role},
    limit::HashKey,
};
use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::timeout;

const CLUSTER: u128 = 7;
const FOUNDER: NodeId = NodeId(1);
const MADE_MS: u64 = 1_785_230_400_000;
const PATIENCE: Duration = Duration::from_secs(20);

struct Voter {
    transport: Transport,
    incoming: Incoming,
    address: String,
    _dir: TempDir,
}

fn voter(authority: &Authority, node: NodeId) -> Voter {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (transport, incoming) = Transport::start(Settings {
        credentials: authority.issue(node, Role::Voter, MADE_MS).unwrap(),
        socket: Some(socket),
        snapshots: dir.path().to_owned(),
        bounds: Bounds::default(),
    })
    .unwrap();
    Voter {
        transport,
        incoming,
        address,
        _dir: dir,
    }
}

/// A ledger that knows one token, and lets its candidate in again when asked again.
#[derive(Default)]
struct Ledger {
    token: Mutex<Option<[u8; 32]>>,
    let_in: Mutex<Vec<Candidate>>,
    /// Answers that get lost on the way from the ledger.
    lost: Mutex<u32>,
    voters: Mutex<BTreeMap<NodeId, String>>,
}

impl Ledger {
    fn admit(self: &Arc<Self>) -> Admit {
        let ledger = self.clone();
        Arc::new(move |candidate| {
            let ledger = ledger.clone();
            Box::pin(async move { ledger.decide(candidate) })
        })
    }

    fn decide(&self, candidate: Candidate) -> Result<Admitted, Refused> {
        let mut let_in = self.let_in.lock().unwrap();
        if !let_in.contains(&candidate) {
            let token = self.token.lock().unwrap().take();
            if token != Some(candidate.token) {
                return Err(MemberRefusal::Token.into());
            }
            let_in.push(candidate);
        }
        let mut lost = self.lost.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(Refused::Unreachable);
        }
        Ok(Admitted {
            secret: HashKey([9; 16]),
            voters: self.voters.lock().unwrap().clone(),
        })
    }
}

struct Cluster {
    authority: Arc<Authority>,
    founder: Voter,
    ledger: Arc<Ledger>,
    token: Token,
}

fn cluster() -> Cluster {
    let authority = Arc::new(Authority::new(CLUSTER, MADE_MS).unwrap());
    let founder = voter(&authority, FOUNDER);
    let ledger = Arc::new(Ledger::default());
    let token = Token::new(authority.cert());
    *ledger.token.lock().unwrap() = Some(token.hash());
    ledger
        .voters
        .lock()
        .unwrap()
        .insert(FOUNDER, founder.address.clone());
    founder.transport.serve_joins(Desk::Here {
        authority: authority.clone(),
        admit: ledger.admit(),
        unix_ms: Arc::new(|| MADE_MS),
    });
    Cluster {
        authority,
        founder,
        ledger,
        token,
    }
}

fn wish(role: Role) -> Wish {
    Wish {
        name: "new".to_owned(),
        address: match role {
            Role::Voter => "127.0.0.1:7000".to_owned(),
            Role::Client => String::new(),
        },
        role,
    }
}

#[tokio::test]
async fn a_node_with_a_token_is_let_in_and_can_ask() {
    let mut cluster = cluster();
    let addresses = [cluster.founder.address.clone()];
    // What is handed over is a text.
    let token = Token::parse(&cluster.token.reveal()).unwrap();
    let joined = join(&addresses, &token, &wish(Role::Client)).await.unwrap();
    let who = joined.credentials.who;
    assert_eq!((who.cluster, who.role), (CLUSTER, Role::Client));
    assert_eq!((joined.secret.0, joined.authority), ([9; 16], FOUNDER));
    assert_eq!(joined.credentials.ca, *cluster.authority.cert());
    assert_eq!(cluster.ledger.let_in.lock().unwrap()[0].node, who.node);

    let dir = tempfile::tempdir().unwrap();
    let (transport, mut incoming) = Transport::start(Settings {
        credentials: joined.credentials,
        socket: None,
        snapshots: dir.path().to_owned(),
        bounds: Bounds::default(),
    })
    .unwrap();
    let peer = |(node, address)| {
        let role = Role::Voter;
        (node, Peer { address, role })
    };
    transport.set_members(Members {
        nodes: joined.voters.into_iter().map(peer).collect(),
        ..Members::default()
    });
    let connected = timeout(PATIENCE, incoming.next()).await.unwrap();
    assert!(matches!(connected, Some(Event::Connected(FOUNDER))));
    let request = cluster::wire::Request::Status;
    transport.send_request(FOUNDER, 1, &request).unwrap();
    let heard = timeout(PATIENCE, cluster.founder.incoming.next())
        .await
        .unwrap();
    assert!(matches!(heard, Some(Event::Request { from, .. }) if from == who.node));
}

#[tokio::test]
async fn a_node_without_the_key_says_who_has_it() {
    let cluster = cluster();
    let other = voter(&cluster.authority, NodeId(2));
    let founder = cluster.founder.address.clone();
    let elsewhere = move || Some(founder.clone());
    other
        .transport
        .serve_joins(Desk::Elsewhere(Arc::new(elsewhere)));
    let joined = join(&[other.address], &cluster.token, &wish(Role::Voter)).await;
    let joined = joined.unwrap();
    assert_eq!(joined.authority, FOUNDER);
    assert_eq!(
        cluster.ledger.let_in.lock().unwrap()[0].address,
        "127.0.0.1:7000"
    );
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_to_the_same_node() {
    let cluster = cluster();
    *cluster.ledger.lost.lock().unwrap() = 2;
    let addresses = [cluster.founder.address.clone()];
    let joined = join(&addresses, &cluster.token, &wish(Role::Client))
        .await
        .unwrap();
    let let_in = cluster.ledger.let_in.lock().unwrap();
    assert_eq!(let_in.len(), 1, "it is one node, however often it asked");
    assert_eq!(let_in[0].node, joined.credentials.who.node);
}

#[tokio::test]
async fn a_token_is_good_once_and_only_for_its_cluster() {
    let cluster = cluster();
    let addresses = [cluster.founder.address.clone()];
    join(&addresses, &cluster.token, &wish(Role::Client))
        .await
        .unwrap();
    for token in [cluster.token.clone(), Token::new(cluster.authority.cert())] {
        let again = join(&addresses, &token, &wish(Role::Client)).await;
        let refused = Refused::Member(MemberRefusal::Token);
        assert!(matches!(again, Err(JoinError::Refused(why)) if why == refused));
    }
    // A token of another cluster: who answers is not believed.
    let stranger = Token::new(Authority::new(CLUSTER, MADE_MS).unwrap().cert());
    let wish = wish(Role::Client);
    let misled = timeout(Duration::from_secs(2), join(&addresses, &stranger, &wish));
    assert!(!matches!(misled.await, Ok(Ok(_))));
    assert_eq!(cluster.ledger.let_in.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn wishes_that_make_no_sense_do_not_reach_the_ledger() {
    let cluster = cluster();
    let addresses = [cluster.founder.address.clone()];
    let good = wish(Role::Voter);
    for (name, address) in [
        ("", "a:1"),
        (&*"n".repeat(65), "a:1"),
        ("n", ""),
        ("n", "host"),
        ("n", "a:x"),
    ] {
        let wish = Wish {
            name: name.to_owned(),
            address: address.to_owned(),
            ..good.clone()
        };
        let answer = join(&addresses, &cluster.token, &wish).await;
        assert!(
            matches!(answer, Err(JoinError::Malformed)),
            "{name} {address}"
        );
    }
    assert!(cluster.ledger.let_in.lock().unwrap().is_empty());
}
