//! The ledger against its model: holders that crash, lose answers, repeat and delay commands and forge totals, operators,
//! clocks that jump; windows end and limits are used up all the time.

use super::{model::Model, *};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::collections::BTreeMap;

/// One more than fit.
const NODES: usize = 4;
const KEYS: usize = 6;
/// Hellos of one node: fewer than the sessions that are remembered.
const NONCES: u64 = 12;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// To the end of the shortest window that is running, give or take a millisecond.
    Roll(u64),
    /// Which nonce after the last one.
    Hello(usize, i64, bool),
    /// Whose, which limits, by how much the revision grows, and whether it is the last piece.
    Define(usize, Vec<(usize, u64)>, i64, bool),
    /// Whose, which key, want, min; whether the answer is lost; whether the limit is another's.
    Lease(usize, usize, u64, u64, bool, bool),
    Return(usize, usize, u64),
    Forge(usize, usize, u64),
    Spend(usize, usize, u64),
    Bye(usize),
    Gone(usize),
    Remove(usize),
    Credit(usize),
    Reset(usize),
    SetClock(u64, u64),
    Recover(u64),
    /// A copy of an earlier command, late.
    Replay(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NODES;
    let key = || 0..KEYS;
    let limits = || proptest::collection::vec((0..3usize, max()), 0..4);
    prop_oneof![
        6 => (0..3_000u64).prop_map(Step::Wait),
        4 => (0..3u64).prop_map(Step::Roll),
        3 => (who(), prop_oneof![4 => Just(1i64), 1 => Just(0), 1 => Just(-1)], prop::bool::weighted(0.05))
            .prop_map(|(who, by, odd)| Step::Hello(who, by, odd)),
        4 => (who(), limits(), prop_oneof![3 => Just(1i64), 2 => Just(0), 1 => Just(-1)], any::<bool>())
            .prop_map(|(who, limits, by, last)| Step::Define(who, limits, by, last)),
        60 => (who(), key(), 0..20u64, 0..12u64, any::<bool>(), prop::bool::weighted(0.02))
            .prop_map(|(who, key, want, min, lost, odd)| Step::Lease(who, key, want, min, lost, odd)),
        20 => (who(), key(), 0..12u64).prop_map(|(who, key, n)| Step::Return(who, key, n)),
        1 => (who(), key(), 1..9u64).prop_map(|(who, key, n)| Step::Forge(who, key, n)),
        20 => (who(), key(), 0..12u64).prop_map(|(who, key, n)| Step::Spend(who, key, n)),
        1 => who().prop_map(Step::Bye),
        1 => who().prop_map(Step::Gone),
        1 => who().prop_map(Step::Remove),
        2 => key().prop_map(Step::Credit),
        1 => key().prop_map(Step::Reset),
        1 => (0..40_000u64, 0..40_000u64).prop_map(|(back, on)| Step::SetClock(back, on)),
        1 => (0..2_000u64).prop_map(Step::Recover),
        15 => (0..200usize).prop_map(Step::Replay),
    ]
}

fn max() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..40u64, 1 => Just(u64::MAX)]
}

/// A node's memory of a counter, as limits.md §3 wants it.
#[derive(Clone, Default)]
struct Held {
    window: u64,
    seen: u128,
    returned: u128,
    bucket: u128,
}

#[derive(Clone, Default)]
struct Holder {
    nonce: u64,
    session: Option<Session>,
    revision: u64,
    hellos: u64,
    held: BTreeMap<usize, Held>,
}

struct World {
    ledger: Ledger,
    model: Model,
    holders: Vec<Holder>,
    log: Vec<Entry>,
    /// What was charged, by key and window.
    charged: BTreeMap<(usize, u64), u128>,
    refusals: BTreeMap<&'static str, u64>,
    /// Whose each session is, and with which nonce it was opened.
    nonces: BTreeMap<Session, (usize, u64)>,
}

/// One entry of the log: when, and a command or a recovery.
#[derive(Clone, Debug)]
struct Entry {
    now_ms: u64,
    command: Option<Command>,
}

