//! One history from one seed.

use super::{
    Faults,
    book::{Book, Key, LIVE},
    chance::Chance,
    node::{Holding, Node, Settling, identity_of, key_of, subject},
    wire::{Leader, Message, Reply, Weather},
};
use proto::{
    command::NodeId,
    limit::{
        Settled, Window,
        bucket::Bucket,
        lease::{Denial, Holder, Question, Todo, Wait},
        ledger::{Bounds, Definition, Ledger},
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::AddAssign,
};

const MS: u64 = 1_000_000;
/// A question that is not answered by then has failed.
const PATIENCE_NS: u64 = 300 * MS;
/// A call waits so long.
const WAIT_NS: u64 = 100 * MS;
/// The ledger's clock at true time 0: 700 ms into a window of every length used here.
const START_MS: u64 = 1_769_903_940_700;
/// So long before a window's end the live half is not promised any more.
const QUIET_MS: u64 = 500;

/// What happens next.
#[derive(Debug)]
enum Event {
    ToLeader(usize, Message),
    ToNode(usize, u64, Reply),
    Poll(usize, u64, Key, u64),
    Late(usize, u64, Question),
    Settle(u64, bool),
    /// A call of chance, and the next one.
    Call(usize),
    /// A call of amount 1 that is tried again until it is admitted, and then the next one.
    Try(usize, Key),
    Trouble,
}

/// What came of a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    events: u64,
    admitted: u64,
    waited: u64,
    refused: u64,
    unreachable: u64,
    refunded: u64,
    late_refunds: u64,
    recalls: u64,
    rests: u64,
    restarts: u64,
    live_calls: u64,
    used_up: u64,
}

impl Outcome {
    pub fn counts(&self) -> [(&'static str, u64); 10] {
        [
            ("admitted", self.admitted),
            ("waited", self.waited),
            ("refused", self.refused),
            ("unreachable", self.unreachable),
            ("refunded", self.refunded),
            ("late refunds", self.late_refunds),
            ("recalls", self.recalls),
            ("rests", self.rests),
            ("restarts", self.restarts),
            ("live windows used up", self.used_up),
        ]
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.admitted += other.admitted;
        self.waited += other.waited;
        self.refused += other.refused;
        self.unreachable += other.unreachable;
        self.refunded += other.refunded;
        self.late_refunds += other.late_refunds;
        self.recalls += other.recalls;
        self.rests += other.rests;
        self.restarts += other.restarts;
        self.live_calls += other.live_calls;
        self.used_up += other.used_up;
    }
}

pub struct World {
    chance: Chance,
    faults: Faults,
    now_ns: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    queued: BTreeMap<u64, Event>,
    sequence: u64,
    weather: Weather,
    /// From when on it is fine, and when the history ends.
    heals_ns: u64,
    ends_ns: u64,
    leader: Leader,
    limits: Vec<Definition>,
    revision: u64,
    nodes: Vec<Node>,
    nonces: u64,
    settling: BTreeMap<u64, Settling>,
    book: Book,
    /// Time between two calls of a node.
    pace_ns: u64,
    outcome: Outcome,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut chance = Chance::new(seed);
        let mut ledger = Ledger::new(Bounds {
            hold_ms: chance.pick(&[500, 5_000]),
            ..Bounds::default()
        });
        ledger.advance(START_MS);
        let limits: Vec<Definition> = (0..chance.between(1, 2) as usize)
            .map(|key| Definition {
                identity: identity_of(key),
                window: Window::Duration(chance.pick(&[1_000, 2_000, 2_000, 4_000])),
                max: chance.pick(&[1, 7, 30, 30, 1_000]),
            })
            .collect();
        let mut world = Self {
            faults,
            now_ns: 0,
            events: BinaryHeap::new(),
            queued: BTreeMap::new(),
            sequence: 0,
            weather: Weather::stormy(&mut chance),
            heals_ns: chance.between(1_000, 3_000) * MS,
            ends_ns: 0,
            leader: Leader::new(ledger),
            limits,
            revision: 1,
            nodes: Vec::new(),
            nonces: 0,
            settling: BTreeMap::new(),
            book: Book::default(),
            pace_ns: chance.pick(&[2, 10, 40]) * MS,
            outcome: Outcome::default(),
            chance,
        };
        for node in 0..world.chance.between(1, 4) as usize {
            world.start(node);
            let at_ns = world.chance.between(0, 50) * MS;
            world.at(at_ns, Event::Call(node));
        }
        world.define();
        world.at(100 * MS, Event::Trouble);
        world
    }

