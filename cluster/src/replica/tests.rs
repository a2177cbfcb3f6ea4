//! Small clusters in one thread: replicas joined by queues, disks in memory, one clock.

use super::*;
use crate::{
    codec,
    machine::{Loader, Manifest},
    wire::{HASH_EVERY, Operate, Status},
};
use proto::{
    command::Role,
    control::{Change, Kind, Position},
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
        ledger::{Bounds, Definition, Refusal, Session, Standing},
    },
};
use raft::eraftpb::MessageType;
use std::{collections::BTreeSet, sync::Arc};

const CLUSTER: u128 = 7;
const T0: u64 = 1_800_000_000_000;
const TICK_MS: u64 = 50;
const LIMIT: Identity = Identity(1);
const KEY: CounterKey = CounterKey(2);

/// What one node has on its disk.
#[derive(Clone, Default)]
struct Disk {
    hard_state: HardState,
    snapshot: Snapshot,
    entries: BTreeMap<u64, Entry>,
    images: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Disk {
    fn write(&mut self, persist: Persist) {
        if let Some(snapshot) = persist.install {
            self.entries.clear();
            self.snapshot = snapshot;
        }
        if let Some(first) = persist.entries.first() {
            self.entries.split_off(&first.index);
        }
        self.entries.extend(
            persist
                .entries
                .into_iter()
                .map(|entry| (entry.index, entry)),
        );
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some((snapshot, upto)) = persist.compact {
            self.snapshot = snapshot;
            self.entries = self.entries.split_off(&(upto + 1));
        }
    }

    fn image(&self, data: &[u8]) -> Machine {
        let manifest = Manifest::decode(data).unwrap();
        let mut loader = Loader::new(manifest, Bounds::default());
        for chunk in &self.images[&manifest.index] {
            loader.chunk(chunk).unwrap();
        }
        loader.finish().unwrap()
    }

    fn recover(&self) -> Recovered {
        let is_new = self.snapshot.get_metadata().index == 0;
        Recovered {
            hard_state: self.hard_state.clone(),
            machine: (!is_new).then(|| self.image(&self.snapshot.data)),
            snapshot: self.snapshot.clone(),
            entries: self.entries.values().cloned().collect(),
        }
    }
}

struct Node {
    replica: Option<Replica>,
    disk: Disk,
    responses: BTreeMap<u64, Response>,
    pushes: Vec<(NodeId, Push)>,
    stopped: Option<Stop>,
}

/// A cluster. Messages arrive in order and at once; every write is on the disk before the next loop.
struct Net {
    nodes: BTreeMap<u64, Node>,
    ms: u64,
    ids: u64,
    cut: BTreeSet<u64>,
    snapshots: usize,
    bounds: u64,
    wall_off_ms: BTreeMap<u64, i64>,
}

impl Net {
    fn settings(&self, node: u64) -> Settings {
        Settings {
            node: NodeId(node),
            cluster: CLUSTER,
            tick_ms: TICK_MS,
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_after_bytes: self.bounds,
            node_commands_per_s: 100_000,
            requests_max: 1_000,
            ledger: Bounds::default(),
            rules_max: proto::command::RULES_VERSION,
            seed: 11,
            #[cfg(feature = "faults")]
            faults: Default::default(),
        }
    }

    /// One voter, number 1.
    fn new(snapshot_after_bytes: u64) -> Self {
        let mut net = Self {
            nodes: BTreeMap::new(),
            ms: 0,
            ids: 0,
            cut: BTreeSet::new(),
            snapshots: 0,
            bounds: snapshot_after_bytes,
            wall_off_ms: BTreeMap::new(),
        };
        let machine = Machine::found(
            CLUSTER,
            Bounds::default(),
            NodeId(1),
            "one",
            "one:1",
            net.now(1),
        );
        let (recovered, image) = founded(machine);
        let disk = Disk {
            hard_state: recovered.hard_state,
            images: BTreeMap::from([(image.manifest.index, image.chunks().collect())]),
            snapshot: recovered.snapshot,
            ..Disk::default()
        };
        net.add(1, disk);
        net
    }

