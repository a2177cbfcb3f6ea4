//! A histogram of fixed size: recording is two atomic additions and no clock, whatever is or is not scraping.
//! (The exporter's own keeps every sample until the next scrape.)

use metrics_exporter_prometheus::formatting::sanitize_label_value;
use std::{
    cell::Cell,
    fmt::Write as _,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Most bounds of one histogram.
const BOUNDS_MAX: usize = 25;
/// Copies that threads spread over, so that runtimes on different cores seldom meet on a cache line.
const SHARDS: usize = 8;

/// Upper bounds for a stage, nanoseconds: 1 µs to 300 s.
pub(super) const STAGE_BOUNDS_NS: &[u64] = &[
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
];
/// Upper bounds for a whole request, nanoseconds: 500 µs to 300 s.
pub(super) const REQUEST_BOUNDS_NS: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
];

/// Counts by size.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds_ns: &'static [u64],
    shards: Box<[Shard; SHARDS]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum_ns: AtomicU64,
}

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static SHARD: Cell<usize> = Cell::new(NEXT_SHARD.fetch_add(1, Relaxed) % SHARDS);
}

impl Histogram {
    /// Bounds ascend and are at most [`BOUNDS_MAX`].
    pub(super) fn new(bounds_ns: &'static [u64]) -> Self {
        assert!(bounds_ns.len() <= BOUNDS_MAX && bounds_ns.is_sorted());
        Self {
            bounds_ns,
            shards: Box::default(),
        }
    }

    pub(super) fn record(&self, nanos: u64) {
        let bucket = self.bounds_ns.partition_point(|bound| *bound < nanos);
        let shard = &self.shards[SHARD.try_with(Cell::get).unwrap_or(0)];
        shard.counts[bucket].fetch_add(1, Relaxed);
        shard.sum_ns.fetch_add(nanos, Relaxed);
    }

    /// Appends the series' lines, with a label or without.
    pub(super) fn render(&self, name: &str, label: Option<(&str, &str)>, out: &mut String) {
        let label = label.map(|(key, value)| format!("{key}=\"{}\"", sanitize_label_value(value)));
        let inside = label.as_ref().map(|label| format!("{label},"));
        let inside = inside.unwrap_or_default();
        let label = label
            .map(|label| format!("{{{label}}}"))
            .unwrap_or_default();
        let mut total = 0;
        for bucket in 0..=self.bounds_ns.len() {
            total += self.sum_of(|shard| &shard.counts[bucket]);
            let _ = match self.bounds_ns.get(bucket) {
                Some(ns) => writeln!(
                    out,
                    "{name}_bucket{{{inside}le=\"{}\"}} {total}",
                    seconds(*ns)
                ),
                None => writeln!(out, "{name}_bucket{{{inside}le=\"+Inf\"}} {total}"),
            };
        }
        let sum = seconds(self.sum_of(|shard| &shard.sum_ns));
        let _ = writeln!(out, "{name}_sum{label} {sum}");
        let _ = writeln!(out, "{name}_count{label} {total}");
    }

    fn sum_of(&self, part: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards
            .iter()
            .fold(0, |sum, s| sum.wrapping_add(part(s).load(Relaxed)))
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_counts_in_that_bucket_and_the_rest_in_infinity() {
        let histogram = Histogram::new(&[1_000, 2_000_000_000]);
        for ns in [0, 1_000, 1_001, 2_000_000_000, 2_000_000_001] {
            histogram.record(ns);
        }
        let mut out = String::new();
        histogram.render("x_seconds", Some(("stage", "a\"b")), &mut out);
        assert_eq!(
            out,
            "x_seconds_bucket{stage=\"a\\\"b\",le=\"0.000001\"} 2\n\
             x_seconds_bucket{stage=\"a\\\"b\",le=\"2\"} 4\n\
             x_seconds_bucket{stage=\"a\\\"b\",le=\"+Inf\"} 5\n\
             x_seconds_sum{stage=\"a\\\"b\"} 4.000002002\n\
             x_seconds_count{stage=\"a\\\"b\"} 5\n"
        );
    }

    #[test]
    fn counts_of_many_threads_add_up() {
        let histogram = Histogram::new(STAGE_BOUNDS_NS);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| (0..1_000).for_each(|i| histogram.record(i)));
            }
        });
        let mut out = String::new();
        histogram.render("x", None, &mut out);
        assert!(out.ends_with("x_count 12000\n"), "{out}");
    }
}