    /// Runs to the end, or to the first invariant that breaks.
    pub fn run(mut self) -> Result<Outcome, String> {
        self.live_half();
        while let Some(Reverse((at_ns, number))) = self.events.pop() {
            if at_ns > self.ends_ns {
                break;
            }
            self.now_ns = at_ns;
            if at_ns >= self.heals_ns {
                self.weather = Weather::FINE;
            }
            self.leader.ledger.advance(self.ledger_ms());
            let event = self.queued.remove(&number).expect("queued");
            self.outcome.events += 1;
            let step = self.outcome.events;
            self.happen(event)
                .map_err(|broken| format!("step={step}: {broken}"))?;
        }
        self.live_verdict()?;
        Ok(self.outcome)
    }

    /// In the first whole window of each counter after the wire has healed, calls of amount 1 come until it is used up.
    fn live_half(&mut self) {
        for (key, limit) in self.limits.clone().into_iter().enumerate() {
            let (from_ns, upto_ns) = self.live_ns(limit.window);
            self.ends_ns = self.ends_ns.max(upto_ns);
            if limit.window == Window::Duration(1_000) {
                continue;
            }
            let tries = limit.max.clamp(1, 4) as usize;
            for number in 0..tries {
                let node = number % self.nodes.len();
                self.at(from_ns + number as u64 * MS, Event::Try(node, key));
            }
        }
    }

    /// From when to when the live half is demanded, true time.
    fn live_ns(&self, window: Window) -> (u64, u64) {
        let id = window.id(START_MS + self.heals_ns.div_ceil(MS)) + 1;
        let (start_ms, end_ms) = window.bounds_ms(id);
        let true_ns = |ms: u64| (ms - START_MS) * MS;
        (true_ns(start_ms), true_ns(end_ms - QUIET_MS))
    }

    fn live_verdict(&mut self) -> Result<(), String> {
        for (key, limit) in self.limits.iter().enumerate() {
            let (from_ns, upto_ns) = self.live_ns(limit.window);
            let window = limit.window.id(START_MS + from_ns / MS);
            let charged = self.book.charged(key, window);
            // Each try takes a few milliseconds: only what can be used up in the time is demanded.
            let demanded = limit.window != Window::Duration(1_000)
                && limit.max * 10 * MS < (upto_ns - from_ns);
            if demanded && charged < limit.max {
                return Err(format!(
                    "{LIVE}: counter {key}, window {window}: {charged} of {} and calls were refused",
                    limit.max
                ));
            }
            self.outcome.used_up += u64::from(demanded);
        }
        Ok(())
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.events
            .push(Reverse((at_ns.max(self.now_ns), self.sequence)));
        self.queued.insert(self.sequence, event);
    }

    fn after(&mut self, ns: u64, event: Event) {
        self.at(self.now_ns + ns, event);
    }

    fn ledger_ms(&self) -> u64 {
        START_MS + self.now_ns / MS
    }

    fn start(&mut self, node: usize) {
        self.nonces += 1;
        let id = NodeId(node as u64 + 1);
        let session = self.leader.hello(id, self.nonces);
        let windows: Vec<Window> = self.limits.iter().map(|limit| limit.window).collect();
        let clock = (
            self.chance.between(1, 1_000) * 1_000 * MS,
            self.chance.between(0, 800) as i64 - 400,
        );
        let seed = self.chance.roll();
        let started = Node::new(id, (self.nonces, session), &windows, clock, seed);
        if node < self.nodes.len() {
            self.nodes[node] = started;
        } else {
            self.nodes.push(started);
        }
        self.plant(node);
    }

    #[cfg(feature = "faults")]
    fn plant(&mut self, node: usize) {
        for holding in &mut self.nodes[node].holdings {
            holding.holder.plant(self.faults);
        }
    }
    #[cfg(not(feature = "faults"))]
    fn plant(&mut self, _node: usize) {
        let Faults(()) = self.faults;
    }

