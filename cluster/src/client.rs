//! CORE. A node's dealings with the voters: whom to ask, what to ask again, which session is ours.
//!
//! ```text
//! ask ──► pending ──Send──► target ──► answer ──► Answer
//!           ▲  │                │
//!           │  └─ deadline: Answer(None)
//!           └──── NotLeader (hint or next voter), silence, lost connection, Unknown; with growing, jittered pauses
//! ```
//!
//! Whatever is asked may be carried out more than once and heard late: requests are absolute, so a repeated one changes
//! nothing, and one answer is as good as another. Only an operator's write is not repeated where it may have been done.

mod words;

pub use words::{Action, Settings};

use crate::{
    dice::Dice,
    wire::{Push, Request, Response},
};
use proto::{
    command::NodeId,
    limit::ledger::{Refusal, Session},
    time::Now,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Low bits of a nonce that are the client's own: it counts them up when a session of the same start has to be given up.
pub const NONCE_SPARE_BITS: u32 = 24;
/// A target that says nothing for this long after a question is given up for the next voter.
const SILENCE_NS: u64 = 500 * MS;
/// First pause when nobody leads, and the longest.
const PAUSE_NS: (u64, u64) = (25 * MS, 400 * MS);
/// First pause before a refused Hello is said again, and the longest.
const HELLO_PAUSE_NS: (u64, u64) = (250 * MS, 5_000 * MS);
const MS: u64 = 1_000_000;

/// A node's dealings with the voters.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    dice: Dice,
    voters: Vec<NodeId>,
    /// Index of the voter whose turn it was last; hints do not count.
    turn: usize,
    /// Who is believed to lead.
    target: Option<NodeId>,
    /// When it became the target, and when it last answered anything.
    aimed_ns: u64,
    heard_ns: Option<u64>,
    /// Targets given up since the last real answer.
    failures: u32,
    /// Nothing is sent before.
    resume_ns: u64,
    session: Option<Session>,
    /// The newest session that there was.
    former: Option<Session>,
    hello: Hello,
    tickets: u64,
    pending: BTreeMap<u64, Pending>,
    /// When each pending question must be looked at.
    due: BTreeSet<(u64, u64)>,
    actions: VecDeque<Action>,
}

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    /// There is a session, or none is wanted any more.
    Done,
    /// To be said at this time, after so many refusals.
    Due { at_ns: u64, refusals: u32 },
    /// Said under this ticket.
    Said { ticket: u64, refusals: u32 },
    /// A goodbye was asked for: no further session.
    Closing,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    deadline_ns: u64,
    /// To whom and when it was sent last.
    sent: Option<(NodeId, u64)>,
    /// Answers in a row that said that nothing is known.
    unknowns: u32,
    /// As in `due`.
    due_ns: u64,
}

impl Client {
    /// A client that knows these voters and says Hello at once.
    pub fn new(settings: Settings, voters: Vec<NodeId>, now: Now) -> Self {
        let mut client = Self {
            dice: Dice::new(settings.seed),
            settings,
            voters: Vec::new(),
            turn: 0,
            target: None,
            aimed_ns: 0,
            heard_ns: None,
            failures: 0,
            resume_ns: 0,
            session: None,
            former: None,
            hello: Hello::Due {
                at_ns: now.boot_ns,
                refusals: 0,
            },
            tickets: 0,
            pending: BTreeMap::new(),
            due: BTreeSet::new(),
            actions: VecDeque::new(),
        };
        client.set_voters(voters, now);
        client
    }

    /// The voters as of now: questions go to no others.
    pub fn set_voters(&mut self, voters: Vec<NodeId>, now: Now) {
        self.voters = voters;
        if !self.target.is_some_and(|t| self.voters.contains(&t)) {
            let start = self.dice.below(self.voters.len() as u64) as usize;
            self.turn = start;
            self.aim(self.voters.get(start).copied(), now);
        }
    }

