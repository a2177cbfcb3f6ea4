//! What is to be done, read from the command line and filled in by asking the targets.
//!
//! ```text
//! args.rs (clap) ──► text.rs, template.rs, grants.rs ──► Plan ──► drive
//! ```

pub mod args;
pub mod call;
pub mod grants;
pub mod rng;
pub mod template;
pub mod text;

use self::{
    call::{Call, Protocol},
    grants::Grant,
};
use crate::target::{Connector, Endpoint};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// How requests find a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Balance {
    /// Every request goes to the next one
    #[default]
    RoundRobin,
    /// All requests of a grant go to one
    Sticky,
}

impl Balance {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round-robin",
            Balance::Sticky => "sticky",
        }
    }
}

/// Everything that every thread of a run must know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to ask.
    pub endpoints: Vec<Endpoint>,
    /// How to reach them.
    pub connector: Connector,
    /// What to ask.
    pub calls: Vec<Call>,
    /// As whom; empty = without authorization.
    pub grants: Vec<Grant>,
    /// The protocol.
    pub protocol: Protocol,
    /// How targets take turns.
    pub balance: Balance,
    /// A new connection for every request.
    pub churn: bool,
    /// Ask for progress notifications.
    pub progress: bool,
    /// Sessions a thread, target and grant.
    pub sessions: usize,
    /// Calls after which a session is deleted and another opened; 0 = never.
    pub session_calls: u64,
    /// Listen streams in all.
    pub listens: usize,
    /// When a reply is given up.
    pub timeout: Duration,
    /// Of all randomness.
    pub seed: u64,
    /// Compare texts with what the recording server must have said.
    pub check: bool,
    /// Requests that may be in progress at once, in all.
    pub lanes: usize,
    /// HTTP/2: connections for each target, in all.
    pub connections: usize,
    /// Open loop: requests that may wait for a lane, in all.
    pub queue_max: usize,
    /// Open loop: exponentially distributed gaps.
    pub poisson: bool,
    /// Open loop: threads poll instead of sleeping.
    pub busy_poll: bool,
    /// Threads.
    pub threads: usize,
    /// Ctrl-C was pressed.
    pub interrupted: Arc<AtomicBool>,
}

impl Plan {
    /// Sums of weights, to draw calls by.
    pub fn weights(&self) -> Vec<u64> {
        let mut sum = 0;
        let add = |call: &Call| {
            sum += u64::from(call.weight);
            sum
        };
        self.calls.iter().map(add).collect()
    }

    /// This thread's part of a number that all threads share.
    pub fn share(&self, whole: usize, thread: usize) -> usize {
        whole / self.threads + usize::from(thread < whole % self.threads)
    }
}
