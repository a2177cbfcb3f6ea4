//! The strict reader beside other libraries, over bodies of every shape and size, in one run.
//!
//! They do not do the same: ours refuses every wrong body, and what each of the others accepts is printed first.

mod pieces;
mod readers;
mod table;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use proto::scan::{Body, Bounds, From, Value, jsonrpc::read};
use readers::READERS;
use std::{hint::black_box, time::Duration};
use tollgate_benches::{
    bodies::{alike, bounds, names, sample},
    wrong::wrong,
};

/// Not the seed of `benches/instructions`.
const SEED: u64 = 0x7011;

/// What each reader takes for a message though it is wrong; ours must take none.
fn accepted(_: &mut Criterion) {
    for (name, reads) in READERS {
        let wrong = wrong();
        let accepted: Vec<&str> = wrong
            .iter()
            .filter(|(_, body)| reads(body, From::Client, &Bounds::default()))
            .map(|(what, _)| *what)
            .collect();
        println!(
            "{name} accepts {} of {} wrong bodies: {}",
            accepted.len(),
            wrong.len(),
            accepted.join(", ")
        );
        assert!(*name != "tollgate" || accepted.is_empty());
    }
}

fn side_by_side(_: &mut Criterion) {
    table::print();
    pieces::print();
}

fn bodies(c: &mut Criterion) {
    for (shape, size) in names() {
        let Some(sample) = sample(SEED, shape, size) else {
            unreachable!("invariant: the names are those of samples");
        };
        let mut group = c.benchmark_group(format!("scan/{shape}"));
        group.throughput(Throughput::Bytes(sample.bytes.len() as u64));
        group.sampling_mode(SamplingMode::Flat);
        for (name, reads) in READERS {
            assert!(
                reads(&sample.bytes, sample.from, &bounds()),
                "{name} refuses {shape} {size}"
            );
            group.bench_with_input(BenchmarkId::new(*name, size), &sample.bytes, |b, body| {
                b.iter(|| reads(black_box(body), sample.from, &bounds()));
            });
        }
        group.finish();
    }
}

/// What looks like one key to a hash of its ends must cost no more than what does not.
fn alike_keys(c: &mut Criterion) {
    let (alike, unlike) = alike(1_024);
    let mut group = c.benchmark_group("scan/1,024 keys");
    for (what, body) in [("equal ends", alike), ("nothing equal", unlike)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(what, |b| {
            b.iter(|| read(black_box(&body), &Bounds::default(), From::Client).is_ok());
        });
    }
    group.finish();
}

fn one_argument(c: &mut Criterion) {
    let Some(sample) = sample(SEED, "ordinary", "1 KB") else {
        unreachable!("invariant: there is such a sample");
    };
    let Ok(Body::One(message)) = read(&sample.bytes, &Bounds::default(), From::Client) else {
        unreachable!("invariant: the bench's bodies are well-formed");
    };
    let arguments = message.arguments.unwrap_or_default();
    c.bench_function("scan/last argument by path", |b| {
        b.iter(|| {
            Value::new(black_box(arguments))
                .get("end")
                .and_then(|v| v.as_number())
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    targets = accepted, side_by_side, bodies, alike_keys, one_argument
}
criterion_main!(benches);
