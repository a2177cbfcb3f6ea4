//! Metrics of the ledger and of what this node leases from it.

use super::{Registry, Words, histogram::Histogram, table::*};
use metrics::{Counter, Gauge, Label};
use std::{sync::Arc, time::Duration};

/// Upper bounds for waits on disk and network, nanoseconds: 50 µs to 5 s.
const WAIT_BOUNDS_NS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// How the ledger is, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerFigures {
    /// A leader is known.
    pub has_leader: bool,
    /// Questions of this node that wait for the leader.
    pub outstanding: usize,
    /// Raft's term.
    pub term: u64,
    /// Connections to voters, and of others to this node.
    pub connections: [usize; 2],
    /// Messages lost on the way out: Raft's, and pushes.
    pub lost: [u64; 2],
    /// Connections closed because their node did not read.
    pub slow: u64,
    /// Of a voter.
    pub voter: Option<VoterFigures>,
    /// Of the leader.
    pub led: Option<LedFigures>,
}

/// How a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterFigures {
    /// It leads.
    pub leads: bool,
    /// Indexes of its log: the last, committed, applied, of its newest snapshot.
    pub index: [u64; 4],
    /// Elections that it began.
    pub elections: u64,
    /// Batches that it proposed.
    pub batches: u64,
    /// Commands in them.
    pub commands: u64,
    /// Requests that wait for a quorum.
    pub requests: usize,
    /// Requests that it refused for the rate or the bound.
    pub refused: u64,
    /// Messages of peers that it ignored.
    pub ignored: u64,
    /// Bytes of its log on the disk.
    pub log_bytes: u64,
    /// Its wall clock less the median of the voters', milliseconds.
    pub clock_offset_ms: i64,
    /// It waits until an operator accepts the clock.
    pub clock_waits: bool,
}

/// What only the leader knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedFigures {
    /// Members that vote.
    pub voters: usize,
    /// Of those, heard of lately; the leader among them.
    pub voters_reachable: usize,
    /// Lease clients.
    pub clients: usize,
    /// Live counters.
    pub counters: u64,
    /// Limits that nodes define differently.
    pub conflicts: usize,
}

/// The handles.
#[derive(Debug)]
pub struct Ledger {
    leader: Gauge,
    outstanding: Gauge,
    term: Gauge,
    leads: Gauge,
    index: [Gauge; 4],
    elections: Counter,
    batches: Counter,
    commands: Counter,
    requests: Gauge,
    refused: Counter,
    ignored: Counter,
    log_bytes: Gauge,
    connections: [Gauge; 2],
    lost: [Counter; 2],
    slow: Counter,
    clock_offset: Gauge,
    clock_waits: Gauge,
    members: [Gauge; 3],
    counters: Gauge,
    conflicts: Gauge,
    fsync: Histogram,
    lease_wait: Histogram,
    leases: Words<&'static str>,
    pushes: Words<&'static str>,
    unreachable: Words<&'static str>,
}

