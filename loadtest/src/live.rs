//! What a person sees on a terminal while it runs: a few lines on standard error that are drawn over and over. Where
//! standard error is no terminal, `lines` are written instead.

use crate::{
    lines,
    progress::{Phase, Progress},
    report::format::{count, latency, number, plain},
    result::{Class, Second},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal as _, stderr},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::watch;

/// How often it looks, and so draws.
const LOOK: Duration = Duration::from_millis(200);
/// Widest line, characters; terminals that are narrower cut.
const WIDTH: usize = 100;
/// Share of a processor from which on a client thread is called busy.
const BUSY: f64 = 0.85;

/// Whether somebody is there to look.
fn wanted() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows progress until the run is over; on a terminal it leaves nothing behind.
pub fn show(seen: watch::Receiver<Progress>) -> JoinHandle<()> {
    if !wanted() {
        return lines::show(seen);
    }
    thread::spawn(move || {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // The template is constant; should a later version refuse it, its own default is drawn.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        while seen.has_changed().is_ok() {
            let progress = seen.borrow().clone();
            if progress.phase == Phase::Done {
                break;
            }
            bar.set_message(block(&progress).join("\n"));
            bar.tick();
            thread::sleep(LOOK);
        }
        bar.finish_and_clear();
    })
}

/// The lines of one drawing.
pub fn block(progress: &Progress) -> Vec<String> {
    let mut lines = vec![headline(progress)];
    let ended: u64 = progress.done.values().sum();
    if progress.sent > 0 || ended > 0 {
        lines.push(rates(progress, ended));
    }
    if progress.max_ns > 0 {
        lines.push(format!(
            "latency   p50 {}   p99 {}   p99.9 {}   longest {}",
            latency(progress.p50_ns),
            latency(progress.p99_ns),
            latency(progress.p999_ns),
            latency(progress.max_ns)
        ));
    }
    if ended > 0 {
        lines.push(format!("replies   {}", classes(progress)));
    }
    if progress.recent.len() > 1 {
        lines.push(history("a second", &progress.recent, Second::total, |n| {
            count(n)
        }));
        lines.push(history("p99", &progress.recent, |s| s.p99_ns, latency));
    }
    if progress.busiest > 0.0 {
        let warning = if progress.busiest >= BUSY {
            "   ← close to being the bottleneck itself"
        } else {
            ""
        };
        lines.push(format!(
            "client    busiest thread {} % of a processor{warning}",
            number(progress.busiest * 100.0)
        ));
    }
    lines.extend(progress.note.as_deref().map(plain));
    lines
        .into_iter()
        .map(|line| line.chars().take(WIDTH).collect())
        .collect()
}

fn headline(progress: &Progress) -> String {
    let phase = match progress.phase {
        Phase::Preparing => "preparing",
        Phase::WarmUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Waiting => "waiting",
        Phase::Draining => "awaiting the last replies",
        Phase::Done => "done",
    };
    let mut line = if progress.name.is_empty() {
        phase.to_owned()
    } else {
        format!("{}: {phase}", plain(&progress.name))
    };
    let ended: u64 = progress.done.values().sum();
    let by_time = progress.total_s.filter(|total| *total > 0.0);
    if let Some(total) = by_time {
        line += &format!(
            "  {}  {:.0} of {} s",
            gauge(progress.elapsed_s / total),
            progress.elapsed_s.min(total),
            number(total)
        );
    } else if let Some(total) = progress.total_count.filter(|total| *total > 0) {
        line += &format!(
            "  {}  {} of {}",
            gauge(ended as f64 / total as f64),
            count(ended),
            count(total)
        );
    } else {
        line += &format!("  {:.0} s", progress.elapsed_s);
    }
    line
}

/// A bar of 30 characters.
fn gauge(share: f64) -> String {
    const LONG: usize = 30;
    let full = (share.clamp(0.0, 1.0) * LONG as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(LONG - full))
}

