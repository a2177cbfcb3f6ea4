//! A voter's process as the simulation runs it: what its replica asks for is carried out here, as the shell does it.

use super::{
    clock::MS,
    disk::{Chunks, load},
    event::Event,
    net::Packet,
    scenes::Scene,
    world::World,
};
use cluster::{
    machine::{Error, Image, Manifest},
    replica::{Effects, Persist, Replica, Settings, Stop},
    wire::{Push, Request, Response},
};
use proto::{command::NodeId, time::Now};
use raft::eraftpb::{Message, MessageType};
use std::{collections::BTreeMap, rc::Rc};

/// Low bits of a request's id as a replica sees it; the others tell the run of the asking process.
const RUN_SHIFT: u32 = 40;
pub const CLUSTER: u128 = 0xC1;

pub struct Voter {
    pub replica: Replica,
    /// The newest run of each node that asked: its connection.
    runs: BTreeMap<NodeId, u32>,
    /// What the invariants have seen of its machine.
    pub seen_index: u64,
}

impl World {
    pub fn start_voter(&mut self, host: usize, now: Now) -> Option<Voter> {
        let settings = self.voter_settings(host);
        let recovered = match self.hosts[host]
            .disk
            .recover(settings.ledger, settings.rules_max)
        {
            Ok(recovered) => recovered,
            Err(error) => {
                self.fail("a synced disk can be read back", error);
                return None;
            }
        };
        match Replica::new(settings, recovered, now) {
            Ok(replica) => Some(Voter {
                seen_index: replica.machine().index(),
                replica,
                runs: BTreeMap::new(),
            }),
            Err(error) => {
                self.fail("a voter starts from what it wrote", error);
                None
            }
        }
    }

    fn voter_settings(&mut self, host: usize) -> Settings {
        Settings {
            node: self.hosts[host].id,
            cluster: CLUSTER,
            tick_ms: self.plan.tick_ms,
            election_ticks: 6,
            heartbeat_ticks: 1,
            snapshot_after_bytes: self.plan.snapshot_after_bytes,
            node_commands_per_s: 10_000,
            requests_max: 4_096,
            ledger: super::plan::bounds(),
            rules_max: self.hosts[host].rules_max,
            seed: self.dice.roll(),
            faults: self.faults,
        }
    }

    /// A request comes in over a run's connection.
    pub fn ask_voter(&mut self, host: usize, from: NodeId, run: u32, id: u64, request: Request) {
        let now = self.now(host);
        if let Some(voter) = self.voter(host) {
            let newest = voter.runs.entry(from).or_default();
            *newest = run.max(*newest);
            let id = u64::from(run) << RUN_SHIFT | id;
            voter.replica.request(from, id, request, now);
        }
    }

    /// Carries out what a replica asks for until it asks for nothing more; whether it did.
    pub fn drive_voter(&mut self, host: usize) -> bool {
        let mut moved = false;
        for _ in 0..1_000 {
            let now = self.now(host);
            let Some(effects) = self.voter(host).and_then(|v| v.replica.poll(now)) else {
                return moved;
            };
            moved = true;
            if let Some(stop) = effects.stop {
                self.stopped(host, &stop);
                return true;
            }
            self.carry_out(host, effects);
        }
        self.fail("a node comes to rest", "its replica".into());
        false
    }

    fn stopped(&mut self, host: usize, stop: &Stop) {
        match stop {
            // The rules are raised without asking one that is being taken out.
            Stop::Entry {
                error: Error::Rules(_),
                ..
            } if !self.is_wanted(host) => self.end(host, false),
            _ => self.fail(
                "replicas agree",
                format!("node {} stops: {stop}", self.hosts[host].id.0),
            ),
        }
    }

    fn carry_out(&mut self, host: usize, effects: Effects) {
        let from = self.hosts[host].id;
        for message in effects.messages {
            self.send_raft(host, message);
        }
        for (to, extra) in effects.extras {
            self.send(from, to, Packet::Extra(extra));
        }
        if let Some(persist) = effects.persist {
            self.persist(host, persist);
        }
        if let Some(image) = effects.image {
            self.write_image(host, &image);
        }
        // What was applied is known before anybody hears of it.
        if !effects.responses.is_empty() {
            self.inspect_voter(host);
        }
        for (to, id, response) in effects.responses {
            self.respond(host, to, id, response);
        }
        for (to, push) in effects.pushes {
            self.push(host, to, push);
        }
    }

    fn respond(&mut self, host: usize, to: NodeId, id: u64, response: Response) {
        let from = self.hosts[host].id;
        let run = (id >> RUN_SHIFT) as u32;
        let id = id & ((1 << RUN_SHIFT) - 1);
        self.trace(|| format!("node {host} answers {} {run}/{id}: {response:?}", to.0));
        if to == from {
            self.hear_response(host, from, run, id, response);
        } else {
            self.send(from, to, Packet::Response(run, id, response));
        }
    }

