//! Load: threads with lanes, paced and counted.
//!
//! ```text
//! Driver ──Order──► worker.rs (a thread) ──► lane.rs ──► exchange.rs ──► session.rs, judge
//!    ▲                  ├──► pace.rs   (open loop)          one request, timed and judged
//!    │                  └──► listen.rs (streams held open)
//!    └──Part (stats.rs), Live (for whoever watches)
//! ```

pub mod exchange;
mod lane;
mod listen;
pub mod pace;
pub mod session;
pub mod stats;
mod verdict;
mod watch;
mod worker;

use self::{
    stats::Stats,
    verdict::{Used, client},
    watch::Watcher,
    worker::{Order, Thread},
};
use crate::{
    histogram::Histogram,
    machine,
    plan::Plan,
    progress::Progress,
    result::{Process, Round},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch as channel;

/// Before the first request of a round, so that all threads begin together.
const LEAD: Duration = Duration::from_millis(20);
/// How often whoever watches hears something.
const TELL: Duration = Duration::from_millis(200);
/// The share of requests for which the client's stated error holds. The 99th percentile is told by one request in a
/// hundred: how late the client was has to be known for ten times fewer.
const LAG: f64 = 0.999;
/// A round without an end of its own ends after this.
const ROUND_MAX: Duration = Duration::from_secs(365 * 86_400);

/// One measurement to be made.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Requests a second; `None` = closed loop.
    pub rate: Option<f64>,
    /// Load before it counts.
    pub warm_up: Duration,
    /// How long to measure; `None` = until the count is reached.
    pub duration: Option<Duration>,
    /// How many requests to measure.
    pub count: Option<u64>,
    /// Processes to watch.
    pub processes: Vec<(String, u32)>,
}

/// The threads of a run.
#[derive(Debug)]
pub struct Driver {
    plan: Arc<Plan>,
    threads: Vec<Thread>,
    rounds: u64,
}

impl Driver {
    /// Starts them.
    ///
    /// # Errors
    /// A sentence: there are no threads or too few descriptors to be had.
    pub fn start(plan: Arc<Plan>) -> Result<Self, String> {
        let open = plan.lanes.max(plan.connections) * plan.endpoints.len() + plan.listens;
        machine::raise_descriptors(open as u64 + 64)?;
        let threads = (0..plan.threads).map(|n| Thread::start(plan.clone(), n));
        let threads: Result<Vec<Thread>, _> = threads.collect();
        Ok(Self {
            threads: threads.map_err(|e| format!("cannot start the client's threads: {e}"))?,
            plan,
            rounds: 0,
        })
    }

    /// Measures. Blocks until the last reply came or was given up.
    ///
    /// # Errors
    /// A sentence: a thread ended.
    pub fn round(
        &mut self,
        shape: &Shape,
        progress: &channel::Sender<Progress>,
    ) -> Result<Round, String> {
        let start = Instant::now() + LEAD;
        let measure = start + shape.warm_up;
        let end = measure + shape.duration.unwrap_or(ROUND_MAX).min(ROUND_MAX);
        let budget = shape.count.map(|n| {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            Arc::new(AtomicI64::new(n))
        });
        self.rounds += 1;
        let order = Order {
            start,
            measure,
            end,
            rate: shape.rate.map(|rate| rate / self.threads.len() as f64),
            budget,
            seed: self.plan.seed.wrapping_add(self.rounds << 8),
        };
        let mut watcher = Watcher::new(&self.threads, shape, (start, measure, end));
        for thread in &self.threads {
            thread.order(order.clone());
        }
        let started_ms =
            unix_ms() + (measure.saturating_duration_since(Instant::now())).as_millis() as u64;
        let mut stats = Stats::new(self.plan.endpoints.len());
        let mut used = Used::default();
        let mut processes: Option<Vec<Option<f64>>> = None;
        let mut told = Instant::now();
        let mut waiting: Vec<&Thread> = self.threads.iter().collect();
        while let Some(thread) = waiting.last() {
            if let Some(part) = thread.part(Duration::from_millis(20))? {
                if let Some(error) = part.error {
                    return Err(error);
                }
                stats.add(&part.stats);
                used.add(&part);
                waiting.pop();
            }
            let now = Instant::now();
            if processes.is_none() && now >= measure {
                let watched = shape.processes.iter();
                processes = Some(watched.map(|p| machine::process_cpu_s(p.1)).collect());
            }
            if told.elapsed() >= TELL {
                told = now;
                watcher.look(&self.threads, now);
                let _ = progress.send_replace(watcher.progress(shape, now));
            }
        }
        watcher.look(&self.threads, Instant::now());
        let last = stats.last.unwrap_or(measure).max(measure);
        let seconds = last.duration_since(measure).as_secs_f64();
        let total = stats.total();
        let latency = Histogram::from(&stats.latency());
        let late = Histogram::from(&stats.late);
        let round = Round {
            name: shape.name.clone(),
            started_ms,
            seconds,
            rate_intended: shape.rate,
            due: stats.due,
            unsent: stats.unsent,
            abandoned: stats.abandoned,
            classes: stats.classes(),
            targets: stats.targets(),
            error_ns: shape
                .rate
                .map(|_| 2 * stats.lag.value_at_quantile(LAG) + latency.quantile(0.99) / 1_000),
            latency,
            late,
            first_event: (!stats.first_event.is_empty())
                .then(|| Histogram::from(&stats.first_event)),
            progress_events: stats.progress,
            listen_events: stats.listened,
            bytes_sent: stats.bytes.0,
            bytes_received: stats.bytes.1,
            connects: stats.connects,
            sessions: stats.sessions,
            series: watcher.series(),
            client: client(
                &used,
                &stats,
                shape.rate.map(|_| self.plan.busy_poll),
                total,
            ),
            processes: watched(shape, processes.unwrap_or_default(), total),
            samples: stats.samples,
        };
        let _ = progress.send_replace(watcher.progress(shape, Instant::now()));
        Ok(round)
    }

    /// Whether Ctrl-C was pressed.
    pub fn interrupted(&self) -> bool {
        self.plan.interrupted.load(Relaxed)
    }
}

fn watched(shape: &Shape, before: Vec<Option<f64>>, requests: u64) -> Vec<Process> {
    let shown = |((name, pid), before): (&(String, u32), Option<f64>)| {
        let cpu_s = machine::process_cpu_s(*pid)? - before?;
        Some(Process {
            name: name.clone(),
            pid: *pid,
            cpu_s,
            cpu_us_request: cpu_s * 1e6 / requests.max(1) as f64,
            rss_bytes: machine::memory(*pid).0,
        })
    };
    let all = shape.processes.iter().zip(before);
    all.filter_map(shown).collect()
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

/// A thread that panicked must not take the others' numbers with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
