//! A gateway's process as the simulation runs it: the client, a holder and a bucket for each counter, what it knows of the
//! control plane. The part of the limiter and the handle is played here; the rules are the real ones.

use super::{calls::Calls, clock::SECOND, plan::Plan, scenes::Scene, world::World};
use cluster::{
    client::{Action, Client, NONCE_SPARE_BITS, Settings},
    handle::LedgerClock,
    machine::Machine,
    wire::{Operate, Push, Request, Response},
};
use proto::{
    command::NodeId,
    control::Control,
    limit::{
        bucket::Bucket,
        lease::{GiveBack, Heard, Holder, Question, Subject, Todo},
        ledger::{Definition, Refusal, Session},
    },
    time::Now,
};
use std::{collections::BTreeMap, rc::Rc};

/// How long a lease or a return is asked for, and everything else.
const LEASE_PATIENCE_NS: u64 = 2 * SECOND;
const PATIENCE_NS: u64 = 4 * SECOND;
/// More than anybody was granted.
const FORGED: u128 = 1 << 60;
/// From one question for freshness to the next.
const FRESH_EVERY_NS: u64 = SECOND;

/// A counter on this node.
pub struct Counter {
    pub bucket: Bucket,
    pub holder: Holder,
    /// Counts the buckets that there were: a ticket is good for its own alone.
    pub bucket_number: u64,
}

/// What an answer is for.
#[derive(Debug)]
enum Asked {
    Lease(usize, Question),
    GiveBack(Session, GiveBack, usize),
    Define {
        revision: u64,
        max: Vec<u64>,
    },
    /// Boot clock before it was asked.
    Fresh(u64),
    Members,
    Operate(Operate),
    Bye,
    Forge,
}

pub struct Gateway {
    pub client: Client,
    pub session: Option<Session>,
    pub counters: Vec<Counter>,
    asked: BTreeMap<u64, Asked>,
    pub calls: Calls,
    /// What the configuration says, and what the ledger has confirmed: nothing is admitted before.
    pub wanted: Vec<u64>,
    revision: u64,
    pub in_force: Option<Vec<u64>>,
    pub control: Control,
    /// Boot clock before the last question that a majority confirmed.
    pub fresh_ns: Option<u64>,
    fresh_due_ns: u64,
    /// What is known of the members, what the leader told of, when they may be asked for.
    members_version: Option<u64>,
    members_told: u64,
    members_due_ns: u64,
    /// Voters to be noted for the next start.
    noted: Option<Vec<NodeId>>,
    /// It is about to end: no more calls.
    pub stopping: bool,
    /// It has said so.
    pub bye_asked: bool,
    /// The newest replicated time that was heard, and what it must be now.
    heard_ms: u64,
    clock: LedgerClock,
    faults: proto::faults::Faults,
}

impl Gateway {
    pub fn new(
        plan: &Plan,
        starts: u64,
        voters: Vec<NodeId>,
        rules_max: u32,
        wanted: Vec<u64>,
        seed: u64,
        now: Now,
    ) -> Self {
        let settings = Settings {
            nonce: starts << NONCE_SPARE_BITS,
            secret_check: 7,
            rules_max,
            outstanding_max: 256,
            seed,
        };
        let counter = |index: usize| {
            let key = plan.keys[index];
            let limit = plan.limits[key.limit];
            let subject = Subject {
                identity: limit.identity,
                key: key.key,
                window: limit.window(),
                group: None,
            };
            Counter {
                bucket: Bucket::default(),
                holder: Holder::new(subject, None, seed ^ index as u64),
                bucket_number: 0,
            }
        };
        Self {
            client: Client::new(settings, voters, now),
            session: None,
            counters: (0..plan.keys.len()).map(counter).collect(),
            asked: BTreeMap::new(),
            calls: Calls::default(),
            wanted,
            revision: 0,
            in_force: None,
            control: Control::default(),
            fresh_ns: None,
            fresh_due_ns: now.boot_ns,
            members_version: None,
            members_told: 0,
            members_due_ns: 0,
            noted: None,
            stopping: false,
            bye_asked: false,
            heard_ms: 0,
            clock: LedgerClock::new(now),
            faults: Default::default(),
        }
    }

    /// With mistakes.
    pub fn with_faults(mut self, faults: proto::faults::Faults) -> Self {
        self.faults = faults;
        self.counters
            .iter_mut()
            .for_each(|c| c.holder.plant(faults));
        self
    }

