//! The reported latencies against a histogram that the upstream keeps by its own clock.

use crate::{
    client::start,
    load::{count, measured},
};
use loadtest::{
    histogram::Histogram,
    result::{Class, Round},
    upstream::{Chance, Delay, Options},
};
use std::time::Duration;

/// A machine that has other things to do only adds to what the client sees: an error of the client's own is in every try.
const TRIES: u32 = 6;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// An open loop against a server whose calls take this long; what the client reports, and the server's own histogram.
fn both(delay: Delay) -> (Round, Histogram) {
    let server = start(Options {
        record_details: false,
        chance: Chance {
            delay,
            ..Chance::default()
        },
        ..Options::default()
    });
    let round = measured(
        &server,
        &[
            "--rate",
            "500",
            "--duration",
            "2s",
            "--connections",
            "1000",
            "--threads",
            "1",
        ],
    );
    assert_eq!((round.due, round.unsent), (1000, 0));
    assert_eq!(count(&round, Class::Ok), 1000, "{:?}", round.samples);
    let server = server.recorder().latency();
    assert_eq!(server.count, 1000);
    (round, server)
}

/// The client's latency is the upstream's, the client's own error, and the way there and back with its queues, for which
/// the same load on a server that answers at once stands.
#[test]
fn the_reported_p99_of_an_open_loop_is_the_upstreams() {
    let long_tail = Delay::LogNormal(Duration::from_millis(10), Duration::from_millis(60));
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (plain, _) = both(Delay::None);
        let way = plain.latency.quantile(0.99);
        let (round, upstream) = both(long_tail);
        let stated = round.error_ns.unwrap();
        let mut agrees = true;
        for quantile in QUANTILES {
            let (client, server) = (
                round.latency.quantile(quantile),
                upstream.quantile(quantile),
            );
            // Every call was due before the upstream had it, and complete after: buckets round to 0.1 %.
            assert!(
                client + server / 500 >= server,
                "p{quantile}: {client} ns is less than the upstream took, {server} ns"
            );
            agrees &= client.saturating_sub(server) <= stated + way;
            seen.push(format!(
                "p{quantile}: client {client}, upstream {server}, stated {stated}, way {way}"
            ));
        }
        if agrees {
            return;
        }
    }
    panic!("never within the stated error and the way: {seen:#?}");
}