impl World {
    fn new(ledger: Ledger) -> Self {
        let mut world = Self {
            ledger,
            model: Model::new(),
            holders: vec![Holder::default(); NODES],
            log: Vec::new(),
            charged: BTreeMap::new(),
            refusals: BTreeMap::new(),
            nonces: BTreeMap::new(),
        };
        world.model.now_ms = START_MS;
        for who in 0..2 {
            world.hello(who, 1, false).unwrap();
            let limits = [(0, 30), (1, 20)];
            world.define(who, &limits, 1, true).unwrap();
        }
        world
    }

    /// Applies one command to both; their answers must be equal.
    fn apply(&mut self, command: Command) -> Result<Answer, String> {
        self.log.push(Entry {
            now_ms: self.model.now_ms,
            command: Some(command.clone()),
        });
        self.ledger.advance(self.model.now_ms);
        let own = apply(&mut self.ledger, &command);
        let model = self.model.apply(&command);
        if let Answer::Refused(refusal) = own {
            *self.refusals.entry(name(refusal)).or_default() += 1;
        }
        check(own == model, || {
            format!("{command:?}: {own:?}, expected {model:?}")
        })?;
        Ok(own)
    }

    fn session(&self, who: usize) -> Session {
        self.holders[who].session.unwrap_or(Session(0))
    }

    fn hello(&mut self, who: usize, by: i64, odd: bool) -> Result<(), String> {
        let holder = &mut self.holders[who];
        holder.hellos += 1;
        if holder.hellos > NONCES {
            return Ok(());
        }
        let nonce = holder.nonce.saturating_add_signed(by);
        let hello = Command::Hello {
            node: node(who),
            nonce,
            secret_check: u64::from(odd),
            rules_max: 1,
        };
        if let Answer::Session(session) = self.apply(hello)? {
            let first = *self.nonces.entry(session).or_insert((who, nonce));
            check(first == (who, nonce), || {
                format!("{session:?} belongs to two nonces: {nonce} of {who}, and {first:?}")
            })?;
            let holder = &mut self.holders[who];
            if holder.session != Some(session) {
                let hellos = holder.hellos;
                *holder = Holder {
                    nonce,
                    session: Some(session),
                    hellos,
                    ..Holder::default()
                };
            }
        }
        Ok(())
    }

    fn define(
        &mut self,
        who: usize,
        limits: &[(usize, u64)],
        by: i64,
        last: bool,
    ) -> Result<(), String> {
        let holder = &mut self.holders[who];
        let revision = holder.revision.saturating_add_signed(by);
        holder.revision = holder.revision.max(revision);
        let define = Command::Define {
            session: self.session(who),
            revision,
            definitions: limits.iter().map(|(n, max)| definition(*n, *max)).collect(),
            last,
        };
        self.apply(define).map(drop)
    }

    /// Takes in what an answer says, unless it is lost on the way.
    fn adopt(&mut self, who: usize, key: usize, answer: Answer) {
        let (Answer::Standing(standing) | Answer::Refused(Refusal::Exhausted(standing))) = answer
        else {
            return;
        };
        let held = self.holders[who].held.entry(key).or_default();
        if standing.window < held.window {
            return;
        }
        if standing.window > held.window {
            *held = Held {
                window: standing.window,
                ..Held::default()
            };
        }
        held.bucket += standing.granted_total.saturating_sub(held.seen);
        held.seen = held.seen.max(standing.granted_total);
    }

