//! Three replicas and what carries their effects out, without a disk and a network.

use crate::{ASKER, NOW_MS, ask, bounds};
use cluster::{
    machine::Machine,
    membership::Configuration,
    replica::{Replica, Settings, founded},
    wire::{Request, Response},
};
use proto::{
    command::{Batch, Command, Member, NodeId, RULES_VERSION, Role},
    limit::ledger::{Definition, Session},
    time::Now,
};
use std::{collections::VecDeque, ops::Range};

const CLUSTER: u128 = 7;
const VOTERS: u64 = 3;

/// Three voters in one thread.
pub struct Cores {
    replicas: Vec<Replica>,
    now: Now,
    ids: u64,
    answers: Vec<Response>,
}

impl Cores {
    /// A cluster that has a leader.
    pub fn new() -> Self {
        let mut machine = Machine::found(CLUSTER, bounds(), NodeId(1), "one", "one:1");
        let joins = (2..=VOTERS).map(|node| {
            Command::Member(Member::Join {
                token: None,
                node: NodeId(node),
                name: format!("n{node}"),
                address: format!("n{node}:1"),
                role: Role::Voter,
            })
        });
        let batch = Batch {
            now_ms: NOW_MS,
            rules_version: RULES_VERSION,
            commands: joins.collect(),
        };
        let index = machine.index() + 1;
        machine
            .apply(index, &batch)
            .expect("a machine takes members");
        let configuration = Configuration {
            voters: (1..=VOTERS).map(NodeId).collect(),
            ..Configuration::default()
        };
        machine.apply_configuration(index + 1, configuration);
        let now = Now {
            unix_ms: NOW_MS,
            boot_ns: 1_000_000_000,
        };
        let replicas = (1..=VOTERS).map(|node| {
            let settings = Settings {
                node: NodeId(node),
                cluster: CLUSTER,
                tick_ms: 50,
                election_ticks: 12,
                heartbeat_ticks: 2,
                snapshot_after_bytes: u64::MAX / 8,
                node_commands_per_s: u32::MAX,
                requests_max: 1 << 20,
                ledger: bounds(),
                rules_max: RULES_VERSION,
                seed: 11,
            };
            let (recovered, _) = founded(machine.clone());
            Replica::new(settings, recovered, now).expect("the state is sound")
        });
        let mut cores = Self {
            replicas: replicas.collect(),
            now,
            ids: 0,
            answers: Vec::new(),
        };
        while cores.leader().is_none() {
            cores.tick();
        }
        cores
    }

    /// Entries that the leader made of requests.
    pub fn batches(&self) -> u64 {
        let figures = self.replicas.iter().map(|r| r.figures(self.now));
        figures.map(|figures| figures.batches).sum()
    }

    /// A session with a limit in force.
    pub fn session(&mut self, limit: Definition) -> Session {
        self.ask(Request::Hello {
            nonce: 1,
            secret_check: 0,
            rules_max: RULES_VERSION,
        });
        self.settle();
        let session = match self.answers.pop() {
            Some(Response::Session { session, .. }) => session,
            other => panic!("no session but {other:?}"),
        };
        self.ask(Request::Define {
            session,
            revision: 1,
            definitions: vec![limit],
            last: true,
        });
        self.settle();
        assert!(matches!(self.answers.pop(), Some(Response::Done { .. })));
        session
    }

    /// Asks for these counters at once, and waits until every one was leased.
    pub fn lease(&mut self, session: Session, counters: Range<u64>) {
        let count = counters.clone().count();
        for n in counters {
            self.ask(Request::Lease {
                session,
                ask: ask(n),
            });
        }
        self.settle();
        assert_eq!(self.answers.len(), count);
        for answer in self.answers.drain(..) {
            assert!(matches!(&answer, Response::Lease { verdict: Ok(_), .. }));
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |r: &Replica| r.figures(self.now).leads;
        self.replicas.iter().position(leads)
    }

    fn tick(&mut self) {
        self.now.unix_ms += 50;
        self.now.boot_ns += 50_000_000;
        for replica in &mut self.replicas {
            replica.tick(self.now);
        }
        self.settle();
    }

    fn ask(&mut self, request: Request) {
        self.ids += 1;
        let leader = self.leader().expect("invariant: nobody else can lead");
        self.replicas[leader].request(ASKER, self.ids, request, self.now);
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        let mut messages = VecDeque::new();
        loop {
            let mut is_quiet = true;
            for replica in &mut self.replicas {
                while let Some(effects) = replica.poll(self.now) {
                    is_quiet = false;
                    assert_eq!(effects.stop, None);
                    messages.extend(effects.messages);
                    self.answers
                        .extend(effects.responses.into_iter().map(|(_, _, r)| r));
                    if let Some(persist) = effects.persist {
                        replica.persisted(persist.number, self.now);
                    }
                }
            }
            while let Some(message) = messages.pop_front() {
                let to = message.to as usize - 1;
                self.replicas[to].step(message, self.now);
            }
            if is_quiet {
                return;
            }
        }
    }
}