    fn ask(&mut self, request: Request, patience_ns: u64, asked: Asked, now: Now) {
        let ticket = self
            .client
            .ask(request, now.boot_ns.saturating_add(patience_ns), now);
        self.asked.insert(ticket, asked);
    }

    /// An operator at this node.
    pub fn operate(&mut self, operate: Operate, now: Now) {
        let request = Request::Operate(operate.clone());
        self.ask(request, PATIENCE_NS, Asked::Operate(operate), now);
    }

    /// The limits of the configuration are told to the ledger.
    pub fn define(&mut self, plan: &Plan, now: Now) {
        let Some(session) = self.session else {
            return;
        };
        self.revision += 1;
        let definitions = plan
            .limits
            .iter()
            .zip(&self.wanted)
            .map(|(limit, max)| Definition {
                identity: limit.identity,
                window: limit.window(),
                max: *max,
            })
            .collect();
        let request = Request::Define {
            session,
            revision: self.revision,
            definitions,
            last: true,
        };
        let asked = Asked::Define {
            revision: self.revision,
            max: self.wanted.clone(),
        };
        self.ask(request, PATIENCE_NS, asked, now);
    }

    /// Returns what it cannot have been granted.
    pub fn forge(&mut self, index: usize, now: Now) {
        let Some((session, window, granted, _)) = self.counters[index].holder.totals() else {
            return;
        };
        let back = GiveBack {
            key: self.counters[index].holder.subject().key,
            window,
            returned_total: granted + FORGED,
        };
        let request = Request::Return {
            session,
            returns: vec![back],
            bye: false,
        };
        self.ask(request, LEASE_PATIENCE_NS, Asked::Forge, now);
    }

    /// The last words of a process that stops in order.
    fn bye(&mut self, now: Now) -> bool {
        let Some(session) = self.session else {
            return false;
        };
        let mut returns = Vec::new();
        for counter in &mut self.counters {
            counter.holder.recall(&counter.bucket, None, now);
            if let Some((_, window, _, returned_total)) = counter.holder.totals() {
                let key = counter.holder.subject().key;
                returns.push(GiveBack {
                    key,
                    window,
                    returned_total,
                });
            }
        }
        let request = Request::Return {
            session,
            returns,
            bye: true,
        };
        self.ask(request, LEASE_PATIENCE_NS, Asked::Bye, now);
        true
    }

    /// Holders that have nothing to do are put away and made again from what must not be forgotten of them. Says how many
    /// had something to remember.
    pub fn rest(&mut self, now: Now) -> u64 {
        let mut rested = 0;
        for c in &mut self.counters {
            let subject = *c.holder.subject();
            let bucket = Bucket::default();
            let fresh = if c.holder.is_past(self.heard_ms) {
                Holder::new(subject, self.session, now.boot_ns)
            } else if let Some(rest) = c.holder.rest(&c.bucket, now) {
                let end_ns = self.clock.boot_ns(rest.end_ms);
                rested += 1;
                Holder::wake(subject, self.session, &bucket, (&rest, end_ns), now.boot_ns)
            } else {
                continue;
            };
            c.holder = fresh;
            c.holder.plant(self.faults);
            c.bucket = bucket;
            c.bucket_number += 1;
        }
        rested
    }

    fn poll_holders(&mut self, now: Now) -> Option<(usize, Todo)> {
        self.counters
            .iter_mut()
            .enumerate()
            .find_map(|(index, c)| Some((index, c.holder.poll(&c.bucket, now)?)))
    }

    /// The same in words.
    pub fn dues(&self) -> String {
        let first = self
            .counters
            .iter()
            .min_by_key(|c| c.holder.due_ns(&c.bucket).unwrap_or(u64::MAX))
            .map(|c| (c.holder.due_ns(&c.bucket), &c.bucket, &c.holder));
        format!(
            "holder {first:?}, client {:?}, freshness {}",
            self.client.deadline_ns(),
            self.fresh_due_ns
        )
    }

