//! Questions that are answered from the state: never from one that may be old.

use super::{
    Replica,
    desk::{Read, What},
};
use crate::wire::{MemberAddress, MemberStatus, PAGE_BYTES, Response, Status};
use proto::{
    command::{NodeId, Role},
    time::Now,
};

/// A lease client that said nothing for this long has missed a question or two.
const CLIENT_SILENT_NS: u64 = 3_000_000_000;

impl Replica {
    /// Asks the quorum whether this node still leads, for all reads that wait.
    pub(super) fn ask_quorum(&mut self) {
        if self.desk.reads.is_empty() || self.desk.reading.is_some() {
            return;
        }
        self.reads += 1;
        let reads = std::mem::take(&mut self.desk.reads);
        self.desk.reading = Some((self.reads, reads));
        // Where its heartbeats are lost the next regular one asks again.
        self.raft.read_index(self.reads.to_le_bytes().to_vec());
    }

    /// The quorum has confirmed the leader: the state at this index is new enough for the reads of this number.
    pub(super) fn confirmed(&mut self, number: &[u8], index: u64) {
        let is_awaited = |(awaited, _): &mut (u64, Vec<Read>)| awaited.to_le_bytes() == *number;
        if let Some((_, reads)) = self.desk.reading.take_if(is_awaited) {
            self.desk.readable.push_back((index, reads));
        }
    }

    pub(super) fn answer_reads(&mut self, now: Now) {
        for read in self.desk.readable_at(self.machine.index()) {
            let response = match read.what {
                What::Fresh(have) => Response::Fresh {
                    at: self.at(),
                    page: self.machine.control().page(have, PAGE_BYTES),
                    members_version: self.machine.members_version(),
                },
                What::Counters(counters) => {
                    let (rows, total) = self.machine.ledger().rows(&counters);
                    let at = self.at();
                    Response::Counters { rows, total, at }
                }
                What::Status => Response::Status(Box::new(self.status(now))),
            };
            self.answer(read.asker, response);
        }
    }

    /// Who belongs to the cluster, as applied here.
    pub(super) fn members(&self) -> Response {
        let members = self.machine.members().map(|(node, entry)| MemberAddress {
            node,
            role: entry.role,
            address: entry.address.clone(),
        });
        Response::Members {
            members: members.collect(),
            members_version: self.machine.members_version(),
            leader: self.leader(),
        }
    }

    fn status(&self, now: Now) -> Status {
        let raft = &self.raft.raft;
        let ledger = self.machine.ledger();
        let configuration = self.machine.configuration();
        let members = self.machine.members().map(|(node, entry)| MemberStatus {
            node,
            name: entry.name.clone(),
            address: entry.address.clone(),
            role: entry.role,
            learner: entry.role == Role::Voter && !configuration.votes_for_good(node),
            reachable: self.is_reachable(node, now),
            matched: raft
                .prs()
                .get(node.0)
                .map_or(0, |progress| progress.matched),
            clock_offset_ms: match node == self.settings.node {
                true => Some(0),
                false => self.clock.offset_ms(node, now),
            },
            rules_max: self.machine.rules_max_of(node),
            leaving: entry.leaving,
        });
        Status {
            cluster: self.machine.cluster(),
            leader: self.settings.node,
            term: raft.term,
            committed: raft.raft_log.committed,
            applied: self.machine.index(),
            now_ms: self.machine.now_ms(),
            rules_version: self.machine.rules_version(),
            members: members.collect(),
            counters: ledger.counters() as u64,
            limits: ledger.limits() as u64,
            conflicts: ledger.conflicts(),
            control_version: self.machine.control().version(),
            clock_problem: self.clock.problem().map(|problem| problem.to_string()),
        }
    }

    /// Heard of lately: a voter within the time of an election, a lease client, which asks about once a second and else
    /// only when it must, within [`CLIENT_SILENT_NS`].
    pub(super) fn is_reachable(&self, node: NodeId, now: Now) -> bool {
        let ticks = self.settings.election_ticks as u64;
        let election_ns = ticks
            .saturating_mul(self.settings.tick_ms)
            .saturating_mul(1_000_000);
        let within_ns = match self.machine.member(node).map(|entry| entry.role) {
            Some(Role::Client) => CLIENT_SILENT_NS,
            _ => election_ns,
        };
        let since = |at: &u64| now.boot_ns.saturating_sub(*at);
        node == self.settings.node
            || self
                .heard_ns
                .get(&node)
                .is_some_and(|at| since(at) <= within_ns)
    }
}
