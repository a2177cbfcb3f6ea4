//! What a run leaves behind: one JSON document that holds everything a report or a comparison needs.
//!
//! ```text
//! Document ── machine, command, config, targets
//!    ├── rounds[] ── classes[] (histogram each), targets[], seconds[], client, processes[]
//!    ├── ramp      ── steps[] with the verdict of each          (`run --slo`)
//!    └── limits    ── keys[] ── windows[] with their verdicts    (`limits`)
//! ```
//! Times of day are milliseconds since 1970, latencies nanoseconds. Fields that do not apply are left out. A reader must
//! refuse a `format` it does not know and ignore fields it does not know.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod config;
mod limits;

pub use self::config::{Config, MixEntry, Mode, Step, Tls};
pub use self::limits::{LimitKey, LimitWindow, Limits, Verdict};
pub use crate::histogram::Histogram;
pub use crate::progress::{Phase, Progress};

/// The version of [`Document`] that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Everything that one invocation measured.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// The exact command: arguments as they were given. Tokens are never among them.
    pub command: Vec<String>,
    /// A name for it, as given by `--label`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it began.
    pub started_ms: u64,
    /// Whether Ctrl-C ended it early: what was measured until then is in here.
    pub interrupted: bool,
    /// Where the client ran.
    pub machine: Machine,
    /// What was asked for.
    pub config: Config,
    /// Whom it was asked of, in the order of the command line.
    pub targets: Vec<Target>,
    /// One measurement each; more than one with `--rounds`, or one a step of a ramp.
    pub rounds: Vec<Round>,
    /// The search for the highest rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// The exactness test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// The client's machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Machine {
    /// Host name.
    pub host: String,
    /// Operating system and kernel release.
    pub os: String,
    /// The processor's name.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Target {
    /// Its URL.
    pub url: String,
    /// What it calls itself, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Its clock minus ours as its `Date` headers show it, ms, and how uncertain that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockOffset>,
}

/// A target's clock minus ours.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ClockOffset {
    /// Best estimate, ms.
    pub offset_ms: i64,
    /// The true value is within ± this, ms.
    pub error_ms: u64,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The result that was due.
    Ok,
    /// The tool itself said that it failed.
    ToolError,
    /// A gateway's policy said no; the code says why.
    Denied,
    /// HTTP 429, or an error that says the same.
    RateLimited,
    /// Another HTTP 4xx or JSON-RPC error.
    Rejected,
    /// HTTP 5xx.
    ServerError,
    /// The connection failed, was cut, or the reply was no HTTP.
    Transport,
    /// Nothing complete came in time.
    Timeout,
    /// A reply to something else.
    WrongId,
    /// A reply that is not what the upstream must have said, or no JSON-RPC.
    WrongBody,
}

impl Class {
    /// Every class, in the order of reports.
    pub const ALL: [Class; 10] = [
        Class::Ok,
        Class::ToolError,
        Class::Denied,
        Class::RateLimited,
        Class::Rejected,
        Class::ServerError,
        Class::Transport,
        Class::Timeout,
        Class::WrongId,
        Class::WrongBody,
    ];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Class::Ok => "ok",
            Class::ToolError => "tool_error",
            Class::Denied => "denied",
            Class::RateLimited => "rate_limited",
            Class::Rejected => "rejected",
            Class::ServerError => "server_error",
            Class::Transport => "transport",
            Class::Timeout => "timeout",
            Class::WrongId => "wrong_id",
            Class::WrongBody => "wrong_body",
        }
    }

    /// Whether it counts against `errors` of an objective: everything but what was due. A denial is a correct answer,
    /// and yet not what a load test asks for.
    pub fn is_error(self) -> bool {
        self != Class::Ok
    }
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Round {
    /// What tells it from its neighbours, e.g. `round 2` or `12000/s`.
    pub name: String,
    /// When measuring began, after the warm-up.
    pub started_ms: u64,
    /// From then until the last reply that counts, seconds.
    pub seconds: f64,
    /// Requests a second that were intended, where that was fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_intended: Option<f64>,
    /// Requests that were due while measuring (open loop), or sent (closed loop).
    pub due: u64,
    /// Of them those that were never sent, because `--in-flight-max` was reached: they are in no histogram, and a run
    /// that has any did not keep its rate.
    pub unsent: u64,
    /// Requests that were sent and not awaited, because the run was interrupted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub abandoned: u64,
    /// Open loop: by how much a percentile up to the 99th may be off because of this client, ns: it was late to send and
    /// to read (99.9th percentile each), and values are kept to 0.1 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_ns: Option<u64>,
    /// Requests answered or given up, by how they ended.
    pub classes: Vec<ClassResult>,
    /// The same for each target, in their order.
    pub targets: Vec<TargetResult>,
    /// Latency of every class together.
    pub latency: Histogram,
    /// From the intended to the actual send: how far behind its schedule the client was.
    pub late: Histogram,
    /// From the send to the first byte of a streamed (SSE) reply, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_event: Option<Histogram>,
    /// Progress notifications that came.
    pub progress_events: u64,
    /// Notifications on listen streams.
    pub listen_events: u64,
    /// Body bytes out and in.
    pub bytes_sent: u64,
    /// Body bytes in.
    pub bytes_received: u64,
    /// Connections made while measuring.
    pub connects: u64,
    /// Sessions opened while measuring.
    pub sessions: u64,
    /// Second by second; the last one may be a part of one.
    pub series: Vec<Second>,
    /// What the client itself used.
    pub client: Client,
    /// Other processes that were watched (`--process NAME=PID`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    /// The first few texts of what went wrong, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

impl Round {
    /// Every histogram in it.
    fn histograms(&self) -> impl Iterator<Item = &Histogram> {
        let whole = [&self.latency, &self.late].into_iter();
        whole
            .chain(&self.first_event)
            .chain(self.classes.iter().map(|class| &class.latency))
            .chain(self.targets.iter().map(|target| &target.latency))
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One class of replies.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ClassResult {
    /// The class.
    pub class: Class,
    /// Within it: a denial's code, an HTTP status, a JSON-RPC code, the kind of transport error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How many.
    pub count: u64,
    /// Their latency.
    pub latency: Histogram,
}

/// One target's part.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct TargetResult {
    /// Its place in [`Document::targets`].
    pub target: usize,
    /// By class name.
    pub classes: BTreeMap<Class, u64>,
    /// Of every class together.
    pub latency: Histogram,
}

/// One second.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Second {
    /// Counted from 0 at the start of measuring.
    pub second: u32,
    /// Requests sent.
    pub sent: u64,
    /// Requests that ended, by class.
    pub done: BTreeMap<Class, u64>,
    /// Waiting for their answer at its end.
    pub in_flight: u64,
    /// Median latency of those that ended, ns; 0 without any.
    pub p50_ns: u64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
    /// The longest, ns.
    pub max_ns: u64,
}

impl Second {
    /// Requests that ended.
    pub fn total(&self) -> u64 {
        self.done.values().sum()
    }
}

/// What the client used while measuring, and whether it was in its own way.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Client {
    /// Seconds of processor time in user mode.
    pub cpu_user_s: f64,
    /// Seconds of processor time in the kernel.
    pub cpu_system_s: f64,
    /// Processor time a request, µs.
    pub cpu_us_request: f64,
    /// The busiest thread's share of one processor, 0 to 1.
    pub busiest: f64,
    /// Highest resident memory, bytes.
    pub rss_bytes_max: u64,
    /// Whether the client was the bottleneck: then the numbers say more about it than about the target.
    pub bottleneck: bool,
    /// Why, as a sentence; also says so where it was not.
    pub verdict: String,
}