    fn define(&mut self) {
        self.revision += 1;
        self.leader.define(self.revision, &self.limits);
        self.rule();
    }

    fn rule(&mut self) {
        let now_ms = self.ledger_ms();
        for (key, limit) in self.limits.iter().enumerate() {
            self.book.rule(key, limit.window.id(now_ms), limit.max);
        }
    }

    fn audit(&self, node: usize, key: Key) -> Result<(), String> {
        self.book.audit(key, &self.nodes[node].holdings[key])
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        self.rule();
        let is_paused = |world: &Self, node: usize| {
            let until_ns = world.nodes[node].paused_until_ns;
            (until_ns > world.now_ns).then_some(until_ns)
        };
        match event {
            Event::ToLeader(from, message) => {
                let id = self.nodes[from].id;
                for (to, reply) in self.leader.apply(id, message, &mut self.book) {
                    let to = to.0 as usize - 1;
                    let nonce = self.nodes[to].nonce;
                    for delay_ns in self.weather.deliver(&mut self.chance) {
                        self.after(delay_ns, Event::ToNode(to, nonce, reply));
                    }
                }
                Ok(())
            }
            Event::ToNode(node, nonce, reply) => match is_paused(self, node) {
                Some(until_ns) => {
                    self.at(until_ns, Event::ToNode(node, nonce, reply));
                    Ok(())
                }
                None => self.hear(node, nonce, reply),
            },
            Event::Poll(node, nonce, key, number) => match is_paused(self, node) {
                Some(until_ns) => {
                    self.at(until_ns, Event::Poll(node, nonce, key, number));
                    Ok(())
                }
                None if self.nodes[node].nonce != nonce
                    || self.nodes[node].holdings[key].polls != number =>
                {
                    Ok(())
                }
                None => self.drive(node, key),
            },
            Event::Late(node, nonce, question) => {
                if self.nodes[node].nonce == nonce {
                    let now = self.nodes[node].now(self.now_ns);
                    let key = key_of(question.ask.key);
                    self.nodes[node].holdings[key].holder.failed(&question, now);
                    return self.drive(node, key);
                }
                Ok(())
            }
            Event::Settle(number, refunds) => self.settle(number, refunds),
            Event::Call(node) => self.call_of_chance(node),
            Event::Try(node, key) => self.try_again(node, key),
            Event::Trouble => {
                self.trouble();
                Ok(())
            }
        }
    }

    fn hear(&mut self, node: usize, nonce: u64, reply: Reply) -> Result<(), String> {
        // A wire belongs to one run of a node; what was said to an older session comes through all the same.
        if self.nodes[node].nonce != nonce && self.chance.permille(500) {
            return Ok(());
        }
        let now = self.nodes[node].now(self.now_ns);
        let key = key_of(match reply {
            Reply::Heard(question, _) => question.ask.key,
            Reply::Acknowledged(_, back) => back.key,
            Reply::Recall { key, .. } | Reply::Renewed { key, .. } => key,
        });
        let Holding { holder, bucket, .. } = &mut self.nodes[node].holdings[key];
        match reply {
            Reply::Heard(question, heard) => holder.heard(bucket, &question, &heard, now),
            Reply::Acknowledged(session, back) => holder.acknowledged(session, &back),
            Reply::Recall {
                session,
                window,
                granted_total,
                ..
            } => {
                self.outcome.recalls += 1;
                holder.recall(bucket, Some((session, window, granted_total)), now);
            }
            Reply::Renewed { generation, .. } => holder.renewed(generation),
        }
        self.drive(node, key)
    }

