//! What the invariants know of quota: what was granted in the log, what was truly taken on the nodes, what was allowed.
//!
//! Nothing here asks the ledger how much is used: that is what is checked.

use super::{
    check::Broken,
    plan::Plan,
    scenes::{Scene, Scenes},
};
use proto::{
    command::{Command, Member, NodeId, Reply},
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
        ledger::{Ledger, Refusal, Session, Standing},
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// More than fits into a bucket's word.
const WIDE: u64 = 1 << 40;

/// Units that left a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Of the plan's keys.
    pub index: usize,
    pub session: Session,
    pub window: u64,
    pub amount: u64,
}

/// One session's part of a counter's window.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// By the log.
    granted: u128,
    returned: u128,
    /// Truly taken out of the bucket for calls, less what came back into it.
    taken: u128,
    /// Its quota was given back by an operator, so what it took is on the operator.
    credited: bool,
}

/// A counter's window.
#[derive(Clone, Debug, Default)]
struct Book {
    /// The largest in force in the window, and the smallest.
    max: u64,
    least: Option<u64>,
    /// Was in use when an operator reset the counter, if one did.
    forgiven: u128,
    was_reset: bool,
    lines: BTreeMap<Session, Line>,
    /// Most that replicated time was behind true time when an entry was made in this window, milliseconds.
    behind_ms: i64,
    /// It was used up once.
    was_full: bool,
    /// When everything was charged last, true time.
    full_ns: u64,
}

impl Book {
    fn charged(&self) -> u128 {
        let counts = |line: &&Line| !line.credited;
        self.lines.values().filter(counts).map(|l| l.taken).sum()
    }
    fn out(&self) -> u128 {
        let counts = |line: &&Line| !line.credited;
        let out = |line: &Line| line.granted.saturating_sub(line.returned);
        self.lines.values().filter(counts).map(out).sum()
    }
    fn is_full(&self) -> bool {
        self.charged() >= u128::from(self.least.unwrap_or(0)) + self.forgiven
    }
}

/// Every counter's windows, the sessions, the limits.
pub struct Books {
    scenes: Scenes,
    keys: Vec<(CounterKey, Identity, Window)>,
    books: BTreeMap<(CounterKey, u64), Book>,
    /// The newest session of each node.
    sessions: BTreeMap<NodeId, Session>,
    live: BTreeSet<Session>,
    /// Those that said goodbye: what they did not return is spent, not lost.
    closed: BTreeSet<Session>,
    /// What each live session says of a limit.
    defined: BTreeMap<Identity, BTreeMap<Session, (u64, u64)>>,
    in_force: BTreeMap<Identity, u64>,
    /// Those of which live sessions say different things.
    differing: BTreeSet<Identity>,
    /// Replicated time.
    now_ms: u64,
    /// The newest view of each session: older pieces come too late.
    revisions: BTreeMap<Session, u64>,
    /// Windows that began by then count as used up, replicated milliseconds.
    used_up_ms: u64,
    /// Which run of which node each session belongs to.
    runs: BTreeMap<Session, (NodeId, u64)>,
}

impl Books {
    pub fn new(plan: &Plan, scenes: Scenes) -> Self {
        let key = |k: &super::plan::KeyPlan| {
            let limit = plan.limits[k.limit];
            (k.key, limit.identity, limit.window())
        };
        Self {
            scenes,
            keys: plan.keys.iter().map(key).collect(),
            books: BTreeMap::new(),
            sessions: BTreeMap::new(),
            live: BTreeSet::new(),
            closed: BTreeSet::new(),
            defined: BTreeMap::new(),
            in_force: BTreeMap::new(),
            differing: BTreeSet::new(),
            now_ms: 0,
            revisions: BTreeMap::new(),
            used_up_ms: 0,
            runs: BTreeMap::new(),
        }
    }

    /// A session's totals belong to one run of one process.
    pub fn session_began(
        &mut self,
        node: NodeId,
        run: u64,
        session: Session,
    ) -> Result<(), Broken> {
        let known = *self.runs.entry(session).or_insert((node, run));
        if known != (node, run) {
            let how = format!("{session:?} of {known:?} and of {:?}", (node, run));
            return Err(("a session belongs to one start of one node", how));
        }
        Ok(())
    }

