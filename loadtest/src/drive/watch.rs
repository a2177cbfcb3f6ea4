//! Seconds of all threads put together, and what is told of a round while it goes on.

use super::{
    Shape, lock,
    stats::{CLASSES, SecondPart, by_class},
    worker::Thread,
};
use crate::{
    histogram::recorder,
    progress::{Phase, Progress},
    result::Second,
};
use hdrhistogram::Histogram as Hdr;
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Instant};

/// Seconds that a view is shown.
const RECENT_MAX: usize = 120;

/// What was counted before the round: threads count on over all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    sent: u64,
    unsent: u64,
    done: [u64; CLASSES],
}

impl Counted {
    fn now(threads: &[Thread]) -> Self {
        let mut all = Self::default();
        for thread in threads {
            all.sent += thread.live.sent.load(Relaxed);
            all.unsent += thread.live.unsent.load(Relaxed);
            for (sum, count) in all.done.iter_mut().zip(&thread.live.done) {
                *sum += count.load(Relaxed);
            }
        }
        all
    }

    fn since(mut self, earlier: &Self) -> Self {
        self.sent -= earlier.sent.min(self.sent);
        self.unsent -= earlier.unsent.min(self.unsent);
        for (now, earlier) in self.done.iter_mut().zip(earlier.done) {
            *now -= earlier.min(*now);
        }
        self
    }
}

/// Watches one round.
#[derive(Debug)]
pub(super) struct Watcher {
    start: Instant,
    measure: Instant,
    end: Instant,
    /// At the phase's beginning.
    before: Counted,
    now: Counted,
    measuring: bool,
    parts: BTreeMap<u32, SecondPart>,
    latency: Hdr<u64>,
    busiest: f64,
}

impl Watcher {
    pub(super) fn new(
        threads: &[Thread],
        _shape: &Shape,
        (start, measure, end): (Instant, Instant, Instant),
    ) -> Self {
        // Seconds of a round before that were handed over late.
        for thread in threads {
            lock(&thread.live.seconds).clear();
        }
        let before = Counted::now(threads);
        Self {
            start,
            measure,
            end,
            before,
            now: before,
            measuring: false,
            parts: BTreeMap::new(),
            latency: recorder(),
            busiest: 0.0,
        }
    }

    /// Takes in what the threads have to say.
    pub(super) fn look(&mut self, threads: &[Thread], now: Instant) {
        self.now = Counted::now(threads);
        if !self.measuring && now >= self.measure {
            self.measuring = true;
            self.before = self.now;
        }
        self.busiest = 0.0;
        for thread in threads {
            let busy = thread.live.busy_ppm.load(Relaxed) as f64 / 1e6;
            self.busiest = self.busiest.max(busy);
            for part in std::mem::take(&mut *lock(&thread.live.seconds)) {
                // Equal bounds.
                let _ = self.latency.add(&part.latency);
                let number = part.second;
                let sum = self.parts.entry(number);
                sum.or_insert_with(|| SecondPart::new(number)).add(&part);
            }
        }
    }

    /// The round second by second, without gaps.
    pub(super) fn series(&self) -> Vec<Second> {
        let last = self.parts.keys().next_back().map_or(0, |last| last + 1);
        let (mut sent, mut done) = (0, 0);
        let second = |number: u32| {
            let mut second = Second {
                second: number,
                ..Second::default()
            };
            if let Some(part) = self.parts.get(&number) {
                sent += part.sent;
                done += part.done.iter().sum::<u64>();
                second.sent = part.sent;
                second.done = by_class(&part.done);
                second.p50_ns = part.latency.value_at_quantile(0.5);
                second.p99_ns = part.latency.value_at_quantile(0.99);
                second.max_ns = part.latency.max();
            }
            second.in_flight = sent.saturating_sub(done);
            second
        };
        (0..last).map(second).collect()
    }

    /// What is told.
    pub(super) fn progress(&self, shape: &Shape, now: Instant) -> Progress {
        let all = self.now.since(&self.before);
        let (phase, began, total) = if now < self.measure {
            let total = self.measure.duration_since(self.start);
            (Phase::WarmUp, self.start, Some(total))
        } else if now < self.end {
            (Phase::Measuring, self.measure, shape.duration)
        } else {
            (Phase::Draining, self.end, None)
        };
        let mut recent = self.series();
        recent.drain(..recent.len().saturating_sub(RECENT_MAX));
        Progress {
            phase,
            name: shape.name.clone(),
            elapsed_s: now.saturating_duration_since(began).as_secs_f64(),
            total_s: total.map(|t| t.as_secs_f64()),
            total_count: shape.count,
            rate_intended: shape.rate,
            sent: all.sent,
            done: by_class(&all.done),
            in_flight: self
                .now
                .sent
                .saturating_sub(self.now.done.iter().sum::<u64>()),
            unsent: all.unsent,
            p50_ns: self.latency.value_at_quantile(0.5),
            p99_ns: self.latency.value_at_quantile(0.99),
            p999_ns: self.latency.value_at_quantile(0.999),
            max_ns: self.latency.max(),
            recent,
            busiest: self.busiest,
            note: None,
        }
    }
}
