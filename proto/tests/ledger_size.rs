//! What a counter costs in the ledger: at most 150 bytes a key and holder, at a million of them (performance.md).

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement reads the process's size and the clock"
)]

use proto::{
    command::NodeId,
    limit::{
        CounterKey, Identity, Window,
        lease::Ask,
        ledger::{Bounds, Definition, Ledger, Session},
    },
};
use std::time::Instant;

/// A quarter where the code is not optimised; the tables are as full.
const COUNTERS: u128 = if cfg!(debug_assertions) {
    250_000
} else {
    1_000_000
};
/// A counter and its first holder.
const FIRST_BYTES_MAX: u64 = 150;
/// Each further holder of a counter.
const FURTHER_BYTES_MAX: u64 = 150;

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// Spread as hashes are.
fn key(n: u128) -> CounterKey {
    CounterKey((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn ask(n: u128) -> Ask {
    Ask {
        identity: Identity(1),
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

fn lease_all(ledger: &mut Ledger, session: Session) {
    for n in 0..COUNTERS {
        ledger.lease(session, &ask(n)).unwrap();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_million_counters_take_at_most_150_bytes_a_key_and_holder() {
    let mut ledger = Ledger::new(Bounds::default());
    ledger.advance(1_785_000_000_000);
    let sessions: Vec<Session> = [1, 2]
        .into_iter()
        .map(|node| {
            let session = ledger.hello(NodeId(node), 1, 0, 1).unwrap();
            let definition = Definition {
                identity: Identity(1),
                window: Window::Month,
                max: 1_000,
            };
            ledger.define(session, 1, &[definition], true).unwrap();
            session
        })
        .collect();

    let empty = resident();
    let start = Instant::now();
    lease_all(&mut ledger, sessions[0]);
    let (first, took) = ((resident() - empty) / COUNTERS as u64, start.elapsed());
    println!("first holder: {first} bytes a counter, {took:?} for {COUNTERS} leases");
    assert!(first <= FIRST_BYTES_MAX, "{first} bytes a counter");

    let start = Instant::now();
    let frozen = ledger.freeze();
    println!("freeze: {:?}", start.elapsed());
    let start = Instant::now();
    println!("hash {:#x}: {:?}", ledger.hash(), start.elapsed());
    let start = Instant::now();
    let records = frozen.records().count();
    println!("{records} records: {:?}", start.elapsed());
    assert_eq!(records as u128, COUNTERS + 4);
    drop(frozen);

    let before = resident();
    let start = Instant::now();
    lease_all(&mut ledger, sessions[1]);
    let (further, took) = ((resident() - before) / COUNTERS as u64, start.elapsed());
    println!("second holder: {further} bytes more a counter, {took:?} for {COUNTERS} leases");
    assert!(further <= FURTHER_BYTES_MAX, "{further} bytes more");
}
