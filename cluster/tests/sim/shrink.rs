//! Voters that are taken out, at the worst of times: an operator says it again while voters change, who is let go ends for
//! good at once, and everybody who stays loses power with all that is not synced.

use super::{
    clock::{MS, SECOND},
    event::Event,
    plan::Deed,
    scenes::Scene,
    world::World,
};
use cluster::wire::{Operate, Response};
use proto::command::{NodeId, Role};

impl World {
    /// A change of voters is being written.
    pub fn voters_change(&mut self) {
        if std::mem::take(&mut self.check.changing) && self.dice.below(2) == 0 {
            let delay_ns = self.dice.below(5 * MS);
            self.later(delay_ns, Event::RemoveAgain);
        }
    }

    /// An operator asks again for what is not done yet.
    pub fn remove_again(&mut self) {
        let members = self.check.oracle().members();
        let leaving = members.filter(|(_, entry)| entry.leaving);
        let nodes: Vec<NodeId> = leaving.map(|(node, _)| node).collect();
        if !nodes.is_empty() {
            self.note(Scene::RemovedAgain);
            self.operate(Operate::Remove { nodes });
        }
    }

    /// Some voter has applied that others are gone: it may have told them already.
    pub fn voters_left(&mut self) {
        let mut left = std::mem::take(&mut self.check.left);
        left.retain(|node| {
            self.host_of(*node)
                .is_some_and(|host| !self.hosts[host].removed)
        });
        let is_quiet = self.healed || !self.plan.deeds.contains(&Deed::PowerLoss);
        if left.is_empty() || is_quiet || self.dice.below(2) == 0 {
            return;
        }
        for node in left {
            if let Some(host) = self.host_of(node) {
                self.hosts[host].removed = true;
                self.later(0, Event::Retire { host });
            }
        }
        // At once, or after the cluster has been idle or busy for a while.
        let delay_ns = self.dice.below(2) * self.dice.below(20 * MS);
        self.later(delay_ns, Event::Blackout);
    }

    /// A node that was removed ends when half of the voters that it knows turn it away, as a real one does.
    pub fn look_at_refusal(&mut self, host: usize, from: NodeId, response: &Response) {
        let h = &mut self.hosts[host];
        if *response != Response::Removed {
            h.refusing.remove(&from);
            return;
        }
        h.refusing.insert(from);
        let others = h.voters.iter().filter(|node| **node != h.id);
        let refusing = others.clone().filter(|node| h.refusing.contains(node));
        if refusing.count() * 2 >= others.count() && !h.removed {
            h.removed = true;
            self.later(0, Event::Retire { host });
        }
    }

    /// All voters lose power and everything that is not synced.
    pub fn blackout(&mut self) {
        if self.healed {
            return;
        }
        let voters = self.check.oracle().members();
        let voters = voters.filter(|(_, entry)| entry.role == Role::Voter);
        if voters.count() == 1 {
            self.note(Scene::LeftAlone);
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].votes && self.is_member(host) {
                self.note(Scene::BlackedOut);
                self.hosts[host].disk.lose_unsynced();
                self.end(host, true);
                let delay_ns = 50 * MS + self.dice.below(2 * SECOND);
                self.later(delay_ns, Event::Start { host });
            }
        }
    }
}
