//! What the cores cost by themselves: three voters in one thread, with no disk, network or TLS between them; beneath them
//! the ledger and the codec; and the state of a million counters, as it lies in memory, on the disk and is read again.
//!
//! `cargo bench -p tollgate-benches --bench replica` prints the tables; `-- --test` runs everything once, with less.
//! What the shell adds (QUIC, mutual TLS, fsync) is in `lease`.

mod cores;
mod state;

use cores::Cores;
use proto::{
    command::{Batch, Command, NodeId, RULES_VERSION},
    limit::{
        CounterKey, Identity, Window,
        lease::Ask,
        ledger::{Bounds, Definition, Session},
    },
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const LIMIT: Definition = Definition {
    identity: Identity(7),
    window: Window::Week,
    max: 1_000_000_000,
};
/// Replicated time, milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;

fn main() {
    let brief = std::env::args().any(|word| word == "--test");
    let each = Duration::from_millis(if brief { 50 } else { 3_000 });
    // First: its memory would otherwise be what the others freed.
    state::measure(if brief { 10_000 } else { 1_000_000 });
    cores(each);
    layers(each);
}

/// Spread as hashes are.
fn key(n: u64) -> CounterKey {
    CounterKey((u128::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// The first question for a counter.
fn ask(n: u64) -> Ask {
    Ask {
        identity: LIMIT.identity,
        key: key(n),
        window_hint: 0,
        want: 4,
        min: 1,
        seen_granted: 0,
        returned_total: 0,
        group: None,
        waiting: true,
    }
}

fn batch(commands: Vec<Command>) -> Batch {
    Batch {
        now_ms: NOW_MS,
        rules_version: RULES_VERSION,
        commands,
    }
}

/// Leases that three voters agree on.
fn cores(each: Duration) {
    println!("three voters in one thread: cold counters leased, in memory");
    println!(
        "{:>10} {:>12} {:>10} {:>16}",
        "in flight", "leases/s", "ns/lease", "leases an entry"
    );
    for in_flight in [1, 64, 1024] {
        let mut cores = Cores::new();
        let session = cores.session(LIMIT);
        let (mut done, before, began) = (0, cores.batches(), Instant::now());
        while began.elapsed() < each {
            cores.lease(session, done..done + in_flight);
            done += in_flight;
        }
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{in_flight:>10} {:>12.0} {:>10.0} {:>16.1}",
            done as f64 / seconds,
            seconds * 1e9 / done as f64,
            done as f64 / (cores.batches() - before) as f64,
        );
    }
}

/// Of these, the codec and the ledger.
fn layers(each: Duration) {
    println!("one entry of so many leases: nanoseconds a lease");
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>12}",
        "leases", "encode", "decode", "apply", "bytes/lease"
    );
    for count in [1, 64, 1024] {
        let leases = |from: u64| -> Vec<Command> {
            let lease = |n| Command::Lease {
                session: Session(1),
                ask: ask(n),
            };
            (from..from + count).map(lease).collect()
        };
        let sample = batch(leases(0));
        let bytes = cluster::codec::encode_batch(&sample).expect("it fits an entry");
        let a_lease = |work: &mut dyn FnMut() -> Duration| {
            let (mut rounds, mut spent, began) = (0_u64, Duration::ZERO, Instant::now());
            while began.elapsed() < each {
                spent += work();
                rounds += 1;
            }
            spent.as_nanos() as f64 / (rounds * count) as f64
        };
        let encode = a_lease(&mut || timed(|| cluster::codec::encode_batch(black_box(&sample))));
        let decode = a_lease(&mut || timed(|| cluster::codec::decode_batch(black_box(&bytes))));
        let (mut machine, mut from) = (state::machine(), 0);
        let apply = a_lease(&mut || {
            let entry = batch(leases(from));
            from += count;
            // The bound on counters is far, and it is begun anew before.
            if from > 1_000_000 {
                (machine, from) = (state::machine(), 0);
            }
            let index = machine.index() + 1;
            timed(|| machine.apply(index, black_box(&entry)))
        });
        println!(
            "{count:>10} {encode:>10.0} {decode:>10.0} {apply:>10.0} {:>12.1}",
            bytes.len() as f64 / count as f64
        );
    }
}

/// How long this takes, without the dropping of what comes out.
fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    let out = black_box(work());
    let taken = began.elapsed();
    drop(out);
    taken
}

/// Bounds as they are shipped.
fn bounds() -> Bounds {
    Bounds::default()
}

/// The node that everything is asked by.
const ASKER: NodeId = NodeId(1);
