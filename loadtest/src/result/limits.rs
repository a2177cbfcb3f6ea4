//! The part of a result that the exactness test writes.

use serde::{Deserialize, Serialize};

/// The exactness test.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Limits {
    /// The tool that was called.
    pub tool: String,
    /// Most calls that a key may have admitted in a window.
    pub max: u64,
    /// The window's length, ms; windows are aligned to the epoch (calendar minutes, hours and days are, too).
    pub window_ms: u64,
    /// Nothing is sent for this long before and after each border, ms: 500 and the largest clock offset.
    pub guard_ms: u64,
    /// Whether the upstream's record was read.
    pub upstream_record: bool,
    /// Audit logs that were read.
    pub audit_logs: Vec<String>,
    /// One for each key.
    pub keys: Vec<LimitKey>,
    /// Over everything that was judged.
    pub verdict: Verdict,
    /// The same as a sentence.
    pub sentence: String,
}

/// One counter.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LimitKey {
    /// The grant's name (never its token), with the value of `--key` if there is one.
    pub key: String,
    /// In order.
    pub windows: Vec<LimitWindow>,
}

/// One key in one window.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LimitWindow {
    /// When it began by the targets' clock.
    pub starts_ms: u64,
    /// When it ended.
    pub ends_ms: u64,
    /// Calls sent.
    pub sent: u64,
    /// Calls answered as admitted: the client's own view.
    pub admitted: u64,
    /// Calls refused because of the limit.
    pub refused: u64,
    /// Refusals that were not because of the limit (a ledger that cannot be reached, overload): they do not make a key short.
    pub unavailable: u64,
    /// Neither: errors, timeouts. Each may or may not have been admitted.
    pub unknown: u64,
    /// Calls that the upstream executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_upstream: Option<u64>,
    /// Calls charged and not given back, by the audit logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_audit: Option<u64>,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it was not judged, or what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Admitted calls against the maximum.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As many as the maximum, and more were asked for.
    Exact,
    /// Fewer, although more were asked for.
    Short,
    /// More.
    Over,
    /// Not judged: not a whole window, not enough asked for, or the views differ because replies were lost.
    NotJudged,
}
