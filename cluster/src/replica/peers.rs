//! What other voters say, and what time does: raft's messages, clocks, hashes, elections.

use super::{Effects, Replica, Stop, admit, admit::Verdict};
use crate::{dice::Dice, machine::Machine, wire::Extra};
use proto::{command::NodeId, time::Now};
use raft::{
    SnapshotStatus, StateRole,
    eraftpb::{Message, MessageType},
};

/// Voters are asked for their clocks this often; without a leader four times as often.
const ASK_CLOCKS_NS: u64 = 1_000_000_000;

impl Replica {
    /// A message of a peer that was authenticated as `message.from`. What does not fit is ignored and counted.
    pub fn step(&mut self, message: Message, now: Now) {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            // Without the state that belongs to it.
            self.ignored += 1;
            return;
        }
        self.step_any(message, now);
    }

    /// A `MsgSnapshot` whose chunks have come, were loaded and are on the disk.
    pub fn step_snapshot(&mut self, message: Message, machine: Machine, now: Now) {
        let meta = message.get_snapshot().get_metadata();
        let is_its_state = machine.index() == meta.index
            && machine.cluster() == self.settings.cluster
            && machine.configuration().write() == *meta.get_conf_state();
        if !is_its_state || message.get_msg_type() != MessageType::MsgSnapshot {
            self.ignored += 1;
            return;
        }
        self.arrived = Some(machine);
        self.step_any(message, now);
        if self.raft.snap().is_none() {
            // Raft had no use for it.
            self.arrived = None;
        }
    }

    fn step_any(&mut self, message: Message, now: Now) {
        if self.is_stopped() {
            return;
        }
        let from = NodeId(message.from);
        // A node that campaigns with writes on their way could win before they are on the disk.
        let is_hasty =
            message.get_msg_type() == MessageType::MsgTimeoutNow && self.issued != self.durable;
        match admit::judge(&message, &self.raft.raft) {
            Verdict::Fit if !is_hasty && !self.machine.removed(from) => {
                self.heard_ns.insert(from, now.boot_ns);
                if self.raft.step(message).is_err() {
                    self.ignored += 1;
                }
                self.follow_role(now);
            }
            Verdict::Damaged(what) if !self.machine.removed(from) => self.stop(Stop::Log(what)),
            _ => self.ignored += 1,
        }
    }

    /// What a voter says beside raft.
    pub fn extra(&mut self, from: NodeId, extra: Extra, now: Now) {
        if self.is_stopped() || self.machine.removed(from) {
            return;
        }
        match extra {
            Extra::AskClock { asked_ns } => {
                let unix_ms = now.unix_ms;
                self.out
                    .extras
                    .push((from, Extra::Clock { asked_ns, unix_ms }));
            }
            Extra::Clock { asked_ns, unix_ms } => {
                if self.machine.configuration().votes(from) {
                    self.clock.heard(from, asked_ns, unix_ms, now);
                }
            }
            Extra::Hash { index, hash } => self.compare((index, from, hash)),
        }
    }

    /// A snapshot was delivered to a peer, or not.
    pub fn snapshot_sent(&mut self, to: NodeId, ok: bool) {
        if self.is_stopped() {
            return;
        }
        let status = if ok {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.raft.report_snapshot(to.0, status);
    }

    /// A message to a peer was lost, or its connection.
    pub fn unreachable(&mut self, node: NodeId) {
        if !self.is_stopped() {
            self.raft.report_unreachable(node.0);
        }
    }

    pub(super) fn compare(&mut self, heard: (u64, NodeId, u64)) {
        let voters = self.machine.configuration().all_voters();
        if let Some(index) = self.hashes.hear(heard, self.settings.node, &voters) {
            self.stop(Stop::Diverged { index });
        }
    }

    /// One tick of raft's, unless it would make a candidate of a node that must not stand now.
    pub(super) fn tick_raft(&mut self, now: Now) {
        let (least, most) = (
            self.settings.election_ticks,
            2 * self.settings.election_ticks,
        );
        let raft = &mut self.raft.raft;
        let is_leaderless = raft.state != StateRole::Leader
            && (raft.leader_id == 0 || raft.election_elapsed >= least);
        self.leaderless_since_ns = match self.leaderless_since_ns {
            _ if !is_leaderless => None,
            None => Some(now.boot_ns),
            since => since,
        };
        // Raft rolls dice of its own whenever it starts to count; these are set over them before they are looked at.
        let seed = self.settings.seed ^ raft.term.rotate_left(32) ^ self.elections.rotate_left(48);
        let delay = least as u64 + Dice::new(seed ^ raft.id).below(least as u64);
        raft.set_randomized_election_timeout(delay as usize);
        let leaderless_ns = self
            .leaderless_since_ns
            .map_or(0, |since| now.boot_ns.saturating_sub(since));
        let may_stand = self.issued == self.durable
            && self
                .clock
                .may_stand(leaderless_ns, self.machine.now_ms(), now);
        if raft.state != StateRole::Leader && !may_stand {
            // Counted on as far as it takes to vote for others, not so far as to stand.
            raft.set_randomized_election_timeout(most - 1);
            raft.election_elapsed = raft.election_elapsed.min(most.saturating_sub(3));
        }
        let stood = raft.state != StateRole::Leader;
        if self.raft.tick() && stood {
            self.elections += 1;
        }
        self.follow_role(now);
    }

    pub(super) fn ask_clocks(&mut self, now: Now) {
        let every_ns = if self.leader().is_some() {
            ASK_CLOCKS_NS
        } else {
            ASK_CLOCKS_NS / 4
        };
        if self
            .pinged_ns
            .is_some_and(|at| at.saturating_add(every_ns) > now.boot_ns)
        {
            return;
        }
        self.pinged_ns = Some(now.boot_ns);
        let asked_ns = now.boot_ns;
        self.tell_voters(Extra::AskClock { asked_ns });
    }

    /// Says something to every other voter.
    pub(super) fn tell_voters(&mut self, extra: Extra) {
        let Effects { extras, .. } = &mut self.out;
        let voters = self.machine.configuration().all_voters();
        let others = voters
            .into_iter()
            .filter(|node| *node != self.settings.node);
        extras.extend(others.map(|node| (node, extra)));
    }
}
