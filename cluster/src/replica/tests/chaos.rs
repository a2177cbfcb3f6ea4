//! Three to five voters whose messages are late, lost, doubled and out of order, whose disks are late, and which crash with
//! what was not synced. Everything follows from one seed.

use super::*;
use crate::dice::Dice;

/// Events of one run.
const STEPS: usize = 10_000;

/// A write on its way, or an image.
enum Job {
    Write(Box<Persist>),
    Image(Box<crate::machine::Image>),
}

struct Chaos {
    net: Net,
    dice: Dice,
    wire: Vec<(u64, Parcel)>,
    jobs: BTreeMap<u64, VecDeque<Job>>,
    /// The state's hash at each index, as the first to apply it had it.
    hashes: BTreeMap<u64, u64>,
    joined: u64,
}

enum Parcel {
    Raft(Message),
    Snapshot(Message, Vec<Vec<u8>>),
    Extra(u64, u64, crate::wire::Extra),
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            net: Net::grown(3, 3_000),
            dice: Dice::new(seed),
            wire: Vec::new(),
            jobs: BTreeMap::new(),
            hashes: BTreeMap::new(),
            joined: 3,
        }
    }

    fn any_node(&mut self) -> u64 {
        1 + self.dice.below(self.joined)
    }

    fn poll(&mut self, node: u64) {
        let now = self.net.now(node);
        for _ in 0..4 {
            let Some(effects) = self.net.poll(node, now) else {
                break;
            };
            let stopped = effects.stop;
            assert!(stopped.is_none(), "node {node}: {stopped:?}");
            for message in effects.messages {
                let parcel = if message.get_msg_type() == MessageType::MsgSnapshot {
                    let index = message.get_snapshot().get_metadata().index;
                    let chunks = self.net.nodes[&node].disk.images[&index].clone();
                    Parcel::Snapshot(message, chunks)
                } else {
                    Parcel::Raft(message)
                };
                self.wire.push((node, parcel));
            }
            for (to, extra) in effects.extras {
                self.wire.push((node, Parcel::Extra(node, to.0, extra)));
            }
            let jobs = self.jobs.entry(node).or_default();
            jobs.extend(effects.persist.map(|persist| Job::Write(Box::new(persist))));
            jobs.extend(effects.image.map(|image| Job::Image(Box::new(image))));
        }
        self.check(node);
    }

    /// Equal states at equal indexes, and no counter beyond its bound.
    fn check(&mut self, node: u64) {
        let Some(replica) = self.net.nodes[&node].replica.as_ref() else {
            return;
        };
        let machine = replica.machine();
        let (index, hash) = (machine.index(), machine.hash());
        let first = *self.hashes.entry(index).or_insert(hash);
        assert_eq!(first, hash, "node {node} at {index}");
        assert!(machine.ledger().used(KEY) <= 20, "node {node} at {index}");
    }

    fn deliver(&mut self, is_calm: bool) {
        if self.wire.is_empty() {
            return;
        }
        let at = if is_calm {
            0
        } else {
            self.dice.below(self.wire.len() as u64) as usize
        };
        let (from, parcel) = self.wire.remove(at);
        let chance = if is_calm { 99 } else { self.dice.below(100) };
        if chance < 8 {
            if let Parcel::Snapshot(message, _) = parcel {
                let to = NodeId(message.to);
                self.net
                    .with(from, |replica| replica.snapshot_sent(to, false));
            }
            return;
        }
        match parcel {
            Parcel::Raft(message) => {
                if chance < 16 {
                    self.wire.push((from, Parcel::Raft(message.clone())));
                }
                let to = message.to;
                let now = self.net.now(to);
                self.net.with(to, |replica| replica.step(message, now));
                self.poll_if(to);
            }
            Parcel::Snapshot(message, chunks) => {
                let (to, index) = (message.to, message.get_snapshot().get_metadata().index);
                let now = self.net.now(to);
                let Some(on) = self.net.nodes.get_mut(&to) else {
                    return;
                };
                on.disk.images.insert(index, chunks);
                let machine = on.disk.image(&message.get_snapshot().data);
                self.net
                    .with(to, |replica| replica.step_snapshot(message, machine, now));
                self.net
                    .with(from, |replica| replica.snapshot_sent(NodeId(to), true));
                self.poll_if(to);
            }
            Parcel::Extra(from, to, extra) => {
                let now = self.net.now(to);
                self.net
                    .with(to, |replica| replica.extra(NodeId(from), extra, now));
            }
        }
    }

    fn poll_if(&mut self, node: u64) {
        if self.net.nodes.contains_key(&node) {
            self.poll(node);
        }
    }

    fn work(&mut self, node: u64) {
        let now = self.net.now(node);
        let Some(job) = self.jobs.get_mut(&node).and_then(VecDeque::pop_front) else {
            return;
        };
        let on = self.net.nodes.get_mut(&node).unwrap();
        match job {
            Job::Write(persist) => {
                let number = persist.number;
                on.disk.write(*persist);
                self.net
                    .with(node, |replica| replica.persisted(number, now));
            }
            Job::Image(image) => {
                let chunks = image.chunks().collect();
                on.disk.images.insert(image.manifest.index, chunks);
                self.net.with(node, |replica| {
                    replica.image_written(image.manifest, true, now)
                });
            }
        }
        self.poll(node);
    }

    /// What was not written is gone.
    fn crash(&mut self, node: u64) {
        self.net.kill(node);
        self.jobs.remove(&node);
    }

    fn request(&mut self) {
        let (to, from) = (self.any_node(), self.any_node());
        let now = self.net.now(to);
        self.net.ids += 1;
        let id = self.net.ids;
        let session = Session(1 + self.dice.below(6));
        let window = Window::Duration(3_600_000).id(T0);
        let request = match self.dice.below(12) {
            0..=4 => {
                let seen = u128::from(self.dice.below(3));
                let (want, min) = (1 + self.dice.below(4), 1 + self.dice.below(2));
                Request::Lease {
                    session,
                    ask: ask(want, min, seen),
                }
            }
            5 => Request::Return {
                session,
                returns: vec![GiveBack {
                    key: KEY,
                    window,
                    returned_total: u128::from(self.dice.below(3)),
                }],
                bye: false,
            },
            6 => Request::Hello {
                nonce: 1 + self.dice.below(4),
                secret_check: 1,
                rules_max: 1,
            },
            7 => Request::Define {
                session,
                revision: 1 + self.dice.below(3),
                definitions: vec![Definition {
                    identity: LIMIT,
                    window: Window::Duration(3_600_000),
                    max: 20,
                }],
                last: true,
            },
            8 => Request::Fresh {
                have: Position::default(),
            },
            9 => Request::Status,
            _ => {
                let bytes = self.dice.below(900) as usize;
                let name = format!("policy {}", self.dice.below(20));
                Request::Operate(document(&name, bytes))
            }
        };
        self.net.with(to, |replica| {
            replica.request(NodeId(from), id, request, now)
        });
        self.poll(to);
    }

    /// A node joins, or is taken out while three voters stay.
    fn change_members(&mut self) {
        let Some(leader) = self.net.leader() else {
            return;
        };
        let machine = self.net.replica(leader).machine();
        let voters = machine
            .members()
            .filter(|(_, entry)| !entry.leaving)
            .count();
        let now = self.net.now(leader);
        let node = self.any_node();
        let operate = match self.dice.below(3) {
            0 if voters > 3 => Operate::Remove {
                nodes: vec![NodeId(node)],
            },
            1 => Operate::Token {
                hash: [self.joined as u8 + 1; 32],
                role: Role::Voter,
                ttl_ms: 600_000,
            },
            2 if self.joined < 12 => {
                self.joined += 1;
                let node = self.joined;
                self.net.add(node, Disk::default());
                Operate::Join {
                    token: [node as u8; 32],
                    node: NodeId(node),
                    name: "n".to_owned(),
                    address: "n:1".to_owned(),
                    role: Role::Voter,
                }
            }
            _ => return,
        };
        self.net.ids += 1;
        let id = self.net.ids;
        self.net.with(leader, |replica| {
            replica.request(NodeId(leader), id, Request::Operate(operate), now)
        });
        self.poll(leader);
    }

    fn step(&mut self) {
        match self.dice.below(1_000) {
            0..500 => self.deliver(false),
            500..700 => {
                let node = self.any_node();
                self.work(node);
            }
            700..850 => self.tick(),
            850..986 => self.request(),
            986..990 => self.change_members(),
            990 => {
                let node = self.any_node();
                let off_ms = self.dice.below(6_000) as i64 - 3_000;
                self.net.wall_off_ms.insert(node, off_ms);
            }
            991..994 => {
                let node = self.any_node();
                let down = self
                    .net
                    .nodes
                    .values()
                    .filter(|on| on.replica.is_none())
                    .count();
                if down < 2 {
                    self.crash(node);
                }
            }
            _ => self.restart_all(),
        }
        if self.wire.len() > 400 {
            let lost = self.dice.below(self.wire.len() as u64) as usize;
            if !matches!(self.wire[lost].1, Parcel::Snapshot(..)) {
                self.wire.swap_remove(lost);
            }
        }
    }

    fn tick(&mut self) {
        self.net.ms += 10;
        let node = self.any_node();
        let now = self.net.now(node);
        self.net.with(node, |replica| replica.tick(now));
        self.poll(node);
    }

    fn restart_all(&mut self) {
        let is_down = |on: &Node| on.replica.is_none() && on.stopped.is_none();
        let down: Vec<u64> = self
            .net
            .nodes
            .iter()
            .filter(|(_, on)| is_down(on))
            .map(|(n, _)| *n)
            .collect();
        for node in down {
            self.net.start(node);
            self.poll(node);
        }
    }

    /// Everything arrives again: somebody leads, all agree.
    fn heal(&mut self) {
        self.restart_all();
        self.net.wall_off_ms.clear();
        for _ in 0..400 {
            self.net.ms += TICK_MS;
            for node in 1..=self.joined {
                let now = self.net.now(node);
                self.net.with(node, |replica| replica.tick(now));
                self.poll(node);
            }
            for _ in 0..5_000 {
                if self.wire.is_empty() && self.jobs.values().all(VecDeque::is_empty) {
                    break;
                }
                self.deliver(true);
                (1..=self.joined).for_each(|node| self.work(node));
            }
        }
        let leader = self
            .net
            .leader()
            .unwrap_or_else(|| panic!("nobody leads: {}", self.describe()));
        let machine = self.net.replica(leader).machine();
        let configuration = machine.configuration().clone();
        assert!(!configuration.is_joint(), "{configuration:?}");
        let (index, hash) = (machine.index(), machine.hash());
        for node in configuration.all_voters() {
            let other = self.net.replica(node.0).machine();
            assert_eq!(
                (other.index(), other.hash()),
                (index, hash),
                "node {node:?} beside {leader}"
            );
        }
    }
}

