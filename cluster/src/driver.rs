//! SHELL. One thread a node: inputs in, the cores' effects out.
//!
//! ```text
//! handles ─ask─► client (CORE) ──► transport ──► the leader          log thread ◄─write─┐ ┌─persisted─►
//!                  ▲    └─(this node)──► replica (CORE) ──effects──► states thread ◄────┴─┘
//! transport ───────┴── events ─────────────┘
//! ```
//!
//! The loop never waits for a disk: the log and the machine's states are written by threads of their own, and while the
//! log's queue is full the replica is not asked for more. A lease client has neither replica nor log.

mod control;
mod members;
mod states;
mod voter;
mod writer;

pub(crate) use control::Freshener;
pub(crate) use states::{Done as StateDone, States};
pub(crate) use voter::Voter;
pub(crate) use writer::{Writer, Written};

use crate::{
    client::{Action, Client},
    handle::{Failure, Local, Shared, ToDriver},
    identity::{DataDir, Identity},
    transport::{Event, Incoming, Transport, Unsent},
    wire::{At, Push, Request, Response},
};
use members::Roll;
use proto::{command::NodeId, control::Refusal, time::Now};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Inputs of one kind that are taken in before effects are carried out.
const BURST: usize = 1_024;
/// Rounds between client and replica before other inputs are heard again.
const ROUNDS: usize = 64;
/// Longest sleep.
const IDLE: Duration = Duration::from_secs(1);
/// How long a node that stops waits for another leader and for its disk.
const STOP: Duration = Duration::from_secs(2);

/// What a node is driven with.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Client,
    pub(crate) voter: Option<Voter>,
    pub(crate) transport: Option<Transport>,
    pub(crate) data: DataDir,
    pub(crate) identity: Identity,
    /// `host:port` at which this voter is to be known; empty: nowhere.
    pub(crate) address: String,
    pub(crate) fresh: Freshener,
    roll: Roll,
    waiting: HashMap<u64, Waiter>,
    local: Local,
}

/// Where inputs come from.
pub(crate) struct Inputs {
    pub(crate) asks: mpsc::Receiver<ToDriver>,
    pub(crate) events: Option<Incoming>,
    pub(crate) written: Option<mpsc::Receiver<Written>>,
    pub(crate) states: Option<mpsc::Receiver<StateDone>>,
}

/// Who waits for an answer.
enum Waiter {
    /// A handle.
    Handle {
        answer: oneshot::Sender<Option<Response>>,
    },
    /// This node: how fresh is the control plane? With the reading before the question.
    Fresh(Now),
    /// This node: who belongs to the cluster?
    Members,
    /// This node: it is to be known elsewhere.
    Address,
}

/// One input.
#[expect(clippy::large_enum_variant, reason = "taken apart at once")]
enum Input {
    Asks(usize),
    Event(Option<Event>),
    Written(Option<Written>),
    State(Option<StateDone>),
    Time,
}

