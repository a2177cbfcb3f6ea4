//! Judging a call: exact names, globs, conditions and limits, with 10 to 10,000 tools and 1 to 50 conditions.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use proto::policy::Verdict;
use std::hint::black_box;
use tollgate_benches::policies::{Unused, call, of_conditions, of_tools};

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

criterion_group!(benches, tools, conditions, load);
criterion_main!(benches);
