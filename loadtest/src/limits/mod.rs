//! `tollgate-loadtest limits`: does a limit hold, exactly, over every node?
//!
//! ```text
//!   border                                                         border
//!     │ guard │ as many calls as it takes, then a probe now and then │ guard │
//!     └───────┴──────────────────────────────────────────────────────┴───────┘
//! drive.rs sends; views.rs reads the upstream's record and the audit logs; verdict.rs compares with the maximum
//! ```

mod drive;
mod verdict;
mod views;

use self::{
    drive::{Counts, Key, Window},
    views::{Audit, Record},
};
use crate::{
    drive::unix_ms,
    live, machine,
    plan::{Plan, args::TargetArgs, call::Call, text},
    preflight,
    progress::{Phase, Progress},
    result::{LimitKey, LimitWindow, Limits, Mode, Verdict},
    run, summary,
};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::watch;

/// Clocks apart from offsets: replies on their way, timers, scheduling.
const GUARD_MS: u64 = 500;
/// Of a window at least this must be left between the guards.
const OPEN_MS_MIN: u64 = 200;
/// How often whoever watches hears something.
const TELL: Duration = Duration::from_millis(200);

/// Prove that a limit holds: drive it past its maximum and count what was admitted
///
/// Exit status: 0 = exactly the maximum in every judged window, 1 = more, 3 = fewer although more were asked for,
/// 4 = no window could be judged, 2 = it could not be started.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: TargetArgs,
    /// The tool that the limit is on
    #[arg(long, help_heading = "The limit")]
    pub tool: String,
    /// Its arguments, with placeholders as for `run --call`
    #[arg(
        long,
        default_value = "{}",
        value_name = "JSON",
        help_heading = "The limit"
    )]
    pub args: String,
    /// How many calls each key may have admitted in a window
    #[arg(long, help_heading = "The limit")]
    pub max: u64,
    /// second, minute, hour, day or a duration; windows are aligned to the epoch
    #[arg(long, value_parser = text::window, help_heading = "The limit")]
    pub window: Duration,
    /// How many whole windows to judge
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..), help_heading = "The limit")]
    pub windows: u32,
    /// The argument whose value the limit is keyed by; every grant asks with --keys values of it
    #[arg(
        long,
        value_name = "NAME",
        requires = "keys",
        help_heading = "The limit"
    )]
    pub key_argument: Option<String>,
    /// How many values of --key-argument
    #[arg(long, value_name = "N", requires = "key_argument", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "The limit")]
    pub keys: Option<u32>,
    /// Connections of each key to each target
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Load")]
    pub connections: u16,
    /// Ask at least this many times as often as the maximum
    #[arg(long, default_value_t = 2.0, help_heading = "Load")]
    pub overdrive: f64,
    /// The recording upstream's record, e.g. http://127.0.0.1:7430/record: calls are then marked with a call_id argument
    #[arg(long, value_name = "URL", help_heading = "Views")]
    pub record: Option<String>,
    /// A gateway's audit log; may be repeated. Grants' names must be those of the log
    #[arg(long, value_name = "FILE", help_heading = "Views")]
    pub audit: Vec<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// A sentence that says what to do.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    if args.overdrive.is_nan() || args.overdrive < 1.0 {
        return Err(
            "--overdrive must be at least 1: a limit that is not reached shows nothing".into(),
        );
    }
    let mut plan = args
        .target
        .plan(vec![Call::tool(&args.tool, &args.args)?])?;
    let met = preflight::meet(&plan, args.target.protocol()?, args.target.unlisted)?;
    plan.protocol = met.protocol.clone();
    let audits: Result<Vec<Audit>, String> = args.audit.iter().map(|p| Audit::open(p)).collect();
    let mut audits = audits?;
    let record = match &args.record {
        Some(url) => Some(Record::new(url, &plan)?),
        None => None,
    };
    let keys = keys(args, &plan);
    plan.lanes = keys.len() * usize::from(args.connections);
    machine::raise_descriptors((plan.lanes * plan.endpoints.len()) as u64 + 64)?;
    let clocks = preflight::clocks(&plan)?;
    let guard_ms = guard(&clocks);
    let window_ms = args.window.as_millis() as u64;
    if window_ms < 2 * guard_ms + OPEN_MS_MIN {
        return Err(format!(
            "windows of {window_ms} ms are too short: {guard_ms} ms before and after each border nothing is sent (500 ms \
             and the clocks' difference). Use windows of {} ms or more{}",
            2 * guard_ms + OPEN_MS_MIN,
            if guard_ms > 2 * GUARD_MS {
                ", or set the clocks right"
            } else {
                ""
            }
        ));
    }
    let plan = Arc::new(plan);
    run::interrupt(&plan)?;
    let mut document = run::blank(&args.target, &plan, &met);
    for (target, clock) in document.targets.iter_mut().zip(&clocks) {
        target.clock = clock.offset().or(target.clock);
    }
    document.config = args.target.config(&plan, Mode::Limits);
    let (progress, seen) = watch::channel(Progress::default());
    let view = live::show(seen);
    let windows = drive_all(args, &plan, &keys, guard_ms, &progress);
    progress.send_modify(|p| p.phase = Phase::Done);
    drop(progress);
    let _ = view.join();
    let windows = windows?;
    let executed = match &record {
        Some(record) => Some(record.read(&plan)?),
        None => None,
    };
    for audit in &mut audits {
        audit.read()?;
    }
    document.interrupted = plan.interrupted.load(Relaxed);
    document.limits = Some(judged(
        args,
        &keys,
        &windows,
        guard_ms,
        executed.as_ref(),
        &audits,
    ));
    run::finish(&document, args.target.out.as_deref())?;
    let verdict = document.limits.as_ref().map(|l| l.verdict);
    Ok(ExitCode::from(match verdict {
        Some(Verdict::Exact) => 0,
        Some(Verdict::Over) => 1,
        Some(Verdict::Short) => 3,
        Some(Verdict::NotJudged) | None => 4,
    }))
}

