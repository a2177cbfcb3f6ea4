//! The world: hosts, one queue of events, true time. Everything that happens follows from the plan.

use super::{
    books::Taken,
    check::{Broken, Check},
    clock::{Clock, MS},
    disk::Disk,
    event::{Event, Queue},
    gateway::Gateway,
    net::{Net, Packet},
    plan::Plan,
    scenes::{Counts, Scene, Scenes},
    voter::Voter,
};
use cluster::{
    dice::Dice,
    machine::Machine,
    wire::{Push, Request, Response},
};
use proto::{
    command::{NodeId, Role},
    time::Now,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// A process.
pub struct Process {
    pub voter: Option<Voter>,
    pub gateway: Gateway,
}

/// A machine with its clocks and its disk.
pub struct Host {
    pub id: NodeId,
    pub votes: bool,
    pub clock: Clock,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Counts the process's starts.
    pub run: u32,
    /// Until when the process stands still, and what waits for it.
    pub paused: bool,
    deferred: Vec<Event>,
    /// When it stood still last, and when it went on.
    pub paused_ns: u64,
    pub resumed_ns: u64,
    pub slow_until_ns: u64,
    /// It was taken out of the cluster.
    pub removed: bool,
    pub rules_max: u32,
    /// The voters as it noted them for its next start.
    pub voters: Vec<NodeId>,
    /// Voters that turned it away when it last asked them.
    pub refusing: BTreeSet<NodeId>,
    /// What its configuration says of each limit.
    pub wanted: Vec<u64>,
    wake_ns: u64,
    /// How often it was due at once in a row.
    spins: u32,
}

/// What a run was like, to see that it was worth something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub steps: u64,
    pub true_ns: u64,
    pub counts: Counts,
}

pub struct World {
    pub plan: Rc<Plan>,
    pub true_ns: u64,
    queue: Queue,
    pub hosts: Vec<Host>,
    pub net: Net,
    pub dice: Dice,
    pub check: Check,
    pub steps: u64,
    pub scenes: Scenes,
    /// When the newest packet of a link arrives.
    newest_ns: BTreeMap<(NodeId, NodeId), u64>,
    pub healed: bool,
    /// Until when everything must be well.
    pub heal_until_ns: u64,
    pub done: bool,
    pub faults: proto::faults::Faults,
    pub trace: bool,
    /// The id of the next machine that joins.
    pub next_node: u64,
    /// Callers of each key that keep asking.
    pub probes: Vec<usize>,
    /// The newest window of each key in which anything was granted before everything was well.
    pub old_windows: Vec<Option<u64>>,
}

impl World {
    pub fn new(plan: Plan, oracle: Machine) -> Self {
        let mut dice = Dice::new(plan.seed ^ 0x5eed);
        let net = Net::new(plan.weather, dice.roll());
        let scenes = Scenes::default();
        Self {
            check: Check::new(&plan, oracle, scenes.clone()),
            probes: vec![0; plan.keys.len()],
            old_windows: vec![None; plan.keys.len()],
            plan: Rc::new(plan),
            true_ns: 0,
            queue: Queue::default(),
            hosts: Vec::new(),
            net,
            dice,
            steps: 0,
            scenes,
            newest_ns: BTreeMap::new(),
            healed: false,
            heal_until_ns: 0,
            done: false,
            faults: Default::default(),
            trace: false,
            next_node: 100,
        }
    }

    /// The next event; `false`: there is none. Or what is broken.
    pub fn step(&mut self) -> Result<bool, Broken> {
        let Some((at_ns, event)) = self.queue.pop().filter(|_| !self.done) else {
            return Ok(false);
        };
        self.steps += 1;
        self.true_ns = at_ns;
        self.happen(event);
        self.check.broken.take().map_or(Ok(true), Err)
    }

    pub fn figures(&self) -> Figures {
        Figures {
            steps: self.steps,
            true_ns: self.true_ns,
            counts: self.scenes.counts(),
        }
    }

    pub fn note(&self, scene: Scene) {
        self.scenes.note(scene);
    }

