//! In quiet runs a limit is not only never passed: it is reached, exactly.

use super::{
    drive::{next_window, while_calling},
    judge::{Judged, judge},
    *,
};
use std::{collections::BTreeMap, time::Duration};

const WINDOW_MS: u64 = 10_000;
/// Windows that must be exact, and how many are tried.
const WINDOWS: usize = 5;
const WINDOWS_MOST: usize = 12;

#[test]
fn three_voters_and_two_clients_admit_exactly_max_in_every_window() {
    if skipped() {
        return;
    }
    let net = Net::new(5);
    let upstream = record(&net);
    let limits = [1u64, 7, 30, 1000];
    let sets: Vec<_> = limits
        .iter()
        .map(|max| (*max, grants(&format!("of-{max}-"), 1)))
        .collect();
    let told = Told {
        upstream: upstream.url(),
        policies: limits
            .iter()
            .map(|max| (format!("p{max}"), limited(*max, "10s")))
            .collect(),
        grants: sets
            .iter()
            .flat_map(|(max, set)| {
                set.iter()
                    .map(move |(id, token)| (id.clone(), token.clone(), format!("p{max}")))
            })
            .collect(),
    };
    let fleet = Fleet::form(&net, &told, 3, 2);
    let nodes = fleet.addresses();
    let names: Vec<String> = limits.iter().map(|max| format!("x{max}")).collect();
    let plans: Vec<Plan<'_>> = sets
        .iter()
        .zip(&names)
        .map(|((max, set), name)| Plan {
            name,
            nodes: &nodes,
            grants: set,
            callers: if *max >= 1000 { 8 } else { 4 },
            // About 2,000 calls a window for the limit of 30, 10,000 in five.
            pause: Duration::from_millis(match max {
                1000 => 4,
                30 => 20,
                _ => 100,
            }),
            tool: "echo",
            amount: 1,
        })
        .collect();
    let tallies: Vec<Tally> = plans.iter().map(|_| Tally::default()).collect();
    next_window(WINDOW_MS);
    let pairs: Vec<_> = plans.iter().zip(&tallies).collect();
    // A busy machine may call too seldom in a window: then that window says nothing, and another one must.
    let pressed = |max: u64, tally: &Tally| tally.pressed(WINDOW_MS, 2 * max);
    while_calling(&net, &pairs, || {
        for _ in 0..WINDOWS_MOST {
            next_window(WINDOW_MS);
            let count = |(max, tally): (&u64, &Tally)| pressed(*max, tally).len() > WINDOWS;
            if limits.iter().zip(&tallies).all(count) {
                break;
            }
        }
    });
    let (_dir, audits) = fleet.end();
    for ((max, set), tally) in sets.iter().zip(&tallies) {
        let judged = Judged {
            grants: &set[0].0,
            window_ms: WINDOW_MS,
            max: *max,
        };
        let found = judge(upstream.recorder(), &audits, &judged);
        assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
        let windows: BTreeMap<u64, u64> = found
            .charged
            .iter()
            .map(|((_, window), charged)| (*window, *charged))
            .collect();
        println!("max {max}: {windows:?}; {}", tally.text());
        for window in pressed(*max, tally) {
            assert_eq!(
                windows.get(&window),
                Some(max),
                "max {max}, window {window} of {windows:?}; {}",
                tally.text()
            );
        }
        let exact = windows.values().filter(|charged| *charged == max).count();
        assert!(
            exact >= WINDOWS,
            "max {max}: this machine is too slow to press it: {windows:?}; {}",
            tally.text()
        );
    }
}