    /// When something is due, boot clock.
    pub fn due_ns(&self) -> u64 {
        let holders = self
            .counters
            .iter()
            .filter_map(|c| c.holder.due_ns(&c.bucket));
        holders
            .chain(self.client.deadline_ns())
            .chain([self.fresh_due_ns])
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl World {
    /// Does what the gateway's cores ask for until they ask for nothing more; whether there was anything.
    pub fn drive_gateway(&mut self, host: usize) -> bool {
        let mut moved = false;
        for _ in 0..10_000 {
            let now = self.now(host);
            let Some(process) = &mut self.hosts[host].process else {
                return moved;
            };
            let machine = process.voter.as_ref().map(|v| v.replica.machine());
            let gateway = &mut process.gateway;
            if gateway.fresh_due_ns <= now.boot_ns {
                gateway.fresh_due_ns = now.boot_ns + FRESH_EVERY_NS;
                gateway.refresh(now);
            }
            gateway.roll_call(machine, now);
            if let Some(voters) = gateway.noted.take() {
                self.hosts[host].voters = voters;
                continue;
            }
            if gateway.stopping && !gateway.bye_asked && gateway.calls.is_empty() {
                gateway.bye_asked = true;
                if !gateway.bye(now) {
                    self.stop(host);
                    return true;
                }
            }
            if let Some(action) = gateway.client.poll(now) {
                self.act(host, action, now);
            } else if let Some((index, todo)) = gateway.poll_holders(now) {
                self.holder_asks(host, index, todo, now);
            } else {
                return moved;
            }
            moved = true;
        }
        self.fail("a node comes to rest", "its gateway".into());
        false
    }

    fn holder_asks(&mut self, host: usize, index: usize, todo: Todo, now: Now) {
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        match todo {
            Todo::Ask(question) => {
                let request = Request::Lease {
                    session: question.session,
                    ask: question.ask,
                };
                let asked = Asked::Lease(index, question);
                gateway.ask(request, LEASE_PATIENCE_NS, asked, now);
            }
            Todo::GiveBack(session, back) => {
                let request = Request::Return {
                    session,
                    returns: vec![back],
                    bye: false,
                };
                let asked = Asked::GiveBack(session, back, index);
                gateway.ask(request, LEASE_PATIENCE_NS, asked, now);
            }
            Todo::Admit(call, ticket) => self.call_goes_on(host, index, call, Ok(ticket)),
            Todo::Deny(call, denial) => self.call_goes_on(host, index, call, Err(denial)),
        }
    }

    fn act(&mut self, host: usize, action: Action, now: Now) {
        match action {
            Action::Send { to, id, request } => self.send_request(host, to, id, request),
            Action::Answer { ticket, response } => self.answered(host, ticket, response, now),
            Action::Session(session) => self.session_began(host, session, now),
            Action::Push(push) => self.pushed(host, push, now),
            Action::UnknownLeader(_) => {
                if let Some(gateway) = self.gateway(host) {
                    gateway.members_version = None;
                }
            }
        }
    }

    fn session_began(&mut self, host: usize, session: Session, now: Now) {
        let (id, run) = (self.hosts[host].id, self.hosts[host].run);
        self.check.session_began(id, run.into(), session);
        let plan = Rc::clone(&self.plan);
        if let Some(gateway) = self.gateway(host) {
            gateway.session = Some(session);
            // Time may have been set back.
            gateway.heard_ms = 0;
            gateway.in_force = None;
            for counter in &mut gateway.counters {
                counter.holder.session(&counter.bucket, session);
            }
            gateway.define(&plan, now);
        }
    }

    fn pushed(&mut self, host: usize, push: Push, now: Now) {
        match push {
            Push::Recall { .. } => self.note(Scene::Recalled),
            Push::Renewed { .. } => self.note(Scene::Renewed),
            Push::Control { .. } => {}
        }
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        match push {
            Push::Recall {
                session,
                key,
                window,
                granted_total,
            } => {
                for c in gateway.counters_of(key) {
                    let told = Some((session, window, granted_total));
                    c.holder.recall(&c.bucket, told, now);
                }
            }
            Push::Renewed { key, generation } => {
                for c in gateway.counters_of(key) {
                    c.holder.renewed(generation);
                }
            }
            Push::Control { version } => {
                if gateway.control.position().upto < version {
                    gateway.refresh(now);
                }
            }
        }
    }

    fn answered(&mut self, host: usize, ticket: u64, response: Option<Response>, now: Now) {
        let plan = Rc::clone(&self.plan);
        let (trace, at_ms) = (self.trace, self.true_ns / super::clock::MS);
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let Some(asked) = gateway.asked.remove(&ticket) else {
            return;
        };
        if trace {
            println!("{at_ms:>9} node {host}: {asked:?} -> {response:?}");
        }
        match (asked, response) {
            (Asked::Lease(index, question), response) => {
                let c = &mut gateway.counters[index];
                match response {
                    Some(Response::Lease { verdict, at }) => {
                        gateway.heard_ms = gateway.heard_ms.max(at.now_ms);
                        gateway.clock.hear(at, now);
                        let heard = Heard {
                            session: question.session,
                            at,
                            verdict,
                        };
                        c.holder.heard(&c.bucket, &question, &heard, now);
                    }
                    _ => c.holder.failed(&question, now),
                }
            }
            (Asked::GiveBack(session, back, index), Some(Response::Done { .. })) => {
                gateway.counters[index].holder.acknowledged(session, &back);
            }
            (Asked::Define { revision, max }, Some(Response::Done { .. })) => {
                if revision == gateway.revision {
                    gateway.in_force = Some(max);
                    gateway
                        .counters
                        .iter_mut()
                        .for_each(|c| c.holder.redefined());
                }
            }
            (Asked::Define { revision, .. }, response) => {
                // An unanswered definition is said again; a refused one waits for the next session.
                if revision == gateway.revision && response.is_none() {
                    gateway.define(&plan, now);
                }
            }
            (
                Asked::Fresh(asked_ns),
                Some(Response::Fresh {
                    page,
                    members_version,
                    ..
                }),
            ) => {
                gateway.freshened(asked_ns, page, members_version, now);
            }
            (
                Asked::Members,
                Some(Response::Members {
                    members,
                    members_version,
                    ..
                }),
            ) => {
                gateway.members_version = Some(members_version);
                gateway.members_told = gateway.members_told.max(members_version);
                let voters = members
                    .iter()
                    .filter(|m| m.role == proto::command::Role::Voter)
                    .map(|m| m.node)
                    .collect();
                // One that is joining knows nobody yet.
                gateway.take_voters(voters, now);
            }
            (Asked::Bye, _) => self.stop(host),
            (Asked::Operate(operate), response) => self.operated(host, &operate, response),
            (Asked::Forge, Some(response)) => {
                self.note(Scene::Forged);
                if !matches!(
                    response,
                    Response::Refused(Refusal::Quarantined | Refusal::UnknownSession)
                        | Response::Removed
                        | Response::Forbidden
                        | Response::Done { .. }
                ) {
                    self.fail("a forged return is refused", format!("{response:?}"));
                }
            }
            (Asked::GiveBack(..) | Asked::Fresh(_) | Asked::Members | Asked::Forge, _) => {}
        }
    }
}

impl Gateway {
    pub fn counters_of(
        &mut self,
        key: proto::limit::CounterKey,
    ) -> impl Iterator<Item = &mut Counter> {
        self.counters
            .iter_mut()
            .filter(move |c| c.holder.subject().key == key)
    }

    fn take_voters(&mut self, voters: Vec<NodeId>, now: Now) {
        if !voters.is_empty() {
            self.client.set_voters(voters.clone(), now);
            self.noted = Some(voters);
        }
    }

    /// A voter reads the members off its machine, a lease client asks when its knowledge is old.
    fn roll_call(&mut self, machine: Option<&Machine>, now: Now) {
        let Some(machine) = machine else {
            let is_old = self.members_version != Some(self.members_told);
            if is_old && self.members_due_ns <= now.boot_ns {
                self.members_due_ns = now.boot_ns + SECOND;
                self.ask(Request::Members, LEASE_PATIENCE_NS, Asked::Members, now);
            }
            return;
        };
        let version = Some(machine.members_version());
        if machine.index() > 0 && self.members_version != version {
            self.members_version = version;
            let votes = |role| role == proto::command::Role::Voter;
            let voters = machine.members().filter(|(_, e)| votes(e.role));
            let voters = voters.map(|(node, _)| node).collect();
            self.take_voters(voters, now);
        }
    }

    fn refresh(&mut self, now: Now) {
        let have = self.control.position();
        let asked = Asked::Fresh(now.boot_ns);
        self.ask(Request::Fresh { have }, LEASE_PATIENCE_NS, asked, now);
    }

    fn freshened(
        &mut self,
        asked_ns: u64,
        page: proto::control::Page,
        members_version: u64,
        now: Now,
    ) {
        // A page that does not continue what is known was answered twice, or late.
        if self.control.adopt(page).is_ok() {
            if self.control.is_complete() {
                self.fresh_ns = self.fresh_ns.max(Some(asked_ns));
            } else {
                self.refresh(now);
            }
        }
        self.members_told = members_version;
        self.asked
            .retain(|_, asked| !matches!(asked, Asked::Fresh(at) if at.saturating_add(60 * SECOND) < now.boot_ns));
    }
}
