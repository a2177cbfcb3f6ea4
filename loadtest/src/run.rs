//! `tollgate-loadtest run`.

use crate::{
    drive::{Driver, Shape, unix_ms},
    live, machine,
    plan::{
        Plan,
        args::TargetArgs,
        call::Call,
        text::{self, Slo},
    },
    preflight::{self, Met},
    progress::{Phase, Progress},
    ramp,
    result::{Class, Document, FORMAT, Mode, Ramp, Round, Step, Target},
    summary,
};
use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Requests of an open loop that may be in progress over HTTP/2, unless `--in-flight` says otherwise.
const IN_FLIGHT: usize = 1024;
/// Connections of an open loop over HTTP/1.1, unless `--connections` says otherwise; opened as they are needed.
const CONNECTIONS: usize = 256;
/// Programs that start others (`timeout`, `npm`) pass a signal on that these have already had: it is no second one.
const AGAIN: Duration = Duration::from_millis(300);
/// Workers of a closed loop that was not given any.
const WORKERS: usize = 16;

/// Measure MCP endpoints
///
/// Without --rate, --steps or --slo it is a closed loop: --workers send their next request when the last one was
/// answered. Latencies of open loops are counted from when a request was due.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub target: TargetArgs,
    /// What to call: `NAME[*WEIGHT] [ARGUMENTS]`; may be repeated. NAME is a tool, or a method such as tools/list. ARGUMENTS
    /// is a JSON object with placeholders {{seq}}, {{text:10..200}}, {{int:1..9}}, {{pick:a|b}}, or @FILE with one object a line
    #[arg(short, long = "call", value_name = "CALL", help_heading = "Load")]
    pub calls: Vec<String>,
    /// Closed loop: requests in flight
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with_all = ["rate", "steps", "slo"], help_heading = "Load")]
    pub workers: Option<u32>,
    /// Open loop: requests a second; with --slo the rate to begin with
    #[arg(short, long, value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Open loop: rates one after the other, RATE:DURATION,…
    #[arg(long, value_parser = text::steps, conflicts_with_all = ["rate", "slo", "duration", "count"], help_heading = "Load")]
    pub steps: Option<Steps>,
    /// Find the highest rate that meets this, e.g. p99<5ms,errors<0.1%
    #[arg(long, value_parser = text::slo, conflicts_with = "count", help_heading = "Load")]
    pub slo: Option<Slo>,
    /// How long to measure (each step of --slo, each round)  [default: 10s; with --slo 5s]
    #[arg(short, long, value_parser = text::duration, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// How many requests to measure
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    pub count: Option<u64>,
    /// Load before it counts
    #[arg(long, default_value = "1s", value_parser = text::duration, help_heading = "Load")]
    pub warm_up: Duration,
    /// Measure this often; `compare` makes intervals of the rounds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Load")]
    pub rounds: u32,
    /// Open loop: random gaps (exponentially distributed) instead of equal ones
    #[arg(long, help_heading = "Load")]
    pub poisson: bool,
    /// Open loop: never sleep. Costs a whole processor a thread; no request is late because the system woke a thread late
    #[arg(long, help_heading = "Load")]
    pub busy_poll: bool,
    /// Connections to each target. HTTP/1.1, open loop: as many as needed, at most these [default: 256]. HTTP/2: [default: 8]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Connections")]
    pub connections: Option<u32>,
    /// HTTP/2, open loop: requests in progress at most [default: 1024]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Connections")]
    pub in_flight: Option<u32>,
    /// Open loop: requests that may wait for a connection; more are counted as unsent
    #[arg(long, default_value_t = 100_000, help_heading = "Connections")]
    pub queue: usize,
    /// Streams to hold open: subscriptions/listen, or GET of a session
    #[arg(long, default_value_t = 0, help_heading = "Protocol")]
    pub listens: usize,
    /// Ask for progress notifications
    #[arg(long, help_heading = "Protocol")]
    pub progress: bool,
    /// Compare texts with what the recording server must say: auto = when the target says that it is one
    #[arg(long, value_enum, default_value_t, help_heading = "Protocol")]
    pub check: Check,
    /// Report the processor time and memory of a process, too; may be repeated
    #[arg(long = "process", value_name = "NAME=PID", value_parser = process)]
    pub processes: Vec<(String, u32)>,
}

/// Steps of `--steps`.
pub type Steps = Vec<Step>;

