//! Misfortunes, operators' deeds, and the end of both.

use super::{
    clock::{MS, SECOND},
    disk::Disk,
    event::Event,
    plan::Deed,
    scenes::Scene,
    workload::GRANTS,
    world::World,
};
use cluster::wire::{Operate, Response};
use proto::{
    command::{NodeId, Role},
    control::{Change, Kind},
};
use std::sync::Arc;

/// From the end of misfortunes to the moment when everything must be well, at the latest.
const HEALING_NS: u64 = 9 * SECOND;
/// The rules of an upgrade.
const NEXT_RULES: u32 = 2;

impl World {
    /// One deed, and when the next one comes.
    pub fn deed(&mut self) {
        if self.healed || self.plan.deeds.is_empty() {
            return;
        }
        let pause_ns = match self.dice.below(4) {
            0 => self.border_ns(),
            _ => self.dice.below(2 * self.plan.deed_every_ns),
        };
        self.later(pause_ns, Event::Deed);
        self.note(Scene::Deed);
        let deed = self.plan.deeds[self.dice.below(self.plan.deeds.len() as u64) as usize];
        let host = self.dice.below(self.hosts.len() as u64) as usize;
        self.trace(|| format!("{deed:?} node {host}"));
        match deed {
            Deed::Partition => self.partition(),
            Deed::OneWay => self.one_way(host),
            Deed::Flap => self.flap(host, 8),
            Deed::Kill | Deed::PowerLoss => {
                let power = deed == Deed::PowerLoss;
                let all = power && self.dice.below(4) == 0;
                for other in 0..self.hosts.len() {
                    if all || other == host {
                        if self.hosts[other].process.is_some() {
                            self.note(if power {
                                Scene::PowerLost
                            } else {
                                Scene::Killed
                            });
                        }
                        self.end(other, power);
                        let delay_ns = self.between(50 * MS, 5 * SECOND);
                        self.later(delay_ns, Event::Start { host: other });
                    }
                }
            }
            Deed::Restart => self.begin_stop(host),
            Deed::Pause => {
                if self.hosts[host].process.is_some() && !self.hosts[host].paused {
                    self.note(Scene::Paused);
                    self.hosts[host].paused = true;
                    self.hosts[host].paused_ns = self.true_ns;
                    let delay_ns = self.between(20 * MS, 30 * SECOND);
                    self.later(delay_ns, Event::Resume { host });
                }
            }
            Deed::ClockJump if self.dice.below(10) == 0 => self.operate(Operate::AcceptClock),
            Deed::ClockJump => self.clock_jumps(host),
            Deed::SlowDisk => {
                self.note(Scene::SlowDisk);
                let delay_ns = self.between(SECOND, 6 * SECOND);
                self.hosts[host].slow_until_ns = self.true_ns + delay_ns;
            }
            Deed::Redefine => self.redefine(),
            Deed::Operate => self.credit_or_reset(),
            Deed::Control => self.change_control(),
            Deed::Members => self.change_members(),
            Deed::Rules => self.upgrade(host),
            Deed::Forge => {
                let index = self.dice.below(self.plan.keys.len() as u64) as usize;
                let now = self.now(host);
                if !self.hosts[host].paused
                    && let Some(gateway) = self.gateway(host)
                {
                    gateway.forge(index, now);
                }
            }
        }
    }

    /// Short times are as likely as long ones.
    fn between(&mut self, least_ns: u64, most_ns: u64) -> u64 {
        let doublings = (most_ns / least_ns).ilog2() + 1;
        let least_ns = least_ns << self.dice.below(doublings.into());
        (least_ns + self.dice.below(least_ns)).min(most_ns)
    }

    fn partition(&mut self) {
        let length_ns = self.between(200 * MS, 8 * SECOND);
        let until_ns = self.true_ns + length_ns;
        let sides: Vec<bool> = self.hosts.iter().map(|_| false).collect();
        let sides: Vec<bool> = sides.iter().map(|_| self.dice.below(2) == 0).collect();
        let ids: Vec<NodeId> = self.hosts.iter().map(|host| host.id).collect();
        for (a, from) in ids.iter().enumerate() {
            for (b, to) in ids.iter().enumerate() {
                if sides[a] != sides[b] {
                    self.net.cut(*from, *to, until_ns);
                }
            }
        }
    }

