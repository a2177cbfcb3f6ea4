//! What counters cost: `cargo test --release -p tollgate-daemon --lib -- --ignored --nocapture million`

use super::*;

/// Counters of one grant and one limit that is split by a key.
const COUNTERS: u64 = 1_000_000;
/// Made at a time; then time passes and they are put to rest.
const BATCH: u64 = 5_000;
const BYTES_MAX: u64 = 120;

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[test]
#[ignore = "takes a minute; the figure is in docs/src/limits.md"]
fn a_million_counters_fit_into_120_mb() {
    run(async {
        println!(
            "counter {} + bucket and holder {} bytes",
            size_of::<counter::Counter>(),
            size_of::<rate::Rate>()
        );
        let week = Window::Week;
        let limit = Arc::new(Limit {
            kind: Kind::Rate(week),
            ..plain(1, 1_000)
        });
        let node = node_of(COUNTERS as usize, &[&limit]).await;
        node.memory().set_mood(Mood::Grants(week));
        let before = resident();
        let mut ms = 0;
        for first in (0..COUNTERS).step_by(BATCH as usize) {
            for key in first..first + BATCH {
                let key = u128::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                let charge = Charge {
                    key: CounterKey(key),
                    key_text: Some(format!("s:customer-{}", key as u32)),
                    ..charge(&limit, 1)
                };
                // On a busy machine the wait may be too short.
                while admit(&node, charge.clone(), later(ms)).await.is_err() {}
            }
            if first == 0 {
                let each = (resident() - before) / BATCH;
                println!("{each} bytes an active counter");
            }
            while !node.core.counters.is_empty() {
                ms += 600;
                node.at(later(ms));
                node.core.turn(later(ms));
                node.settled().await;
            }
            node.limiter.sweep(later(ms));
        }
        assert_eq!(node.len() as u64, COUNTERS);
        assert_eq!(node.core.parked.len() as u64, COUNTERS);
        let each = (resident() - before) / COUNTERS;
        println!("{each} bytes a counter at rest");
        assert!(each <= BYTES_MAX, "{each}");
        // They are still exact.
        let key = CounterKey(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        assert_eq!(node.usage().used(&limit, key, later(ms).unix_ms), 1);
    });
}
