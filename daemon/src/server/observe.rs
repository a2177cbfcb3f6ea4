//! What the metrics say of the cluster: looked up now and then, so that nothing on the way of a call does it.

use crate::metrics::{LedFigures, Ledger, LedgerFigures, VoterFigures};
use cluster::{
    handle::{Handle, Local},
    transport::Stats,
    wire::Status,
};
use proto::command::Role;
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(2);
/// How long the leader, which is this node itself, may take.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Keeps the metrics up to date for as long as the node runs.
pub(super) async fn observe(handle: Handle, ledger: &Ledger) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut figures = figures(&handle.local(), handle.connections());
        if figures.voter.as_ref().is_some_and(|voter| voter.leads) {
            let asked = tokio::time::timeout(STATUS_WAIT, handle.status()).await;
            figures.led = asked.ok().and_then(Result::ok).map(|status| led(&status));
        }
        ledger.show(&figures);
    }
}

fn figures(local: &Local, peers: Stats) -> LedgerFigures {
    LedgerFigures {
        has_leader: local.leader.is_some(),
        outstanding: local.outstanding,
        term: local.term,
        connections: [peers.voters, peers.askers],
        lost: [peers.raft_lost, peers.pushes_lost],
        slow: peers.slow,
        voter: local.figures.as_ref().map(|figures| VoterFigures {
            leads: figures.leads,
            index: [
                figures.last,
                figures.committed,
                figures.applied,
                figures.snapshot,
            ],
            elections: figures.elections,
            batches: figures.batches,
            commands: figures.commands,
            requests: figures.requests,
            refused: figures.refused,
            ignored: figures.ignored,
            log_bytes: local.log_bytes,
            clock_offset_ms: figures.clock_offset_ms,
            clock_waits: figures.clock_problem,
        }),
        led: None,
    }
}

fn led(status: &Status) -> LedFigures {
    let members = || status.members.iter();
    let votes = |member: &&cluster::wire::MemberStatus| {
        member.role == Role::Voter && !member.learner && !member.leaving
    };
    LedFigures {
        voters: members().filter(votes).count(),
        voters_reachable: members()
            .filter(votes)
            .filter(|member| member.reachable || member.node == status.leader)
            .count(),
        clients: members().filter(|m| m.role == Role::Client).count(),
        counters: status.counters,
        conflicts: status.conflicts.len(),
    }
}
