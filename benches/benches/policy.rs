//! Judging a call: exact names, globs, conditions and limits, with 10 to 10,000 tools and 1 to 50 conditions.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use proto::policy::{Verdict, compile::Call};
use simd_json::prelude::*;
use std::hint::black_box;
use tollgate_benches::policies::{
    PATHS, Unused, arguments, call, of_conditions, of_paths, of_tools,
};

/// The verdict must not cost more as the policy grows.
fn tools(c: &mut Criterion) {
    for (what, tool, admitted) in [
        ("one limit", "free_1", true),
        ("two limits", "rate_1", true),
        ("conditions and limits", "full_1", true),
        ("glob", "glob_0_x", true),
        ("default deny", "unknown", false),
    ] {
        let mut group = c.benchmark_group(format!("policy/{what}"));
        for tools in [10, 100, 1_000, 10_000] {
            let policy = of_tools(tools);
            let call = call(tool);
            let verdict = policy.evaluate(&call, &Unused);
            assert_eq!(matches!(verdict, Verdict::Admit { .. }), admitted, "{tool}");
            group.bench_function(BenchmarkId::new("tools", tools), |b| {
                b.iter(|| black_box(policy.evaluate(black_box(&call), &Unused)))
            });
        }
        group.finish();
    }
}

fn conditions(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy/conditions");
    for conditions in [1, 5, 20, 50] {
        let policy = of_conditions(conditions);
        let call = call("conditional");
        let verdict = policy.evaluate(&call, &Unused);
        assert!(matches!(verdict, Verdict::Admit { .. }), "{conditions}");
        group.bench_function(BenchmarkId::from_parameter(conditions), |b| {
            b.iter(|| black_box(policy.evaluate(black_box(&call), &Unused)))
        });
    }
    group.finish();
}

/// Values by path over the validated bytes, beside a whole document by simd-json whose values are then looked up: which of
/// them should serve policies that look at many. Ours charges its limit besides; simd-json needs bytes that it may change.
fn paths(c: &mut Criterion) {
    for text_bytes in [15, 4_096, 65_536] {
        let arguments = arguments(text_bytes);
        let mut group = c.benchmark_group(format!("policy/paths in {} bytes", arguments.len()));
        for paths in [1, 5, 20, 50] {
            let policy = of_paths(paths);
            let call = Call {
                arguments: Some(&arguments),
                ..call("reading")
            };
            let verdict = policy.evaluate(&call, &Unused);
            assert!(matches!(verdict, Verdict::Admit { .. }), "{paths}");
            group.bench_function(BenchmarkId::new("tollgate", paths), |b| {
                b.iter(|| black_box(policy.evaluate(black_box(&call), &Unused)))
            });
            let mut buffers = simd_json::Buffers::default();
            group.bench_function(BenchmarkId::new("simd-json", paths), |b| {
                b.iter(|| assert!(finds(black_box(&arguments), paths, &mut buffers)))
            });
        }
        group.finish();
    }
}

/// Whether simd-json finds so many values.
fn finds(arguments: &[u8], paths: usize, buffers: &mut simd_json::Buffers) -> bool {
    let mut copy = arguments.to_vec();
    let Ok(document) = simd_json::to_borrowed_value_with_buffers(&mut copy, buffers) else {
        return false;
    };
    PATHS.iter().cycle().take(paths).all(|path| {
        let found = path
            .split('.')
            .try_fold(&document, |value, key| match key.parse::<usize>() {
                Ok(index) => value.get_idx(index),
                Err(_) => value.get(key),
            });
        found.is_some()
    })
}

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy/load and compile");
    group.sample_size(10);
    for tools in [10, 1_000] {
        group.bench_function(BenchmarkId::new("tools", tools), |b| {
            b.iter(|| black_box(of_tools(tools)))
        });
    }
    group.finish();
}

criterion_group!(benches, tools, conditions, paths, load);
criterion_main!(benches);
