//! Three voters and a lease client, which join over QUIC, agree, lose one another and find each other again.

use crate::harness::{LIMIT, ask, now, run, settings};
use cluster::{
    handle::{self, Error, Handle},
    identity,
    join::{Token, Wish},
    setup,
    wire::{Counters, Operate, Status},
};
use proto::{
    command::{NodeId, Role},
    control::{Change, Kind},
    limit::{CounterKey, ledger::Refusal},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::sleep;

/// Longer than an election and a reconnect take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node with a directory and, a voter's, an address of its own.
struct Node {
    name: &'static str,
    dir: TempDir,
    listen: Option<SocketAddr>,
    handle: Option<Handle>,
}

impl Node {
    fn new(name: &'static str, role: Role) -> Self {
        let free = || {
            UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        Self {
            name,
            dir: tempfile::tempdir().unwrap(),
            listen: (role == Role::Voter).then(free),
            handle: None,
        }
    }

    fn address(&self) -> String {
        self.listen.map(|at| at.to_string()).unwrap_or_default()
    }

    fn start(&mut self) {
        let settings = handle::Settings {
            name: self.name.to_owned(),
            listen: self.listen,
            advertise: self.listen.map(|at| at.to_string()),
            bootstrap: false,
            snapshot_after_bytes: 1 << 20,
            ..settings(self.dir.path())
        };
        self.handle = Some(handle::open(settings).unwrap());
    }

    fn handle(&self) -> &Handle {
        self.handle.as_ref().unwrap()
    }

    async fn stop(&mut self) {
        self.handle.take().unwrap().shutdown().await;
    }

    /// Asks until there is an answer: a leader may be missing for a moment.
    async fn lease(&self, key: u128, units: u64) -> Result<u64, Refusal> {
        let handle = self.handle();
        eventually(async || {
            let session = handle.define(1, &[LIMIT]).await.ok()?;
            let heard = handle.lease(session, ask(key, units)).await.ok()?;
            Some(heard.verdict.map(|standing| standing.remaining))
        })
        .await
    }

    async fn status(&self) -> Status {
        eventually(async || self.handle().status().await.ok()).await
    }
}

async fn eventually<T>(attempt: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < end, "it does not happen");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A token, made on the first node.
async fn token(first: &Node, role: Role) -> Token {
    let identity = identity::peek(first.dir.path()).unwrap().unwrap();
    let ca = identity.tls.unwrap().ca;
    let token = Token::new(&CertificateDer::from_pem_slice(ca.as_bytes()).unwrap());
    let operate = Operate::Token {
        hash: token.hash(),
        role,
        ttl_ms: 60_000,
    };
    eventually(async || first.handle().operate(operate.clone()).await.ok()).await;
    token
}

async fn join(first: &Node, through: &Node, name: &'static str, role: Role) -> Node {
    let token = token(first, role).await;
    let mut node = Node::new(name, role);
    let wish = Wish {
        name: name.to_owned(),
        address: node.address(),
        role,
    };
    setup::join(node.dir.path(), &[through.address()], &token, &wish)
        .await
        .unwrap();
    node.start();
    node
}

/// Voters `a`, `b`, `c`, all of them voting.
async fn three() -> [Node; 3] {
    let mut a = Node::new("a", Role::Voter);
    setup::init(a.dir.path(), "a", &a.address(), now()).unwrap();
    a.start();
    let b = join(&a, &a, "b", Role::Voter).await;
    // Through one that has to say who has the authority's key.
    let c = join(&a, &b, "c", Role::Voter).await;
    eventually(async || {
        let members = a.status().await.members;
        let voting = members
            .iter()
            .filter(|m| !m.learner && m.role == Role::Voter);
        (voting.count() == 3).then_some(())
    })
    .await;
    [a, b, c]
}

fn which(nodes: &[Node], id: NodeId) -> usize {
    let found = nodes.iter().position(|node| {
        let handle = node.handle.as_ref();
        handle.is_some_and(|handle| handle.node() == id)
    });
    found.unwrap()
}

#[test]
fn one_limit_holds_over_three_voters_and_a_lease_client_whoever_leads() {
    run(async {
        let mut nodes = three().await;
        let client = join(&nodes[0], &nodes[2], "d", Role::Client).await;
        assert_eq!(nodes[1].lease(1, 3).await, Ok(7));
        assert_eq!(client.lease(1, 2).await, Ok(5));
        let leader = which(&nodes, client.status().await.leader);
        nodes[leader].stop().await;
        let began = Instant::now();
        assert_eq!(client.lease(2, 1).await, Ok(9));
        eprintln!("a lease {:?} after the leader was gone", began.elapsed());
        let others: Vec<usize> = (0..3).filter(|other| *other != leader).collect();
        // As a holder that has heard of nothing it is offered again what it was granted: 2, and 4 of the 5 that are left.
        assert_eq!(client.lease(1, 6).await, Ok(1));
        assert_eq!(client.lease(1, 8).await.ok(), None, "one is left");
        // The stopped one comes back and catches up; then another one may go.
        nodes[leader].start();
        let committed = nodes[others[0]].status().await.committed;
        eventually(async || {
            let local = nodes[leader].handle().local();
            (local.applied >= committed).then_some(())
        })
        .await;
        nodes[others[0]].stop().await;
        assert_eq!(client.lease(2, 2).await, Ok(8));
        let (rows, ..) = eventually(async || {
            let counters = Counters {
                key: Some(CounterKey(1)),
                most: 1,
                ..Counters::default()
            };
            client.handle().counters(counters).await.ok()
        })
        .await;
        assert_eq!((rows[0].used, rows[0].max), (9, 10));
        // Without a majority nobody is told that a limit was reached.
        nodes[others[1]].stop().await;
        let session = client.handle().wait_for_session(PATIENCE).await;
        if let Ok(session) = session {
            let heard = client.handle().lease(session, ask(3, 1)).await;
            assert_eq!(heard.err(), Some(Error::Unreachable));
        }
        client.handle().shutdown().await;
        nodes[leader].stop().await;
    });
}

#[test]
fn what_is_put_into_the_cluster_is_heard_by_all_and_a_removed_node_by_none() {
    run(async {
        let [mut a, mut b, mut c] = three().await;
        let client = join(&a, &a, "d", Role::Client).await;
        let change = Change {
            kind: Kind::Policy,
            name: "images".to_owned(),
            body: Some(b"version: 1".as_slice().into()),
            expect: None,
            by: "test".to_owned(),
        };
        let operate = Operate::Control(change);
        eventually(async || b.handle().operate(operate.clone()).await.ok()).await;
        for node in [&a, &b, &c, &client] {
            eventually(async || {
                let control = node.handle().control().borrow().clone();
                control.get(Kind::Policy, "images").map(drop)
            })
            .await;
        }
        // A lease client may not operate.
        let denied = client.handle().operate(operate.clone()).await;
        assert_eq!(denied, Err(Error::Forbidden));

        let gone = client.handle().node();
        let remove = Operate::Remove { nodes: vec![gone] };
        eventually(async || a.handle().operate(remove.clone()).await.ok()).await;
        eventually(async || match client.handle().status().await {
            Err(_) => Some(()),
            Ok(_) => None,
        })
        .await;
        let members = b.status().await.members;
        assert!(members.iter().all(|member| member.node != gone));
        client.handle().shutdown().await;
        for node in [&mut a, &mut b, &mut c] {
            node.stop().await;
        }
    });
}

#[test]
fn a_voter_that_was_away_while_the_log_was_shortened_gets_the_state_in_chunks() {
    run(async {
        let mut nodes = three().await;
        let leader = which(&nodes, nodes[0].status().await.leader);
        let away = (leader + 1) % 3;
        nodes[away].stop().await;
        // 6 MiB of documents: the log goes, the state stays.
        for number in 0..48 {
            let change = Change {
                kind: Kind::Policy,
                name: format!("p{number}"),
                body: Some(vec![number; 128 << 10].into()),
                expect: None,
                by: "test".to_owned(),
            };
            let operate = Operate::Control(change);
            let handle = nodes[leader].handle();
            eventually(async || handle.operate(operate.clone()).await.ok()).await;
        }
        let committed = nodes[leader].status().await.committed;
        nodes[away].start();
        eventually(async || {
            let local = nodes[away].handle().local();
            (local.applied >= committed).then_some(())
        })
        .await;
        let control = eventually(async || {
            let control = nodes[away].handle().control().borrow().clone();
            control
                .get(Kind::Policy, "p47")
                .is_some()
                .then_some(control)
        })
        .await;
        for number in 0..48 {
            let found = control.get(Kind::Policy, &format!("p{number}")).unwrap();
            assert!(
                found
                    .body
                    .as_deref()
                    .unwrap()
                    .iter()
                    .all(|byte| *byte == number)
            );
        }
        let states = std::fs::read_dir(nodes[away].dir.path().join("snapshots")).unwrap();
        let largest = states
            .map(|file| file.unwrap().metadata().unwrap().len())
            .max();
        assert!(
            largest.unwrap() > 1 << 20,
            "it came as a state: {largest:?}"
        );
        for node in &mut nodes {
            node.stop().await;
        }
    });
}
