//! Tollgate's limiter as a gateway has it: a lease client of the three voters, asked by so many threads.

use crate::{Effort, fleet::Fleet, quantiles};
use cluster::handle::Handle;
use daemon::{clock, limiter::Limiter};
use proto::{
    command::Role,
    limit::{
        Charge, CounterKey, Identity, Kind, Limit, OnUnreachable, Outcome, RefundOn, Scale, Scope,
        Window,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// One decision in so many is timed: reading the clock costs as much as a decision.
const TIMED_EVERY: u64 = 16;
/// A window without a border while this runs.
const YEAR: Window = Window::Duration(366 * 86_400_000);

fn limit(identity: u128, max: u64) -> Arc<Limit> {
    Arc::new(Limit {
        identity: Identity(identity),
        label: "bench".into(),
        rule: "/limits/0".into(),
        kind: Kind::Rate(YEAR),
        scope: Scope::All,
        scale: Scale::Integer,
        max,
        on_deny: None,
        on_unreachable: OnUnreachable::Deny,
        refund_on: RefundOn::default(),
        refund_max: max,
        counts_only: false,
    })
}

fn charge(limit: &Arc<Limit>, key: u128) -> Charge<'_> {
    Charge {
        limit,
        key: CounterKey(key),
        amount: 1,
        scope_value: "",
        key_text: None,
        keys_max: None,
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A gateway's limiter, and the thread that does its work beside the calls.
struct Node {
    limiter: Limiter,
    beside: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn open(handle: Handle, limit: &Arc<Limit>) -> Self {
        let limiter = Limiter::new(handle, 10_000, Arc::new(clock::now));
        let beside = tokio::spawn(limiter.run());
        let defined = limiter.define([limit], clock::now()).await;
        defined.expect("the ledger hears of the limit");
        Self { limiter, beside }
    }

    /// Whether a call is admitted; `None`: the ledger could not be asked in time.
    async fn call(&self, charge: &Charge<'_>) -> bool {
        let now = clock::now();
        match self
            .limiter
            .reserve(std::slice::from_ref(charge), now)
            .await
        {
            Ok(tickets) => {
                tickets.settle(Outcome::Acted, || now);
                true
            }
            Err(_) => false,
        }
    }

    async fn close(self) {
        self.limiter.close(clock::now()).await;
        self.beside.abort();
    }
}

/// Prints decisions a second and their times; every thread has a counter of its own, as in the comparison.
pub async fn decisions(handle: Handle, effort: Effort) {
    let limit = limit(11, 1_000_000_000_000);
    let node = Arc::new(Node::open(handle, &limit).await);
    for callers in [1_u64, 8, 64] {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                let (node, limit, stop) = (node.clone(), limit.clone(), stop.clone());
                std::thread::spawn(move || {
                    let charge = charge(&limit, u128::from(caller + callers) << 64);
                    runtime().block_on(async {
                        let (mut admitted, mut calls, mut taken) = (0_u64, 0_u64, Vec::new());
                        while !stop.load(Relaxed) {
                            let began = calls.is_multiple_of(TIMED_EVERY).then(Instant::now);
                            admitted += u64::from(node.call(&charge).await);
                            taken.extend(began.map(|began| began.elapsed()));
                            calls += 1;
                        }
                        (admitted, taken)
                    })
                })
            })
            .collect();
        tokio::time::sleep(effort.each).await;
        stop.store(true, Relaxed);
        let (mut admitted, mut taken) = (0, Vec::new());
        for thread in threads {
            let (more, times) = thread.join().expect("invariant: the thread does not panic");
            admitted += more;
            taken.extend(times);
        }
        let rate = admitted as f64 / began.elapsed().as_secs_f64();
        let [p50, p99, worst] = quantiles(taken);
        println!(
            "{:<34} {rate:>12.0} {p50:>10.1} {p99:>10.1} {worst:>10.1}",
            format!("Tollgate, {callers} threads of a gateway")
        );
    }
    if let Ok(node) = Arc::try_unwrap(node) {
        node.close().await;
    }
}

/// What two gateways admit of one window's quota while the voters' leader dies in its middle; calls that cannot be
/// decided are denied.
pub async fn admitted_through_a_death(fleet: &mut Fleet, max: u64, window: Duration) -> u64 {
    let limit = limit(12, max);
    let (admitted, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut gateways = Vec::new();
    let mut first = None;
    for _ in 0..2 {
        let handle = fleet.client(Role::Client).await;
        first.get_or_insert(handle.clone());
        let (limit, admitted, stop) = (limit.clone(), admitted.clone(), stop.clone());
        gateways.push(std::thread::spawn(move || {
            runtime().block_on(async {
                let node = Node::open(handle.clone(), &limit).await;
                // No counter of what was measured before: a key is one limit's.
                let charge = charge(&limit, u128::MAX);
                while !stop.load(Relaxed) {
                    admitted.fetch_add(u64::from(node.call(&charge).await), Relaxed);
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                node.close().await;
                handle.shutdown().await;
            });
        }));
    }
    tokio::time::sleep(window / 2).await;
    let client = first.expect("invariant: two were opened");
    let status = client.status().await.expect("the cluster answers");
    let leader = fleet.position(status.leader);
    fleet.kill(leader);
    tokio::time::sleep(window / 2).await;
    fleet.start(leader).await;
    stop.store(true, Relaxed);
    for gateway in gateways {
        gateway
            .join()
            .expect("invariant: the thread does not panic");
    }
    let admitted = admitted.load(Relaxed);
    assert!(admitted > 0, "nothing was admitted before the leader died");
    admitted
}