fn rates(progress: &Progress, ended: u64) -> String {
    let mut line = String::from("rate      ");
    // While the last replies are awaited the clock is another one.
    if progress.elapsed_s > 0.0 && matches!(progress.phase, Phase::WarmUp | Phase::Measuring) {
        line += &format!("{}/s", number(ended as f64 / progress.elapsed_s));
    }
    if let Some(rate) = progress.rate_intended {
        line += &format!(" of {}/s intended", number(rate));
    }
    line += &format!(
        "   {} sent   {} in flight",
        count(progress.sent),
        count(progress.in_flight)
    );
    if progress.unsent > 0 {
        line += &format!("   {} never sent", count(progress.unsent));
    }
    line
}

fn classes(progress: &Progress) -> String {
    let named = Class::ALL.iter().filter_map(|class| {
        let n = progress.done.get(class).filter(|n| **n > 0)?;
        Some(format!("{} {}", class.name(), count(*n)))
    });
    named.collect::<Vec<_>>().join("   ")
}

/// The last seconds as a row of blocks, and the newest and the highest value in words.
fn history(
    name: &str,
    recent: &[Second],
    read: impl Fn(&Second) -> u64,
    show: impl Fn(u64) -> String,
) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const LONG: usize = 50;
    let last = &recent[recent.len().saturating_sub(LONG)..];
    let highest = last.iter().map(&read).max().unwrap_or(0);
    let row: String = last
        .iter()
        .map(|second| {
            let share = read(second) as f64 / highest.max(1) as f64;
            BLOCKS[((share * 7.0).round() as usize).min(7)]
        })
        .collect();
    let newest = last.last().map_or(0, &read);
    format!(
        "{name:<9} {row}  {}, at most {}",
        show(newest),
        show(highest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let second = |at: u32, done: u64| Second {
            second: at,
            done: [(Class::Ok, done)].into(),
            p99_ns: done * 1_000,
            ..Second::default()
        };
        Progress {
            phase: Phase::Measuring,
            name: "round 2 of 6".into(),
            elapsed_s: 15.0,
            total_s: Some(30.0),
            rate_intended: Some(1_000.0),
            sent: 15_010,
            done: [(Class::Ok, 14_990), (Class::Denied, 10)].into(),
            in_flight: 10,
            p50_ns: 210_000,
            p99_ns: 1_200_000,
            p999_ns: 3_400_000,
            max_ns: 12_000_000,
            recent: vec![second(0, 500), second(1, 1_000), second(2, 0)],
            busiest: 0.4,
            ..Progress::default()
        }
    }

    #[test]
    fn every_figure_is_there() {
        let lines = block(&progress());
        assert_eq!(
            lines,
            [
                "round 2 of 6: measuring  [###############---------------]  15 of 30 s",
                "rate      1,000/s of 1,000/s intended   15,010 sent   10 in flight",
                "latency   p50 210 µs   p99 1.2 ms   p99.9 3.4 ms   longest 12 ms",
                "replies   ok 14,990   denied 10",
                "a second  ▅█▁  0, at most 1,000",
                "p99       ▅█▁  0 ns, at most 1 ms",
                "client    busiest thread 40 % of a processor",
            ]
        );
    }

    #[test]
    fn what_threatens_the_figures_is_said() {
        let mut progress = progress();
        progress.unsent = 7;
        progress.busiest = 0.97;
        let lines = block(&progress).join("\n");
        assert!(lines.contains("7 never sent"), "{lines}");
        assert!(lines.contains("bottleneck"), "{lines}");
    }

    #[test]
    fn the_beginning_and_hostile_names_draw_tame_lines() {
        assert_eq!(block(&Progress::default()), ["preparing  0 s"]);
        let mut progress = progress();
        progress.name = format!("\u{1b}[2J{}", "x".repeat(1_000));
        progress.note = Some("\u{7}\n\n".into());
        progress.total_s = Some(0.0);
        for line in block(&progress) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(line.chars().count() <= WIDTH);
        }
    }
}