/// Whether texts are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Check {
    /// When the target calls itself tollgate-upstream or tollgate-demo
    #[default]
    Auto,
    /// Always
    On,
    /// Never: only the form of replies is looked at
    Off,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 10_000_000.0 => Ok(rate),
        _ => Err("write requests a second, e.g. 500".into()),
    }
}

fn process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("write NAME=PID")?;
    let pid: u32 = pid.parse().map_err(|_| "PID is a number")?;
    if machine::process_cpu_s(pid).is_none() {
        return Err(format!("there is no process {pid}"));
    }
    Ok((name.to_owned(), pid))
}

/// Runs it: 0 measured, 1 nothing was answered as it should be or the objective was not met at any rate, 130 interrupted.
///
/// # Errors
/// A sentence that says what to do.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let (mut plan, met) = prepare(args)?;
    plan.protocol = met.protocol.clone();
    plan.check = match args.check {
        Check::On => true,
        Check::Off => false,
        Check::Auto => met.servers.iter().all(|s| is_ours(s.as_deref())),
    };
    let plan = Arc::new(plan);
    interrupt(&plan)?;
    let mut document = document(args, &plan, &met);
    let (progress, seen) = watch::channel(Progress::default());
    let view = live::show(seen);
    let mut driver = Driver::start(plan.clone())?;
    let measured = measure(args, &mut driver, &progress);
    drop(driver);
    progress.send_modify(|p| p.phase = Phase::Done);
    drop(progress);
    let _ = view.join();
    let (rounds, ramp) = measured?;
    document.rounds = rounds;
    document.ramp = ramp;
    document.interrupted = plan.interrupted.load(Relaxed);
    finish(&document, args.target.out.as_deref())?;
    let ok = |round: &Round| round.classes.iter().any(|c| c.class == Class::Ok);
    let met = document.ramp.as_ref().is_none_or(|r| r.rate_met.is_some());
    Ok(
        match (document.interrupted, document.rounds.iter().any(ok) && met) {
            (true, _) => ExitCode::from(130),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::from(1),
        },
    )
}

fn is_ours(server: Option<&str>) -> bool {
    matches!(server, Some("tollgate-upstream" | "tollgate-demo"))
}

fn prepare(args: &Args) -> Result<(Plan, Met), String> {
    let calls: Result<Vec<Call>, String> = args.calls.iter().map(|c| Call::parse(c)).collect();
    let mut plan = args.target.plan(calls?)?;
    let http2 = args.target.http2;
    let open = args.rate.is_some() || args.steps.is_some() || args.slo.is_some();
    if args.connections.is_some() && !open && !http2 {
        return Err(
            "in a closed loop over HTTP/1.1 every worker has its own connection: say --workers instead of --connections"
                .into(),
        );
    }
    if args.busy_poll && !open {
        return Err("--busy-poll is for an open loop: say --rate, --steps or --slo with it".into());
    }
    let connections = args.connections.map(|n| n as usize);
    plan.lanes = match (open, http2) {
        (false, _) => args.workers.map_or(WORKERS, |n| n as usize),
        (true, false) => connections.unwrap_or(CONNECTIONS),
        (true, true) => args.in_flight.map_or(IN_FLIGHT, |n| n as usize),
    };
    plan.connections = if http2 {
        connections.unwrap_or(8).min(plan.lanes)
    } else {
        1
    };
    let threads = args.target.threads.map_or(machine::cores(), usize::from);
    plan.threads = threads.min(plan.lanes);
    plan.queue_max = args.queue;
    plan.poisson = args.poisson;
    plan.busy_poll = args.busy_poll;
    plan.listens = args.listens;
    plan.progress = args.progress;
    let met = preflight::meet(&plan, args.target.protocol()?, args.target.unlisted)?;
    if plan.calls.is_empty() {
        if !met.tools.iter().any(|t| t == "echo") {
            return Err(format!(
                "say what to call: --call 'NAME ARGUMENTS'. {} has: {}",
                args.target.urls.first().map_or("", String::as_str),
                met.tools.join(", ")
            ));
        }
        plan.calls = vec![Call::parse(r#"echo {"message":"{{text:64}}"}"#)?];
    }
    Ok((plan, met))
}

/// Ctrl-C ends what goes on; a second one ends at once.
///
/// # Errors
/// There is no thread to be had.
pub fn interrupt(plan: &Plan) -> Result<(), String> {
    let interrupted = plan.interrupted.clone();
    let listen = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let mut first: Option<Instant> = None;
            while tokio::signal::ctrl_c().await.is_ok() {
                interrupted.store(true, Relaxed);
                match first {
                    Some(at) if at.elapsed() >= AGAIN => std::process::exit(130),
                    Some(_) => {}
                    None => {
                        first = Some(Instant::now());
                        eprintln!("\nending with what was measured; once more Ctrl-C ends at once");
                    }
                }
            }
        });
    };
    let spawned = thread::Builder::new().name("signals".into()).spawn(listen);
    spawned.map(drop).map_err(|e| format!("cannot start: {e}"))
}

