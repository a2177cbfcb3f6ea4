//! What a run tells whoever watches it, over a `tokio::sync::watch` channel.
//!
//! The sender replaces the value some four times a second; a view reads it on a thread of its own, at its own pace, and
//! ends when the sender is gone (`has_changed` is an error then) or the phase is [`Phase::Done`].

use crate::result::{Class, Second};
use std::collections::BTreeMap;

/// What is known while it runs, some times a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// The round, the step of a ramp or the window, for people: `round 2 of 6`, `12000/s`.
    pub name: String,
    /// Since this phase began, seconds.
    pub elapsed_s: f64,
    /// How long the phase is to last, seconds, where that is known.
    pub total_s: Option<f64>,
    /// How many requests it is to measure, where that ends it.
    pub total_count: Option<u64>,
    /// Requests a second that are intended.
    pub rate_intended: Option<f64>,
    /// Requests that were sent in this phase.
    pub sent: u64,
    /// Requests that ended, by class.
    pub done: BTreeMap<Class, u64>,
    /// Waiting for their answer.
    pub in_flight: u64,
    /// Open-loop requests that could not be sent.
    pub unsent: u64,
    /// Percentiles of the phase so far, ns.
    pub p50_ns: u64,
    /// 99th.
    pub p99_ns: u64,
    /// 99.9th.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
    /// Seconds that are complete, the newest last; at most the last 120.
    pub recent: Vec<Second>,
    /// The busiest client thread's share of one processor, 0 to 1.
    pub busiest: f64,
    /// Something to say beside: `waiting for the window at 12:31:00`.
    pub note: Option<String>,
}

/// The phase of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Connections and sessions are opened, targets are asked what they have.
    #[default]
    Preparing,
    /// Load that is not measured.
    WarmUp,
    /// Load that is measured.
    Measuring,
    /// Nothing is sent (between windows, between rounds).
    Waiting,
    /// The last replies are awaited.
    Draining,
    /// Over.
    Done,
}
