//! The figures of a report, once for all its forms: HTML, Markdown and JSON show the same.

use super::format;
use crate::{
    histogram::Histogram,
    result::{Class, Document, Mode, Round, Tls},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// The quantiles of every table.
pub const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// One result with its figures.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its label, or the file's name.
    pub title: String,
    /// The file it was read from.
    pub file: String,
    /// What was measured.
    pub document: Document,
    /// All rounds as one.
    pub all: Figures,
    /// One for each round.
    pub rounds: Vec<Figures>,
    /// All rounds, by class and code.
    pub classes: Vec<ClassFigures>,
    /// What a reader must know before believing the figures.
    pub warnings: Vec<String>,
}

/// The figures of a round, or of all.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The round's name, or `all rounds`.
    pub name: String,
    /// How long was measured, seconds.
    pub seconds: f64,
    /// Requests a second that were intended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_intended: Option<f64>,
    /// Requests that ended.
    pub ended: u64,
    /// Of them the good ones.
    pub ok: u64,
    /// Requests that ended, a second.
    pub ended_second: f64,
    /// Good ones, a second.
    pub ok_second: f64,
    /// Requests that were never sent.
    pub unsent: u64,
    /// Latency of the good ones, ns: by the names of [`QUANTILES`], `min`, `mean` and `max`; empty without any.
    pub latency_ns: BTreeMap<&'static str, u64>,
    /// The client's processor time a request, µs.
    pub client_cpu_us_request: f64,
    /// The busiest client thread's share of a processor.
    pub client_busiest: f64,
}

/// One kind of reply.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFigures {
    /// The class.
    pub class: Class,
    /// What tells it from others of its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How many.
    pub count: u64,
    /// Their latency, as in [`Figures`].
    pub latency_ns: BTreeMap<&'static str, u64>,
}

/// The quantiles and ends of a distribution.
pub fn latencies(histogram: &Histogram) -> BTreeMap<&'static str, u64> {
    if histogram.count == 0 {
        return BTreeMap::new();
    }
    let quantiles = QUANTILES
        .iter()
        .map(|&(name, quantile)| (name, histogram.quantile(quantile)));
    quantiles
        .chain([
            ("min", histogram.min),
            ("mean", histogram.mean.max(0.0) as u64),
            ("max", histogram.max),
        ])
        .collect()
}

/// The good replies of a round as one distribution.
pub fn good(round: &Round) -> Histogram {
    let good = round.classes.iter().filter(|c| c.class == Class::Ok);
    good.fold(Histogram::default(), |all, c| all.merged(&c.latency))
}

/// Rounds that are repetitions of one measurement; the steps of a ramp are different loads and never merged.
pub fn repeated(document: &Document) -> bool {
    document.ramp.is_none() && !matches!(document.config.mode, Mode::Steps { .. })
}

impl Figures {
    /// Of one round.
    fn of(round: &Round) -> Self {
        let count = |good: bool| {
            let classes = round.classes.iter();
            classes
                .filter(|c| !good || c.class == Class::Ok)
                .fold(0_u64, |sum, c| sum.saturating_add(c.count))
        };
        let (ended, ok) = (count(false), count(true));
        let a_second = |n: u64| {
            if round.seconds > 0.0 {
                n as f64 / round.seconds
            } else {
                0.0
            }
        };
        Self {
            name: round.name.clone(),
            seconds: round.seconds,
            rate_intended: round.rate_intended,
            ended,
            ok,
            ended_second: a_second(ended),
            ok_second: a_second(ok),
            unsent: round.unsent,
            latency_ns: latencies(&good(round)),
            client_cpu_us_request: round.client.cpu_us_request,
            client_busiest: round.client.busiest,
        }
    }
}