    pub fn later(&mut self, delay_ns: u64, event: Event) {
        self.queue.push(self.true_ns + delay_ns, event);
    }

    pub fn fail(&mut self, invariant: &'static str, how: String) {
        self.check.fail(invariant, how);
    }

    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!(
                "{:>9}.{:06} {}",
                self.true_ns / MS,
                self.true_ns % MS,
                line()
            );
        }
    }

    pub fn true_ms(&self) -> u64 {
        self.plan.start_ms + self.true_ns / MS
    }

    pub fn now(&self, host: usize) -> Now {
        self.hosts[host].clock.now(self.true_ns)
    }

    pub fn gateway(&mut self, host: usize) -> Option<&mut Gateway> {
        let process = self.hosts[host].process.as_mut()?;
        Some(&mut process.gateway)
    }

    pub fn voter(&mut self, host: usize) -> Option<&mut Voter> {
        self.hosts[host].process.as_mut()?.voter.as_mut()
    }

    pub fn host_of(&self, id: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id == id)
    }

    /// Who votes or is to vote, as far as the log says.
    pub fn voters(&self) -> Vec<NodeId> {
        let members = self.check.oracle().members();
        let voters = members.filter(|(_, entry)| entry.role == Role::Voter);
        voters.map(|(node, _)| node).collect()
    }

    /// Adds a machine; its process is not started.
    pub fn add_host(&mut self, id: NodeId, votes: bool, disk: Disk) -> usize {
        let skew = self.plan.skew_ms as u64;
        let offset_ms = self.dice.below(2 * skew + 1) as i64 - skew as i64;
        let drift_ppb = self.dice.below(400_000) as i64 - 200_000;
        let base_ns = (1 + self.dice.below(1_000)) * super::clock::SECOND;
        self.hosts.push(Host {
            id,
            votes,
            clock: Clock::new(self.plan.start_ms, base_ns, drift_ppb, offset_ms),
            disk,
            process: None,
            run: 0,
            paused: false,
            deferred: Vec::new(),
            paused_ns: 0,
            resumed_ns: 0,
            slow_until_ns: 0,
            removed: false,
            refusing: BTreeSet::new(),
            rules_max: 1,
            voters: self.voters(),
            wanted: self.plan.limits.iter().map(|limit| limit.max).collect(),
            wake_ns: u64::MAX,
            spins: 0,
        });
        self.hosts.len() - 1
    }

    /// Starts a host's process from what its disk holds.
    pub fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() || !self.is_member(host) {
            return;
        }
        self.trace(|| format!("node {host} starts"));
        if self.hosts[host].run == 0 {
            self.hosts[host].voters = self.voters();
        }
        self.hosts[host].run += 1;
        self.hosts[host].paused = false;
        self.hosts[host].wake_ns = u64::MAX;
        let (run, now) = (self.hosts[host].run, self.now(host));
        let voter = if self.hosts[host].votes {
            match self.start_voter(host, now) {
                Some(voter) => Some(voter),
                None => return,
            }
        } else {
            None
        };
        let seed = self.dice.roll();
        let gateway = Gateway::new(
            &self.plan,
            u64::from(run),
            self.hosts[host].voters.clone(),
            self.hosts[host].rules_max,
            self.hosts[host].wanted.clone(),
            seed,
            now,
        );
        let gateway = gateway.with_faults(self.faults);
        self.hosts[host].process = Some(Process { voter, gateway });
        if self.hosts[host].votes {
            let delay_ns = self.dice.below(self.plan.tick_ms * MS);
            self.later(delay_ns, Event::Tick { host, run });
        }
        let delay_ns = self.dice.below(500 * MS);
        self.later(delay_ns, Event::Call { host, run });
        self.settle(host);
    }

    /// A host's process ends.
    pub fn end(&mut self, host: usize, power: bool) {
        let was_up = self.hosts[host].process.take().is_some();
        self.trace(|| format!("node {host} ends, power lost: {power}"));
        let true_ns = self.true_ns;
        let h = &mut self.hosts[host];
        let lost = h.disk.crash(power, &mut self.dice);
        h.deferred.clear();
        h.paused = false;
        if power {
            h.clock.reboot(true_ns);
        }
        self.scenes.note_many(Scene::WriteLost, lost as u64);
        if was_up && !power {
            self.connections_close(host);
        }
    }

    /// The others hear that the process's connections are closed.
    fn connections_close(&mut self, host: usize) {
        let node = self.hosts[host].id;
        for other in 0..self.hosts.len() {
            let (to, run) = (self.hosts[other].id, self.hosts[other].run);
            if other != host && !self.net.is_cut(node, to, self.true_ns) {
                let delay_ns = self.dice.below(5 * MS);
                self.later(
                    delay_ns,
                    Event::Lost {
                        host: other,
                        run,
                        node,
                    },
                );
            }
        }
    }

    /// Sends a packet; `false`: it will not arrive.
    pub fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) -> bool {
        let Some(host) = self.host_of(to) else {
            return false;
        };
        let [first, second] = self.net.delays(from, to, self.true_ns);
        let Some(first) = first else {
            self.note(
                match (
                    self.net.is_cut(from, to, self.true_ns),
                    self.net.is_cut(to, from, self.true_ns),
                ) {
                    (false, _) => Scene::Lost,
                    (true, false) => Scene::CutOneWay,
                    (true, true) => Scene::CutOff,
                },
            );
            return false;
        };
        let at_ns = self.true_ns + first;
        let newest_ns = self.newest_ns.entry((from, to)).or_default();
        if at_ns < *newest_ns {
            self.scenes.note(Scene::Overtaken);
        }
        *newest_ns = at_ns.max(*newest_ns);
        if let Some(second) = second {
            self.note(Scene::Repeated);
            let packet = packet.clone();
            self.later(second, Event::Packet { host, from, packet });
        }
        self.later(first, Event::Packet { host, from, packet });
        true
    }

    pub fn send_request(&mut self, host: usize, to: NodeId, id: u64, request: Request) {
        let (from, run) = (self.hosts[host].id, self.hosts[host].run);
        self.trace(|| format!("node {host} asks {}: {id} {request:?}", to.0));
        if from == to {
            return self.ask_voter(host, from, run, id, request);
        }
        let packet_id = u64::from(run) << 40 | id;
        if !self.send(from, to, Packet::Request(packet_id, request)) && self.dice.below(3) == 0 {
            let delay_ns = (50 + self.dice.below(300)) * MS;
            self.later(
                delay_ns,
                Event::Lost {
                    host,
                    run,
                    node: to,
                },
            );
        }
    }

    pub fn hear_response(
        &mut self,
        host: usize,
        from: NodeId,
        run: u32,
        id: u64,
        response: Response,
    ) {
        let now = self.now(host);
        if self.hosts[host].run != run {
            return;
        }
        self.look_at_refusal(host, from, &response);
        if let Some(gateway) = self.gateway(host) {
            gateway.client.receive(from, id, response, now);
        }
    }

    pub fn hear_push(&mut self, host: usize, from: NodeId, run: u32, push: Push) {
        let now = self.now(host);
        if self.hosts[host].run == run
            && let Some(gateway) = self.gateway(host)
        {
            gateway.client.pushed(from, push, now);
        }
    }

    fn happen(&mut self, event: Event) {
        let Some((host, run)) = event.of() else {
            return self.happen_to_all(event);
        };
        if run.is_some_and(|run| run != self.hosts[host].run) || self.hosts[host].process.is_none()
        {
            return;
        }
        if let Event::Written { number, synced, .. } = event
            && synced
        {
            // The disk does not stand still with the process.
            self.hosts[host].disk.synced(number);
        }
        if matches!(event, Event::Wake { .. }) && self.hosts[host].wake_ns != self.true_ns {
            // It was put off, or woken meanwhile.
            return;
        }
        if self.hosts[host].paused {
            return self.hosts[host].deferred.push(event);
        }
        self.happen_at(host, event);
        self.settle(host);
    }

    fn happen_at(&mut self, host: usize, event: Event) {
        let now = self.now(host);
        match event {
            Event::Tick { run, .. } => {
                if let Some(voter) = self.voter(host) {
                    voter.replica.tick(now);
                }
                self.later(self.plan.tick_ms * MS, Event::Tick { host, run });
            }
            Event::Wake { .. } => self.hosts[host].wake_ns = u64::MAX,
            Event::Packet { from, packet, .. } => self.receive(host, from, packet, now),
            Event::Lost { node, .. } => {
                self.note(Scene::Disconnected);
                if let Some(gateway) = self.gateway(host) {
                    gateway.client.lost(node, now);
                }
                if let Some(voter) = self.voter(host) {
                    voter.replica.unreachable(node);
                }
            }
            Event::Written { number, .. } => {
                if let Some(voter) = self.voter(host) {
                    voter.replica.persisted(number, now);
                }
            }
            Event::ImageWritten {
                manifest, chunks, ..
            } => {
                let ok = chunks.is_some();
                if let Some(chunks) = chunks {
                    self.hosts[host].disk.store(manifest, chunks);
                }
                if let Some(voter) = self.voter(host) {
                    voter.replica.image_written(manifest, ok, now);
                }
            }
            Event::SnapshotStored {
                manifest,
                message,
                chunks,
                ..
            } => {
                self.install_snapshot(host, manifest, *message, chunks);
            }
            Event::SnapshotSent { to, ok, .. } => self.tell_snapshot_sent(host, to, ok),
            Event::Call { .. } => self.call_of_workload(host),
            Event::Take { id, .. } => self.call_takes(host, id),
            Event::Settle { id, .. } => self.call_settles(host, id),
            Event::Retry {
                charges, until_ns, ..
            } => {
                self.call_arrives(host, None, charges, Some(until_ns));
            }
            Event::Configure { limit, max, .. } => {
                self.hosts[host].wanted[limit] = max;
                let plan = Rc::clone(&self.plan);
                if let Some(gateway) = self.gateway(host) {
                    gateway.wanted[limit] = max;
                    gateway.define(&plan, now);
                }
            }
            _ => {}
        }
    }

    fn happen_to_all(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start(host),
            Event::Resume { host } => self.resume(host),
            Event::Deed => self.deed(),
            Event::RemoveAgain => self.remove_again(),
            Event::Blackout => self.blackout(),
            Event::Flap { host, left } => self.flap(host, left),
            Event::Heal => self.heal(),
            Event::Mend => self.mend(),
            Event::Settled => self.demand_service(),
            Event::Probe { index, count } => self.probe(index, count),
            Event::Probed { index, window } => self.probed(index, window),
            Event::Retire { host } => self.end(host, false),
            Event::Done => self.done = true,
            _ => {}
        }
    }

    /// A process that stood still goes on with what came meanwhile.
    pub fn resume(&mut self, host: usize) {
        if !self.hosts[host].paused {
            return;
        }
        self.trace(|| format!("node {host} goes on"));
        self.hosts[host].paused = false;
        let stood_ns = self.true_ns - self.hosts[host].paused_ns;
        if stood_ns > super::plan::bounds().hold_ms * MS {
            self.note(Scene::PausedLong);
        }
        self.hosts[host].resumed_ns = self.true_ns;
        for event in std::mem::take(&mut self.hosts[host].deferred) {
            if self.hosts[host].process.is_some() {
                self.happen_at(host, event);
                self.settle(host);
            }
        }
        self.settle(host);
    }

    fn receive(&mut self, host: usize, from: NodeId, packet: Packet, now: Now) {
        match packet {
            Packet::Raft(message) => {
                if let Some(voter) = self.voter(host) {
                    voter.replica.step(message, now);
                }
            }
            Packet::Snapshot(message, chunks) => self.receive_snapshot(host, message, chunks),
            Packet::Extra(extra) => {
                if let Some(voter) = self.voter(host) {
                    voter.replica.extra(from, extra, now);
                }
            }
            Packet::Request(id, request) => {
                let (run, id) = ((id >> 40) as u32, id & ((1 << 40) - 1));
                self.ask_voter(host, from, run, id, request);
            }
            Packet::Response(run, id, response) => {
                self.hear_response(host, from, run, id, response)
            }
            Packet::Push(run, push) => self.hear_push(host, from, run, push),
        }
    }

    /// Everything that a host's cores ask for is done, then the invariants are looked at, then it sleeps.
    fn settle(&mut self, host: usize) {
        let mut rounds = 0;
        while self.drive_voter(host) | self.drive_gateway(host) {
            rounds += 1;
            if rounds > 1_000 {
                self.fail("a node comes to rest", String::new());
            }
            if self.check.broken.is_some() {
                return;
            }
        }
        self.inspect_voter(host);
        self.inspect_gateway(host);
        let h = &mut self.hosts[host];
        let Some(process) = &h.process else {
            return;
        };
        let replica = process.voter.as_ref().and_then(|v| v.replica.deadline_ns());
        let due_ns = replica.unwrap_or(u64::MAX).min(process.gateway.due_ns());
        let at_ns = h.clock.true_ns(due_ns, self.true_ns);
        // Whoever is due at once although nothing is left to do would spin.
        h.spins = if at_ns > self.true_ns { 0 } else { h.spins + 1 };
        if h.spins > 1_000 {
            let how = format!(
                "replica {replica:?}, {}, now {:?}",
                process.gateway.dues(),
                h.clock.now(self.true_ns)
            );
            return self.fail("who is woken has something to do", how);
        }
        if at_ns < h.wake_ns {
            h.wake_ns = at_ns;
            let run = h.run;
            self.later(at_ns - self.true_ns, Event::Wake { host, run });
        }
    }

    /// What a voter has applied, and whether it leads.
    pub fn inspect_voter(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else {
            return;
        };
        if let Some(voter) = &mut process.voter {
            let now = h.clock.now(self.true_ns);
            if voter.replica.leader() == Some(h.id) {
                self.check.leads(h.id, &voter.replica.figures(now));
            }
            let machine = voter.replica.machine();
            let index = machine.index();
            if index > voter.seen_index {
                for at in voter.seen_index + 1..=index {
                    // What came with a snapshot is not in the log.
                    if let Some(entry) = h.disk.entry(at) {
                        self.check
                            .applied((h.id, machine), at, entry.term, self.true_ns);
                    }
                }
                voter.seen_index = index;
                self.check.state(h.id, index, machine.hash());
                self.check.keeps_up(index);
            }
        }
        self.voters_left();
    }

    /// What its holders have.
    fn inspect_gateway(&mut self, host: usize) {
        let h = &self.hosts[host];
        let Some(process) = &h.process else {
            return;
        };
        for (index, c) in process.gateway.counters.iter().enumerate() {
            let Some(totals) = c.holder.totals() else {
                continue;
            };
            let in_hand = c.bucket.remaining() + c.holder.reserved();
            if let Err((invariant, how)) = self.check.books.holds(index, totals, in_hand) {
                let how = format!("node {}: {how}", h.id.0);
                self.check.fail(invariant, how);
            }
        }
    }

    pub fn took(&mut self, taken: &Taken, paused: bool) {
        let true_ms = self.true_ms();
        if paused {
            self.note(Scene::PausedInCall);
        }
        self.check.took(taken, true_ms, paused);
    }

    /// Whether it belongs to the cluster and is not about to leave, as far as the log says.
    pub fn is_wanted(&self, host: usize) -> bool {
        let entry = self.check.oracle().member(self.hosts[host].id);
        entry.is_some_and(|entry| !entry.leaving)
    }

    /// Whether it belongs to the cluster, as far as the log says.
    pub fn is_member(&self, host: usize) -> bool {
        let h = &self.hosts[host];
        !h.removed && self.check.oracle().member(h.id).is_some()
    }
}
