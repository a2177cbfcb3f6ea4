//! Small clusters in one thread: replicas joined by queues, disks in memory, one clock.

use super::*;

pub(super) const CLUSTER: u128 = 7;
pub(super) const T0: u64 = 1_800_000_000_000;
pub(super) const TICK_MS: u64 = 50;
pub(super) const LIMIT: Identity = Identity(1);
pub(super) const KEY: CounterKey = CounterKey(2);

/// What one node has on its disk.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Snapshot,
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) images: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Disk {
    pub(super) fn write(&mut self, persist: Persist) {
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

    pub(super) fn image(&self, data: &[u8]) -> Machine {
        let manifest = Manifest::decode(data).unwrap();
        let mut loader = Loader::new(manifest, Bounds::default());
        for chunk in &self.images[&manifest.index] {
            loader.chunk(chunk).unwrap();
        }
        loader.finish().unwrap()
    }

    pub(super) fn recover(&self) -> Recovered {
        let is_new = self.snapshot.get_metadata().index == 0;
        Recovered {
            hard_state: self.hard_state.clone(),
            machine: (!is_new).then(|| self.image(&self.snapshot.data)),
            snapshot: self.snapshot.clone(),
            entries: self.entries.values().cloned().collect(),
        }
    }
}

pub(super) struct Node {
    pub(super) replica: Option<Replica>,
    pub(super) disk: Disk,
    /// Written, and lost with the power: what needs no sync waits for the next write that does.
    unsynced: Vec<Persist>,
    pub(super) responses: BTreeMap<u64, Response>,
    pub(super) pushes: Vec<(NodeId, Push)>,
    pub(super) stopped: Option<Stop>,
}

/// A cluster. Messages arrive in order and at once; every write is done before the next loop.
pub(super) struct Net {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) ms: u64,
    pub(super) ids: u64,
    pub(super) cut: BTreeSet<u64>,
    pub(super) snapshots: usize,
    pub(super) bounds: u64,
    #[cfg(feature = "faults")]
    pub(super) faults: proto::faults::Faults,
    pub(super) wall_off_ms: BTreeMap<u64, i64>,
}