    fn one_way(&mut self, host: usize) {
        let length_ns = self.between(200 * MS, 8 * SECOND);
        let until_ns = self.true_ns + length_ns;
        let (out, everybody) = (self.dice.below(2) == 0, self.dice.below(2) == 0);
        let only = self.dice.below(self.hosts.len() as u64) as usize;
        let node = self.hosts[host].id;
        for other in 0..self.hosts.len() {
            let peer = self.hosts[other].id;
            if !everybody && other != only {
                continue;
            }
            if out {
                self.net.cut(node, peer, until_ns);
            } else {
                self.net.cut(peer, node, until_ns);
            }
        }
    }

    /// A host's links go away for a moment, again and again.
    pub fn flap(&mut self, host: usize, left: u32) {
        if left == 0 || self.healed {
            return;
        }
        let node = self.hosts[host].id;
        let until_ns = self.true_ns + 50 * MS + self.dice.below(400 * MS);
        for other in 0..self.hosts.len() {
            let peer = self.hosts[other].id;
            self.net.cut(node, peer, until_ns);
            self.net.cut(peer, node, until_ns);
        }
        let delay_ns = until_ns - self.true_ns + self.dice.below(600 * MS);
        let left = left - 1;
        self.later(delay_ns, Event::Flap { host, left });
    }

    fn begin_stop(&mut self, host: usize) {
        if self.hosts[host].paused {
            return;
        }
        if let Some(voter) = self.voter(host) {
            voter.replica.resign();
        }
        if let Some(gateway) = self.gateway(host) {
            gateway.stopping = true;
        }
    }

    /// A process that stopped in order is gone, and comes again.
    pub fn stop(&mut self, host: usize) {
        self.note(Scene::Stopped);
        self.end(host, false);
        let delay_ns = self.between(20 * MS, SECOND);
        self.later(delay_ns, Event::Start { host });
    }

    fn clock_jumps(&mut self, host: usize) {
        self.note(Scene::ClockJumped);
        // Most of the time the same one is wrong.
        let host = if self.dice.below(8) == 0 { host } else { 0 };
        let size_ms = self.between(100 * MS, 20_000 * SECOND) / MS;
        let sign = if self.dice.below(2) == 0 { 1 } else { -1 };
        self.hosts[host].clock.offset_ms = match self.dice.below(3) {
            0 => 0,
            _ => sign * size_ms as i64,
        };
    }

    fn redefine(&mut self) {
        let limit = self.dice.below(self.plan.limits.len() as u64) as usize;
        let usual = self.plan.limits[limit].max;
        let max = match self.dice.below(4) {
            0 => usual,
            1 => usual * 2,
            2 => usual.div_ceil(2),
            _ => 1 + self.dice.below(usual),
        };
        let together = self.dice.below(2) == 0;
        for host in 0..self.hosts.len() {
            let most_ns = if together { 50 * MS } else { 3 * SECOND };
            let delay_ns = self.dice.below(most_ns);
            let run = self.hosts[host].run;
            // A node that is down finds it in its configuration when it starts.
            if self.hosts[host].process.is_none() {
                self.hosts[host].wanted[limit] = max;
            } else {
                self.later(
                    delay_ns,
                    Event::Configure {
                        host,
                        run,
                        limit,
                        max,
                    },
                );
            }
        }
    }

    /// A voter's host at which an operator sits.
    fn operator(&mut self) -> Option<usize> {
        let voters: Vec<usize> = (0..self.hosts.len())
            .filter(|host| {
                let h = &self.hosts[*host];
                h.votes && self.is_member(*host) && !h.paused && h.process.is_some()
            })
            .collect();
        let at = self.dice.below(voters.len() as u64) as usize;
        voters.get(at).copied()
    }

    pub fn operate(&mut self, operate: Operate) {
        if let Some(host) = self.operator() {
            let now = self.now(host);
            if let Some(gateway) = self.gateway(host) {
                gateway.operate(operate, now);
            }
        }
    }

    fn credit_or_reset(&mut self) {
        let index = self.dice.below(self.plan.keys.len() as u64) as usize;
        let key = self.plan.keys[index].key;
        let operate = match self.dice.below(3) {
            0 => Operate::Reset { key },
            _ => Operate::Credit { key },
        };
        self.operate(operate);
    }

    pub fn change_control(&mut self) {
        let name = GRANTS[self.dice.below(GRANTS.len() as u64) as usize];
        let body = (self.dice.below(2) == 0).then(|| Arc::from(&b"{}"[..]));
        self.operate(Operate::Control(Change {
            kind: Kind::Grant,
            name: name.into(),
            body,
            expect: None,
            by: "operator".into(),
        }));
    }