    /// Polls a holder and does as it says.
    fn drive(&mut self, node: usize, key: Key) -> Result<(), String> {
        let now = self.nodes[node].now(self.now_ns);
        let nonce = self.nodes[node].nonce;
        loop {
            let Holding { holder, bucket, .. } = &mut self.nodes[node].holdings[key];
            match holder.poll(bucket, now) {
                None => break,
                Some(Todo::Ask(question)) => {
                    self.after(PATIENCE_NS, Event::Late(node, nonce, question));
                    self.send(node, Message::Lease(question));
                }
                Some(Todo::GiveBack(session, back)) => {
                    self.send(node, Message::Return(session, back));
                }
                Some(Todo::Admit(call, ticket)) => {
                    let holding = &mut self.nodes[node].holdings[key];
                    holding.waiting.retain(|(waits, _)| *waits != call);
                    self.admitted(node, key, ticket)?;
                }
                Some(Todo::Deny(call, denial)) => {
                    let holding = &mut self.nodes[node].holdings[key];
                    holding.waiting.retain(|(waits, _)| *waits != call);
                    self.denied(denial);
                }
            }
        }
        let Holding { holder, bucket, .. } = &self.nodes[node].holdings[key];
        if let Some(due_ns) = holder.due_ns(bucket) {
            // Timers are late, never early.
            let late_ns = self.chance.between(0, 3 * MS);
            let at_ns = self.nodes[node].when_ns(due_ns).max(self.now_ns) + late_ns;
            self.nodes[node].holdings[key].polls += 1;
            let number = self.nodes[node].holdings[key].polls;
            self.at(at_ns, Event::Poll(node, nonce, key, number));
        }
        self.audit(node, key)
    }

    fn send(&mut self, node: usize, message: Message) {
        for delay_ns in self.weather.deliver(&mut self.chance) {
            self.after(delay_ns, Event::ToLeader(node, message));
        }
    }

    /// One call: the fast way, or it waits.
    fn call(&mut self, node: usize, key: Key, amount: u64) -> Result<bool, String> {
        let now = self.nodes[node].now(self.now_ns);
        let Holding {
            holder,
            bucket,
            waiting,
            ..
        } = &mut self.nodes[node].holdings[key];
        if let Some(ticket) = bucket.try_take(amount, now) {
            let low = bucket.take_low();
            self.admitted(node, key, ticket)?;
            if low {
                self.drive(node, key)?;
            }
            self.audit(node, key)?;
            return Ok(true);
        }
        match holder.wait(bucket, amount, now.boot_ns + WAIT_NS, now) {
            Wait::Admitted(ticket) => {
                self.admitted(node, key, ticket)?;
                self.drive(node, key)?;
                Ok(true)
            }
            Wait::Denied(denial) => {
                self.denied(denial);
                self.drive(node, key)?;
                Ok(false)
            }
            Wait::Waits(call) => {
                waiting.push((call, amount));
                self.outcome.waited += 1;
                self.drive(node, key)?;
                // A caller that is impatient, now and then.
                if self.chance.permille(20) {
                    let Holding {
                        holder,
                        bucket,
                        waiting,
                        ..
                    } = &mut self.nodes[node].holdings[key];
                    waiting.retain(|(waits, _)| *waits != call);
                    holder.cancel(bucket, call, now);
                }
                Ok(false)
            }
        }
    }

    fn admitted(
        &mut self,
        node: usize,
        key: Key,
        ticket: proto::limit::bucket::Ticket,
    ) -> Result<(), String> {
        let session = self.nodes[node].session;
        let window = ticket.window();
        let end_ms = self.limits[key].window.bounds_ms(window).1;
        let moment = (self.ledger_ms(), end_ms);
        self.book
            .admit((session, key, window), ticket.amount(), moment)?;
        self.outcome.admitted += 1;
        if self.chance.permille(250) && self.now_ns < self.heals_ns {
            self.sequence += 1;
            let settling = Settling {
                node,
                run: self.nodes[node].run,
                key,
                session,
                ticket,
            };
            let number = self.sequence;
            self.settling.insert(number, settling);
            self.nodes[node].holdings[key].out += 1;
            let refunds = self.chance.permille(700);
            let most_ms = self.chance.pick(&[20, 200, 1_500]);
            let ns = self.chance.between(0, most_ms * MS);
            self.after(ns, Event::Settle(number, refunds));
        }
        Ok(())
    }

    fn denied(&mut self, denial: Denial) {
        match denial {
            Denial::Limit { .. } => self.outcome.refused += 1,
            _ => self.outcome.unreachable += 1,
        }
    }

