//! The gateway in process: what a decision costs, and what a whole request costs on one kept connection.
//!
//! `decide` is token → grant → scan → policy → buckets, for a connection that the gateway remembers (no hash) and for a
//! new one, by tools in the policy. `request` is one call after the other over loopback; the times of the same client on
//! the upstream alone are beside it. A decision that outruns its lease is made again; the median knows nothing of those.

mod inside;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use inside::{Decider, Ends, Gateway};
use std::hint::black_box;

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for tools in [10, 10_000] {
        let decider = Decider::new(tools);
        assert!(
            !decider.decides_token(b"another"),
            "a wrong token is refused"
        );
        group.bench_function(BenchmarkId::new("remembered", tools), |b| {
            b.iter(|| while !black_box(&decider).decides_known() {})
        });
        group.bench_function(BenchmarkId::new("new_connection", tools), |b| {
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