/// All rounds as one: counts and histograms are added, shares of the client are those of the worst round.
pub fn together(rounds: &[Round]) -> Round {
    let mut all = Round {
        name: "all rounds".into(),
        ..Round::default()
    };
    all.rate_intended = rounds.first().and_then(|first| first.rate_intended);
    for round in rounds {
        all.seconds += round.seconds;
        all.due = all.due.saturating_add(round.due);
        all.unsent = all.unsent.saturating_add(round.unsent);
        all.latency = all.latency.merged(&round.latency);
        all.late = all.late.merged(&round.late);
        if all.rate_intended != round.rate_intended {
            all.rate_intended = None;
        }
        for class in &round.classes {
            let known = all
                .classes
                .iter_mut()
                .find(|known| known.class == class.class && known.code == class.code);
            match known {
                Some(known) => {
                    known.count = known.count.saturating_add(class.count);
                    known.latency = known.latency.merged(&class.latency);
                }
                None => all.classes.push(class.clone()),
            }
        }
        for target in &round.targets {
            let at = all.targets.iter().position(|t| t.target == target.target);
            let at = at.unwrap_or_else(|| {
                all.targets.push(Default::default());
                all.targets.len() - 1
            });
            let known = &mut all.targets[at];
            known.target = target.target;
            known.latency = known.latency.merged(&target.latency);
            for (class, count) in &target.classes {
                let sum = known.classes.entry(*class).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        all.client.cpu_user_s += round.client.cpu_user_s;
        all.client.cpu_system_s += round.client.cpu_system_s;
        all.client.busiest = all.client.busiest.max(round.client.busiest);
        all.client.rss_bytes_max = all.client.rss_bytes_max.max(round.client.rss_bytes_max);
    }
    all.classes
        .sort_by(|a, b| (a.class, &a.code).cmp(&(b.class, &b.code)));
    let ended: u64 = all
        .classes
        .iter()
        .fold(0, |sum, c| sum.saturating_add(c.count));
    if ended > 0 {
        let cpu = all.client.cpu_user_s + all.client.cpu_system_s;
        all.client.cpu_us_request = cpu * 1e6 / ended as f64;
    }
    all
}

impl Run {
    /// The figures of a result.
    pub fn new(file: &str, document: Document) -> Self {
        let merged = together(&document.rounds);
        let name = std::path::Path::new(file).file_name();
        let name = name.map_or_else(|| file.to_owned(), |n| n.to_string_lossy().into_owned());
        let classes = merged.classes.iter().map(|c| ClassFigures {
            class: c.class,
            code: c.code.clone(),
            count: c.count,
            latency_ns: latencies(&c.latency),
        });
        Self {
            title: document.label.clone().unwrap_or(name),
            file: file.to_owned(),
            all: Figures::of(&merged),
            rounds: document.rounds.iter().map(Figures::of).collect(),
            classes: classes.collect(),
            warnings: warnings(&document, &merged),
            document,
        }
    }

    /// What was asked for, as names and values.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let config = &self.document.config;
        let polled = match config.busy_poll {
            true => "; the client polled without pause: its processor time says nothing",
            false => "",
        };
        let mut rows = vec![("Pace", pace(&config.mode) + polled)];
        let mut tell = |name, value: String| rows.push((name, value));
        tell("Protocol", config.protocol.clone());
        let tls = match config.tls {
            Tls::None => "",
            Tls::Verified => ", TLS",
            Tls::Insecure => ", TLS with unverified certificates",
        };
        tell(
            "Connections",
            format!(
                "{} (HTTP/{}{tls}{})",
                format::count(config.connections as u64),
                config.http,
                if config.churn { ", one a request" } else { "" }
            ),
        );
        for (at, target) in self.document.targets.iter().enumerate() {
            let server = target.server.as_ref().map(|s| format!(" ({s})"));
            let clock = target
                .clock
                .map(|clock| format!(", its clock {:+} ± {} ms", clock.offset_ms, clock.error_ms));
            tell(
                if at == 0 { "Targets" } else { "" },
                format!(
                    "{}{}{}",
                    target.url,
                    server.unwrap_or_default(),
                    clock.unwrap_or_default()
                ),
            );
        }
        if self.document.targets.len() > 1 {
            tell("Balance", config.balance.clone());
        }
        tell("Grants", format::count(config.grants as u64));
        for (at, entry) in config.mix.iter().enumerate() {
            let tool = entry.tool.as_deref().unwrap_or_default();
            tell(
                if at == 0 { "Calls" } else { "" },
                format!(
                    "{} × {} {tool} {}",
                    entry.weight, entry.method, entry.arguments
                ),
            );
        }
        if config.listens > 0 {
            tell("Listen streams", format::count(config.listens as u64));
        }
        tell("Warm-up", format!("{} s", format::number(config.warmup_s)));
        if let Some(seconds) = config.duration_s {
            tell("Duration", format!("{} s", format::number(seconds)));
        }
        if let Some(count) = config.count {
            tell("Requests", format::count(count));
        }
        tell("Timeout", format::length(config.timeout_ms));
        tell("Seed", config.seed.to_string());
        tell(
            "Replies",
            if config.checked {
                "compared with what the upstream must have said".into()
            } else {
                "not compared with anything".into()
            },
        );
        rows
    }

    /// Where it was measured, as names and values.
    pub fn machine(&self) -> Vec<(&'static str, String)> {
        let machine = &self.document.machine;
        let threads = self.document.config.threads;
        vec![
            ("Started", format::moment(self.document.started_ms)),
            ("Host", machine.host.clone()),
            ("System", machine.os.clone()),
            (
                "Processor",
                format!(
                    "{}, {} cores, threads of the client: {threads}",
                    machine.cpu, machine.cores
                ),
            ),
            ("Memory", format::bytes(machine.memory_bytes)),
            ("Program", self.document.tool.clone()),
        ]
    }
}

/// A mode in words.
fn pace(mode: &Mode) -> String {
    match mode {
        Mode::Closed { workers } => {
            format!("closed loop, {workers} requests in flight; latency from the actual send")
        }
        Mode::Open { rate } => format!(
            "open loop, {} requests/s; latency from the intended send",
            format::number(*rate)
        ),
        Mode::Steps { steps } => {
            let steps = steps.iter().map(|step| {
                format!(
                    "{}/s for {} s",
                    format::number(step.rate),
                    format::number(step.seconds)
                )
            });
            format!(
                "open loop in steps: {}",
                steps.collect::<Vec<_>>().join(", ")
            )
        }
        Mode::Ramp { slo } => format!("search for the highest rate that meets {slo}"),
        Mode::Limits => "bursts in every window, to test a limit".into(),
    }
}

fn warnings(document: &Document, all: &Round) -> Vec<String> {
    let mut found = Vec::new();
    if document.interrupted {
        found.push("The run was interrupted: these are the figures until then.".to_owned());
    }
    for round in document.rounds.iter().filter(|r| r.client.bottleneck) {
        found.push(format!("{}: {}", round.name, round.client.verdict));
    }
    if all.unsent > 0 {
        found.push(format!(
            "{} of {} requests that were due ({}) were never sent: the rate was not kept, and they are in no percentile.",
            format::count(all.unsent),
            format::count(all.due),
            format::share(all.unsent, all.due)
        ));
    }
    let bad = all
        .classes
        .iter()
        .filter(|c| matches!(c.class, Class::WrongId | Class::WrongBody) && c.count > 0);
    for class in bad {
        found.push(format!(
            "{} replies were not what the upstream must have said ({}).",
            format::count(class.count),
            class.class.name()
        ));
    }
    let measured: u64 = all
        .classes
        .iter()
        .fold(0, |sum, c| sum.saturating_add(c.count));
    if measured > 0 && measured < 10_000 && document.limits.is_none() {
        found.push(format!(
            "{} requests are few: p99.9 stands on {} of them.",
            format::count(measured),
            format::count(measured / 1000)
        ));
    }
    if !document.config.checked && document.limits.is_none() && measured > 0 {
        found.push("Replies were not compared with what the upstream must have said.".to_owned());
    }
    found
}