    fn run(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Wait(ms) => self.model.now_ms += ms,
            Step::Roll(ms) => {
                let now_ms = self.model.now_ms;
                let ends = (0..3).map(|n| {
                    let length = length_ms(identity(n));
                    (now_ms / length + 1) * length
                });
                let end_ms = ends.min().unwrap_or(now_ms);
                self.model.now_ms = (end_ms - 1 + ms).max(now_ms);
            }
            Step::Hello(who, by, odd) => self.hello(who, by, odd)?,
            Step::Define(who, ref limits, by, last) => self.define(who, limits, by, last)?,
            Step::Lease(who, key, want, min, lost, odd) => {
                let held = self.holders[who].held.entry(key).or_default().clone();
                let ask = Ask {
                    identity: identity(if odd { 1 } else { limit_of(key) }),
                    window_hint: held.window,
                    seen_granted: held.seen,
                    returned_total: held.returned,
                    ..ask(key, want, min)
                };
                let session = self.session(who);
                let answer = self.apply(Command::Lease { session, ask })?;
                let is_stranger = matches!(
                    answer,
                    Answer::Refused(Refusal::UnknownSession | Refusal::Quarantined)
                );
                if is_stranger && !lost {
                    // As a real node does.
                    self.hello(who, 1, false)?;
                    self.define(who, &[(0, 30), (1, 20)], 1, true)?;
                } else if !lost {
                    self.adopt(who, key, answer);
                }
            }
            Step::Return(who, key, n) => {
                let held = self.holders[who].held.entry(key).or_default();
                let n = held.bucket.min(n.into());
                held.bucket -= n;
                held.returned += n;
                let back = GiveBack {
                    key: counter(key),
                    window: held.window,
                    returned_total: held.returned,
                };
                let session = self.session(who);
                self.apply(Command::Return { session, back })?;
            }
            Step::Forge(who, key, n) => {
                let held = self.holders[who].held.entry(key).or_default().clone();
                let back = GiveBack {
                    key: counter(key),
                    window: held.window,
                    returned_total: held.seen + u128::from(n),
                };
                let session = self.session(who);
                self.apply(Command::Return { session, back })?;
            }
            Step::Spend(who, key, n) => {
                let now_ms = self.model.now_ms;
                let length = length_ms(identity(limit_of(key)));
                let held = self.holders[who].held.entry(key).or_default();
                if held.window == now_ms / length {
                    let n = held.bucket.min(n.into());
                    held.bucket -= n;
                    *self.charged.entry((key, held.window)).or_default() += n;
                }
            }
            Step::Bye(who) => {
                let session = self.session(who);
                self.apply(Command::Bye { session })?;
            }
            Step::Gone(who) => {
                let session = self.session(who);
                self.apply(Command::Gone { session })?;
            }
            Step::Remove(who) => {
                let node = node(who);
                self.apply(Command::Member(Member::Remove { node }))?;
            }
            Step::Credit(key) => {
                let key = counter(key);
                self.apply(Command::Credit { key })?;
            }
            Step::Reset(key) => {
                let key = counter(key);
                self.apply(Command::Reset { key })?;
            }
            Step::SetClock(back, on) => {
                let now_ms = (self.model.now_ms + on).saturating_sub(back).max(START_MS);
                self.apply(Command::SetClock { now_ms })?;
            }
            Step::Recover(on) => {
                let now_ms = self.model.now_ms + on;
                self.log.push(Entry {
                    now_ms,
                    command: None,
                });
                self.ledger.recover_used_up(now_ms);
                self.model.recover(now_ms);
            }
            Step::Replay(at) => {
                if let Some(command) = self.log.get(at).and_then(|e| e.command.clone())
                    && !matches!(command, Command::SetClock { .. })
                {
                    self.apply(command)?;
                }
            }
        }
        self.ledger.advance(self.model.now_ms);
        self.invariants()
    }

    fn invariants(&self) -> Result<(), String> {
        for ((key, window), charged) in &self.charged {
            let identity = identity(limit_of(*key));
            if let Some(max) = self.model.bound(counter(*key), identity, *window) {
                check(*charged <= max.into(), || {
                    format!("key {key} window {window}: charged {charged} > max {max}")
                })?;
            }
        }
        for key in 0..KEYS {
            let shown = self.model.shown(counter(key));
            let question = Counters {
                key: Some(counter(key)),
                most: 1,
                ..Counters::default()
            };
            let own = self.ledger.rows(&question).0.pop();
            let own = own.map(|row| (row.used, row.lost));
            check(own == shown, || {
                format!("key {key}: {own:?}, expected {shown:?}")
            })?;
        }
        let own = (self.ledger.counters(), self.ledger.limits());
        let counts = self.model.counts();
        check(own == counts, || {
            format!("counts {own:?}, expected {counts:?}")
        })?;
        for who in 0..NODES {
            let own = self.ledger.session_of(node(who));
            let session = self.model.session_of(node(who));
            check(own == session, || {
                format!("{who}: {own:?}, expected {session:?}")
            })?;
        }
        Ok(())
    }
}