impl Chaos {
    /// Every node in a line.
    fn describe(&self) -> String {
        let lines = self.net.nodes.iter().map(|(node, on)| match &on.replica {
            None => format!("\n{node}: down, {:?}", on.stopped),
            Some(replica) => {
                let raft = &replica.raft.raft;
                let conf = replica.machine.configuration();
                format!(
                    "\n{node}: {:?} term {} vote {} last {} committed {} applied {} persisted {} issued {} durable {} voters {:?} outgoing {:?} learners {:?}",
                    raft.state, raft.term, raft.vote, raft.raft_log.last_index(), raft.raft_log.committed, replica.machine.index(),
                    raft.raft_log.persisted, replica.issued, replica.durable, conf.voters, conf.outgoing, conf.learners,
                )
            }
        });
        lines.collect()
    }

    /// That something happened at all.
    fn report(&self, seed: u64) {
        let leader = self.net.leader().expect("somebody leads");
        let figures = self.net.replica(leader).figures(self.net.now(leader));
        let machine = self.net.replica(leader).machine();
        eprintln!(
            "seed {seed}: term {}, {} entries, {} states seen, snapshot at {}, voters {:?}, {} removed, used {}, {} commands",
            figures.term,
            figures.applied,
            self.hashes.len(),
            figures.snapshot,
            machine.configuration().voters,
            machine.all_removed().count(),
            machine.ledger().used(KEY),
            figures.commands,
        );
    }
}

/// `CHAOS=first..last` runs other seeds than the few that always run.
#[test]
fn voters_agree_whatever_happens_to_messages_and_disks() {
    let (first, last) = match std::env::var("CHAOS") {
        Ok(range) => {
            let (first, last) = range.split_once("..").expect("CHAOS=first..last");
            (first.parse().unwrap(), last.parse().unwrap())
        }
        Err(_) => (0, 8),
    };
    for seed in first..last {
        let ran = std::panic::catch_unwind(|| {
            let mut chaos = Chaos::new(seed);
            (0..STEPS).for_each(|_| chaos.step());
            chaos.heal();
            if std::env::var("CHAOS").is_ok() {
                chaos.report(seed);
            }
        });
        if let Err(panic) = ran {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_seed_is_one_run() {
    let run = || {
        let mut chaos = Chaos::new(77);
        (0..STEPS).for_each(|_| chaos.step());
        (chaos.describe(), chaos.hashes)
    };
    assert_eq!(run(), run());
}