    /// A machine joins, or one is taken out; what is gone for good is replaced.
    fn change_members(&mut self) {
        let members: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.is_member(*host))
            .collect();
        let voters = members.iter().filter(|h| self.hosts[**h].votes).count();
        let picked = members[self.dice.below(members.len() as u64) as usize];
        let removes = self.dice.below(2) == 0 && (!self.hosts[picked].votes || voters > 1);
        if removes {
            let mut nodes = vec![self.hosts[picked].id];
            if voters > 2 && self.dice.below(3) == 0 {
                let others = members.iter().map(|host| &self.hosts[*host]);
                let another = others.filter(|h| h.votes && h.id != nodes[0]).nth(1);
                nodes.extend(another.map(|h| h.id));
            }
            return self.operate(Operate::Remove { nodes });
        }
        if members.len() >= 7 {
            return;
        }
        let votes = self.dice.below(3) > 0;
        let role = if votes { Role::Voter } else { Role::Client };
        let id = NodeId(self.next_node);
        self.next_node += 1;
        let host = self.add_host(id, votes, Disk::default());
        if self.plan.deeds.contains(&Deed::Rules) {
            self.hosts[host].rules_max = NEXT_RULES;
        }
        self.operate(Operate::Token {
            hash: token(id),
            role,
            ttl_ms: 60_000,
        });
    }

    /// A node is restarted with a newer build; when every voter has it, the rules are raised.
    fn upgrade(&mut self, host: usize) {
        if self.hosts[host].rules_max < NEXT_RULES {
            self.hosts[host].rules_max = NEXT_RULES;
            self.begin_stop(host);
        } else {
            self.operate(Operate::Rules {
                version: NEXT_RULES,
            });
        }
    }

    /// What came of an operator's write.
    pub fn operated(&mut self, host: usize, operate: &Operate, response: Option<Response>) {
        self.trace(|| format!("node {host}: {operate:?} -> {response:?}"));
        let true_ns = self.true_ns;
        match (operate, response) {
            (Operate::Control(_), Some(Response::Version(version))) => {
                self.check.acknowledged(version, true_ns);
            }
            (Operate::Token { hash, role, .. }, Some(Response::Done { .. })) => {
                if let Some(new) = self.hosts.iter().find(|h| token(h.id) == *hash) {
                    let node = new.id;
                    self.operate(Operate::Join {
                        token: *hash,
                        node,
                        name: format!("n{}", node.0),
                        address: match role {
                            Role::Voter => format!("n{}:1", node.0),
                            Role::Client => String::new(),
                        },
                        role: *role,
                    });
                }
            }
            (Operate::Join { node, .. }, Some(Response::Done { .. })) => {
                if let Some(new) = self.host_of(*node) {
                    self.hosts[new].voters = self.voters();
                    self.start(new);
                }
            }
            (Operate::Remove { nodes }, Some(Response::Done { .. })) => {
                for node in nodes {
                    if let Some(old) = self.host_of(*node) {
                        self.hosts[old].removed = true;
                        // It may live on for a while: nobody tells it.
                        let delay_ns = self.between(100 * MS, 10 * SECOND);
                        self.later(delay_ns, Event::Retire { host: old });
                    }
                }
            }
            _ => {}
        }
    }

    /// The end of all misfortune.
    pub fn heal(&mut self) {
        self.trace(|| "everything is well again".into());
        self.healed = true;
        self.net.heal();
        for host in 0..self.hosts.len() {
            let skew = self.plan.skew_ms;
            let h = &mut self.hosts[host];
            h.slow_until_ns = 0;
            h.clock.offset_ms = h.clock.offset_ms.clamp(-skew, skew);
            self.resume(host);
            self.start(host);
        }
        self.later(HEALING_NS / 3, Event::Mend);
        self.heal_until_ns = self.true_ns + HEALING_NS;
        self.later(HEALING_NS / 2, Event::Settled);
    }

    /// An operator looks whether a clock is waited for.
    pub fn mend(&mut self) {
        let waits = |world: &World, host: usize| {
            let now = world.now(host);
            let voter = world.hosts[host].process.as_ref()?.voter.as_ref()?;
            Some(voter.replica.figures(now).clock_problem)
        };
        if (0..self.hosts.len()).any(|host| waits(self, host) == Some(true)) {
            self.operate(Operate::AcceptClock);
        }
    }
}

/// The hash of the token under which a node joins.
fn token(node: NodeId) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&node.0.to_le_bytes());
    hash
}
