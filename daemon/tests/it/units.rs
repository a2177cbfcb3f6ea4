//! A million calls of one unit, in one process: three voters, each with a limiter and a caller, over mutual TLS.
//!
//! What HTTP costs would hide the limiter here; `proof` has the same over HTTP with real processes.

use cluster::{
    handle::{self, Handle, Settings},
    join::Wish,
    setup,
};
use daemon::{clock, limiter::Limiter};
use proto::{
    command::Role,
    limit::{
        Charge, CounterKey, Identity, Kind, Limit, OnUnreachable, Outcome, RefundOn, Scale, Scope,
        Settled, Window,
    },
    policy::Code,
};
use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

const MAX: u64 = 1_000_000;
const NODES: usize = 3;
/// Calls that a node goes on with after the limit was reached.
const FURTHER: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// Three voters of one cluster, in this process.
async fn voters(dir: &Path) -> Vec<Handle> {
    let mut handles: Vec<(Handle, SocketAddr)> = Vec::new();
    for node in 0..NODES {
        let (name, dir) = (format!("n{node}"), dir.join(format!("n{node}")));
        let listen = UdpSocket::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .unwrap();
        match handles.first() {
            None => drop(setup::init(&dir, &name, &listen.to_string(), clock::now()).unwrap()),
            Some((first, peer)) => {
                let token = first.token(Role::Voter, Duration::from_secs(60)).await;
                let wish = Wish {
                    name,
                    address: listen.to_string(),
                    role: Role::Voter,
                };
                let token = token.unwrap().unwrap();
                setup::join(&dir, &[peer.to_string()], &token, &wish)
                    .await
                    .unwrap();
            }
        }
        let opened = handle::open(Settings {
            listen: Some(listen),
            bootstrap: false,
            ..Settings::alone(dir, Arc::new(clock::now))
        });
        handles.push((opened.unwrap(), listen));
        handles[0]
            .0
            .wait_for_session(Duration::from_secs(30))
            .await
            .unwrap();
    }
    handles.into_iter().map(|(handle, _)| handle).collect()
}

#[test]
fn a_million_calls_of_one_unit_on_three_nodes_are_admitted_exactly() {
    let limit = Arc::new(Limit {
        identity: Identity(1),
        label: "policy/tool/million".into(),
        rule: "/tools/tool/limits/0".into(),
        // A border once a year.
        kind: Kind::Rate(Window::Duration(366 * 86_400_000)),
        scope: Scope::All,
        scale: Scale::Integer,
        max: MAX,
        on_deny: None,
        on_unreachable: OnUnreachable::Deny,
        refund_on: RefundOn::default(),
        refund_max: MAX,
        counts_only: false,
    });
    let window = Window::Duration(366 * 86_400_000);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let in_memory = tempfile::Builder::new().tempdir_in("/dev/shm");
    let dir = in_memory.unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let setting_up = runtime();
    let handles = setting_up.block_on(voters(dir.path()));
    let admitted = AtomicU64::new(0);
    let unreachable = AtomicU64::new(0);
    let refusing = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|threads| {
        for handle in &handles {
            let (limit, admitted, unreachable, refusing) =
                (&limit, &admitted, &unreachable, &refusing);
            threads.spawn(move || {
                runtime().block_on(async {
                    let limiter = Limiter::new(handle.clone(), 1_000, Arc::new(clock::now));
                    let beside = tokio::spawn(limiter.run());
                    limiter.define([limit], clock::now()).await.unwrap();
                    let charge = Charge {
                        limit,
                        key: CounterKey(7),
                        amount: 1,
                        scope_value: "",
                        key_text: None,
                        keys_max: None,
                    };
                    let mut refused = 0;
                    let mut calls = 0_u64;
                    // Until every node has seen the end for a while.
                    while refused < FURTHER || refusing.load(SeqCst) < NODES {
                        assert!(began.elapsed() < PATIENCE, "it takes too long");
                        let now = clock::now();
                        match limiter.reserve(std::slice::from_ref(&charge), now).await {
                            Ok(tickets) => {
                                let lines = tickets.settle(Outcome::Acted, || now);
                                assert_eq!(lines.len(), 1);
                                assert_eq!(lines[0].window, window.id(now.unix_ms));
                                assert_eq!(lines[0].settled, Settled::Charged);
                                admitted.fetch_add(1, SeqCst);
                                refused = 0;
                            }
                            Err(no) if no.code == Code::Unreachable => {
                                unreachable.fetch_add(1, SeqCst);
                            }
                            Err(no) => {
                                assert_eq!(no.code, Code::Limit);
                                refused += 1;
                                if refused == FURTHER {
                                    refusing.fetch_add(1, SeqCst);
                                }
                                tokio::time::sleep(Duration::from_millis(1)).await;
                            }
                        }
                        calls += 1;
                        // As a gateway does between two reads: the limiter's own work has its turn.
                        if calls.is_multiple_of(64) {
                            tokio::task::yield_now().await;
                        }
                    }
                    limiter.close(clock::now()).await;
                    beside.abort();
                });
            });
        }
    });
    println!(
        "{} admitted in {:?}, {} unreachable",
        admitted.load(SeqCst),
        began.elapsed(),
        unreachable.load(SeqCst)
    );
    assert_eq!(admitted.load(SeqCst), MAX);
    setting_up.block_on(async {
        for handle in &handles {
            handle.shutdown().await;
        }
    });
}