/// Why the loop goes on or not.
enum Next {
    On,
    Stop(Option<oneshot::Sender<()>>),
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "made once, by `node`")]
    pub(crate) fn new(
        shared: Arc<Shared>,
        client: Client,
        voter: Option<Voter>,
        transport: Option<Transport>,
        data: DataDir,
        identity: Identity,
        address: String,
        fresh: Freshener,
    ) -> Self {
        Self {
            shared,
            client,
            voter,
            transport,
            data,
            identity,
            address,
            fresh,
            roll: Roll::default(),
            waiting: HashMap::new(),
            local: Local::default(),
        }
    }

    /// Runs until the node is stopped, or has to stop.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        self.roll
            .begin(&self.identity, self.transport.as_ref(), &self.shared);
        let mut asks = Vec::with_capacity(BURST);
        let mut is_busy = true;
        let answer = loop {
            let now = self.now();
            let sleep = if is_busy {
                Duration::ZERO
            } else {
                self.sleep(now)
            };
            let input = wait(&mut inputs, &mut asks, sleep).await;
            let now = self.now();
            let next = self.take(input, &mut inputs, &mut asks, now);
            is_busy = self.pump(now);
            self.keep_up(now);
            if self.shared.failed.borrow().is_some() {
                break None;
            }
            if let Next::Stop(answer) = next {
                break answer;
            }
        };
        Box::pin(self.stop(&mut inputs)).await;
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }

    fn now(&self) -> Now {
        (self.shared.clock)()
    }

    /// How long nothing is due.
    fn sleep(&self, now: Now) -> Duration {
        let voter = self.voter.as_ref().map(Voter::deadline_ns);
        let due_ns = [
            voter,
            self.client.deadline_ns(),
            Some(self.fresh.deadline_ns()),
        ];
        let due_ns = due_ns.into_iter().flatten().min().unwrap_or(u64::MAX);
        Duration::from_nanos(due_ns.saturating_sub(now.boot_ns)).min(IDLE)
    }

    /// Takes one input in, and whatever else is there.
    fn take(
        &mut self,
        input: Input,
        inputs: &mut Inputs,
        asks: &mut Vec<ToDriver>,
        now: Now,
    ) -> Next {
        match input {
            Input::Asks(0) => return Next::Stop(None),
            Input::Event(None) => inputs.events = None,
            Input::Event(Some(event)) => self.event(event, now),
            Input::Written(written) => self.written(written, now),
            Input::State(Some(done)) => self.state(done, now),
            Input::State(None) => inputs.states = None,
            Input::Asks(_) | Input::Time => {}
        }
        if let Some(events) = &mut inputs.events {
            for _ in 0..BURST {
                let Some(event) = events.try_next() else {
                    break;
                };
                self.event(event, now);
            }
        }
        if let Some(receiver) = &mut inputs.written {
            while let Ok(written) = receiver.try_recv() {
                self.written(Some(written), now);
            }
        }
        while asks.len() < BURST
            && let Ok(ask) = inputs.asks.try_recv()
        {
            asks.push(ask);
        }
        for ask in asks.drain(..) {
            match ask {
                ToDriver::Ask {
                    request,
                    deadline_ns,
                    answer,
                } => {
                    let ticket = self.client.ask(request, deadline_ns, now);
                    self.waiting.insert(ticket, Waiter::Handle { answer });
                }
                ToDriver::Snapshot { path, answer } => self.export(path, answer),
                // What was asked behind it is answered as unreachable.
                ToDriver::Shutdown { answer } => return Next::Stop(Some(answer)),
            }
        }
        if let Some(voter) = &mut self.voter {
            voter.tick(now);
        }
        Next::On
    }

    fn event(&mut self, event: Event, now: Now) {
        let voter = self.voter.as_mut();
        match event {
            Event::Response { from, id, response } => self.receive(from, id, response, now),
            Event::Push(from, push) => self.client.pushed(from, push, now),
            Event::Connected(node) => self.roll.let_in(node),
            Event::Refused(node) => self.turned_away(node),
            Event::Lost(node) => {
                self.client.lost(node, now);
                if let Some(voter) = voter {
                    voter.replica.unreachable(node);
                }
            }
            Event::Request { from, id, request } => match voter {
                Some(voter) => voter.replica.request(from, id, request, now),
                None => self.respond(from, id, &Response::NotLeader { leader: None }),
            },
            Event::Raft(message) => {
                if let Some(voter) = voter {
                    voter.replica.step(message, now);
                }
            }
            Event::Extra(from, extra) => {
                if let Some(voter) = voter {
                    voter.replica.extra(from, extra, now);
                }
            }
            Event::Snapshot(message, file) => {
                if let Some(voter) = voter {
                    voter.load(message, file);
                }
            }
            Event::SnapshotSent { to, ok } => {
                if let Some(voter) = voter {
                    voter.snapshot_sent(to, ok);
                }
            }
        }
    }

    fn respond(&self, to: NodeId, id: u64, response: &Response) {
        if let Some(transport) = &self.transport {
            transport.send_response(to, id, response);
        }
    }

    /// A voter's answer, this one's too.
    fn receive(&mut self, from: NodeId, id: u64, response: Response, now: Now) {
        if let Some(at) = stamped(&response) {
            self.shared.hear(at, now);
            self.local.term = self.local.term.max(at.term);
        }
        self.look_at_refusals(from, &response, now);
        self.client.receive(from, id, response, now);
    }

    /// Carries out what the cores want; whether there is more.
    fn pump(&mut self, now: Now) -> bool {
        for _ in 0..ROUNDS {
            let asked = self.pump_client(now);
            let carried_out = self.pump_voter(now);
            if !asked && !carried_out {
                return false;
            }
        }
        true
    }

    fn pump_client(&mut self, now: Now) -> bool {
        let mut any = false;
        for _ in 0..BURST {
            let Some(action) = self.client.poll(now) else {
                break;
            };
            any = true;
            match action {
                Action::Send { to, id, request } => self.send(to, id, request, now),
                Action::Answer { ticket, response } => self.answer(ticket, response, now),
                Action::Session(_) => {}
                Action::UnknownLeader(_) => self.roll.is_behind(),
                Action::Push(Push::Control { version }) => self.fresh.told(version, now),
                // Nobody listens, or too slowly: pushes may be lost.
                Action::Push(push) => drop(self.shared.pushes.send(push)),
            }
        }
        let session = self.client.session();
        self.shared.session.send_if_modified(|known| {
            let changed = *known != session;
            *known = session;
            changed
        });
        any
    }

    fn send(&mut self, to: NodeId, id: u64, request: Request, now: Now) {
        if to == self.shared.node
            && let Some(voter) = &mut self.voter
        {
            return voter.replica.request(to, id, request, now);
        }
        let sent = match &self.transport {
            Some(transport) => transport.send_request(to, id, &request),
            None => Err(Unsent::NotConnected),
        };
        match sent {
            // What does not fit now is sent again after a silence.
            Ok(()) | Err(Unsent::Full) => {}
            Err(Unsent::NotConnected) => self.client.lost(to, now),
            Err(Unsent::TooLarge) => {
                let response = Response::Control(Refusal::TooLarge);
                self.client.receive(to, id, response, now);
            }
        }
    }

    fn answer(&mut self, ticket: u64, response: Option<Response>, now: Now) {
        match self.waiting.remove(&ticket) {
            // Who asked may have gone.
            Some(Waiter::Handle { answer }) => drop(answer.send(response)),
            Some(Waiter::Fresh(asked)) => {
                if let Some(version) = self.fresh.heard(response, asked, now, &self.shared) {
                    self.roll.told(version);
                }
            }
            Some(Waiter::Members) => self.members(response, now),
            Some(Waiter::Address) => self.roll.address_answered(response, now),
            None => {}
        }
    }

    /// What this node asks by itself, and what it shows of itself.
    fn keep_up(&mut self, now: Now) {
        if self.fresh.is_due(now) {
            let (request, deadline_ns) = self.fresh.ask(now);
            let ticket = self.client.ask(request, deadline_ns, now);
            self.waiting.insert(ticket, Waiter::Fresh(now));
        }
        self.roll_call(now);
        let local = Local {
            leader: match &self.voter {
                Some(voter) => voter.replica.leader(),
                None => self.client.leader(),
            },
            outstanding: self.client.outstanding(),
            ..self.local.clone()
        };
        let local = match &mut self.voter {
            Some(voter) => voter.show(local, now),
            None => local,
        };
        self.local = local;
        self.shared.local.send_if_modified(|known| {
            let changed = *known != self.local;
            if changed {
                known.clone_from(&self.local);
            }
            changed
        });
    }

    /// Asks the leader in this node's name.
    fn ask_as(&mut self, waiter: Waiter, request: Request, now: Now) {
        let deadline_ns = now.boot_ns.saturating_add(control::PATIENCE_NS);
        let ticket = self.client.ask(request, deadline_ns, now);
        self.waiting.insert(ticket, waiter);
    }

    fn fail(&self, failure: Failure) {
        tracing::error!(%failure, "the node has to stop");
        self.shared.failed.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(failure);
            }
            is_first
        });
    }

    /// Hands leadership over, lets the disk finish, closes connections. Whatever waits is answered as unreachable.
    async fn stop(mut self, inputs: &mut Inputs) {
        let until = Instant::now() + STOP;
        let has_failed = self.shared.failed.borrow().is_some();
        if let Some(voter) = &mut self.voter
            && !has_failed
        {
            voter.replica.resign();
        }
        let leads = |driver: &Self| {
            let voter = driver.voter.as_ref();
            voter.is_some_and(|v| v.replica.leader() == Some(driver.shared.node))
        };
        let mut asks = Vec::new();
        while !has_failed && leads(&self) && self.roll.has_others() && Instant::now() < until {
            let sleep = self.sleep(self.now()).min(Duration::from_millis(10));
            let input = wait(inputs, &mut asks, sleep).await;
            let now = self.now();
            if let Next::Stop(_) = self.take(input, inputs, &mut asks, now) {
                break;
            }
            self.pump(now);
            if self.shared.failed.borrow().is_some() {
                break;
            }
        }
        if let Some(voter) = &mut self.voter {
            voter.writer.close();
        }
        if let Some(written) = &mut inputs.written {
            // It closes when the thread has written what was queued.
            let closed = async { while written.recv().await.is_some() {} };
            let _ = tokio::time::timeout_at(until, closed).await;
        }
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
        self.shared.session.send_replace(None);
    }
}

/// Waits for an input, no longer than that.
async fn wait(inputs: &mut Inputs, asks: &mut Vec<ToDriver>, sleep: Duration) -> Input {
    let Inputs {
        asks: from,
        events,
        written,
        states,
    } = inputs;
    tokio::select! {
        biased;
        written = receive(written) => Input::Written(written),
        event = next(events) => Input::Event(event),
        state = receive(states) => Input::State(state),
        count = from.recv_many(asks, BURST) => Input::Asks(count),
        () = tokio::time::sleep(sleep) => Input::Time,
    }
}

async fn receive<T>(from: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

async fn next(from: &mut Option<Incoming>) -> Option<Event> {
    match from {
        Some(from) => from.next().await,
        None => std::future::pending().await,
    }
}

/// When an answer's command was proposed, if it went through the log.
fn stamped(response: &Response) -> Option<At> {
    match response {
        Response::Session { at, .. } | Response::Done { at } | Response::Lease { at, .. } => {
            Some(*at)
        }
        _ => None,
    }
}
