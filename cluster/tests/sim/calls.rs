//! Calls as the limiter decides them: one clock reading serves a whole call, a call waits once for each of its limits,
//! and what a refused call had taken goes back.

use super::{books::Taken, clock::MS, event::Event, scenes::Scene, world::World};
use proto::{
    control::Kind,
    limit::{
        Settled,
        bucket::Ticket,
        lease::{self, Denial, Wait},
        ledger::Session,
    },
    time::Now,
};
use std::collections::BTreeMap;

/// How long a call waits for quota.
const WAIT_NS: u64 = 100 * MS;
/// From one try of a call that must get through to the next.
const RETRY_NS: u64 = 50 * MS;

/// Calls in flight on one gateway.
#[derive(Default)]
pub struct Calls {
    next: u64,
    running: BTreeMap<u64, Call>,
    waiting: BTreeMap<(usize, lease::Call), u64>,
}

/// One call.
struct Call {
    /// The grant in the log under which it comes, if it is one of those.
    grant: Option<&'static str>,
    /// Counters and amounts, in the order in which they are taken.
    charges: Vec<(usize, u64)>,
    /// Counter, its bucket's number, session, units.
    tickets: Vec<(usize, u64, Session, Ticket)>,
    /// The clock reading that serves the call, and when that was.
    read: Now,
    read_true_ns: u64,
    /// It is tried again until then: true time.
    retry_until_ns: Option<u64>,
}

impl Calls {
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

impl World {
    /// A call comes in; judged a little later by the clocks of this moment.
    pub fn call_arrives(
        &mut self,
        host: usize,
        grant: Option<&'static str>,
        charges: Vec<(usize, u64)>,
        retry_until_ns: Option<u64>,
    ) {
        let (read, read_true_ns, run) = (self.now(host), self.true_ns, self.hosts[host].run);
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        if gateway.stopping {
            return;
        }
        let calls = &mut gateway.calls;
        calls.next += 1;
        let id = calls.next;
        let call = Call {
            grant,
            charges,
            tickets: Vec::new(),
            read,
            read_true_ns,
            retry_until_ns,
        };
        calls.running.insert(id, call);
        let think_ns = 5_000 + self.dice.below(200_000);
        self.later(think_ns, Event::Take { host, run, id });
    }

    /// A call is judged: its grant first, then its limits.
    pub fn call_takes(&mut self, host: usize, id: u64) {
        let freshness_ns = self.plan.freshness_ns;
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let Some(call) = gateway.calls.running.get(&id) else {
            return;
        };
        let is_defined = gateway.in_force.is_some();
        if let Some(name) = call.grant {
            let is_fresh = gateway
                .fresh_ns
                .is_some_and(|at_ns| call.read.boot_ns.saturating_sub(at_ns) <= freshness_ns);
            let is_granted = gateway.control.get(Kind::Grant, name).is_some();
            let (version, read_true_ns) = (gateway.control.position().upto, call.read_true_ns);
            self.note(match (is_fresh, is_granted) {
                (true, true) => Scene::UnderGrant,
                (true, false) => Scene::NotGranted,
                (false, _) => Scene::Stale,
            });
            if !is_fresh || !is_granted || !is_defined {
                return self.call_refused(host, id, None);
            }
            self.check
                .grant_used(name, version, read_true_ns, freshness_ns);
        } else if !is_defined {
            return self.call_refused(host, id, None);
        }
        self.call_takes_more(host, id);
    }

    fn call_takes_more(&mut self, host: usize, id: u64) {
        loop {
            let now = self.now(host);
            let gives_up = self.dice.below(100) == 0;
            let Some(gateway) = self.gateway(host) else {
                return;
            };
            let Some(call) = gateway.calls.running.get_mut(&id) else {
                return;
            };
            let (true, Some((index, amount))) = (
                call.tickets.len() < call.charges.len(),
                call.charges.get(call.tickets.len()).copied(),
            ) else {
                return self.call_admitted(host, id);
            };
            let counter = &mut gateway.counters[index];
            let ticket = match counter.bucket.try_take(amount, call.read) {
                Some(ticket) => ticket,
                None => {
                    let until_ns = now.boot_ns + WAIT_NS;
                    match counter.holder.wait(&counter.bucket, amount, until_ns, now) {
                        Wait::Admitted(ticket) => ticket,
                        Wait::Denied(denial) => return self.call_refused(host, id, Some(denial)),
                        Wait::Waits(call) if gives_up => {
                            counter.holder.cancel(&counter.bucket, call, now);
                            self.note(Scene::GaveUp);
                            return self.call_refused(host, id, None);
                        }
                        Wait::Waits(call) => {
                            gateway.calls.waiting.insert((index, call), id);
                            self.note(Scene::Waited);
                            return;
                        }
                    }
                }
            };
            self.call_took(host, id, index, ticket);
        }
    }