fn check(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

fn replay(ledger: &mut Ledger, log: &[Entry]) {
    for entry in log {
        match &entry.command {
            Some(command) => {
                ledger.advance(entry.now_ms);
                apply(ledger, command);
            }
            None => ledger.recover_used_up(entry.now_ms),
        }
    }
}

fn copy(ledger: &Ledger) -> Ledger {
    Ledger::load(BOUNDS, ledger.freeze().records()).unwrap()
}

fn agree(ledger: Ledger, steps: &[Step], cut: usize) -> Result<World, String> {
    let mut world = World::new(ledger);
    let mut early = None;
    for (at, step) in steps.iter().enumerate() {
        if at == cut {
            early = Some((copy(&world.ledger), world.log.len(), world.ledger.freeze()));
        }
        world
            .run(step)
            .map_err(|problem| format!("step {at}: {problem}"))?;
    }
    let end = world.ledger.hash();
    let same = |what: &str, mut other: Ledger| {
        other.advance(world.model.now_ms);
        check(other.hash() == end, || format!("another hash after {what}"))
    };
    same("a dump", copy(&world.ledger))?;
    let mut again = Ledger::new(BOUNDS);
    replay(&mut again, &world.log);
    same("a replay", again)?;
    if let Some((mut loaded, from, frozen)) = early {
        // What was frozen then has not changed.
        let thawed = Ledger::load(BOUNDS, frozen.records()).unwrap();
        check(thawed.hash() == loaded.hash(), || {
            "a frozen state changed".to_owned()
        })?;
        replay(&mut loaded, &world.log[from..]);
        same("a snapshot and the tail", loaded)?;
    }
    Ok(world)
}

fn steps() -> impl Strategy<Value = (Vec<Step>, usize)> {
    (proptest::collection::vec(step(), 1..200), 0..200usize)
}

proptest! {
    #[test]
    fn it_agrees_with_the_model_and_with_its_own_dumps((steps, cut) in steps()) {
        if let Err(problem) = agree(Ledger::new(BOUNDS), &steps, cut) {
            prop_assert!(false, "{}", problem);
        }
    }
}

#[test]
fn every_refusal_is_reached_by_the_model() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..200 {
        let (steps, cut) = steps().new_tree(&mut runner).unwrap().current();
        let world = agree(Ledger::new(BOUNDS), &steps, cut).unwrap();
        for (name, times) in world.refusals {
            *reached.entry(name).or_default() += times;
        }
    }
    for name in [
        "exhausted",
        "keys full",
        "counters full",
        "limits full",
        "nodes full",
        "undefined",
        "conflict",
        "unknown session",
        "quarantined",
        "secret",
        "unknown counter",
    ] {
        assert!(
            reached.get(name).is_some_and(|n| *n >= 5),
            "{name}: {reached:?}"
        );
    }
}

/// Faults that are planted in the ledger are seen within so many runs.
#[cfg(feature = "faults")]
#[test]
fn every_planted_fault_is_caught() {
    use crate::faults::Fault;
    for fault in [
        Fault::MergeWithoutWindowCheck,
        Fault::RetryGrantsTwice,
        Fault::UncappedGrant,
        Fault::SessionReused,
        Fault::DeltasInsteadOfTotals,
        Fault::ForgedReturnAccepted,
    ] {
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let caught = (0..100).find_map(|run| {
            let (steps, cut) = steps().new_tree(&mut runner).unwrap().current();
            let faulty = Ledger::new(BOUNDS).with_faults(fault.into());
            let problem = agree(faulty, &steps, cut).err()?;
            Some(format!("run {run}, {problem}"))
        });
        println!("{fault:?}: {}", caught.as_deref().unwrap_or("not caught"));
        assert!(caught.is_some(), "{fault:?} was not caught");
    }
}
