//! Runs seeds, one or very many.

use super::{
    clock::SECOND,
    found::found,
    plan::Plan,
    world::{Figures, World},
};
use std::{
    cell::RefCell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Failures after which a long run stops.
const FAILURES_MAX: usize = 5;

/// What became of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub figures: Figures,
    /// As printed.
    pub failure: Option<String>,
    /// The invariant's name.
    pub invariant: Option<&'static str>,
}

thread_local! {
    /// Where a panic on this thread was, while a seed runs.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static RUNNING: RefCell<bool> = const { RefCell::new(false) };
}

/// A panic in a core is a failure of the seed, told in its message.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.with(|running| *running.borrow()) {
                PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

pub fn run(seed: u64, trace: bool) -> Outcome {
    run_with(Plan::new(seed), trace, |_| {})
}

/// Runs a plan in a world that was prepared.
pub fn run_with(plan: Plan, trace: bool, prepare: impl FnOnce(&mut World)) -> Outcome {
    hook();
    let seed = plan.seed;
    if trace {
        println!("{plan:#?}");
    }
    RUNNING.with(|running| *running.borrow_mut() = true);
    let mut world = found(plan);
    (world.trace, world.check.trace) = (trace, trace);
    prepare(&mut world);
    let result = catch_unwind(AssertUnwindSafe(|| {
        while world.step()? {}
        Ok(())
    }));
    RUNNING.with(|running| *running.borrow_mut() = false);
    let (figures, step) = (world.figures(), world.steps);
    let (invariant, how) = match result {
        Ok(Ok(())) => {
            return Outcome {
                figures,
                failure: None,
                invariant: None,
            };
        }
        Ok(Err((invariant, how))) => (invariant, how),
        Err(_) => {
            let at = PANIC.with(|panic| panic.borrow_mut().take());
            ("nothing panics", at.unwrap_or_default())
        }
    };
    Outcome {
        figures,
        failure: Some(format!("seed={seed:#x} step={step}: {invariant}: {how}")),
        invariant: Some(invariant),
    }
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Total {
    pub seeds: u64,
    pub figures: Figures,
    pub failures: Vec<String>,
    pub took: Duration,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            steps,
            true_ns,
            counts,
        } = &self.figures;
        writeln!(
            f,
            "{} seeds, {} failed, in {:.0} s; {steps} events in {} simulated hours",
            self.seeds,
            self.failures.len(),
            self.took.as_secs_f64(),
            true_ns / (3_600 * SECOND)
        )?;
        counts.fmt(f)
    }
}

/// Runs seeds on every processor, until there are no more or the time is up.
pub fn many(first: u64, count: u64, seconds: Option<u64>) -> Total {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = seconds.is_some_and(|s| began.elapsed().as_secs() >= s);
                    if seed >= first.saturating_add(count) || late {
                        return;
                    }
                    let outcome = run(seed, false);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.add(outcome);
                    if total.failures.len() >= FAILURES_MAX {
                        return;
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.took = began.elapsed();
    total
}

impl Total {
    fn add(&mut self, outcome: Outcome) {
        let (sum, one) = (&mut self.figures, outcome.figures);
        sum.steps += one.steps;
        sum.true_ns += one.true_ns;
        sum.counts.add(&one.counts);
        self.seeds += 1;
        if let Some(failure) = outcome.failure {
            println!("{failure}");
            self.failures.push(failure);
        }
    }
}
