//! A handle over a ledger in memory, for tests of what stands behind a handle: its clock is the test's, and it falls
//! silent when the test says so. Nothing is kept and nobody votes; a node is opened with [`crate::node::open`].

use crate::{
    handle::{Clock, Handle, Known, Shared, ToDriver},
    transport::Watcher,
    wire::{At, Push, Request, Response},
};
use proto::{
    command::{NodeId, Role},
    limit::{
        HashKey, Window,
        lease::GiveBack,
        ledger::{Bounds, Ledger, Refusal, Session, Standing},
    },
    time::Now,
};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};
use tokio::sync::{mpsc, oneshot};

const NODE: NodeId = NodeId(1);
const ASKS_MAX: usize = 4_096;

/// How the ledger treats questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Carries them out and answers.
    #[default]
    Answers,
    /// Is silent, and carries nothing out.
    Silent,
    /// Carries them out, and the answer is lost: the asker is told after its patience, which is not waited for.
    Lost,
    /// Grants whatever is asked for in windows of this length, and remembers nothing.
    Grants(Window),
}

/// The test's side of it.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
    leases: Arc<AtomicU64>,
}

struct State {
    ledger: Ledger,
    start: Now,
    nonce: u64,
    mood: Mood,
    /// Questions without an answer: their askers wait.
    unanswered: Vec<oneshot::Sender<Option<Response>>>,
}

/// A ledger of this process alone, in memory. Its time is the wall clock at the start plus what the boot clock has
/// counted since.
pub fn open(bounds: Bounds, clock: Clock) -> io::Result<(Handle, Memory)> {
    let start = clock();
    let known = Known {
        node: NODE,
        cluster: 1,
        role: Role::Voter,
        name: "memory".into(),
        secret: HashKey([0; 16]),
        local_addr: None,
        connections: Watcher::default(),
        authority: None,
    };
    let memory = Memory {
        shared: Arc::new(Shared::new(known, clock, start)),
        state: Arc::new(Mutex::new(State {
            ledger: Ledger::new(bounds),
            start,
            nonce: 0,
            mood: Mood::Answers,
            unanswered: Vec::new(),
        })),
        leases: Arc::default(),
    };
    memory.renew_session();
    let (driver, mut asked) = mpsc::channel(ASKS_MAX);
    let handle = Handle::new(memory.shared.clone(), driver);
    let answers = memory.clone();
    thread::Builder::new()
        .name("memory".into())
        .spawn(move || {
            while let Some(asked) = asked.blocking_recv() {
                answers.answer(asked);
            }
        })?;
    Ok((handle, memory))
}

impl Memory {
    /// How it treats questions from now on. Those that were met with silence have no answer.
    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.state();
        state.mood = mood;
        state.unanswered.clear();
    }

    /// Ends the node's session and begins another one.
    pub fn renew_session(&self) {
        let session = {
            let mut state = self.state();
            state.nonce += 1;
            let (nonce, start_ms) = (state.nonce, state.start.unix_ms);
            state.ledger.advance(start_ms);
            state.ledger.hello(NODE, nonce, 0, 1).ok()
        };
        self.shared.session.send_replace(session);
    }

    /// The leader says something.
    pub fn push(&self, push: Push) {
        let _ = self.shared.pushes.send(push);
    }

    /// Questions for quota so far.
    pub fn leases(&self) -> u64 {
        self.leases.load(Ordering::Acquire)
    }

    /// Reads the ledger, at the clock's time.
    pub fn read<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        let now = (self.shared.clock)();
        let mut state = self.state();
        state.advance(now);
        read(&state.ledger)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, asked: ToDriver) {
        let ToDriver::Ask {
            request, answer, ..
        } = asked
        else {
            return;
        };
        if matches!(request, Request::Lease { .. }) {
            self.leases.fetch_add(1, Ordering::AcqRel);
        }
        let now = (self.shared.clock)();
        let mut state = self.state();
        state.advance(now);
        match state.mood {
            Mood::Silent => state.unanswered.push(answer),
            Mood::Answers => {
                let response = state.carry_out(request);
                drop(state);
                let _ = answer.send(response);
            }
            Mood::Grants(window) => {
                let response = generous(&request, window, state.ledger.now_ms());
                drop(state);
                let _ = answer.send(Some(response));
            }
            Mood::Lost => {
                let _ = state.carry_out(request);
                drop(state);
                let _ = answer.send(None);
            }
        }
    }
}

/// Everything is to be had.
fn generous(request: &Request, window: Window, now_ms: u64) -> Response {
    let at = At { now_ms, term: 1 };
    let Request::Lease { ask, .. } = request else {
        return Response::Done { at };
    };
    let id = window.id(now_ms);
    let is_known = ask.window_hint == id;
    let seen = if is_known { ask.seen_granted } else { 0 };
    let granted_total = seen + u128::from(ask.want.max(ask.min));
    let standing = Standing {
        window: id,
        end_ms: window.bounds_ms(id).1,
        granted_total,
        returned_total: if is_known { ask.returned_total } else { 0 },
        used: granted_total,
        remaining: u64::MAX,
        ttl_ms: 5_000,
        generation: 0,
    };
    Response::Lease {
        verdict: Ok(standing),
        at,
    }
}

impl State {
    fn advance(&mut self, now: Now) {
        let passed_ns = now.boot_ns.saturating_sub(self.start.boot_ns);
        let now_ms = self.start.unix_ms.saturating_add(passed_ns / 1_000_000);
        self.ledger.advance(now_ms);
    }

    fn carry_out(&mut self, request: Request) -> Option<Response> {
        let at = At {
            now_ms: self.ledger.now_ms(),
            term: 1,
        };
        let done = |done: Result<(), _>| match done {
            Ok(()) => Response::Done { at },
            Err(refusal) => Response::Refused(refusal),
        };
        Some(match request {
            Request::Define {
                session,
                revision,
                definitions,
                last,
            } => done(self.ledger.define(session, revision, &definitions, last)),
            Request::Lease { session, ask } => Response::Lease {
                verdict: self.ledger.lease(session, &ask),
                at,
            },
            Request::Return {
                session,
                returns,
                bye,
            } => done(self.take_back(session, &returns, bye)),
            Request::Counters(counters) => {
                let (rows, total) = self.ledger.rows(&counters);
                Response::Counters { rows, total, at }
            }
            _ => return None,
        })
    }

    fn take_back(
        &mut self,
        session: Session,
        returns: &[GiveBack],
        bye: bool,
    ) -> Result<(), Refusal> {
        for back in returns {
            self.ledger.give_back(session, back)?;
        }
        if bye {
            self.ledger.bye(session)?;
        }
        Ok(())
    }
}
