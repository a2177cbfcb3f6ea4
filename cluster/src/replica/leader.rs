//! What only a leader does: takes requests and makes entries of them.

use super::{
    Replica,
    desk::{Asked, Asker, Flight, Order, Part, Read, What},
};
use crate::{
    codec,
    wire::{DEFINITIONS_MAX, Operate, RETURNS_MAX, ROWS_MAX, Request, Response},
};
#[cfg(feature = "faults")]
use proto::faults::Fault;
use proto::{
    command::{Batch, Command, Member, Role},
    limit::ledger::{Refusal, Session},
    time::Now,
};

/// An idle leader tells the time this often, if somebody asks.
const BEAT_MS: u64 = 1_000;
/// Longest time that a join token is good, milliseconds.
const TOKEN_MS_MAX: u64 = 24 * 3_600_000;

impl Replica {
    /// Takes note of a won or lost leadership. Whoever waits hears of a lost one.
    pub(super) fn follow_role(&mut self, now: Now) {
        let term = self.raft.raft.term;
        let led = self.led.map(|(led, _)| led);
        if led == self.leads().then_some(term) {
            return;
        }
        if self.led.take().is_some() {
            self.clock.deposed();
            let leader = self.leader().filter(|leader| *leader != self.settings.node);
            for asker in self.desk.drop_unknown() {
                self.answer(asker, Response::Unknown);
            }
            let held = self.nudges.clear();
            let undone = held.into_iter().map(|asked| asked.asker);
            for asker in undone.chain(self.desk.drop_undone()).collect::<Vec<_>>() {
                self.answer(asker, Response::NotLeader { leader });
            }
            #[cfg(feature = "faults")]
            {
                self.ahead = None;
            }
        }
        if self.leads() {
            self.led = Some((term, now.boot_ns));
            self.clock.elected(now);
            self.pushed_version = self.machine.control().version();
        }
    }

    /// A leader's share of a loop.
    pub(super) fn lead(&mut self, now: Now) {
        // Before its first own entry is applied a leader does not know which sessions there are.
        if self.led.is_none() || !self.raft.raft.apply_to_current_term() {
            return;
        }
        let released = self.nudges.release(now.boot_ns);
        self.desk.inbox.extend(released);
        while let Some(asked) = self.desk.inbox.pop_front() {
            if let Some(asked) = self.nudges.hold(asked, now.boot_ns) {
                self.take(asked, now);
            }
        }
        self.ask_quorum();
        self.beat(now);
        while self.propose(now) {}
    }

    /// Checks a request and puts it where it belongs.
    fn take(&mut self, asked: Asked, now: Now) {
        let Asked { asker, request } = asked;
        if self.machine.removed(asker.node) {
            return self.answer(asker, Response::Removed);
        }
        let Some(role) = self.machine.member(asker.node).map(|entry| entry.role) else {
            return self.answer(asker, Response::Forbidden);
        };
        let read = |what| Read { asker, what };
        match request {
            Request::Fresh { have } => {
                self.wants_time = true;
                self.desk.reads.push(read(What::Fresh(have)));
            }
            Request::Counters(mut counters) => {
                counters.most = counters.most.min(ROWS_MAX);
                self.desk.reads.push(read(What::Counters(counters)));
            }
            Request::Status => self.desk.reads.push(read(What::Status)),
            Request::Members => {
                let members = self.members();
                self.answer(asker, members);
            }
            Request::Operate(_) if role != Role::Voter => self.answer(asker, Response::Forbidden),
            Request::Operate(operate) => self.operate(asker, operate, now),
            Request::Hello {
                nonce,
                secret_check,
                rules_max,
            } => {
                let node = asker.node;
                let hello = Command::Hello {
                    node,
                    nonce,
                    secret_check,
                    rules_max,
                };
                self.order(Order::new(Some(asker), vec![hello]), now);
            }
            Request::Define {
                session,
                revision,
                definitions,
                last,
            } => {
                if definitions.len() > DEFINITIONS_MAX {
                    return self.answer(asker, Response::Forbidden);
                }
                let define = Command::Define {
                    session,
                    revision,
                    definitions,
                    last,
                };
                self.order_of(session, Order::new(Some(asker), vec![define]), now);
            }
            Request::Lease { session, ask } => {
                let order = Order::new(Some(asker), vec![Command::Lease { session, ask }]);
                self.order_of(session, order, now);
            }
            Request::Return {
                session,
                returns,
                bye,
            } => {
                if returns.len() > RETURNS_MAX {
                    return self.answer(asker, Response::Forbidden);
                }
                let returns = returns
                    .into_iter()
                    .map(|back| Command::Return { session, back });
                let bye = bye.then_some(Command::Bye { session });
                let order = Order::new(Some(asker), returns.chain(bye).collect());
                self.order_of(session, order, now);
            }
        }
    }

    fn operate(&mut self, asker: Asker, operate: Operate, now: Now) {
        let one = |command| Order::new(Some(asker), vec![command]);
        let applied_ms = self.machine.now_ms();
        let now_ms = self.clock.stamp(applied_ms, now).unwrap_or(applied_ms);
        let member = |member| one(Command::Member(member));
        let order = match operate {
            Operate::Credit { key } => one(Command::Credit { key }),
            Operate::Reset { key } => one(Command::Reset { key }),
            Operate::AcceptClock => {
                let mut order = one(Command::SetClock {
                    now_ms: now.unix_ms,
                });
                order.unstamped = true;
                order
            }
            Operate::Control(change) => one(Command::Control(change)),
            Operate::Rules { version } => one(Command::SetRules { version }),
            Operate::Token { hash, role, ttl_ms } => member(Member::Token {
                hash,
                role,
                expires_ms: now_ms.saturating_add(ttl_ms.min(TOKEN_MS_MAX)),
            }),
            Operate::Join {
                token,
                node,
                name,
                address,
                role,
            } => member(Member::Join {
                token: Some(token),
                node,
                name,
                address,
                role,
            }),
            Operate::Address { address } => {
                let node = asker.node;
                member(Member::Address { node, address })
            }
            Operate::Remove { nodes } => {
                let removes = nodes
                    .iter()
                    .map(|node| Command::Member(Member::Remove { node: *node }));
                let mut order = Order::new(Some(asker), removes.collect());
                order.removes = nodes;
                order
            }
        };
        self.order(order, now);
    }

