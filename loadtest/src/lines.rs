//! Progress as plain lines on standard error.

use crate::{
    plan::text::nanos,
    progress::{Phase, Progress},
};
use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(2);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// Writes until the run is over.
pub fn show(seen: watch::Receiver<Progress>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut told = Instant::now();
        let (mut last, mut phase) = (String::new(), Phase::Preparing);
        while seen.has_changed().is_ok() {
            thread::sleep(LOOK);
            let progress = seen.borrow().clone();
            if progress.phase == Phase::Done {
                return;
            }
            // Who waits is told at once what for.
            let waits = phase != progress.phase && progress.phase == Phase::Waiting;
            phase = progress.phase;
            if waits || told.elapsed() >= EVERY {
                told = Instant::now();
                let line = line(&progress);
                if line != last {
                    eprintln!("{line}");
                    last = line;
                }
            }
        }
    })
}

fn line(progress: &Progress) -> String {
    let phase = match progress.phase {
        Phase::Preparing => "preparing",
        Phase::WarmUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Waiting => "waiting",
        Phase::Draining => "awaiting the last replies",
        Phase::Done => "done",
    };
    let mut line = match progress.name.as_str() {
        "" => phase.to_owned(),
        name => format!("{name}: {phase}"),
    };
    if let Some(total) = progress.total_s {
        line.push_str(&format!(" {:.0} of {total:.0} s", progress.elapsed_s));
    }
    let done: u64 = progress.done.values().sum();
    if done > 0 {
        let rate = done as f64 / progress.elapsed_s.max(0.001);
        // While the last replies are awaited the clock is another one.
        let rate = match progress.phase {
            Phase::Draining => String::new(),
            _ => format!(" ({rate:.0}/s)"),
        };
        let classes = progress.done.iter().filter(|(_, n)| **n > 0);
        let classes: Vec<String> = classes.map(|(c, n)| format!("{n} {}", c.name())).collect();
        line.push_str(&format!(", {done} answered{rate}: {}", classes.join(", ")));
    }
    if progress.max_ns > 0 {
        line.push_str(&format!(
            ", p50 {} p99 {}",
            nanos(progress.p50_ns),
            nanos(progress.p99_ns)
        ));
    }
    if let Some(note) = &progress.note {
        line.push_str(&format!(", {note}"));
    }
    line
}