fn guard(clocks: &[preflight::Clock]) -> u64 {
    let apart = clocks.iter().filter_map(|c| c.offset());
    let apart = apart.map(|o| o.offset_ms.unsigned_abs() + o.error_ms).max();
    GUARD_MS + apart.unwrap_or(0)
}

/// Every grant, with every value of the key's argument.
fn keys(args: &Args, plan: &Plan) -> Vec<Key> {
    let mut keys = Vec::new();
    for grant in 0..plan.grants.len().max(1) {
        let name = plan.grants.get(grant).map_or("anybody", |g| &g.name);
        match (&args.key_argument, args.keys) {
            (Some(argument), Some(count)) => {
                for n in 0..count {
                    keys.push(Key {
                        name: format!("{name} {argument}=k{n}"),
                        grant,
                        member: format!(r#""{argument}":"k{n}""#),
                    });
                }
            }
            _ => keys.push(Key {
                name: name.to_owned(),
                grant,
                member: String::new(),
            }),
        }
    }
    keys
}

type Driven = Vec<(Window, Vec<Counts>)>;

fn drive_all(
    args: &Args,
    plan: &Arc<Plan>,
    keys: &[Key],
    guard_ms: u64,
    progress: &watch::Sender<Progress>,
) -> Result<Driven, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let local = tokio::task::LocalSet::new();
    let window_ms = args.window.as_millis() as u64;
    local.block_on(&runtime, async {
        let mut bench = drive::Bench::new(args, plan.clone(), keys);
        let mut driven = Vec::new();
        let first = unix_ms() / window_ms + 1;
        for number in 0..u64::from(args.windows) {
            let starts_ms = (first + number) * window_ms;
            let window = Window {
                number,
                starts_ms,
                ends_ms: starts_ms + window_ms,
                guard_ms,
            };
            wait(plan, &window, args, progress).await;
            if plan.interrupted.load(Relaxed) {
                break;
            }
            let telling = progress.clone();
            let of = args.windows;
            let tell = move |counts: &[Counts]| {
                telling.send_replace(told(&window, of, counts));
            };
            let counts = bench.window(&window, TELL, tell).await?;
            driven.push((window, counts));
        }
        bench.end().await;
        Ok(driven)
    })
}

