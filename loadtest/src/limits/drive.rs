//! One window: every key asks over every connection until the maximum is passed, then keeps looking.

use super::Args;
use crate::{
    drive::{
        exchange::{Ask, Exchange, Peer, Shared},
        session::Sessions,
        unix_ms,
    },
    judge::Judged,
    plan::{Plan, rng::Rng},
    result::Class,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::task::JoinSet;

/// Refused below the maximum: asked again after this, by every connection. Quota may be on its way between nodes.
const AGAIN: Duration = Duration::from_millis(50);
/// Enough was refused: one connection a target looks whether it stays so.
const PROBE: Duration = Duration::from_millis(250);

/// A counter, as the client can name it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The grant's name, and the value of the key's argument.
    pub(super) name: String,
    /// The grant.
    pub(super) grant: usize,
    /// The key's argument as a JSON member; may be empty.
    pub(super) member: String,
}

/// A window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Counted from 0.
    pub(super) number: u64,
    /// Milliseconds since 1970.
    pub(super) starts_ms: u64,
    /// Milliseconds since 1970.
    pub(super) ends_ms: u64,
    /// Around both.
    pub(super) guard_ms: u64,
}

/// What one key saw in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) admitted: u64,
    pub(super) refused: u64,
    pub(super) unavailable: u64,
    pub(super) unknown: u64,
    /// The first reply that was neither, in words.
    pub(super) odd: Option<String>,
    /// Why the window says nothing about the limit.
    pub(super) flaw: Option<String>,
}

impl Counts {
    /// Counts a reply; an error where the tool is refused for another reason than a limit.
    fn count(&mut self, judged: &Judged) -> Result<(), String> {
        match (judged.class, judged.code.as_deref()) {
            (Class::Ok | Class::ToolError, _) => self.admitted += 1,
            (Class::RateLimited, _) | (Class::Denied, Some("limit")) => self.refused += 1,
            (Class::Denied, Some("unreachable" | "overloaded" | "audit")) => self.unavailable += 1,
            (Class::Denied, code) => {
                return Err(format!(
                    "the call is denied for another reason than a limit ({}): {}. Use a tool, arguments and a grant \
                     that the policy allows.",
                    code.unwrap_or("no code"),
                    judged.text.as_deref().unwrap_or_default()
                ));
            }
            (class, code) => {
                self.unknown += 1;
                if self.odd.is_none() {
                    let text = judged.text.as_deref().unwrap_or_default();
                    let code = code.map_or(String::new(), |code| format!(" {code}"));
                    self.odd = Some(format!("{}{code}: {text}", class.name()));
                }
            }
        }
        Ok(())
    }
}

/// Connections of all keys, kept from window to window.
pub(super) struct Bench<'a> {
    args: &'a Args,
    plan: Arc<Plan>,
    keys: &'a [Key],
    peers: Vec<Lane>,
    sessions: Rc<Sessions>,
    ids: Rc<Cell<u64>>,
}

struct Lane {
    peer: Peer,
    key: usize,
    target: usize,
    /// The first of its key and target: it goes on when the others rest.
    first: bool,
}

impl<'a> Bench<'a> {
    pub(super) fn new(args: &'a Args, plan: Arc<Plan>, keys: &'a [Key]) -> Self {
        let sessions = Rc::new(Sessions::new(&plan));
        let rng = Rc::new(RefCell::new(Rng::new(plan.seed)));
        let mut peers = Vec::new();
        for key in 0..keys.len() {
            let slots = || {
                let slot = |_| tokio::sync::Mutex::new(None);
                (0..args.connections).map(slot).collect()
            };
            let shared: Shared = Rc::new(plan.endpoints.iter().map(|_| slots()).collect());
            for n in 0..usize::from(args.connections) {
                for target in 0..plan.endpoints.len() {
                    let (sessions, rng, shared) = (sessions.clone(), rng.clone(), shared.clone());
                    peers.push(Lane {
                        peer: Peer::new(plan.clone(), sessions, rng, shared, n),
                        key,
                        target,
                        first: n == 0,
                    });
                }
            }
        }
        Self {
            args,
            plan,
            keys,
            peers,
            sessions,
            ids: Rc::new(Cell::new(0)),
        }
    }