/// A watched process.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Process {
    /// As given.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// Processor time while measuring, seconds.
    pub cpu_s: f64,
    /// Processor time a request, µs.
    pub cpu_us_request: f64,
    /// Resident memory at the end, bytes.
    pub rss_bytes: u64,
}

/// Something that went wrong, in words.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Sample {
    /// Its class.
    pub class: Class,
    /// Its target.
    pub target: usize,
    /// What was seen, at most a few hundred bytes.
    pub text: String,
}

/// The search for the highest rate.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Ramp {
    /// As written.
    pub slo: String,
    /// In the order in which they were tried; each has a round of the same index.
    pub steps: Vec<RampStep>,
    /// The highest rate that met it, requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_met: Option<f64>,
    /// The lowest rate that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_failed: Option<f64>,
    /// What to make of it, as a sentence.
    pub verdict: String,
}

/// One rate that was tried.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct RampStep {
    /// Requests a second.
    pub rate: f64,
    /// Whether the objective was met.
    pub met: bool,
    /// What failed, or what was measured.
    pub why: String,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// A sentence: it is no JSON, of another shape, or of a format that this program does not know.
    pub fn from_json(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_str(text)
            .map_err(|e| format!("this is no result of tollgate-loadtest: {e}"))?;
        if format != FORMAT {
            return Err(format!(
                "its format is {format} and this program reads {FORMAT}: use the tollgate-loadtest that wrote it"
            ));
        }
        let document: Self =
            serde_json::from_str(text).map_err(|e| format!("the result cannot be read: {e}"))?;
        for histogram in document.rounds.iter().flat_map(Round::histograms) {
            histogram
                .check()
                .map_err(|e| format!("the result cannot be believed: {e}"))?;
        }
        Ok(document)
    }

    /// The document as JSON on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = include_str!("../tests/data/result.json");

    #[test]
    fn the_fixture_is_read_and_written_without_a_loss() {
        let document = Document::from_json(FIXTURE).unwrap();
        let again = Document::from_json(&document.to_json()).unwrap();
        assert_eq!(document, again);
        let written: serde_json::Value = serde_json::from_str(&document.to_json()).unwrap();
        let read: serde_json::Value = serde_json::from_str(FIXTURE).unwrap();
        assert_eq!(written, read);
    }

    #[test]
    fn another_format_is_refused_with_advice() {
        let error = Document::from_json(r#"{"format":2}"#).unwrap_err();
        assert!(error.contains("format is 2"), "{error}");
        assert!(Document::from_json("[]").is_err());
    }

    #[test]
    fn a_histogram_that_contradicts_itself_is_refused() {
        let with = |buckets: serde_json::Value, count: u64| {
            let mut document: serde_json::Value = serde_json::from_str(FIXTURE).unwrap();
            let latency = &mut document["rounds"][0]["classes"][0]["latency"];
            latency["buckets"] = buckets;
            latency["count"] = count.into();
            Document::from_json(&document.to_string())
        };
        assert!(with(serde_json::json!([[1, 2], [3, 4]]), 6).is_ok());
        for (buckets, count) in [
            (serde_json::json!([[1, 2], [3, 4]]), 7),
            (serde_json::json!([[3, 2], [3, 4]]), 6),
            (serde_json::json!([[1, u64::MAX], [3, 4]]), 3),
        ] {
            let error = with(buckets, count).unwrap_err();
            assert!(error.contains("cannot be believed"), "{error}");
        }
    }

    #[test]
    fn class_names_are_those_of_the_json() {
        for class in Class::ALL {
            let json = serde_json::to_string(&class).unwrap();
            assert_eq!(json, format!("\"{}\"", class.name()));
        }
    }
}
