//! The two halves of the lease protocol, joined by a wire that loses, repeats, delays and reorders.
//!
//! One seed is one history. After every event: *charged ≤ max*, *spent + returned + bucket ≤ granted*, *nothing is spent
//! after its window's end*. Then the wire heals, and calls of amount 1 must be admitted while charged < max, until 500 ms
//! before the window's end. A failure names its seed: `PAIR_SEED=0x2a cargo test -p tollgate-proto --test it pair`
//! replays it alone.

mod book;
mod chance;
mod node;
mod wire;
mod world;

use world::{Outcome, World};

/// Histories of one test.
const SEEDS: u64 = 2_000;

#[cfg(feature = "faults")]
type Faults = proto::faults::Faults;
/// There are none in this build.
#[cfg(not(feature = "faults"))]
#[derive(Clone, Copy, Debug, Default)]
struct Faults(());

fn history(seed: u64, faults: Faults) -> Result<Outcome, String> {
    World::new(seed, faults)
        .run()
        .map_err(|broken| format!("seed={seed:#x}: {broken}"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "one history is replayed by its seed"
)]
fn chosen() -> Option<u64> {
    let text = std::env::var("PAIR_SEED").ok()?;
    let hex = text.strip_prefix("0x").unwrap_or(&text);
    Some(u64::from_str_radix(hex, 16).expect("PAIR_SEED is a hexadecimal number"))
}

#[test]
#[allow(clippy::disallowed_methods, reason = "two threads share the seeds")]
fn limits_hold_in_every_history_and_nothing_that_is_left_is_refused_once_it_heals() {
    if let Some(seed) = chosen() {
        let outcome = history(seed, Faults::default()).unwrap_or_else(|broken| panic!("{broken}"));
        println!("seed={seed:#x}: {outcome:?}");
        return;
    }
    let halves = std::thread::scope(|threads| {
        [0, 1]
            .map(|half| {
                threads.spawn(move || {
                    (0..SEEDS)
                        .filter(|seed| seed % 2 == half)
                        .map(|seed| history(seed, Faults::default()))
                        .collect::<Result<Vec<_>, _>>()
                })
            })
            .map(|half| half.join().expect("the thread ends"))
    });
    let mut sum = Outcome::default();
    for half in halves {
        for outcome in half.unwrap_or_else(|broken| panic!("{broken}")) {
            sum += outcome;
        }
    }
    println!("{SEEDS} seeds: {sum:?}");
    // The histories are worth something: much of everything happened in them.
    for (what, times) in sum.counts() {
        assert!(times > SEEDS / 10, "only {times} {what}");
    }
}

#[cfg(feature = "faults")]
#[test]
fn every_planted_fault_of_a_holder_is_caught_by_the_invariant_that_it_breaks() {
    use proto::faults::Fault;
    for (fault, invariant) in [
        (Fault::ReturnWithoutTaking, book::NOTHING_TWICE),
        (Fault::PutBackAfterSend, book::NOTHING_TWICE),
        (Fault::RefundAcrossWindows, book::NOTHING_TWICE),
        (Fault::SpentPastWindow, book::IN_TIME),
    ] {
        let caught = (0..SEEDS).find_map(|seed| history(seed, fault.into()).err());
        let broken = caught.unwrap_or_else(|| panic!("{fault:?} was not caught"));
        println!("{fault:?}: {broken}");
        assert!(broken.contains(invariant), "{fault:?}: {broken}");
    }
}