fn measure(
    args: &Args,
    driver: &mut Driver,
    progress: &watch::Sender<Progress>,
) -> Result<(Vec<Round>, Option<Ramp>), String> {
    let usual = Duration::from_secs(if args.slo.is_some() { 5 } else { 10 });
    let by_count = args.count.is_some() && args.duration.is_none();
    let shape = Shape {
        name: String::new(),
        rate: args.rate,
        warm_up: args.warm_up,
        duration: (!by_count).then(|| args.duration.unwrap_or(usual)),
        count: args.count,
        processes: args.processes.clone(),
    };
    if let Some(slo) = &args.slo {
        return ramp::search(slo, &shape, driver, progress).map(|(r, ramp)| (r, Some(ramp)));
    }
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        for step in args
            .steps
            .as_deref()
            .map_or(vec![None], |s| s.iter().map(Some).collect())
        {
            if driver.interrupted() {
                return Ok((rounds, None));
            }
            let mut shape = shape.clone();
            if let Some(step) = step {
                shape.rate = Some(step.rate);
                shape.duration = Some(Duration::from_secs_f64(step.seconds));
                shape.name = format!("{}/s", step.rate);
            }
            if args.rounds > 1 {
                let space = if shape.name.is_empty() { "" } else { ", " };
                shape.name = format!("{}{space}round {number} of {}", shape.name, args.rounds);
            }
            rounds.push(driver.round(&shape, progress)?);
        }
    }
    Ok((rounds, None))
}

fn document(args: &Args, plan: &Plan, met: &Met) -> Document {
    let mode = match (&args.slo, &args.steps, args.rate) {
        (Some(slo), _, _) => Mode::Ramp {
            slo: slo.text.clone(),
        },
        (_, Some(steps), _) => Mode::Steps {
            steps: steps.clone(),
        },
        (_, _, Some(rate)) => Mode::Open { rate },
        _ => Mode::Closed {
            workers: plan.lanes,
        },
    };
    let mut config = args.target.config(plan, mode);
    config.warmup_s = args.warm_up.as_secs_f64();
    config.duration_s = args.duration.map(|d| d.as_secs_f64());
    config.count = args.count;
    Document {
        config,
        ..blank(&args.target, plan, met)
    }
}

/// A document without results.
pub fn blank(args: &TargetArgs, plan: &Plan, met: &Met) -> Document {
    let target = |(at, endpoint): (usize, &crate::target::Endpoint)| Target {
        url: endpoint.url.clone(),
        server: met.servers.get(at).cloned().flatten(),
        clock: met.clocks.get(at).and_then(preflight::Clock::offset),
    };
    Document {
        format: FORMAT,
        tool: concat!("tollgate-loadtest ", env!("CARGO_PKG_VERSION")).into(),
        command: std::env::args().collect(),
        label: args.label.clone(),
        started_ms: unix_ms(),
        interrupted: false,
        machine: machine::machine(),
        config: Default::default(),
        targets: plan.endpoints.iter().enumerate().map(target).collect(),
        rounds: Vec::new(),
        ramp: None,
        limits: None,
    }
}

/// Shows the result and writes it where it is wanted.
///
/// # Errors
/// The file cannot be written.
pub fn finish(document: &Document, out: Option<&Path>) -> Result<(), String> {
    let json = || document.to_json() + "\n";
    match out {
        Some(path) if path == Path::new("-") => print!("{}", json()),
        Some(path) => {
            print!("{}", summary::text(document));
            std::fs::write(path, json())
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            println!("\nThe whole result is in {}.", path.display());
        }
        None => print!("{}", summary::text(document)),
    }
    Ok(())
}
