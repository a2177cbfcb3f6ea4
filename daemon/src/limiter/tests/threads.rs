//! Many threads, one limit.

use super::*;
use std::sync::atomic::AtomicU64;

#[test]
fn eight_threads_are_admitted_exactly_max_calls_in_every_window() {
    const MAX: u64 = 5_000;
    let limit = Arc::new(plain(1, MAX));
    let shared = Arc::new(plain(2, 3 * MAX));
    let limiter = run(node(&[&limit, &shared]));
    let windows: [AtomicU64; 3] = Default::default();
    // A thread that is late with its clock is charged to the window that runs by then: the line says which.
    let book = |tickets: Tickets, outcome, now| {
        for line in tickets.settle(outcome, || now) {
            if line.identity == 1 && line.settled != Settled::Refunded {
                let window = line.window - MINUTE.id(START.unix_ms);
                windows[window as usize].fetch_add(line.amount, Ordering::AcqRel);
            }
        }
    };
    std::thread::scope(|threads| {
        for thread in 0..8u64 {
            let (limiter, limit, shared, book) = (&limiter, &limit, &shared, &book);
            threads.spawn(move || {
                run(async {
                    for window in 0..3 {
                        let now = later(60_000 * window + 30_000);
                        for call in 0u64.. {
                            let amount = 1 + (call + thread) % 3;
                            let charges = [charge(limit, amount), charge(shared, 1)];
                            match limiter.reserve(&charges, now).await {
                                Ok(tickets) if call % 5 == 0 => book(tickets, Outcome::Unsent, now),
                                Ok(tickets) => book(tickets, Outcome::Acted, now),
                                // Eight threads on a small machine: the wait may be too short.
                                Err(no) if no.code == Code::Unreachable => {}
                                Err(no) => {
                                    assert_eq!((no.index, no.code), (0, Code::Limit));
                                    // Others may still give back: only a call of 1 that finds nothing is the end.
                                    match limiter.reserve(&[charge(limit, 1)], now).await {
                                        Ok(tickets) => book(tickets, Outcome::Acted, now),
                                        Err(no) if no.code == Code::Unreachable => {}
                                        Err(_) => break,
                                    }
                                }
                            }
                        }
                    }
                    limiter.settled().await;
                });
            });
        }
    });
    for (window, admitted) in windows.iter().enumerate() {
        let now = later(60_000 * window as u64 + 30_000);
        let mut admitted = admitted.load(Ordering::Acquire);
        assert!(admitted <= MAX, "window {window}: {admitted}");
        if window == 2 {
            // What was given back after the last thread had stopped.
            admitted += run(self::admitted(&limiter, charge(&limit, 1), now)).0;
            assert_eq!(admitted, MAX);
        }
    }
}
