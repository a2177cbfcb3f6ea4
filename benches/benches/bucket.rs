//! What one decision costs: a take and its refund, a refusal, alone and with a second thread on the same counter.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto::{
    limit::bucket::{Bucket, NARROW_MAX, Span},
    time::Now,
};
use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
};

const NOW: Now = Now {
    unix_ms: 0,
    boot_ns: 0,
};

fn filled(amount: u64) -> Bucket {
    let bucket = Bucket::default();
    let span = Span {
        window: 1,
        end_ns: u64::MAX,
        deadline_ns: u64::MAX,
    };
    bucket.install(span, amount);
    bucket
}

/// Runs `measure` while another thread takes and refunds on the same bucket.
fn with_rival(bucket: &Bucket, measure: impl FnOnce()) {
    let running = AtomicBool::new(true);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while running.load(Ordering::Relaxed) {
                if let Some(ticket) = bucket.try_take(1, NOW) {
                    bucket.refund(ticket, NOW);
                }
            }
        });
        measure();
        running.store(false, Ordering::Relaxed);
    });
}

fn bucket(c: &mut Criterion) {
    let mut group = c.benchmark_group("bucket");
    group.throughput(Throughput::Elements(1));
    let plenty = filled(NARROW_MAX);
    group.bench_function("take", |b| {
        b.iter(|| {
            // Refilled seldom enough not to be measured.
            if plenty.try_take(black_box(1), NOW).is_none() {
                plenty.top_up(NARROW_MAX);
            }
        });
    });
    let take_and_refund = |bucket: &Bucket| {
        if let Some(ticket) = bucket.try_take(black_box(1), NOW) {
            black_box(bucket.refund(ticket, NOW));
        }
    };
    group.bench_function("take and refund", |b| b.iter(|| take_and_refund(&plenty)));
    group.bench_function("take and refund, 2 threads", |b| {
        with_rival(&plenty, || b.iter(|| take_and_refund(&plenty)));
    });
    let exhausted = filled(0);
    group.bench_function("exhausted", |b| {
        b.iter(|| black_box(exhausted.try_take(black_box(1), NOW)));
    });
    let wide = filled(NARROW_MAX * 4);
    group.bench_function("take and refund beyond 40 bits", |b| {
        b.iter(|| {
            if let Some(ticket) = wide.try_take(black_box(NARROW_MAX + 1), NOW) {
                black_box(wide.refund(ticket, NOW));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, bucket);
criterion_main!(benches);