    fn settle(&mut self, number: u64, refunds: bool) -> Result<(), String> {
        let Some(Settling {
            node,
            run,
            key,
            session,
            ticket,
        }) = self.settling.remove(&number)
        else {
            return Ok(());
        };
        // A process that ended settles nothing: its calls stay charged.
        if self.nodes[node].run != run {
            return Ok(());
        }
        let now = self.nodes[node].now(self.now_ns);
        let (window, amount) = (ticket.window(), ticket.amount());
        let holding = &mut self.nodes[node].holdings[key];
        holding.out -= 1;
        if !refunds {
            return Ok(());
        }
        match holding
            .holder
            .refund(&holding.bucket, ticket, u64::MAX, now)
        {
            Settled::Refunded => {
                self.book.refund((session, key, window), amount);
                self.outcome.refunded += 1;
            }
            _ => self.outcome.late_refunds += 1,
        }
        self.drive(node, key)
    }

    fn call_of_chance(&mut self, node: usize) -> Result<(), String> {
        let pace_ns = self.chance.between(self.pace_ns / 4, self.pace_ns * 2);
        if self.now_ns >= self.heals_ns {
            return Ok(());
        }
        self.after(pace_ns, Event::Call(node));
        if self.nodes[node].paused_until_ns > self.now_ns {
            return Ok(());
        }
        let key = self.chance.between(0, self.limits.len() as u64 - 1) as Key;
        let max = self.limits[key].max;
        let amount = match self.chance.between(0, 9) {
            0 => self.chance.between(1, max),
            1 | 2 => self.chance.between(1, max.min(5)),
            _ => 1,
        };
        self.call(node, key, amount).map(|_| ())
    }

    /// A client that does not give up; its calls go to any node.
    fn try_again(&mut self, node: usize, key: Key) -> Result<(), String> {
        let nodes = self.nodes.len() as u64;
        self.outcome.live_calls += 1;
        self.call(node, key, 1)?;
        let next = if self.chance.permille(500) {
            node
        } else {
            self.chance.between(0, nodes - 1) as usize
        };
        let pause_ns = self.chance.between(2 * MS, 20 * MS);
        if self.now_ns + pause_ns < self.live_ns(self.limits[key].window).1 {
            self.after(pause_ns, Event::Try(next, key));
        }
        Ok(())
    }

    /// Something goes wrong, or is changed by people.
    fn trouble(&mut self) {
        if self.now_ns >= self.heals_ns {
            return;
        }
        let ns = self.chance.between(20 * MS, 400 * MS);
        self.after(ns, Event::Trouble);
        let node = self.chance.between(0, self.nodes.len() as u64 - 1) as usize;
        match self.chance.between(0, 9) {
            0 => {
                self.outcome.restarts += 1;
                self.start(node);
                self.define();
            }
            1 => {
                self.nonces += 1;
                let session = self.leader.hello(self.nodes[node].id, self.nonces);
                self.nodes[node].rejoin(self.nonces, session);
                self.define();
            }
            2 => {
                let ms = self.chance.pick(&[30, 300, 1_500]);
                self.nodes[node].paused_until_ns = self.now_ns + ms * MS;
            }
            3 => {
                let key = self.chance.between(0, self.limits.len() as u64 - 1) as Key;
                self.limits[key].max = self.chance.pick(&[1, 5, 20, 50, 1_000]);
                self.define();
            }
            4 => self.leader.term += 1,
            5 => self.weather = Weather::stormy(&mut self.chance),
            _ => self.rest(node),
        }
    }

    /// Puts holders with nothing in hand away, and wakes them again.
    fn rest(&mut self, node: usize) {
        let now = self.nodes[node].now(self.now_ns);
        let seed = self.chance.roll();
        for key in 0..self.limits.len() {
            let session = self.nodes[node].session;
            let window = self.limits[key].window;
            let holding = &mut self.nodes[node].holdings[key];
            let Some(rest) = holding
                .holder
                .rest(&holding.bucket, now)
                .filter(|_| holding.out == 0)
            else {
                continue;
            };
            let end_ns = now.boot_ns + rest.end_ms.saturating_sub(START_MS + self.now_ns / MS) * MS;
            holding.bucket = Bucket::default();
            holding.holder = Holder::wake(
                subject(key, window),
                Some(session),
                &holding.bucket,
                (&rest, end_ns),
                seed,
            );
            holding.polls += 1;
            self.outcome.rests += 1;
        }
        self.plant(node);
    }
}
