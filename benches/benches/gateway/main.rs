//! The gateway in process: what a decision costs, and what a whole request costs on one kept connection.
//!
//! `decide` is token → grant → scan → policy → buckets, for a connection that the gateway remembers (no hash) and for a
//! new one, by tools in the policy, grants and servers. `request` is one call after the other over loopback; the times of the same client on
//! the upstream alone are beside it. A decision that outruns its lease is made again; the median knows nothing of those.

mod inside;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use inside::{Decider, Ends, Gateway, SMALL, Size};
use std::hint::black_box;

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for (name, size) in [
        ("small", SMALL),
        (
            "10,000 tools",
            Size {
                tools: 10_000,
                ..SMALL
            },
        ),
        (
            "100,000 grants",
            Size {
                grants: 100_000,
                ..SMALL
            },
        ),
        (
            "1,000 servers",
            Size {
                servers: 1_000,
                ..SMALL
            },
        ),
    ] {
        let decider = Decider::new(size);
        assert!(
            !decider.decides_token(b"another"),
            "a wrong token is refused"
        );
        group.bench_function(BenchmarkId::new("remembered", name), |b| {
            b.iter(|| while !black_box(&decider).decides_known() {})
        });
        group.bench_function(BenchmarkId::new("new_connection", name), |b| {
            b.iter(|| while !black_box(&decider).decides_token(black_box(inside::TOKEN)) {})
        });
    }
    group.finish();
}

fn request(c: &mut Criterion) {
    let gateway = Gateway::start();
    let mut group = c.benchmark_group("request");
    for (name, address) in [
        ("upstream_alone", gateway.upstream),
        ("gateway", gateway.address),
    ] {
        let mut ends = Ends::connect(address);
        ends.call();
        group.bench_function(name, |b| b.iter(|| ends.call()));
    }
    group.finish();
}

criterion_group!(benches, decide, request);
criterion_main!(benches);