    /// One command and what came of it.
    pub fn apply(
        &mut self,
        command: &Command,
        reply: &Reply,
        now_ms: u64,
        is_removed: impl Fn(NodeId) -> bool,
    ) -> Result<(), Broken> {
        if let (Some(session), Some(Refusal::Quarantined)) =
            (session_of(command), refusal_of(reply))
        {
            self.end(session);
            self.scenes.note(Scene::Quarantined);
        }
        match (command, reply) {
            (Command::Hello { node, .. }, Reply::Session(session)) => {
                if let Some(former) = self.sessions.insert(*node, *session)
                    && former != *session
                {
                    self.end(former);
                }
                self.live.insert(*session);
            }
            (Command::Bye { session }, Reply::Done) => {
                self.closed.insert(*session);
                self.live.remove(session);
                self.end(*session);
                self.scenes.note(Scene::SessionClosed);
            }
            (Command::Gone { session }, Reply::Done) => self.end(*session),
            (Command::Member(Member::Remove { node }), Reply::Done) => {
                // A voter leaves in two steps.
                if is_removed(*node)
                    && let Some(session) = self.sessions.remove(node)
                {
                    self.end(session);
                }
            }
            (
                Command::Define {
                    session,
                    revision,
                    definitions,
                    last,
                },
                Reply::Done,
            ) => {
                let newest = self.revisions.entry(*session).or_default();
                if revision < newest {
                    return Ok(());
                }
                *newest = *revision;
                for definition in definitions {
                    let known = self.defined.entry(definition.identity).or_default();
                    known.insert(*session, (*revision, definition.max));
                }
                if *last {
                    for known in self.defined.values_mut() {
                        known.retain(|by, (at, _)| by != session || *at >= *revision);
                    }
                }
                self.agree();
            }
            (Command::Lease { session, ask }, Reply::Lease(verdict)) => {
                self.leased(*session, ask, verdict)?;
            }
            (Command::Return { session, back }, Reply::Done) => {
                self.returned(*session, back, now_ms)?;
            }
            (Command::Credit { key }, Reply::Credited(units)) => {
                self.credited(*key, *units, now_ms)?
            }
            (Command::Reset { key }, Reply::Done) => {
                let mut out = 0;
                if let Some(book) = self.present(*key, now_ms) {
                    out = book.out();
                    book.forgiven += out;
                    book.was_reset = true;
                }
                if out > 0 {
                    self.scenes.note(Scene::Reset);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The clock was set back: every session ends, and every window that had begun counts as used up.
    pub fn set_back(&mut self, former_ms: u64) {
        self.used_up_ms = self.used_up_ms.max(former_ms);
        let live = std::mem::take(&mut self.live);
        live.into_iter().for_each(|session| self.end(session));
    }

    /// Whether a window had begun when the clock was set back.
    fn is_used_up(&self, key: CounterKey, window: u64) -> bool {
        let of = self.keys.iter().find(|(k, _, _)| *k == key);
        of.is_some_and(|(_, _, length)| length.bounds_ms(window).0 <= self.used_up_ms)
    }

    fn leased(
        &mut self,
        session: Session,
        ask: &Ask,
        verdict: &Result<Standing, Refusal>,
    ) -> Result<(), Broken> {
        let (Ok(standing) | Err(Refusal::Exhausted(standing))) = verdict else {
            return Ok(());
        };
        let in_force = self.in_force.get(&ask.identity).copied().unwrap_or(0);
        let used_up = self.is_used_up(ask.key, standing.window);
        let book = self.books.entry((ask.key, standing.window)).or_default();
        let line = book.lines.entry(session).or_default();
        let before = *line;
        let missed = ask.window_hint != u64::MAX && ask.window_hint != standing.window;
        if verdict.is_err() {
            self.scenes.note(Scene::Exhausted);
        } else if standing.granted_total > before.granted {
            self.scenes.note(if missed {
                Scene::WindowMissed
            } else {
                Scene::Leased
            });
        }
        if standing.granted_total < before.granted || standing.returned_total < before.returned {
            let how = format!("{before:?} -> {standing:?}");
            return Err(("totals are monotone", how));
        }
        line.granted = standing.granted_total;
        line.returned = standing.returned_total;
        let seen = if ask.window_hint == standing.window {
            ask.seen_granted
        } else {
            0
        };
        let had = before.granted.saturating_sub(seen);
        if had > 0 {
            self.scenes.note(Scene::OfferedAgain);
        }
        let got = standing.granted_total.saturating_sub(seen);
        if got > had.max(ask.want.max(ask.min).into()) {
            let how = format!("{ask:?} had {had} unseen, got {got}");
            return Err(("a repeated question grants nothing new", how));
        }
        let told = if ask.window_hint == standing.window {
            ask.returned_total
        } else {
            0
        };
        if standing.returned_total > before.returned.max(told) {
            let how = format!("{ask:?}: {before:?} -> {standing:?}");
            return Err(("a window is credited only with its own returns", how));
        }
        if standing.granted_total > before.granted {
            let out = book.out();
            if used_up && !book.was_reset {
                return Err((
                    "a window that counts as used up grants nothing",
                    format!("{ask:?}"),
                ));
            }
            if out > u128::from(in_force) + book.forgiven {
                let how = format!("{out} are out of {in_force}");
                return Err(("nothing is leased past max", how));
            }
        }
        Ok(())
    }

    fn returned(&mut self, session: Session, back: &GiveBack, now_ms: u64) -> Result<(), Broken> {
        if self.window_of(back.key, now_ms) != Some(back.window) {
            self.scenes.note(Scene::ReturnedLate);
            return Ok(());
        }
        let used_up = self.is_used_up(back.key, back.window);
        let Some(book) = self.present(back.key, now_ms) else {
            return Ok(());
        };
        let checked = !book.was_reset && !used_up;
        let Some(line) = book.lines.get_mut(&session) else {
            return Ok(());
        };
        if back.returned_total > line.granted {
            // Where the ledger knows nothing of the session there is nothing to be credited.
            return match checked && line.granted > 0 {
                true => Err(("returned <= granted", format!("{back:?} {line:?}"))),
                false => Ok(()),
            };
        }
        if line.returned < back.returned_total {
            line.returned = back.returned_total;
            self.scenes.note(Scene::Returned);
        }
        Ok(())
    }

    fn credited(&mut self, key: CounterKey, units: u128, now_ms: u64) -> Result<(), Broken> {
        let used_up = self
            .window_of(key, now_ms)
            .is_some_and(|window| self.is_used_up(key, window));
        if units > 0 {
            self.scenes.note(Scene::Credited);
        }
        let kept: BTreeSet<Session> = self.live.union(&self.closed).copied().collect();
        let Some(book) = self.present(key, now_ms) else {
            return Ok(());
        };
        let mut expected = 0;
        for (session, line) in &mut book.lines {
            if !kept.contains(session) && !line.credited {
                expected += line.granted - line.returned;
                line.credited = true;
            }
        }
        if units != expected && !book.was_reset && !used_up {
            let how = format!("{units}, but {expected} were lost");
            return Err(("a credit gives back what dead sessions held", how));
        }
        Ok(())
    }

    fn window_of(&self, key: CounterKey, now_ms: u64) -> Option<u64> {
        let (_, _, window) = self.keys.iter().find(|(k, _, _)| *k == key)?;
        Some(window.id(now_ms))
    }

    fn present(&mut self, key: CounterKey, now_ms: u64) -> Option<&mut Book> {
        let window = self.window_of(key, now_ms)?;
        self.books.get_mut(&(key, window))
    }

    fn end(&mut self, session: Session) {
        let was_live = self.live.remove(&session);
        if was_live && self.holds_any(session) {
            self.scenes.note(Scene::SessionLost);
        }
        for known in self.defined.values_mut() {
            known.remove(&session);
        }
        self.agree();
    }

    /// The smallest rules; where nobody says anything, the last word.
    fn agree(&mut self) {
        let mut overdrawn = Vec::new();
        for (identity, known) in &self.defined {
            let values = || known.values().map(|(_, max)| *max);
            let Some(max) = values().min() else {
                continue;
            };
            if values().max() == Some(max) {
                self.differing.remove(identity);
            } else if self.differing.insert(*identity) {
                self.scenes.note(Scene::Differing);
            }
            let former = self.in_force.insert(*identity, max);
            if former.is_some_and(|former| former < max) {
                self.scenes.note(Scene::MaxRaised);
            } else if former.is_some_and(|former| former > max) {
                self.scenes.note(Scene::MaxLowered);
                overdrawn.push((*identity, max));
            }
        }
        for (key, identity, window) in &self.keys {
            let book = self.books.get(&(*key, window.id(self.now_ms)));
            let is_over = |book: &Book| {
                let of = |(lowered, max): &(Identity, u64)| {
                    lowered == identity && book.out() > u128::from(*max)
                };
                overdrawn.iter().any(of)
            };
            if book.is_some_and(is_over) {
                self.scenes.note(Scene::Overdrawn);
            }
        }
        self.observe(self.now_ms, 0);
    }

    fn holds_any(&self, session: Session) -> bool {
        self.keys.iter().any(|(key, _, window)| {
            let book = self.books.get(&(*key, window.id(self.now_ms)));
            let line = book.and_then(|book| book.lines.get(&session));
            line.is_some_and(|line| line.granted > line.returned.max(line.taken))
        })
    }

    /// The windows that are present now have had this `max` in force, and time was so far behind.
    pub fn observe(&mut self, now_ms: u64, lag_ms: i64) {
        self.now_ms = now_ms;
        for (key, identity, window) in &self.keys {
            let max = self.in_force.get(identity).copied().unwrap_or(0);
            let book = self.books.entry((*key, window.id(now_ms))).or_default();
            book.behind_ms = book.behind_ms.max(lag_ms);
            book.max = book.max.max(max);
            book.least = Some(book.least.map_or(max, |least| least.min(max)));
        }
    }

    /// What the ledger thinks is what was granted and not returned, in every present window.
    pub fn compare(&self, ledger: &Ledger) -> Result<(), Broken> {
        for (key, _, window) in &self.keys {
            let window = window.id(ledger.now_ms());
            let Some(book) = self.books.get(&(*key, window)) else {
                continue;
            };
            if self.is_used_up(*key, window) || book.was_reset {
                continue;
            }
            let (used, out) = (ledger.used(*key), book.out());
            if used != out {
                let how = format!("{key:?}: used {used}, but {out} are out: {book:?}");
                return Err(("used = granted - returned", how));
            }
        }
        Ok(())
    }

    /// Units were taken for a call.
    pub fn took(&mut self, taken: &Taken) -> Result<(), Broken> {
        let key = self.keys[taken.index].0;
        let book = self.books.entry((key, taken.window)).or_default();
        if book.charged() == 0 {
            self.scenes.note(Scene::Window);
        }
        if taken.amount > WIDE {
            self.scenes.note(Scene::Wide);
        }
        book.lines.entry(taken.session).or_default().taken += u128::from(taken.amount);
        let most = u128::from(book.max) + book.forgiven;
        if book.charged() > most {
            let how = format!("charged {} > {most}: {taken:?} {book:?}", book.charged());
            return Err(("charged <= max", how));
        }
        if book.is_full() {
            book.full_ns = u64::MAX;
            if !book.was_full {
                book.was_full = true;
                self.scenes.note(Scene::UsedUp);
            }
        }
        Ok(())
    }

    /// Units of a call came back into the bucket.
    pub fn gave_back(&mut self, taken: &Taken, true_ns: u64) -> Result<(), Broken> {
        let key = self.keys[taken.index].0;
        let book = self.books.entry((key, taken.window)).or_default();
        let was_full = book.is_full();
        let line = book.lines.entry(taken.session).or_default();
        line.taken = line
            .taken
            .checked_sub(taken.amount.into())
            .ok_or_else(|| ("what comes back was taken", format!("{taken:?}")))?;
        if was_full && !book.is_full() {
            book.full_ns = true_ns;
        }
        Ok(())
    }

    /// What a holder says it has, with what it has truly spent, was granted by the log.
    pub fn holds(
        &self,
        index: usize,
        (session, window, granted, returned): (Session, u64, u128, u128),
        in_hand: u64,
    ) -> Result<(), Broken> {
        let line = self
            .books
            .get(&(self.keys[index].0, window))
            .and_then(|book| book.lines.get(&session))
            .copied()
            .unwrap_or_default();
        let has = line.taken + returned + u128::from(in_hand);
        if has > line.granted || granted > line.granted {
            let how = format!(
                "key {index} window {window} {session:?}: {} spent + {returned} returned + {in_hand} in hand > {} granted ({granted} seen)",
                line.taken, line.granted
            );
            return Err(("spent + returned + bucket <= granted", how));
        }
        if line.returned > returned {
            let how = format!(
                "key {index} window {window}: {} credited, {returned} returned",
                line.returned
            );
            return Err(("only what was returned is credited", how));
        }
        Ok(())
    }

    /// Begin and end of a window, replicated milliseconds, and how far behind true time they may be.
    pub fn bounds_ms(&self, taken: &Taken) -> (u64, u64, i64) {
        let (key, _, window) = self.keys[taken.index];
        let (start_ms, end_ms) = window.bounds_ms(taken.window);
        let behind_ms = self.books.get(&(key, taken.window)).map(|b| b.behind_ms);
        (start_ms, end_ms, behind_ms.unwrap_or(0))
    }

    /// The newest window that there is a book of.
    pub fn newest(&self, index: usize) -> Option<u64> {
        let key = self.keys[index].0;
        let own = self.books.keys().filter(|(of, _)| *of == key);
        own.map(|(_, window)| *window).max()
    }

    /// Units charged in a window, its smallest `max`, and when it was full last (`u64::MAX`: it is).
    pub fn standing(&self, index: usize, window: u64) -> (u128, u128, u64) {
        match self.books.get(&(self.keys[index].0, window)) {
            Some(_) if self.is_used_up(self.keys[index].0, window) => (0, 0, u64::MAX),
            Some(book) => (
                book.charged(),
                u128::from(book.least.unwrap_or(0)) + book.forgiven,
                book.full_ns,
            ),
            None => (0, 0, 0),
        }
    }
}

/// In whose name a command is.
fn session_of(command: &Command) -> Option<Session> {
    match command {
        Command::Define { session, .. }
        | Command::Lease { session, .. }
        | Command::Return { session, .. } => Some(*session),
        _ => None,
    }
}

fn refusal_of(reply: &Reply) -> Option<Refusal> {
    match reply {
        Reply::Refused(refusal) | Reply::Lease(Err(refusal)) => Some(*refusal),
        _ => None,
    }
}