    /// Drives one window; returns the counts of every key.
    ///
    /// # Errors
    /// A sentence: the calls are denied whatever the limit says.
    pub(super) async fn window(
        &mut self,
        window: &Window,
        every: Duration,
        tell: impl Fn(&[Counts]),
    ) -> Result<Vec<Counts>, String> {
        let counts = vec![Counts::default(); self.keys.len()];
        let board = Rc::new(Board {
            counts: RefCell::new(counts),
            failed: RefCell::new(None),
            last_ms: Cell::new(0),
            ids: self.ids.clone(),
            window: *window,
            max: self.args.max,
            goal: (self.args.max as f64 * self.args.overdrive).ceil() as u64 + 8,
            marks: self.args.record.is_some(),
        });
        let mut lanes = JoinSet::new();
        for lane in self.peers.drain(..) {
            let member = self.keys.get(lane.key).map(|k| k.member.clone());
            let grant = self.keys.get(lane.key).map_or(0, |k| k.grant);
            let member = member.unwrap_or_default();
            lanes.spawn_local(drive(lane, board.clone(), grant, member));
        }
        loop {
            tokio::select! {
                joined = lanes.join_next() => match joined {
                    Some(Ok(lane)) => self.peers.push(lane),
                    Some(Err(_)) => {}
                    None => break,
                },
                () = tokio::time::sleep(every) => tell(&board.counts.borrow()),
            }
        }
        if let Some(error) = board.failed.borrow_mut().take() {
            return Err(error);
        }
        let mut counts = board.counts.take();
        // A call that was answered this late may have been charged to the next window.
        let late = board.last_ms.get() + (window.guard_ms / 2) > window.ends_ms;
        for count in &mut counts {
            if self.plan.interrupted.load(Relaxed) {
                count.flaw = Some("interrupted".into());
            } else if late {
                count.flaw = Some("replies came after the window's end".into());
            }
        }
        Ok(counts)
    }

    /// Ends the sessions.
    pub(super) async fn end(&mut self) {
        if let Some(lane) = self.peers.first_mut() {
            let mut out = Exchange::begin();
            self.sessions.end_all(&mut lane.peer, &mut out).await;
        }
    }
}

/// What the lanes of a window share.
struct Board {
    counts: RefCell<Vec<Counts>>,
    failed: RefCell<Option<String>>,
    /// When the last reply came.
    last_ms: Cell<u64>,
    ids: Rc<Cell<u64>>,
    window: Window,
    max: u64,
    /// Calls of a key after which it only looks on.
    goal: u64,
    /// Whether calls carry a `call_id`.
    marks: bool,
}

/// What marks the calls of a key in a window.
pub(super) fn mark(key: usize, window: u64) -> String {
    // The record may hold the calls of earlier runs.
    static RUN: OnceLock<u64> = OnceLock::new();
    let run = RUN.get_or_init(unix_ms);
    format!("lt-{run:x}-{key}-{window}-")
}

async fn drive(mut lane: Lane, board: Rc<Board>, grant: usize, member: String) -> Lane {
    let plan = lane.peer.plan.clone();
    let Some(call) = plan.calls.first() else {
        return lane;
    };
    let stop_ms = board.window.ends_ms - board.window.guard_ms;
    let mut rest = Duration::ZERO;
    loop {
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        let over = unix_ms() >= stop_ms || plan.interrupted.load(Relaxed);
        if over || board.failed.borrow().is_some() {
            return lane;
        }
        let (sent, admitted) = board.of(lane.key);
        let enough = sent >= board.goal && admitted >= board.max;
        if enough && !lane.first {
            // Another lane looks on; this one only waits in case that changes.
            rest = PROBE;
            continue;
        }
        let id = board.ids.get() + 1;
        board.ids.set(id);
        let extra = match (board.marks, member.is_empty()) {
            (false, _) => member.clone(),
            (true, empty) => {
                let comma = if empty { "" } else { "," };
                let mark = mark(lane.key, board.window.number);
                format!(r#"{member}{comma}"call_id":"{mark}{id}""#)
            }
        };
        if let Some(counts) = board.counts.borrow_mut().get_mut(lane.key) {
            counts.sent += 1;
        }
        let ask = Ask {
            id,
            call,
            target: lane.target,
            grant,
            extra: &extra,
        };
        let exchange = lane.peer.exchange(&ask).await;
        board.last_ms.set(unix_ms());
        let counted = match board.counts.borrow_mut().get_mut(lane.key) {
            Some(counts) => counts.count(&exchange.judged),
            None => Ok(()),
        };
        if let Err(error) = counted {
            *board.failed.borrow_mut() = Some(error);
            return lane;
        }
        let was_admitted = matches!(exchange.judged.class, Class::Ok | Class::ToolError);
        let (sent, admitted) = board.of(lane.key);
        rest = match (sent >= board.goal, admitted >= board.max) {
            (true, true) => PROBE,
            (true, false) if !was_admitted => AGAIN,
            _ => Duration::ZERO,
        };
    }
}

impl Board {
    fn of(&self, key: usize) -> (u64, u64) {
        let counts = self.counts.borrow();
        counts.get(key).map_or((0, 0), |c| (c.sent, c.admitted))
    }
}
