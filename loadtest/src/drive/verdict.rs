//! Whether the client was in its own way.

use super::{stats::Stats, worker::Part};
use crate::{machine, plan::text::nanos as readable, result::Client};
use std::time::Duration;

/// A thread that is this busy has no time left to look at its watch.
const BUSY: f64 = 0.9;
/// An open loop that wakes later than this is not the rate that was asked for.
const LAG_NS_MAX: u64 = 5_000_000;
/// A share of time without a processor that is worth a word.
const STARVED: f64 = 0.1;

/// What the threads used.
#[derive(Debug, Default)]
pub(super) struct Used {
    cpu: Duration,
    system: Duration,
    busiest: f64,
    starved: f64,
}

impl Used {
    pub(super) fn add(&mut self, part: &Part) {
        self.cpu += part.used.cpu;
        self.system += part.used.system.min(part.used.cpu);
        let wall = part.wall.as_secs_f64();
        if wall > 0.0 {
            self.busiest = self.busiest.max(part.used.cpu.as_secs_f64() / wall);
            self.starved = self.starved.max(part.used.starved.as_secs_f64() / wall);
        }
    }
}

/// The verdict; `open` = an open loop, and whether it polled without pause.
pub(super) fn client(used: &Used, stats: &Stats, open: Option<bool>, requests: u64) -> Client {
    let polled = open == Some(true);
    let open = open.is_some();
    let lag = stats.lag.value_at_quantile(0.99);
    let late = stats.late.value_at_quantile(0.99);
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let mut bottleneck = true;
    let mut verdict = if used.busiest >= BUSY && !polled {
        format!(
            "The client was the bottleneck: a thread of it used {} of a processor. Give it more --threads or a machine \
             of its own; what is measured here is the client.",
            percent(used.busiest)
        )
    } else if open && lag > LAG_NS_MAX && polled {
        format!(
            "The client was the bottleneck: it came up to {} late (99th percentile) to its requests, although it polled \
             without pause. Give it more --threads or a machine of its own.",
            readable(lag)
        )
    } else if open && lag > LAG_NS_MAX {
        format!(
            "The client was the bottleneck: it woke up to {} late (99th percentile) for its requests, although its \
             busiest thread used only {} of a processor. Something else takes the processors, or they are slow to wake: \
             give it a machine of its own, or a processor a thread with --busy-poll.",
            readable(lag),
            percent(used.busiest)
        )
    } else if polled {
        bottleneck = false;
        format!(
            "The client was not the bottleneck: it came at most {} late (99th percentile) to its requests. It polled \
             without pause, so its processor time says nothing.",
            readable(lag)
        )
    } else {
        bottleneck = false;
        format!(
            "The client was not the bottleneck: its busiest thread used {} of a processor.",
            percent(used.busiest)
        )
    };
    if open && !bottleneck && late > lag.saturating_mul(2).max(LAG_NS_MAX) {
        verdict.push_str(&format!(
            " Requests waited up to {} (99th percentile) for a connection: the target did not keep up, or \
             --connections is too small. The wait is part of the latencies.",
            readable(late)
        ));
    }
    if used.starved > STARVED {
        verdict.push_str(&format!(
            " For {} of the time a thread was ready to run and had no processor: the machine is full, and latencies \
             hold that wait.",
            percent(used.starved)
        ));
    }
    let cpu = used.cpu.as_secs_f64();
    let system = used.system.as_secs_f64();
    Client {
        cpu_user_s: cpu - system,
        cpu_system_s: system,
        cpu_us_request: cpu * 1e6 / requests.max(1) as f64,
        busiest: used.busiest,
        rss_bytes_max: machine::memory(std::process::id()).1,
        bottleneck,
        verdict,
    }
}