/// Until the guard after the window's border is over.
async fn wait(plan: &Plan, window: &Window, args: &Args, progress: &watch::Sender<Progress>) {
    let until = window.starts_ms + window.guard_ms;
    while unix_ms() < until && !plan.interrupted.load(Relaxed) {
        let left = until.saturating_sub(unix_ms());
        progress.send_replace(Progress {
            phase: Phase::Waiting,
            name: format!("window {} of {}", window.number + 1, args.windows),
            note: Some(format!(
                "for {} UTC, when a whole window begins (in {} s)",
                summary::clock(window.starts_ms),
                left.div_ceil(1000)
            )),
            ..Progress::default()
        });
        tokio::time::sleep(TELL.min(Duration::from_millis(left))).await;
    }
}

fn told(window: &Window, of: u32, counts: &[Counts]) -> Progress {
    use crate::result::Class;
    let sum = |f: fn(&Counts) -> u64| counts.iter().map(f).sum::<u64>();
    let done = [
        (Class::Ok, sum(|c| c.admitted)),
        (Class::Denied, sum(|c| c.refused + c.unavailable)),
        (Class::Transport, sum(|c| c.unknown)),
    ];
    Progress {
        phase: Phase::Measuring,
        name: format!("window {} of {of}", window.number + 1),
        elapsed_s: unix_ms().saturating_sub(window.starts_ms) as f64 / 1e3,
        total_s: Some((window.ends_ms - window.starts_ms) as f64 / 1e3),
        sent: sum(|c| c.sent),
        done: done.into_iter().filter(|(_, n)| *n > 0).collect(),
        ..Progress::default()
    }
}

fn judged(
    args: &Args,
    keys: &[Key],
    windows: &Driven,
    guard_ms: u64,
    executed: Option<&views::Executed>,
    audits: &[Audit],
) -> Limits {
    let many = args.keys.is_some_and(|n| n > 1);
    let window = |at: usize, key: &Key, (window, counts): &(Window, Vec<Counts>)| {
        let counts = counts.get(at).cloned().unwrap_or_default();
        let mut judged = LimitWindow {
            starts_ms: window.starts_ms,
            ends_ms: window.ends_ms,
            sent: counts.sent,
            admitted: counts.admitted,
            refused: counts.refused,
            unavailable: counts.unavailable,
            unknown: counts.unknown,
            admitted_upstream: executed.map(|e| e.count(at, window.number)),
            // Audit lines have no values of arguments: keys of one grant cannot be told apart in them.
            admitted_audit: (!audits.is_empty() && !many).then(|| {
                let name = key.name.split(' ').next().unwrap_or_default();
                let (from, to) = (window.starts_ms, window.ends_ms);
                audits
                    .iter()
                    .map(|a| a.charged(name, &args.tool, from, to))
                    .sum()
            }),
            verdict: Verdict::NotJudged,
            why: None,
        };
        (judged.verdict, judged.why) = verdict::of(&judged, args.max, &counts);
        judged
    };
    let keys: Vec<LimitKey> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| LimitKey {
            key: key.name.clone(),
            windows: windows.iter().map(|w| window(at, key, w)).collect(),
        })
        .collect();
    let (verdict, sentence) = verdict::overall(&keys, args.max, guard_ms);
    Limits {
        tool: args.tool.clone(),
        max: args.max,
        window_ms: args.window.as_millis() as u64,
        guard_ms,
        upstream_record: executed.is_some(),
        audit_logs: args.audit.iter().map(|p| p.display().to_string()).collect(),
        keys,
        verdict,
        sentence,
    }
}
