//! What a run was asked to do, as its result repeats it.

use serde::{Deserialize, Serialize};

/// What was asked for, defaults filled in.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Config {
    /// How requests are paced.
    pub mode: Mode,
    /// Connections in all (of HTTP/2: each carries many requests).
    pub connections: usize,
    /// Threads of the client.
    pub threads: usize,
    /// `1.1` or `2`.
    pub http: String,
    /// Whether connections are made anew for every request.
    pub churn: bool,
    /// Whether TLS is used, and whether certificates were believed unseen.
    pub tls: Tls,
    /// The protocol version asked for, e.g. `2026-07-28`.
    pub protocol: String,
    /// How requests find a target: `round-robin` or `sticky`.
    pub balance: String,
    /// Grants that take turns; 0 = no `Authorization` was sent.
    pub grants: usize,
    /// What is called, with weights.
    pub mix: Vec<MixEntry>,
    /// Whether threads polled instead of sleeping.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy_poll: bool,
    /// Listen streams held open.
    pub listens: usize,
    /// Seconds before measuring starts.
    pub warmup_s: f64,
    /// Seconds to measure, unless a count ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Requests to measure, unless the duration ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// A reply that takes longer counts as a timeout, ms.
    pub timeout_ms: u64,
    /// From which arguments and order are drawn.
    pub seed: u64,
    /// Whether replies were compared with what the upstream must have said.
    pub checked: bool,
}

/// How requests are paced.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Mode {
    /// Each worker sends its next request when its last one was answered. Latency is from the actual send.
    Closed {
        /// Requests in flight.
        workers: usize,
    },
    /// Requests leave at a fixed rate, whatever comes back. Latency is from the intended send.
    Open {
        /// Requests a second.
        rate: f64,
    },
    /// Rates one after the other.
    Steps {
        /// Requests a second and seconds.
        steps: Vec<Step>,
    },
    /// The highest rate that meets an objective is searched.
    Ramp {
        /// As written, e.g. `p99<5ms,errors<0.1%`.
        slo: String,
    },
    /// The exactness test: bursts inside each window.
    Limits,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Closed { workers: 1 }
    }
}

/// One step of a stepped rate.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct Step {
    /// Requests a second.
    pub rate: f64,
    /// For how long, seconds.
    pub seconds: f64,
}

/// Transport security.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Plain text.
    #[default]
    None,
    /// Certificates were verified.
    Verified,
    /// `--insecure`: certificates were not verified.
    Insecure,
}

/// One line of the mix.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct MixEntry {
    /// `tools/call`, `tools/list`, …
    pub method: String,
    /// The tool, for `tools/call`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Its share among the others' weights.
    pub weight: u32,
    /// Where its arguments come from, as written.
    pub arguments: String,
}