    fn call_took(&mut self, host: usize, id: u64, index: usize, ticket: Ticket) {
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let (Some(call), Some(session)) = (gateway.calls.running.get_mut(&id), gateway.session)
        else {
            return self.fail("quota is taken under a session", String::new());
        };
        let taken = Taken {
            index,
            session,
            window: ticket.window(),
            amount: ticket.amount(),
        };
        let number = gateway.counters[index].bucket_number;
        call.tickets.push((index, number, session, ticket));
        let read_true_ns = call.read_true_ns;
        let paused = self.hosts[host].resumed_ns >= read_true_ns && self.hosts[host].resumed_ns > 0;
        self.took(&taken, paused);
    }

    /// The holder answers a call that waited.
    pub fn call_goes_on(
        &mut self,
        host: usize,
        index: usize,
        call: lease::Call,
        answer: Result<Ticket, Denial>,
    ) {
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let Some(id) = gateway.calls.waiting.remove(&(index, call)) else {
            return self.fail("a call is answered once", format!("{call:?} {answer:?}"));
        };
        match answer {
            Ok(ticket) => {
                self.call_took(host, id, index, ticket);
                self.call_takes_more(host, id);
            }
            Err(denial) => self.call_refused(host, id, Some(denial)),
        }
    }

    /// What it took goes back; one that must get through comes again.
    fn call_refused(&mut self, host: usize, id: u64, denial: Option<Denial>) {
        let now = self.now(host);
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let Some(call) = gateway.calls.running.remove(&id) else {
            return;
        };
        self.note(match denial {
            Some(Denial::Limit { .. }) => Scene::Limited,
            _ => Scene::Unreachable,
        });
        if !call.tickets.is_empty() {
            self.note(Scene::RolledBack);
        }
        self.trace(|| format!("node {host} call {id} refused {denial:?}"));
        for ticket in call.tickets {
            self.give_back(host, ticket, None, now);
        }
        let retry = call
            .retry_until_ns
            .filter(|until| self.true_ns + RETRY_NS < *until);
        if let Some(until_ns) = retry {
            let event = Event::Retry {
                host,
                run: self.hosts[host].run,
                charges: call.charges,
                until_ns,
            };
            self.later(RETRY_NS, event);
        }
    }

    fn call_admitted(&mut self, host: usize, id: u64) {
        self.note(Scene::Admitted);
        let long = self.dice.below(10) == 0;
        let work_ns = (1 + self.dice.below(if long { 4_000 } else { 100 })) * MS;
        let run = self.hosts[host].run;
        let probe = self
            .gateway(host)
            .and_then(|g| g.calls.running.get(&id))
            .filter(|call| call.retry_until_ns.is_some())
            .map(|call| call.charges[0].0);
        if let Some(index) = probe {
            self.probe_admitted(index);
        }
        self.later(work_ns, Event::Settle { host, run, id });
    }

    /// The reply's stream has ended.
    pub fn call_settles(&mut self, host: usize, id: u64) {
        let refunds = self.dice.below(1_000) < self.plan.refunds;
        let now = self.now(host);
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let Some(call) = gateway.calls.running.remove(&id) else {
            return;
        };
        if refunds && call.retry_until_ns.is_none() {
            for ticket in call.tickets {
                self.give_back(host, ticket, Some(u64::MAX), now);
            }
        }
    }

    /// Units go back into the bucket: as a refund within a bound, or those of a refused call.
    fn give_back(
        &mut self,
        host: usize,
        (index, number, session, ticket): (usize, u64, Session, Ticket),
        refund_max: Option<u64>,
        now: Now,
    ) {
        let taken = Taken {
            index,
            session,
            window: ticket.window(),
            amount: ticket.amount(),
        };
        let Some(gateway) = self.gateway(host) else {
            return;
        };
        let c = &mut gateway.counters[index];
        if c.bucket_number != number {
            return;
        }
        let before = c.bucket.remaining();
        let is_back = match refund_max {
            Some(most) => c.holder.refund(&c.bucket, ticket, most, now) == Settled::Refunded,
            None => {
                c.holder.roll_back(&c.bucket, ticket, now);
                // It says nothing; the bucket does.
                c.bucket.remaining() > before
            }
        };
        if is_back {
            if refund_max.is_some() {
                self.note(Scene::Refunded);
            }
            let true_ns = self.true_ns;
            self.check.gave_back(&taken, true_ns);
        } else if refund_max.is_some() {
            self.note(Scene::RefundedLate);
        }
    }
}