    /// One voter and so many that joined it.
    fn grown(voters: u64, snapshot_after_bytes: u64) -> Self {
        let mut net = Self::new(snapshot_after_bytes);
        net.run(1_000);
        for node in 2..=voters {
            net.join(node, Role::Voter);
        }
        net.run(2_000);
        let leader = net.leader().unwrap();
        assert_eq!(
            net.replica(leader).machine().configuration().voters.len() as u64,
            voters
        );
        net
    }

    fn add(&mut self, node: u64, disk: Disk) {
        let fresh = Node {
            replica: None,
            disk,
            responses: BTreeMap::new(),
            pushes: Vec::new(),
            stopped: None,
        };
        self.nodes.insert(node, fresh);
        self.start(node);
    }

    fn start(&mut self, node: u64) {
        let (settings, now) = (self.settings(node), self.now(node));
        let on = self.nodes.get_mut(&node).unwrap();
        on.replica = Some(Replica::new(settings, on.disk.recover(), now).unwrap());
    }

    fn kill(&mut self, node: u64) {
        self.nodes.get_mut(&node).unwrap().replica = None;
    }

    fn now(&self, node: u64) -> Now {
        let off = self.wall_off_ms.get(&node).copied().unwrap_or(0);
        Now {
            unix_ms: (T0 + self.ms).saturating_add_signed(off),
            boot_ns: (10_000 + self.ms) * 1_000_000,
        }
    }

    fn replica(&self, node: u64) -> &Replica {
        self.nodes[&node].replica.as_ref().unwrap()
    }

    fn leader(&self) -> Option<u64> {
        let leads = |(node, on): (&u64, &Node)| {
            let leads = on.replica.as_ref().is_some_and(Replica::leads) && !self.cut.contains(node);
            leads.then_some(*node)
        };
        self.nodes.iter().find_map(leads)
    }