    /// The session in force.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// Who is believed to lead.
    pub fn leader(&self) -> Option<NodeId> {
        self.target
    }

    /// Questions without an answer yet, a Hello included.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// Asks the leader, whoever it is, until `deadline_ns` (boot clock); returns the ticket under which the answer will
    /// come, always exactly one. A request of another session than [`Client::session`] is refused as
    /// [`Refusal::UnknownSession`]. An operator's write is sent again only where it certainly was not carried out; where
    /// that is unknown its answer is [`Response::Unknown`].
    pub fn ask(&mut self, request: Request, deadline_ns: u64, now: Now) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        if session_of(&request).is_some_and(|session| self.session != Some(session)) {
            self.answer(ticket, Some(Response::Refused(Refusal::UnknownSession)));
        } else if self.pending.len() >= self.settings.outstanding_max {
            self.answer(ticket, None);
        } else {
            if matches!(request, Request::Return { bye: true, .. }) {
                self.hello = Hello::Closing;
            }
            self.put(ticket, request, deadline_ns, now);
        }
        ticket
    }

    /// An answer came. One that nobody waits for (late, repeated, invented) is ignored.
    pub fn receive(&mut self, from: NodeId, id: u64, response: Response, now: Now) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let is_latest = pending.sent.is_some_and(|(to, _)| to == from);
        let is_write = matches!(pending.request, Request::Operate(_));
        match response {
            Response::NotLeader { .. } | Response::Unknown if !is_latest => {}
            Response::NotLeader { leader } => {
                // Nothing was done: a write may go elsewhere.
                if let Some(pending) = self.pending.get_mut(&id) {
                    pending.sent = None;
                }
                self.again_at(id, now.boot_ns);
                if let Some(leader) = leader.filter(|node| !self.voters.contains(node)) {
                    self.actions.push_back(Action::UnknownLeader(leader));
                }
                if self.target == Some(from) {
                    let hint = leader.filter(|node| *node != from && self.voters.contains(node));
                    self.give_up(hint, now);
                }
            }
            Response::Unknown if !is_write => {
                self.heard(from, now);
                let unknowns = self.pending.get_mut(&id).map_or(1, |pending| {
                    pending.unknowns = pending.unknowns.saturating_add(1);
                    pending.unknowns
                });
                let pause = self.dice.pause(unknowns, PAUSE_NS);
                self.again_at(id, now.boot_ns.saturating_add(pause));
            }
            response => {
                self.heard(from, now);
                self.failures = 0;
                self.settle(id, response, now);
            }
        }
    }

    /// A push came. Those of another session than ours are dropped: their totals are not ours.
    pub fn pushed(&mut self, from: NodeId, push: Push, now: Now) {
        self.heard(from, now);
        let is_ours = match push {
            Push::Recall { session, .. } => self.session == Some(session),
            Push::Renewed { .. } | Push::Control { .. } => true,
        };
        if is_ours && self.actions.len() < self.settings.outstanding_max.saturating_mul(2) {
            self.actions.push_back(Action::Push(push));
        }
    }

    /// The connection to a voter was lost, or could not be made.
    pub fn lost(&mut self, node: NodeId, now: Now) {
        let sent: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.sent.is_some_and(|(to, _)| to == node))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in sent {
            self.again_at(ticket, now.boot_ns);
        }
        if self.target == Some(node) {
            self.give_up(None, now);
        }
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Now) -> Option<Action> {
        if let Hello::Due { at_ns, refusals } = self.hello
            && at_ns <= now.boot_ns
        {
            self.tickets += 1;
            let ticket = self.tickets;
            self.hello = Hello::Said { ticket, refusals };
            let request = Request::Hello {
                nonce: self.settings.nonce,
                secret_check: self.settings.secret_check,
                rules_max: self.settings.rules_max,
            };
            self.put(ticket, request, u64::MAX, now);
        }
        while let Some((at_ns, ticket)) = self.due.first().copied()
            && at_ns <= now.boot_ns
        {
            self.due.remove(&(at_ns, ticket));
            self.serve(ticket, now);
        }
        self.actions.pop_front()
    }

    /// When to poll again at the latest, boot clock nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        if !self.actions.is_empty() {
            return Some(0);
        }
        let due = self.due.first().map(|(at_ns, _)| *at_ns);
        let hello = match self.hello {
            Hello::Due { at_ns, .. } => Some(at_ns),
            _ => None,
        };
        due.into_iter().chain(hello).min()
    }

    fn put(&mut self, ticket: u64, request: Request, deadline_ns: u64, now: Now) {
        let pending = Pending {
            request,
            deadline_ns,
            sent: None,
            unknowns: 0,
            due_ns: now.boot_ns,
        };
        self.due.insert((now.boot_ns, ticket));
        self.pending.insert(ticket, pending);
    }

    /// A pending question is due: send it (again), or give it up.
    fn serve(&mut self, ticket: u64, now: Now) {
        let Some(pending) = self.pending.get(&ticket) else {
            return;
        };
        let is_write = matches!(pending.request, Request::Operate(_));
        if pending.deadline_ns <= now.boot_ns || (is_write && pending.sent.is_some()) {
            let unknown = (is_write && pending.sent.is_some()).then_some(Response::Unknown);
            self.pending.remove(&ticket);
            return self.answer(ticket, unknown);
        }
        if let Some((to, sent_ns)) = pending.sent {
            let silent = self.heard_ns.is_none_or(|heard_ns| heard_ns <= sent_ns);
            let waited = now.boot_ns.saturating_sub(sent_ns) >= SILENCE_NS;
            // One voter that is alone is aimed at again: older questions say nothing more.
            let silent = silent && sent_ns >= self.aimed_ns;
            if self.target == Some(to) && silent && waited {
                self.give_up(None, now);
            }
        }
        let resume_ns = self.resume_ns;
        let (Some(to), true) = (self.target, resume_ns <= now.boot_ns) else {
            return self.again_at(
                ticket,
                resume_ns.max(now.boot_ns.saturating_add(PAUSE_NS.0)),
            );
        };
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return;
        };
        pending.sent = Some((to, now.boot_ns));
        self.actions.push_back(Action::Send {
            to,
            id: ticket,
            request: pending.request.clone(),
        });
        // A write is not repeated: its answer, its connection's end or its deadline comes next.
        let again_ns = if is_write {
            u64::MAX
        } else {
            now.boot_ns.saturating_add(SILENCE_NS)
        };
        self.again_at(ticket, again_ns);
    }

    /// Looks at a question again then, or at its deadline if that is earlier.
    fn again_at(&mut self, ticket: u64, at_ns: u64) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            self.due.remove(&(pending.due_ns, ticket));
            pending.due_ns = at_ns.min(pending.deadline_ns);
            self.due.insert((pending.due_ns, ticket));
        }
    }

    fn heard(&mut self, from: NodeId, now: Now) {
        if self.target == Some(from) {
            self.heard_ns = Some(now.boot_ns);
        }
    }

    /// The target does not lead, or does not answer: on to the hint, or to the next voter.
    fn give_up(&mut self, hint: Option<NodeId>, now: Now) {
        self.failures = self.failures.saturating_add(1);
        // Whose turn it is does not depend on hints: a voter that was taken out and does not know it would lead round and
        // round between itself and the leader that it remembers.
        let next = hint.or_else(|| self.next_voter());
        let rounds = u32::try_from(self.voters.len()).unwrap_or(u32::MAX);
        self.resume_ns = match self.failures.checked_sub(rounds) {
            None | Some(0) => now.boot_ns,
            Some(more) => now.boot_ns.saturating_add(self.dice.pause(more, PAUSE_NS)),
        };
        self.aim(next, now);
    }

    /// The next voter in turn, but not the one that was given up just now, if there is another.
    fn next_voter(&mut self) -> Option<NodeId> {
        for _ in 0..2 {
            self.turn = (self.turn + 1).checked_rem(self.voters.len()).unwrap_or(0);
            if self.voters.get(self.turn).copied() != self.target {
                break;
            }
        }
        self.voters.get(self.turn).copied()
    }

    /// Everything pending goes to this voter from now on.
    fn aim(&mut self, target: Option<NodeId>, now: Now) {
        self.target = target;
        self.aimed_ns = now.boot_ns;
        self.heard_ns = None;
        let at_ns = self.resume_ns.max(now.boot_ns);
        let elsewhere: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| !matches!(p.request, Request::Operate(_)) || p.sent.is_none())
            .filter(|(_, p)| p.sent.is_none_or(|(to, _)| Some(to) != target))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in elsewhere {
            self.again_at(ticket, at_ns);
        }
    }

    /// A real answer.
    fn settle(&mut self, id: u64, response: Response, now: Now) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        self.due.remove(&(pending.due_ns, id));
        if let Hello::Said { ticket, refusals } = self.hello
            && ticket == id
        {
            return self.greeted(response, refusals, now);
        }
        let refusal = match &response {
            Response::Refused(refusal) => Some(*refusal),
            Response::Lease { verdict, .. } => verdict.err(),
            _ => None,
        };
        let asked = session_of(&pending.request);
        if matches!(pending.request, Request::Return { bye: true, .. }) {
            self.session = None;
        }
        self.answer(id, Some(response));
        let is_void = matches!(
            refusal,
            Some(Refusal::UnknownSession | Refusal::Quarantined)
        );
        if is_void && asked.is_some() && asked == self.session {
            self.session_lost(now);
        }
    }

    fn greeted(&mut self, response: Response, refusals: u32, now: Now) {
        match response {
            // A session that was given up must not come back: its totals are forgotten here and known there.
            Response::Session { session, .. }
                if self.former.is_none_or(|former| former < session) =>
            {
                self.hello = Hello::Done;
                self.session = Some(session);
                self.former = Some(session);
                self.actions.push_back(Action::Session(session));
            }
            response => {
                // Another start of this node was later, or said goodbye: only a greater nonce can become current.
                if let Response::Session { .. } | Response::Refused(Refusal::UnknownSession) =
                    response
                {
                    self.next_nonce();
                }
                self.hello = Hello::Due {
                    at_ns: now.boot_ns.saturating_add(
                        self.dice.pause(refusals.saturating_add(1), HELLO_PAUSE_NS),
                    ),
                    refusals: refusals.saturating_add(1),
                };
            }
        }
    }

    /// The session is void: whatever was asked in its name is refused, and a new one is begun, with a new nonce, so that
    /// it cannot be the old one.
    fn session_lost(&mut self, now: Now) {
        self.session = None;
        self.next_nonce();
        let void: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| session_of(&p.request).is_some())
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in void {
            if let Some(pending) = self.pending.remove(&ticket) {
                self.due.remove(&(pending.due_ns, ticket));
            }
            self.answer(ticket, Some(Response::Refused(Refusal::UnknownSession)));
        }
        if self.hello == Hello::Done {
            self.hello = Hello::Due {
                at_ns: now.boot_ns,
                refusals: 0,
            };
        }
    }

    /// Stays within the bits that no other start uses.
    fn next_nonce(&mut self) {
        let spare = (1 << NONCE_SPARE_BITS) - 1;
        if self.settings.nonce & spare < spare {
            self.settings.nonce += 1;
        }
    }

    fn answer(&mut self, ticket: u64, response: Option<Response>) {
        self.actions.push_back(Action::Answer { ticket, response });
    }
}

/// In whose name a request is made.
fn session_of(request: &Request) -> Option<Session> {
    match request {
        Request::Define { session, .. }
        | Request::Lease { session, .. }
        | Request::Return { session, .. } => Some(*session),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
