//! What agreement costs, on one machine: three voters as processes of their own, mutual TLS over QUIC on loopback, fsync;
//! this process is a lease client of theirs. Beside it, in the same run, the usual limiter on Redis.
//!
//! `cargo bench -p tollgate-benches --bench lease` prints the table; `-- --test` runs everything once, briefly.

mod fleet;
mod ours;
mod redis;

use fleet::Fleet;
use proto::{
    command::Role,
    limit::{CounterKey, Identity, Window, lease::Ask, ledger::Definition},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const LIMIT: Definition = Definition {
    identity: Identity(7),
    window: Window::Week,
    max: 1_000_000_000,
};

/// What the limit that a death is survived with admits.
const MAX: u64 = 1_000;

/// How long and how often.
#[derive(Clone, Copy)]
struct Effort {
    each: Duration,
    deaths: usize,
    window_ms: u64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == fleet::VOTER) {
        return fleet::voter(&words[1..]);
    }
    let brief = words.iter().any(|word| word == "--test");
    let effort = match brief {
        true => Effort {
            each: Duration::from_millis(200),
            deaths: 1,
            window_ms: 3_000,
        },
        false => Effort {
            each: Duration::from_secs(5),
            deaths: 10,
            window_ms: 10_000,
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(effort));
}

async fn run(effort: Effort) {
    let mut fleet = Fleet::form(3).await;
    let client = fleet.client(Role::Client).await;
    client
        .define(1, &[LIMIT])
        .await
        .expect("the limit is defined");
    println!(
        "leases a second, three voters (cold keys: each asks for a counter that nobody had before)"
    );
    println!(
        "{:>10} {:>12} {:>10} {:>10} {:>10}",
        "in flight", "leases/s", "p50 µs", "p99 µs", "worst µs"
    );
    let keys = Arc::new(AtomicU64::new(1));
    for in_flight in [1, 64, 1024] {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| tokio::spawn(lease_on(client.clone(), keys.clone(), stop.clone())))
            .collect();
        tokio::time::sleep(effort.each).await;
        stop.store(true, Relaxed);
        let mut taken = Vec::new();
        for task in tasks {
            taken.extend(task.await.expect("invariant: the task does not panic"));
        }
        let seconds = began.elapsed().as_secs_f64();
        let count = taken.len();
        let [p50, p99, worst] = quantiles(taken);
        println!(
            "{in_flight:>10} {:>12.0} {p50:>10.0} {p99:>10.0} {worst:>10.0}",
            count as f64 / seconds
        );
    }
    let mut gaps = Vec::new();
    for _ in 0..effort.deaths {
        let status = client.status().await.expect("the cluster answers");
        let leader = fleet.position(status.leader);
        fleet.kill(leader);
        let died = Instant::now();
        while lease(&client, &keys).await.is_none() {}
        gaps.push(died.elapsed());
        fleet.start(leader).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let count = gaps.len();
    let [p50, _, worst] = quantiles(gaps);
    println!(
        "from a leader's death (SIGKILL) to the next lease: median {:.0} ms, worst {:.0} ms of {count}",
        p50 / 1e3,
        worst / 1e3
    );
    println!("decisions, each thread or connection with a counter of its own");
    println!(
        "{:<34} {:>12} {:>10} {:>10} {:>10}",
        "", "decisions/s", "p50 µs", "p99 µs", "worst µs"
    );
    ours::decisions(client.clone(), effort).await;
    client.shutdown().await;
    let server = redis::measured(effort);
    let window = Duration::from_millis(effort.window_ms);
    let admitted = ours::admitted_through_a_death(&mut fleet, MAX, window).await;
    println!("Tollgate's leader dies in mid-window: {admitted} admitted of {MAX} by two gateways");
    assert!(admitted <= MAX, "a limit was broken");
    if let Some(mut server) = server {
        let admitted = redis::admitted_through_a_death(&mut server, MAX, window);
        println!("Redis dies in mid-window: {admitted} admitted of {MAX}");
    }
}

/// One question for a counter that nobody had before; how long it took.
async fn lease(client: &cluster::handle::Handle, keys: &AtomicU64) -> Option<Duration> {
    let ask = Ask {
        identity: LIMIT.identity,
        key: CounterKey(keys.fetch_add(1, Relaxed).into()),
        window_hint: u64::MAX,
        want: 4,
        min: 1,
        seen_granted: 0,
        returned_total: 0,
        group: None,
        waiting: true,
    };
    let began = Instant::now();
    let session = client.wait_for_session(Duration::from_secs(1)).await.ok()?;
    let heard = client.lease(session, ask).await.ok()?;
    heard.verdict.ok().map(|_| began.elapsed())
}

async fn lease_on(
    client: cluster::handle::Handle,
    keys: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut taken = Vec::new();
    while !stop.load(Relaxed) {
        taken.extend(lease(&client, &keys).await);
    }
    taken
}

/// Median, 99th percentile and worst, microseconds.
pub fn quantiles(mut all: Vec<Duration>) -> [f64; 3] {
    all.sort_unstable();
    let at = |share: f64| {
        let index = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
        all.get(index)
            .map_or(f64::NAN, |taken| taken.as_secs_f64() * 1e6)
    };
    [at(0.5), at(0.99), at(1.0)]
}
