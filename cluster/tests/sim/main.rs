//! A whole cluster in one thread from one seed: the real cores of voters, clients, holders and buckets; the network, the
//! disks, the clocks and the callers are simulated. After every event the invariants are looked at (`check.rs`, `books.rs`
//! for quota); then everything is healed, and service is demanded (`workload.rs`).
//!
//! ```text
//! cargo test -p tollgate-cluster --profile sim --features faults --test sim   10,000 seeds, and every planted fault
//! TOLLGATE_SIM_SEED=0x51f3 cargo test … --test sim replay                     one, again
//! TOLLGATE_SIM_SEEDS=200000 TOLLGATE_SIM_FIRST=1000000 cargo test … promise   many, in a long run
//! TOLLGATE_SIM_SECONDS=3600 …                                                 as many as there is time for
//! ```
//! `TOLLGATE_SIM_TRACE=1` shows what happens in a replay, `-- --nocapture` what a run came to.

mod books;
mod calls;
mod check;
mod clock;
mod deeds;
mod disk;
mod event;
mod faults;
mod found;
mod gateway;
mod net;
mod plan;
mod scenes;
mod seeds;
mod shrink;
mod voter;
mod workload;
mod world;

use seeds::{Outcome, run};

/// Seeds of a usual run, where the environment names no number.
const SEEDS: u64 = 10_000;
/// A run of so many seeds has seen everything that can happen.
const SEEDS_ALL: u64 = 5_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    let first = number("TOLLGATE_SIM_FIRST").unwrap_or(1);
    let count = number("TOLLGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let seconds = number("TOLLGATE_SIM_SECONDS");
    let total = seeds::many(first, count, seconds);
    println!("{total}");
    assert!(total.failures.is_empty(), "{}", total.failures.join("\n"));
    if total.seeds >= SEEDS_ALL {
        let missing = total.figures.counts.missing();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn replay() {
    let Some(seed) = number("TOLLGATE_SIM_SEED") else {
        return println!("set TOLLGATE_SIM_SEED to run a seed again");
    };
    let trace = number("TOLLGATE_SIM_TRACE").is_some();
    let outcome = run(seed, trace);
    println!("{:?}", outcome.figures);
    assert!(
        outcome.failure.is_none(),
        "{}",
        outcome.failure.unwrap_or_default()
    );
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in [3, 4, 5] {
        let (one, other): (Outcome, Outcome) = (run(seed, false), run(seed, false));
        assert_eq!(one, other, "seed={seed:#x}");
    }
}