    fn push(&mut self, host: usize, to: NodeId, push: Push) {
        let from = self.hosts[host].id;
        let Some(run) = self.voter(host).and_then(|v| v.runs.get(&to).copied()) else {
            return;
        };
        if to == from {
            self.hear_push(host, from, run, push);
        } else {
            self.send(from, to, Packet::Push(run, push));
        }
    }

    fn send_raft(&mut self, host: usize, message: Message) {
        let (from, to) = (self.hosts[host].id, NodeId(message.to));
        if message.get_msg_type() != MessageType::MsgSnapshot {
            if !self.send(from, to, Packet::Raft(message))
                && self.dice.below(4) == 0
                && let Some(voter) = self.voter(host)
            {
                voter.replica.unreachable(to);
            }
            return;
        }
        let chunks = Manifest::decode(message.get_snapshot().get_data())
            .ok()
            .and_then(|manifest| self.hosts[host].disk.image(manifest));
        let Some(chunks) = chunks else {
            // The file went with a newer snapshot: this one cannot be sent any more.
            return self.tell_snapshot_sent(host, to, false);
        };
        let sent = self.send(from, to, Packet::Snapshot(message, chunks));
        let event = Event::SnapshotSent {
            host,
            run: self.hosts[host].run,
            to,
            ok: sent,
        };
        self.later(30 * MS, event);
    }

    pub fn tell_snapshot_sent(&mut self, host: usize, to: NodeId, ok: bool) {
        if let Some(voter) = self.voter(host) {
            voter.replica.snapshot_sent(to, ok);
        }
    }

    /// Chunks have come: they are loaded and written before the message counts.
    pub fn receive_snapshot(&mut self, host: usize, message: Message, chunks: Chunks) {
        let manifest = match Manifest::decode(message.get_snapshot().get_data()) {
            Ok(manifest) => manifest,
            Err(error) => return self.fail("snapshots can be read", error.to_string()),
        };
        let delay_ns = self.disk_ns(host, true);
        let event = Event::SnapshotStored {
            host,
            run: self.hosts[host].run,
            manifest,
            message: Box::new(message),
            chunks,
        };
        self.later(delay_ns, event);
    }

    pub fn install_snapshot(
        &mut self,
        host: usize,
        manifest: Manifest,
        message: Message,
        chunks: Chunks,
    ) {
        match load(
            manifest,
            &chunks,
            super::plan::bounds(),
            self.hosts[host].rules_max,
        ) {
            Ok(machine) => {
                self.hosts[host].disk.store(manifest, chunks);
                let now = self.now(host);
                if let Some(voter) = self.voter(host) {
                    voter.replica.step_snapshot(message, machine, now);
                }
            }
            Err(error) => self.fail("snapshots can be read", error),
        }
    }

    fn persist(&mut self, host: usize, persist: Persist) {
        let true_ms = self.true_ms();
        self.check.proposed(&persist.entries, true_ms);
        self.voters_change();
        if persist.install.is_some() {
            self.note(Scene::Installed);
        }
        if persist.compact.is_some() {
            self.note(Scene::Compacted);
        }
        let must_sync = persist.must_sync;
        let number = persist.number;
        let delay_ns = self.disk_ns(host, must_sync);
        let true_ns = self.true_ns;
        let disk = &mut self.hosts[host].disk;
        disk.write(persist);
        disk.busy_until_ns = disk.busy_until_ns.max(true_ns + delay_ns);
        let wait_ns = disk.busy_until_ns - true_ns;
        let run = self.hosts[host].run;
        let event = Event::Written {
            host,
            run,
            number,
            synced: must_sync,
        };
        self.later(wait_ns, event);
    }

    fn write_image(&mut self, host: usize, image: &Image) {
        let chunks: Chunks = Rc::new(image.chunks().collect());
        let ok = self.dice.below(50) > 0;
        if !ok {
            self.note(Scene::ImageFailed);
        }
        let delay_ns = 2 * self.disk_ns(host, true);
        let event = Event::ImageWritten {
            host,
            run: self.hosts[host].run,
            manifest: image.manifest,
            chunks: ok.then_some(chunks),
        };
        self.later(delay_ns, event);
    }

    /// How long a write takes.
    fn disk_ns(&mut self, host: usize, must_sync: bool) -> u64 {
        let is_slow = self.true_ns < self.hosts[host].slow_until_ns;
        match (must_sync, is_slow) {
            (false, false) => 5_000,
            (false, true) => self.dice.below(20 * MS),
            (true, false) => 100_000 + self.dice.below(MS),
            (true, true) => 20 * MS + self.dice.below(400 * MS),
        }
    }
}
