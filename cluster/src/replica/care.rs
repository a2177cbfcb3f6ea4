//! What a leader looks after: who should vote, which sessions are dead, who may take over.

use super::{Replica, desk::Order};
use crate::{
    machine::Entry,
    membership::{self, Step, View},
};
use proto::{
    command::{COMMANDS_MAX, Command, Member, NodeId, Role},
    time::Now,
};
use raft::ProgressState;
use std::collections::BTreeSet;

/// Sessions of nodes that say nothing for so long are ended: what they hold can be credited, what they define is forgotten.
/// Longer than most partitions, because a node that comes back in time can still return what it holds.
const SILENT_NS_MAX: u64 = 600_000_000_000;
/// How often sessions and clocks are looked after.
const LOOK_NS: u64 = 250_000_000;
/// A learner that lacks at most so many entries has caught up.
const LAG_MAX: u64 = 1_024;

impl Replica {
    /// Now and then: who should vote, which sessions are dead.
    pub(super) fn look_around(&mut self, now: Now) {
        let Some((_, since_ns)) = self.led else {
            return;
        };
        if !self.raft.raft.apply_to_current_term() {
            return;
        }
        self.plan(now);
        if self.looked_ns.saturating_add(LOOK_NS) > now.boot_ns {
            return;
        }
        self.looked_ns = now.boot_ns;
        if self.clock.problem().is_some()
            && let Some(heir) =
                self.heir(|node| self.clock.is_trusted(node, self.machine.now_ms(), now))
        {
            // One whose clock is believed can go on where this one has to wait for the operator.
            self.raft.transfer_leader(heir.0);
        }
        let machine = &self.machine;
        self.heard_ns
            .retain(|node, _| machine.member(*node).is_some());
        self.desk.retain(|node| machine.member(node).is_some());
        let silent = |node: &NodeId| {
            let heard_ns = self.heard_ns.get(node).copied().unwrap_or(0).max(since_ns);
            now.boot_ns.saturating_sub(heard_ns) > SILENT_NS_MAX
        };
        let nodes = machine.members().map(|(node, _)| node).filter(silent);
        let sessions = nodes.filter_map(|node| machine.ledger().session_of(node));
        let gone = sessions.map(|session| Command::Gone { session });
        let let_go = |(node, entry): &(NodeId, &Entry)| {
            entry.leaving && !machine.configuration().contains(*node)
        };
        let over = machine.members().filter(let_go);
        let over = over.map(|(node, _)| Command::Member(Member::Remove { node }));
        let commands: Vec<Command> = gone.chain(over).take(COMMANDS_MAX).collect();
        if !commands.is_empty() && !self.desk.is_tending() {
            self.desk.enqueue(Order::new(None, commands));
        }
    }

    /// The next step towards the voters that there should be.
    fn plan(&mut self, now: Now) {
        let raft = &self.raft.raft;
        if raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return;
        }
        let wanted = self
            .machine
            .members()
            .filter(|(_, e)| e.role == Role::Voter && !e.leaving);
        let configuration = self.machine.configuration().clone();
        let known = configuration
            .all_voters()
            .into_iter()
            .chain(configuration.learners.iter().copied());
        let known: BTreeSet<NodeId> = known.collect();
        let view = View {
            me: self.settings.node,
            wanted: wanted.map(|(node, _)| node).collect(),
            reachable: known
                .iter()
                .copied()
                .filter(|node| self.is_reachable(*node, now))
                .collect(),
            caught_up: known
                .iter()
                .copied()
                .filter(|node| self.has_caught_up(*node))
                .collect(),
            configuration,
        };
        let Some(step) = membership::plan(&view) else {
            return;
        };
        if let Step::Transfer(heir) = step {
            return self.raft.transfer_leader(heir.0);
        }
        if let Some(change) = step.entry() {
            // Declined while one is on its way: the next look sees.
            let _ = self.raft.propose_conf_change(Vec::new(), change);
        }
    }

    fn has_caught_up(&self, node: NodeId) -> bool {
        let raft = &self.raft.raft;
        let last = raft.raft_log.last_index();
        raft.prs().get(node.0).is_some_and(|progress| {
            progress.state == ProgressState::Replicate
                && progress.matched.saturating_add(LAG_MAX) >= last
        })
    }

    /// The voter that has most of the log, of those that will do.
    pub(super) fn heir(&self, will_do: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if self.is_stopped() || !self.leads() {
            return None;
        }
        let matched = |node: &NodeId| {
            self.raft
                .raft
                .prs()
                .get(node.0)
                .map_or(0, |progress| progress.matched)
        };
        let voters = self.machine.configuration().voters.iter();
        voters
            .filter(|node| {
                **node != self.settings.node && self.has_caught_up(**node) && will_do(**node)
            })
            .max_by_key(|node| matched(node))
            .copied()
    }

    /// Entries after this index are still being sent after a snapshot; not for ever.
    pub(super) fn needed_by_peers(&self) -> Option<u64> {
        let patience = self.settings.snapshot_after_bytes.saturating_mul(4);
        if !self.leads() || self.raft.store().bytes() > patience {
            return None;
        }
        let prs = self.raft.raft.prs().iter();
        let sending = prs.filter(|(_, progress)| progress.state == ProgressState::Snapshot);
        sending.map(|(_, progress)| progress.pending_snapshot).min()
    }
}