impl Ledger {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        let gauge = |name| registry.gauge(name, vec![]);
        let counter = |name| registry.counter(name, vec![]);
        let words = |name, label| {
            let registry = registry.clone();
            Words::new(move |word: Option<&'static str>| {
                registry.counter(name, vec![Label::new(label, word.unwrap_or(super::OTHER))])
            })
        };
        Self {
            leader: gauge(LEDGER_LEADER),
            outstanding: gauge(LEDGER_OUTSTANDING),
            term: gauge(RAFT_TERM),
            leads: gauge(RAFT_LEADS),
            index: ["last", "committed", "applied", "snapshot"]
                .map(|of| registry.gauge(RAFT_INDEX, vec![Label::new("of", of)])),
            elections: counter(RAFT_ELECTIONS),
            batches: counter(RAFT_BATCHES),
            commands: counter(RAFT_COMMANDS),
            requests: gauge(RAFT_REQUESTS),
            refused: counter(RAFT_REFUSED),
            ignored: counter(RAFT_IGNORED),
            log_bytes: gauge(RAFT_LOG_BYTES),
            connections: ["made", "taken"]
                .map(|of| registry.gauge(PEER_CONNECTIONS, vec![Label::new("of", of)])),
            lost: ["raft", "pushes"]
                .map(|kind| registry.counter(PEER_LOST, vec![Label::new("kind", kind)])),
            slow: counter(PEER_SLOW),
            clock_offset: gauge(CLOCK_OFFSET),
            clock_waits: gauge(CLOCK_WAITS),
            members: ["voters", "voters_reachable", "clients"]
                .map(|of| registry.gauge(LEDGER_MEMBERS, vec![Label::new("of", of)])),
            counters: gauge(LEDGER_COUNTERS),
            conflicts: gauge(LEDGER_CONFLICTS),
            fsync: Histogram::new(WAIT_BOUNDS_NS),
            lease_wait: Histogram::new(WAIT_BOUNDS_NS),
            leases: words(LEASES, "result"),
            pushes: words(LEASE_PUSHES, "kind"),
            unreachable: words(UNREACHABLE, "reason"),
        }
    }

    /// Sets what is known now.
    pub fn show(&self, figures: &LedgerFigures) {
        let truth = |truth: bool| f64::from(u8::from(truth));
        self.leader.set(truth(figures.has_leader));
        self.outstanding.set(figures.outstanding as f64);
        self.term.set(figures.term as f64);
        for (gauge, count) in self.connections.iter().zip(figures.connections) {
            gauge.set(count as f64);
        }
        for (counter, count) in self.lost.iter().zip(figures.lost) {
            counter.absolute(count);
        }
        self.slow.absolute(figures.slow);
        if let Some(voter) = &figures.voter {
            self.leads.set(truth(voter.leads));
            for (gauge, index) in self.index.iter().zip(voter.index) {
                gauge.set(index as f64);
            }
            self.elections.absolute(voter.elections);
            self.batches.absolute(voter.batches);
            self.commands.absolute(voter.commands);
            self.requests.set(voter.requests as f64);
            self.refused.absolute(voter.refused);
            self.ignored.absolute(voter.ignored);
            self.log_bytes.set(voter.log_bytes as f64);
            self.clock_offset.set(voter.clock_offset_ms as f64 / 1e3);
            self.clock_waits.set(truth(voter.clock_waits));
        }
        // Who no longer leads no longer says anything of the others.
        let led = figures.led.clone().unwrap_or_default();
        let members = [led.voters, led.voters_reachable, led.clients];
        for (gauge, members) in self.members.iter().zip(members) {
            gauge.set(members as f64);
        }
        self.counters.set(led.counters as f64);
        self.conflicts.set(led.conflicts as f64);
    }

    /// Counts a write of the log to the disk.
    pub fn synced(&self, took: Duration) {
        self.fsync.record(nanos(took));
    }
    /// Counts what a question for quota came to, by a word of the code: `granted`, `refused`, `unreachable`, ….
    pub fn leased(&self, result: &'static str) {
        self.leases.count(result);
    }
    /// Counts what the leader said by itself, by a word of the code: `recall`, `renewed`.
    pub fn pushed(&self, kind: &'static str) {
        self.pushes.count(kind);
    }
    /// Counts a charge that was denied, or let through, because quota could not be had, by a word of the code.
    pub fn unreachable(&self, reason: &'static str) {
        self.unreachable.count(reason);
    }
    /// Counts a call that waited for quota.
    pub fn waited(&self, took: Duration) {
        self.lease_wait.record(nanos(took));
    }

    pub(super) fn render(&self, name: &str, out: &mut String) {
        match name {
            RAFT_FSYNC => self.fsync.render(name, None, out),
            _ => self.lease_wait.render(name, None, out),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