    /// An order that speaks for a session must come from that session's node.
    fn order_of(&mut self, session: Session, order: Order, now: Now) {
        let owner = self.machine.ledger().node_of(session);
        let Some(asker) = order.asker else { return };
        match owner {
            Some(owner) if owner == asker.node => self.order(order, now),
            Some(_) => self.answer(asker, Response::Forbidden),
            None => self.answer(asker, Response::Refused(Refusal::UnknownSession)),
        }
    }

    fn order(&mut self, order: Order, now: Now) {
        let Some(asker) = order.asker else {
            return self.desk.enqueue(order);
        };
        if !order.fits() {
            return self.answer(asker, Response::Refused(Refusal::Overflow));
        }
        let rate = self.settings.node_commands_per_s;
        let is_in_pace = self
            .desk
            .admit(asker.node, order.commands.len(), rate, now.boot_ns);
        let is_timed = order.unstamped || self.clock.stamp(self.machine.now_ms(), now).is_ok();
        if !is_in_pace || !is_timed {
            self.refused += 1;
            return self.answer(asker, Response::Unknown);
        }
        self.desk.enqueue(order);
    }

    /// Proposes one entry, if there is something to propose and raft takes it.
    fn propose(&mut self, now: Now) -> bool {
        // An entry by which a node is gone for good must bring with it, to everybody who has it, that the change which took
        // that node out is committed: whoever commits it, a majority of those that stay, then needs the node no more,
        // whatever power is lost. So it is made only by a leader that has applied all changes before it.
        let is_changing = self.raft.raft.has_pending_conf();
        #[cfg(feature = "faults")]
        let is_changing = is_changing && !self.settings.faults.has(Fault::LetGoEarly);
        let orders = self.desk.next_entry(is_changing);
        if orders.is_empty() {
            return false;
        }
        let applied_ms = self.machine.now_ms();
        let is_unstamped = orders.iter().any(|order| order.unstamped);
        let now_ms = match self.clock.stamp(applied_ms, now) {
            Ok(now_ms) if !is_unstamped => now_ms,
            _ if is_unstamped => applied_ms,
            _ => {
                for asker in orders.into_iter().filter_map(|order| order.asker) {
                    self.answer(asker, Response::Unknown);
                }
                return true;
            }
        };
        let batch = Batch {
            now_ms,
            rules_version: self.machine.rules_version(),
            commands: orders
                .iter()
                .flat_map(|order| order.commands.iter().cloned())
                .collect(),
        };
        let Ok(data) = codec::encode_batch(&batch) else {
            for asker in orders.into_iter().filter_map(|order| order.asker) {
                self.answer(asker, Response::Refused(Refusal::Overflow));
            }
            return true;
        };
        if self.raft.propose(Vec::new(), data).is_err() {
            // Too much is uncommitted, or leadership is being handed on.
            self.desk.put_back(orders);
            return false;
        }
        self.batches += 1;
        self.commands += batch.commands.len() as u64;
        let parts = orders.into_iter().map(|order| Part {
            asker: order.asker,
            commands: order.commands.len(),
            removes: order.removes,
        });
        let flight = Flight {
            index: self.raft.raft.raft_log.last_index(),
            term: self.raft.raft.term,
            parts: parts.collect(),
            sets_clock: is_unstamped,
        };
        #[cfg(feature = "faults")]
        let flight = self.grant_ahead(flight, &batch);
        self.desk.flights.push_back(flight);
        true
    }

    /// Time goes on, in the log too, as long as somebody looks.
    fn beat(&mut self, now: Now) {
        if !self.wants_time || !self.desk.is_idle() {
            return;
        }
        self.wants_time = false;
        let applied_ms = self.machine.now_ms();
        let stamp = self.clock.stamp(applied_ms, now);
        if stamp.is_ok_and(|stamp| stamp >= applied_ms.saturating_add(BEAT_MS)) {
            self.desk.enqueue(Order::new(None, Vec::new()));
        }
    }

    /// The fault: leases are answered from a state in which they are committed already.
    #[cfg(feature = "faults")]
    fn grant_ahead(&mut self, mut flight: Flight, batch: &Batch) -> Flight {
        if !self.settings.faults.has(Fault::GrantBeforeCommit) {
            return flight;
        }
        if self.desk.flights.is_empty() {
            self.ahead = None;
        }
        let machine = &self.machine;
        let ahead = self.ahead.get_or_insert_with(|| machine.clone());
        let Ok(mut replies) = ahead.apply(flight.index, batch) else {
            return flight;
        };
        let at = crate::wire::At {
            now_ms: ahead.now_ms(),
            term: flight.term,
        };
        for part in &mut flight.parts {
            let mine: Vec<_> = replies.drain(..part.commands.min(replies.len())).collect();
            let is_lease = matches!(mine.as_slice(), [proto::command::Reply::Lease(_)]);
            if is_lease && let Some(asker) = part.asker.take() {
                self.desk.waiting = self.desk.waiting.saturating_sub(1);
                let response = super::desk::response(&mine, at);
                self.out.responses.push((asker.node, asker.id, response));
            }
        }
        flight
    }
}