impl Net {
    pub(super) fn settings(&self, node: u64) -> Settings {
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
            faults: self.faults,
        }
    }

    /// One voter, number 1.
    pub(super) fn new(snapshot_after_bytes: u64) -> Self {
        let mut net = Self {
            nodes: BTreeMap::new(),
            ms: 0,
            ids: 0,
            cut: BTreeSet::new(),
            snapshots: 0,
            bounds: snapshot_after_bytes,
            #[cfg(feature = "faults")]
            faults: Default::default(),
            wall_off_ms: BTreeMap::new(),
        };
        let machine = Machine::found(CLUSTER, Bounds::default(), NodeId(1), "one", "one:1");
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
    pub(super) fn grown(voters: u64, snapshot_after_bytes: u64) -> Self {
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

    pub(super) fn add(&mut self, node: u64, disk: Disk) {
        let fresh = Node {
            replica: None,
            disk,
            unsynced: Vec::new(),
            responses: BTreeMap::new(),
            pushes: Vec::new(),
            stopped: None,
        };
        self.nodes.insert(node, fresh);
        self.start(node);
    }

    pub(super) fn start(&mut self, node: u64) {
        let (settings, now) = (self.settings(node), self.now(node));
        let on = self.nodes.get_mut(&node).unwrap();
        on.replica = Some(Replica::new(settings, on.disk.recover(), now).unwrap());
    }

    pub(super) fn kill(&mut self, node: u64) {
        let on = self.nodes.get_mut(&node).unwrap();
        on.replica = None;
        on.unsynced.drain(..).for_each(|write| on.disk.write(write));
    }

    pub(super) fn lose_power(&mut self, node: u64) {
        let on = self.nodes.get_mut(&node).unwrap();
        on.replica = None;
        on.unsynced.clear();
    }

    pub(super) fn now(&self, node: u64) -> Now {
        let off = self.wall_off_ms.get(&node).copied().unwrap_or(0);
        Now {
            unix_ms: (T0 + self.ms).saturating_add_signed(off),
            boot_ns: (10_000 + self.ms) * 1_000_000,
        }
    }

    pub(super) fn replica(&self, node: u64) -> &Replica {
        self.nodes[&node].replica.as_ref().unwrap()
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |(node, on): (&u64, &Node)| {
            let leads = on.replica.as_ref().is_some_and(Replica::leads) && !self.cut.contains(node);
            leads.then_some(*node)
        };
        self.nodes.iter().find_map(leads)
    }

    /// Lets everything happen for so long.
    pub(super) fn run(&mut self, ms: u64) {
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

    pub(super) fn with(&mut self, node: u64, act: impl FnOnce(&mut Replica)) {
        if let Some(replica) = self.nodes.get_mut(&node).and_then(|on| on.replica.as_mut()) {
            act(replica);
        }
    }

    /// Lets everything happen that needs no time.
    pub(super) fn settle(&mut self) {
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

    pub(super) fn poll(&mut self, node: u64, now: Now) -> Option<Effects> {
        self.nodes.get_mut(&node)?.replica.as_mut()?.poll(now)
    }

    pub(super) fn carry_out(&mut self, node: u64, effects: Effects, now: Now) {
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
            let (number, must_sync) = (persist.number, persist.must_sync);
            on.unsynced.push(persist);
            if must_sync {
                on.unsynced.drain(..).for_each(|write| on.disk.write(write));
            }
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

    pub(super) fn deliver(&mut self, from: u64, message: Message) {
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
    pub(super) fn ask(&mut self, to: u64, from: u64, request: Request) -> Option<Response> {
        self.ids += 1;
        let (id, now) = (self.ids, self.now(to));
        self.with(to, |replica| {
            replica.request(NodeId(from), id, request, now)
        });
        self.settle();
        self.nodes.get_mut(&to).unwrap().responses.remove(&id)
    }

    pub(super) fn operate(&mut self, operate: Operate) -> Option<Response> {
        let leader = self.leader().unwrap();
        self.ask(leader, leader, Request::Operate(operate))
    }

    /// Lets a node in and, if it is to vote, starts it.
    pub(super) fn join(&mut self, node: u64, role: Role) {
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
    pub(super) fn session(&mut self, node: u64, nonce: u64, max: u64) -> Session {
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

    pub(super) fn lease(&mut self, node: u64, session: Session, want: u64) -> Option<Response> {
        let leader = self.leader()?;
        let request = Request::Lease {
            session,
            ask: ask(want, want, 0),
        };
        self.ask(leader, node, request)
    }

    pub(super) fn status(&mut self) -> Status {
        let leader = self.leader().unwrap();
        match self.ask(leader, leader, Request::Status) {
            Some(Response::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Every running node has applied the same.
    pub(super) fn assert_agreed(&self) {
        let running = self.nodes.values().filter(|on| on.stopped.is_none());
        let states: BTreeSet<(u64, u64)> = running
            .filter_map(|on| on.replica.as_ref())
            .map(|replica| (replica.machine().index(), replica.machine().hash()))
            .collect();
        assert_eq!(states.len(), 1, "{states:?}");
    }
}

pub(super) fn ask(want: u64, min: u64, seen_granted: u128) -> Ask {
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

pub(super) fn granted(response: Option<Response>) -> Standing {
    match response {
        Some(Response::Lease {
            verdict: Ok(standing),
            ..
        }) => standing,
        other => panic!("not granted: {other:?}"),
    }
}

pub(super) fn document(name: &str, bytes: usize) -> Operate {
    Operate::Control(Change {
        kind: Kind::Policy,
        name: name.to_owned(),
        body: Some(Arc::from(vec![b'x'; bytes])),
        expect: None,
        by: "me".to_owned(),
    })
}
