//! Judging a call: exact names, globs, conditions, limits, with 10 and 1,000 tools.

use criterion::{Criterion, criterion_group, criterion_main};
use proto::{
    limit::{CounterKey, HashKey, Limit},
    policy::{
        self, Policy, Verdict,
        compile::{Call, Site, Usage},
    },
};
use std::{fmt::Write, hint::black_box};

struct Unused;

impl Usage for Unused {
    fn used(&self, _: &Limit, _: CounterKey, _: u64) -> u64 {
        0
    }
    fn refused(&self, _: &Limit, _: CounterKey, _: u64, _: u64) -> Option<Option<u64>> {
        None
    }
}

const ARGUMENTS: &[u8] =
    br#"{"customer":"c-1","note":"a cat on a mat","currency":"eur","amount":125.5,"items":[{"price":1},{"price":2}]}"#;

fn compile(tools: usize) -> Policy {
    let mut text = String::from(
        "version: '1'\ndefault: deny\nall_tools: {limits: [{counter: calls, window: minute, max: 600}]}\ntools:\n",
    );
    for n in 0..tools {
        let _ = writeln!(text, "  free_{n}: {{}}");
        let _ = writeln!(
            text,
            "  rate_{n}: {{limits: [{{counter: c, window: minute, max: 30}}]}}"
        );
        let _ = writeln!(
            text,
            "  full_{n}: {{require: [{{conditions: [{{path: args.currency, op: in, value: [usd, eur]}}]}}], \
             deny_if: [{{conditions: [{{path: args.amount, op: gt, value: 50000}}]}}], \
             limits: [{{counter: c, window: day, max: 1000000, increment_from: args.amount}}]}}"
        );
    }
    for n in 0..tools / 10 {
        let _ = writeln!(text, "  glob_{n}_*: {{}}");
    }
    let loaded = policy::load(&text).expect("the benchmark's policy loads");
    let site = Site {
        server: "server",
        policy: "policy",
        secret: &HashKey([7; 16]),
        sessions_per_grant: 8,
    };
    policy::compile(&loaded.policy, site).expect("the benchmark's policy compiles")
}

fn evaluate(c: &mut Criterion) {
    for tools in [10, 1_000] {
        let policy = compile(tools);
        let mut group = c.benchmark_group(format!("evaluate/{tools}_tools"));
        for (name, tool, admitted) in [
            ("one_limit", "free_7", true),
            ("two_limits", "rate_7", true),
            ("conditions_and_limits", "full_7", true),
            ("glob", "glob_0_x", true),
            ("default_deny", "unknown", false),
        ] {
            let call = Call {
                tool,
                arguments: Some(ARGUMENTS),
                grant: "agent-a",
                session: Some("0123456789abcdef"),
                unix_ms: 1_785_230_400_125,
            };
            let verdict = policy.evaluate(&call, &Unused);
            assert_eq!(matches!(verdict, Verdict::Admit { .. }), admitted, "{name}");
            group.bench_function(name, |b| {
                b.iter(|| black_box(policy.evaluate(black_box(&call), &Unused)))
            });
        }
        group.finish();
    }
}

fn load(c: &mut Criterion) {
    c.bench_function("load_and_compile/10_tools", |b| {
        b.iter(|| black_box(compile(10)))
    });
}

criterion_group!(benches, evaluate, load);
criterion_main!(benches);
