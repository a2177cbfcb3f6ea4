//! The strict reader beside serde_json's `Value`, over one `tools/call` of several sizes.
//!
//! The two do not do the same: ours refuses duplicate keys, bounds everything and keeps spans; serde_json builds a tree.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::scan::{Body, Bounds, From, Value, jsonrpc::read};
use std::hint::black_box;

/// A call of about this many bytes; `dense` has many short strings, numbers and keys, else it is one long string.
fn call(bytes: usize, dense: bool) -> Vec<u8> {
    let head = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"generate_image","arguments":{"amount":5,"data":"#;
    let tail = r#"}}}"#;
    let room = bytes.saturating_sub(head.len() + tail.len() + 2);
    let data = if dense {
        // No more rows than the bound on keys allows: beyond, the labels grow.
        let rows = (room / 56).clamp(1, 3_000);
        let label = "image".repeat((room / rows).saturating_sub(51) / 5 + 1);
        let row = format!(r#"{{"id":12345,"label":"{label}","tags":["a","b"],"ok":true}},"#);
        let rows = row.repeat(rows);
        format!("[{}]", rows.trim_end_matches(','))
    } else {
        format!(
            "\"{}\"",
            "a photograph of a lighthouse, ".repeat(room / 30 + 1)
        )
    };
    format!("{head}{data}{tail}").into_bytes()
}

fn whole_bodies(c: &mut Criterion) {
    let bounds = Bounds::default();
    for (shape, dense) in [("one string", false), ("many keys", true)] {
        let mut group = c.benchmark_group(format!("scan/{shape}"));
        for (size, bytes) in [
            ("200 B", 200),
            ("1 KB", 1 << 10),
            ("16 KB", 16 << 10),
            ("1 MB", 1 << 20),
        ] {
            let body = call(bytes, dense);
            assert!(read(&body, &bounds, From::Client).is_ok());
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new("read", size), &body, |b, body| {
                b.iter(|| read(black_box(body), &bounds, From::Client).is_ok());
            });
            group.bench_with_input(BenchmarkId::new("serde_json", size), &body, |b, body| {
                b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(body)).is_ok());
            });
        }
        group.finish();
    }
}

fn one_argument(c: &mut Criterion) {
    let body = call(1 << 10, false);
    let Ok(Body::One(message)) = read(&body, &Bounds::default(), From::Client) else {
        unreachable!("invariant: the call above is well-formed");
    };
    let arguments = message.arguments.unwrap_or_default();
    c.bench_function("scan/argument by path", |b| {
        b.iter(|| {
            Value::new(black_box(arguments))
                .get("amount")
                .and_then(|v| v.as_number())
        });
    });
}

criterion_group!(benches, whole_bodies, one_argument);
criterion_main!(benches);