    /// Lets everything happen for so long.
    fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            self.ms += TICK_MS;
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let now = self.now(node);
                self.with(node, |replica| replica.tick(now));
            }
            self.settle();
        }
    }

    fn with(&mut self, node: u64, act: impl FnOnce(&mut Replica)) {
        if let Some(replica) = self.nodes.get_mut(&node).and_then(|on| on.replica.as_mut()) {
            act(replica);
        }
    }

    /// Lets everything happen that needs no time.
    fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let now = self.now(node);
                while let Some(effects) = self.poll(node, now) {
                    is_quiet = false;
                    self.carry_out(node, effects, now);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn poll(&mut self, node: u64, now: Now) -> Option<Effects> {
        self.nodes.get_mut(&node)?.replica.as_mut()?.poll(now)
    }

    fn carry_out(&mut self, node: u64, effects: Effects, now: Now) {
        let on = self.nodes.get_mut(&node).unwrap();
        on.stopped = on.stopped.take().or(effects.stop);
        on.pushes.extend(effects.pushes);
        for (to, id, response) in effects.responses {
            assert!(
                on.responses.insert(id, response).is_none(),
                "{to:?} is answered once"
            );
        }
        if let Some(persist) = effects.persist {
            let number = persist.number;
            on.disk.write(persist);
            on.replica.as_mut().unwrap().persisted(number, now);
        }
        if let Some(image) = effects.image {
            let chunks: Vec<Vec<u8>> = image.chunks().collect();
            on.disk.images.insert(image.manifest.index, chunks);
            on.replica
                .as_mut()
                .unwrap()
                .image_written(image.manifest, true, now);
        }
        for message in effects.messages {
            self.deliver(node, message);
        }
        for (to, extra) in effects.extras {
            if !self.cut.contains(&node) && !self.cut.contains(&to.0) {
                let now = self.now(to.0);
                self.with(to.0, |replica| replica.extra(NodeId(node), extra, now));
            }
        }
    }

    fn deliver(&mut self, from: u64, message: Message) {
        let to = message.to;
        let is_lost = self.cut.contains(&from) || self.cut.contains(&to);
        let now = self.now(to);
        if message.get_msg_type() != MessageType::MsgSnapshot {
            if !is_lost {
                self.with(to, |replica| replica.step(message, now));
            }
            return;
        }
        let is_up = self.nodes.get(&to).is_some_and(|on| on.replica.is_some());
        if !is_lost && is_up {
            self.snapshots += 1;
            let data = message.get_snapshot().data.clone();
            let index = Manifest::decode(&data).unwrap().index;
            let chunks = self.nodes[&from].disk.images[&index].clone();
            let disk = &mut self.nodes.get_mut(&to).unwrap().disk;
            disk.images.insert(index, chunks);
            let machine = disk.image(&data);
            self.with(to, |replica| replica.step_snapshot(message, machine, now));
        }
        self.with(from, |replica| {
            replica.snapshot_sent(NodeId(to), !is_lost && is_up)
        });
    }

    /// A node's question and what it is answered at once.
    fn ask(&mut self, to: u64, from: u64, request: Request) -> Option<Response> {
        self.ids += 1;
        let (id, now) = (self.ids, self.now(to));
        self.with(to, |replica| {
            replica.request(NodeId(from), id, request, now)
        });
        self.settle();
        self.nodes.get_mut(&to).unwrap().responses.remove(&id)
    }

    fn operate(&mut self, operate: Operate) -> Option<Response> {
        let leader = self.leader().unwrap();
        self.ask(leader, leader, Request::Operate(operate))
    }

    /// Lets a node in and, if it is to vote, starts it.
    fn join(&mut self, node: u64, role: Role) {
        let hash = [node as u8; 32];
        let ttl_ms = 60_000;
        let done = self.operate(Operate::Token { hash, role, ttl_ms });
        assert!(matches!(done, Some(Response::Done { .. })), "{done:?}");
        let join = Operate::Join {
            token: hash,
            node: NodeId(node),
            name: format!("node {node}"),
            address: if role == Role::Voter {
                format!("n{node}:1")
            } else {
                String::new()
            },
            role,
        };
        let done = self.operate(join);
        assert!(matches!(done, Some(Response::Done { .. })), "{done:?}");
        if role == Role::Voter {
            self.add(node, Disk::default());
        }
    }

    /// A session of a node, with a limit of so many.
    fn session(&mut self, node: u64, nonce: u64, max: u64) -> Session {
        let leader = self.leader().unwrap();
        let hello = Request::Hello {
            nonce,
            secret_check: 1,
            rules_max: 1,
        };
        let Some(Response::Session { session, .. }) = self.ask(leader, node, hello) else {
            panic!("no session");
        };
        let limit = Definition {
            identity: LIMIT,
            window: Window::Duration(3_600_000),
            max,
        };
        let define = Request::Define {
            session,
            revision: 1,
            definitions: vec![limit],
            last: true,
        };
        let done = self.ask(leader, node, define);
        assert!(matches!(done, Some(Response::Done { .. })), "{done:?}");
        session
    }

    fn lease(&mut self, node: u64, session: Session, want: u64) -> Option<Response> {
        let leader = self.leader()?;
        let request = Request::Lease {
            session,
            ask: ask(want, want, 0),
        };
        self.ask(leader, node, request)
    }

    fn status(&mut self) -> Status {
        let leader = self.leader().unwrap();
        match self.ask(leader, leader, Request::Status) {
            Some(Response::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Every running node has applied the same.
    fn assert_agreed(&self) {
        let running = self.nodes.values().filter(|on| on.stopped.is_none());
        let states: BTreeSet<(u64, u64)> = running
            .filter_map(|on| on.replica.as_ref())
            .map(|replica| (replica.machine().index(), replica.machine().hash()))
            .collect();
        assert_eq!(states.len(), 1, "{states:?}");
    }
}

fn ask(want: u64, min: u64, seen_granted: u128) -> Ask {
    Ask {
        identity: LIMIT,
        key: KEY,
        window_hint: Window::Duration(3_600_000).id(T0),
        want,
        min,
        seen_granted,
        returned_total: 0,
        group: None,
        waiting: true,
    }
}

fn granted(response: Option<Response>) -> Standing {
    match response {
        Some(Response::Lease {
            verdict: Ok(standing),
            ..
        }) => standing,
        other => panic!("not granted: {other:?}"),
    }
}

fn document(name: &str, bytes: usize) -> Operate {
    Operate::Control(Change {
        kind: Kind::Policy,
        name: name.to_owned(),
        body: Some(Arc::from(vec![b'x'; bytes])),
        expect: None,
        by: "me".to_owned(),
    })
}

#[test]
fn a_cluster_of_one_leads_at_once_and_its_quota_survives_a_restart() {
    let mut net = Net::new(1 << 20);
    net.settle();
    assert_eq!(net.leader(), Some(1));
    let session = net.session(1, 1, 10);
    assert_eq!(granted(net.lease(1, session, 4)).granted_total, 4);
    net.kill(1);
    net.start(1);
    net.settle();
    let hash = net.replica(1).machine().hash();
    // The same question again is offered what was granted, not more.
    assert_eq!(granted(net.lease(1, session, 4)).granted_total, 4);
    let renewed = net.session(1, 2, 10);
    assert!(matches!(
        net.lease(1, renewed, 7),
        Some(Response::Lease {
            verdict: Err(Refusal::Exhausted(_)),
            ..
        })
    ));
    assert_ne!(net.replica(1).machine().hash(), hash);
}

#[test]
fn three_voters_go_on_when_the_leader_dies_and_grant_nothing_twice() {
    let mut net = Net::grown(3, 1 << 20);
    let session = net.session(1, 1, 10);
    assert_eq!(granted(net.lease(1, session, 6)).granted_total, 6);
    let former = net.leader().unwrap();
    net.kill(former);
    net.run(3_000);
    let leader = net.leader().unwrap();
    assert_ne!(leader, former);
    assert_eq!(granted(net.lease(1, session, 6)).granted_total, 6);
    let other = net.session(2, 1, 10);
    let refused = net.lease(2, other, 5);
    assert!(
        matches!(
            refused,
            Some(Response::Lease {
                verdict: Err(Refusal::Exhausted(Standing { remaining: 4, .. })),
                ..
            })
        ),
        "{refused:?}"
    );
    net.start(former);
    net.run(2_000);
    net.assert_agreed();
}

#[test]
fn a_leader_without_a_quorum_answers_nobody_and_steps_down() {
    let mut net = Net::grown(3, 1 << 20);
    let session = net.session(1, 1, 10);
    let former = net.leader().unwrap();
    let request = Request::Lease {
        session,
        ask: ask(1, 1, 0),
    };
    net.cut.insert(former);
    assert_eq!(net.ask(former, 1, request.clone()), None);
    let asked = net.ids;
    let fresh = Request::Fresh {
        have: Position::default(),
    };
    assert_eq!(
        net.ask(former, 1, fresh),
        None,
        "it may be another's word by now"
    );
    net.run(3_000);
    let responses = &net.nodes[&former].responses;
    assert_eq!(responses.get(&asked), Some(&Response::Unknown));
    assert!(matches!(
        responses.get(&(asked + 1)),
        Some(Response::NotLeader { .. })
    ));
    assert!(net.leader().is_some());
    net.cut.clear();
    net.run(2_000);
    let answer = net.ask(former, 1, request);
    assert_eq!(
        answer,
        Some(Response::NotLeader {
            leader: net.leader().map(NodeId)
        })
    );
    net.assert_agreed();
}

#[test]
fn a_voter_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut net = Net::grown(3, 20_000);
    let away = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    net.kill(away);
    for number in 0..30 {
        net.operate(document(&format!("policy {number}"), 2_000));
    }
    net.run(1_000);
    let before = net.snapshots;
    net.start(away);
    net.run(2_000);
    assert!(net.snapshots > before);
    net.assert_agreed();
    let leader = net.leader().unwrap();
    assert!(net.replica(leader).figures(net.now(leader)).log_bytes < 60_000);
    // What it installed is on its disk.
    net.kill(away);
    net.start(away);
    net.run(1_000);
    net.assert_agreed();
}

#[test]
fn clusters_grow_to_five_and_shrink_to_three_and_one() {
    let mut net = Net::grown(3, 1 << 20);
    let voters = |net: &mut Net| {
        let leader = net.leader().unwrap();
        net.replica(leader).machine().configuration().voters.len()
    };
    net.join(4, Role::Voter);
    net.run(1_000);
    assert_eq!(voters(&mut net), 3, "one alone waits");
    assert!(
        net.status()
            .members
            .iter()
            .any(|m| m.node == NodeId(4) && m.learner)
    );
    net.join(5, Role::Voter);
    net.run(1_000);
    assert_eq!(voters(&mut net), 5);
    net.assert_agreed();
    // The leader goes with them: it hands leadership on first.
    let former = net.leader().unwrap();
    let other = (1..=5).find(|node| *node != former).unwrap();
    let nodes = vec![NodeId(former), NodeId(other)];
    net.operate(Operate::Remove { nodes });
    net.run(3_000);
    assert_eq!(voters(&mut net), 3);
    let leader = net.leader().unwrap();
    assert!(leader != former && net.replica(leader).machine().removed(NodeId(former)));
    let hello = Request::Hello {
        nonce: 1,
        secret_check: 1,
        rules_max: 1,
    };
    assert_eq!(net.ask(leader, former, hello), Some(Response::Removed));
    let rest: Vec<NodeId> = (1..=5)
        .filter(|n| ![former, other, leader].contains(n))
        .map(NodeId)
        .collect();
    let done = net.operate(Operate::Remove { nodes: rest });
    net.run(1_000);
    assert_eq!(voters(&mut net), 1);
    assert!(done.is_none(), "answered when it is carried out");
    let last = net.operate(Operate::Remove {
        nodes: vec![NodeId(leader)],
    });
    assert_eq!(
        last,
        Some(Response::Member(proto::command::MemberRefusal::LastVoter))
    );
    net.session(leader, 9, 5);
}

#[test]
fn a_dead_voter_is_replaced_in_one_change() {
    let mut net = Net::grown(3, 1 << 20);
    let dead = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    net.kill(dead);
    net.join(4, Role::Voter);
    net.run(1_000);
    net.operate(Operate::Remove {
        nodes: vec![NodeId(dead)],
    });
    net.run(2_000);
    let leader = net.leader().unwrap();
    let voters = &net.replica(leader).machine().configuration().voters;
    assert!(voters.len() == 3 && voters.contains(&NodeId(4)) && !voters.contains(&NodeId(dead)));
    // Its log is of no use to it any more.
    net.start(dead);
    net.run(2_000);
    assert_eq!(net.leader(), Some(leader));
}

#[test]
#[ignore = "waits for the ledger"]
fn holders_are_recalled_and_those_who_were_refused_hear_when_there_is_more() {
    let mut net = Net::grown(1, 1 << 20);
    net.join(8, Role::Client);
    let mine = net.session(1, 1, 10);
    let theirs = net.session(8, 1, 10);
    assert_eq!(granted(net.lease(1, mine, 10)).granted_total, 10);
    let window = Window::Duration(3_600_000).id(T0);
    net.lease(8, theirs, 1);
    net.lease(8, theirs, 1);
    let recall = Push::Recall {
        session: mine,
        key: KEY,
        window,
        granted_total: 10,
    };
    assert_eq!(net.nodes[&1].pushes, [(NodeId(1), recall)], "once in 20 ms");
    net.nodes.get_mut(&1).unwrap().pushes.clear();
    let back = GiveBack {
        key: KEY,
        window,
        returned_total: 3,
    };
    let returned = Request::Return {
        session: mine,
        returns: vec![back],
        bye: false,
    };
    net.ask(1, 1, returned);
    let pushes = &net.nodes[&1].pushes;
    assert!(
        matches!(pushes[..], [(NodeId(8), Push::Renewed { key: KEY, .. })]),
        "{pushes:?}"
    );
    // A call that needs many at once has what comes back to itself for a moment.
    assert!(matches!(
        net.lease(8, theirs, 5),
        Some(Response::Lease {
            verdict: Err(_),
            ..
        })
    ));
    assert_eq!(net.lease(1, mine, 12), None, "held back");
    let deadline_ns = net.replica(1).deadline_ns().unwrap();
    assert_eq!(deadline_ns, net.now(1).boot_ns + 50_000_000);
    net.run(100);
    let held = net.ids;
    assert!(net.nodes[&1].responses.contains_key(&held));
}

#[test]
fn strangers_other_peoples_sessions_and_clients_that_operate_are_forbidden() {
    let mut net = Net::grown(1, 1 << 20);
    net.join(8, Role::Client);
    let session = net.session(1, 1, 10);
    let lease = Request::Lease {
        session,
        ask: ask(1, 1, 0),
    };
    assert_eq!(net.ask(1, 8, lease.clone()), Some(Response::Forbidden));
    assert_eq!(net.ask(1, 99, lease), Some(Response::Forbidden));
    let key = KEY;
    let reset = Request::Operate(Operate::Reset { key });
    assert_eq!(net.ask(1, 8, reset), Some(Response::Forbidden));
    let unknown = Request::Return {
        session: Session(77),
        returns: Vec::new(),
        bye: true,
    };
    assert_eq!(
        net.ask(1, 8, unknown),
        Some(Response::Refused(Refusal::UnknownSession))
    );
    let join = Operate::Join {
        token: [1; 32],
        node: NodeId(9),
        name: "nine".to_owned(),
        address: String::new(),
        role: Role::Client,
    };
    let refused = Response::Member(proto::command::MemberRefusal::Token);
    assert_eq!(net.operate(join), Some(refused));
}

#[test]
#[ignore = "waits for the ledger"]
fn rules_wait_for_every_voter_and_a_node_stops_at_rules_it_does_not_know() {
    let mut net = Net::grown(1, 1 << 20);
    let refused = Response::Member(proto::command::MemberRefusal::Rules);
    assert_eq!(net.operate(Operate::Rules { version: 2 }), Some(refused));
    let hello = Request::Hello {
        nonce: 1,
        secret_check: 1,
        rules_max: 2,
    };
    net.ask(1, 1, hello);
    net.operate(Operate::Rules { version: 2 });
    let stop = net.nodes[&1].stopped.clone();
    assert!(
        matches!(
            stop,
            Some(Stop::Entry {
                error: machine::Error::Rules(2),
                ..
            })
        ),
        "{stop:?}"
    );
}

#[test]
#[ignore = "waits for the ledger"]
fn states_are_compared_and_one_that_differs_from_the_majority_stops() {
    let mut net = Net::grown(3, 1 << 30);
    let odd = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    let on = net.nodes.get_mut(&odd).unwrap();
    on.replica.as_mut().unwrap().machine.apply_nothing(5);
    let hello = |nonce| Request::Hello {
        nonce,
        secret_check: 1,
        rules_max: 1,
    };
    let leader = net.leader().unwrap();
    // The odd one forgets a session.
    for nonce in 1..=HASH_EVERY + 20 {
        net.ask(leader, leader, hello(nonce));
        if nonce == 10 {
            let replica = net.nodes.get_mut(&odd).unwrap().replica.as_mut().unwrap();
            let batch = proto::command::Batch {
                now_ms: T0 + 3_600_000_000,
                rules_version: 1,
                commands: Vec::new(),
            };
            replica.machine.apply(0, &batch).unwrap();
        }
    }
    let stopped: Vec<u64> = net
        .nodes
        .iter()
        .filter(|(_, on)| on.stopped.is_some())
        .map(|(n, _)| *n)
        .collect();
    assert_eq!(stopped, [odd]);
    assert_eq!(
        net.nodes[&odd].stopped,
        Some(Stop::Diverged { index: HASH_EVERY })
    );
}

#[test]
fn a_clock_that_is_far_off_waits_for_the_operator() {
    let mut net = Net::grown(1, 1 << 20);
    let session = net.session(1, 1, 10);
    net.kill(1);
    net.wall_off_ms.insert(1, -7_200_000);
    net.start(1);
    net.settle();
    assert_eq!(net.lease(1, session, 1), Some(Response::Unknown));
    assert!(net.status().clock_problem.is_some());
    let done = net.operate(Operate::AcceptClock);
    assert!(matches!(done, Some(Response::Done { .. })), "{done:?}");
    assert_eq!(net.status().clock_problem, None);
    assert!(net.status().now_ms < T0);
    let renewed = net.session(1, 2, 10);
    assert!(matches!(
        net.lease(1, renewed, 1),
        Some(Response::Lease { .. })
    ));
}

#[test]
fn a_voter_whose_clock_is_off_does_not_stand() {
    let mut net = Net::grown(3, 1 << 20);
    let former = net.leader().unwrap();
    let off = (1..=3).find(|node| *node != former).unwrap();
    net.wall_off_ms.insert(off, 900);
    net.run(2_000);
    let sees = net.replica(off).figures(net.now(off)).clock_offset_ms;
    assert!((850..=950).contains(&sees), "{sees}");
    net.with(former, Replica::resign);
    for _ in 0..5 {
        net.run(1_000);
        assert_ne!(net.replica(off).elections, 99);
    }
    // With one other voter left the two are 0.9 s apart: both within half a second of the middle.
    let other = (1..=3)
        .find(|node| *node != former && *node != off)
        .unwrap();
    net.wall_off_ms.insert(off, 2_000);
    net.kill(former);
    net.run(4_000);
    assert!(net.leader().is_none_or(|leader| leader == other));
    net.run(6_000);
    assert_eq!(
        net.leader(),
        Some(other),
        "the one nearest to the cluster's time"
    );
}

#[test]
#[ignore = "waits for the ledger"]
fn time_goes_on_and_dead_sessions_end_while_somebody_looks() {
    let mut net = Net::grown(1, 1 << 20);
    net.join(8, Role::Client);
    net.session(8, 1, 10);
    let fresh = Request::Fresh {
        have: Position::default(),
    };
    for _ in 0..70 {
        net.run(1_000);
        let answer = net.ask(1, 1, fresh.clone());
        assert!(matches!(answer, Some(Response::Fresh { .. })), "{answer:?}");
    }
    let machine = net.replica(1).machine();
    assert!(machine.now_ms() + 2_000 > T0 + net.ms);
    assert_eq!(machine.ledger().session_of(NodeId(8)), None);
}

#[test]
fn whatever_peers_send_is_survived() {
    let mut net = Net::grown(3, 1 << 20);
    let follower = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    let leader = net.leader().unwrap();
    let mut dice = crate::dice::Dice::new(5);
    for round in 0..20_000 {
        let mut message = Message::default();
        let kinds = [
            MessageType::MsgHup,
            MessageType::MsgBeat,
            MessageType::MsgPropose,
            MessageType::MsgAppend,
            MessageType::MsgAppendResponse,
            MessageType::MsgRequestVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgSnapshot,
            MessageType::MsgHeartbeatResponse,
            MessageType::MsgUnreachable,
            MessageType::MsgSnapStatus,
            MessageType::MsgTransferLeader,
            MessageType::MsgTimeoutNow,
            MessageType::MsgReadIndex,
            MessageType::MsgReadIndexResp,
            MessageType::MsgRequestPreVote,
            MessageType::MsgRequestPreVoteResponse,
        ];
        message.set_msg_type(kinds[dice.below(kinds.len() as u64) as usize]);
        let to = if dice.below(2) == 0 { leader } else { follower };
        let any = |dice: &mut crate::dice::Dice| match dice.below(4) {
            0 => dice.below(4),
            1 => u64::MAX - dice.below(2),
            _ => dice.below(40),
        };
        message.to = to;
        message.from = 1 + dice.below(4);
        message.term = any(&mut dice).min(40);
        message.log_term = any(&mut dice);
        message.index = any(&mut dice);
        message.reject = dice.below(2) == 0;
        message.reject_hint = any(&mut dice);
        message.commit = any(&mut dice);
        message.commit_term = any(&mut dice);
        for _ in 0..dice.below(3) {
            let entry = Entry {
                index: any(&mut dice),
                term: any(&mut dice),
                data: vec![dice.roll() as u8; dice.below(9) as usize].into(),
                ..Entry::default()
            };
            // Entries that do follow on would be believed: a voter is trusted with the log.
            if entry.index != message.index.wrapping_add(1) {
                message.mut_entries().push(entry);
            }
        }
        let now = net.now(to);
        net.with(to, |replica| replica.step(message, now));
        if round % 500 == 0 {
            net.run(TICK_MS);
        }
    }
}

#[test]
fn entries_hold_batches_in_the_codecs_bytes() {
    let mut net = Net::new(1 << 20);
    net.settle();
    net.session(1, 1, 10);
    let batches: Vec<_> = net.nodes[&1]
        .disk
        .entries
        .values()
        .filter(|entry| !entry.data.is_empty())
        .map(|entry| codec::decode_batch(&entry.data).unwrap())
        .collect();
    assert_eq!(batches.len(), 2);
    assert!(batches.iter().all(|batch| batch.now_ms >= T0));
}
