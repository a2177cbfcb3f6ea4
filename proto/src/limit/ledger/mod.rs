//! The granter: who has been given how much of a counter's window (limits.md §2).
//!
//! A pure state machine: equal commands in equal order make equal states. It knows integers and checked arithmetic, no
//! clock, and no map whose order could matter. Nothing panics: a command that cannot be carried out is refused with a
//! type. `granted_total` is written by the ledger alone, `returned_total` by the holder alone; both are absolute and
//! only grow within a window, so loss, repetition and reordering of commands need no table of what was seen.

mod dump;
mod types;

pub use dump::{Frozen, LoadError, Record};
pub use types::*;

use super::{
    CounterKey, Identity, Window,
    lease::{Ask, GiveBack},
};
use crate::{command::NodeId, faulty::planted};
use std::collections::{BTreeMap, BTreeSet};

/// A limit that nobody defines any more is kept at least this long: calls judged by the former view still find it.
pub const RETIRED_MS: u64 = 60_000;

/// Past counters that one command clears away on its way.
const EXPIRED_PER_COMMAND: usize = 4;

/// One node's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    nonce: u64,
    session: Session,
}

/// A limit as the live sessions define it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Defined {
    window: Window,
    /// By source; where they differ the smallest rules.
    max: BTreeMap<Session, u64>,
    /// Grows when the `max` in force rises.
    generation: u64,
    /// Since when no session defines it.
    retired_ms: Option<u64>,
    /// The `max` in force.
    in_force: u64,
}

/// What one session was granted and has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    granted: u128,
    returned: u128,
}

/// A counter in its present window.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counter {
    identity: Identity,
    window: u64,
    end_ms: u64,
    used: u128,
    generation: u64,
    rows: BTreeMap<Session, Totals>,
}

/// The distinct keys of a group in its present window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keys {
    end_ms: u64,
    count: u32,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    bounds: Bounds,
    now_ms: u64,
    sessions: u64,
    nodes: BTreeMap<NodeId, Node>,
    /// Live sessions; `true` = quarantined.
    live: BTreeMap<Session, bool>,
    limits: BTreeMap<Identity, Defined>,
    counters: BTreeMap<CounterKey, Counter>,
    groups: BTreeMap<CounterKey, Keys>,
    /// Counters and groups by the end of their window.
    ends: BTreeSet<(u64, CounterKey)>,
    #[cfg(feature = "faults")]
    faults: crate::faults::Faults,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            now_ms: 0,
            sessions: 0,
            nodes: BTreeMap::new(),
            live: BTreeMap::new(),
            limits: BTreeMap::new(),
            counters: BTreeMap::new(),
            groups: BTreeMap::new(),
            ends: BTreeSet::new(),
            #[cfg(feature = "faults")]
            faults: crate::faults::Faults::default(),
        }
    }

    /// Moves time on; it never moves back.
    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.expire(EXPIRED_PER_COMMAND);
    }

    /// The ledger's time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Counters with a live window, and those not yet cleared away.
    pub fn counters(&self) -> usize {
        self.counters.len()
    }

    /// Limits that are defined.
    pub fn limits(&self) -> usize {
        self.limits.len()
    }

    /// Opens a node's session. Idempotent by nonce; a greater nonce replaces the session, whose leases are lost until
    /// their windows end; a smaller one is refused.
    pub fn hello(
        &mut self,
        node: NodeId,
        nonce: u64,
        _secret_check: u64,
        _rules_max: u32,
    ) -> Result<Session, Refusal> {
        match self.nodes.get(&node) {
            Some(known) if known.nonce == nonce => return Ok(known.session),
            Some(known) if known.nonce > nonce => return Err(Refusal::UnknownSession),
            Some(known) => {
                let former = known.session;
                self.live.remove(&former);
                self.undefine(former, |_| true);
            }
            None if self.nodes.len() >= self.bounds.nodes_max => return Err(Refusal::NodesFull),
            None => {}
        }
        self.sessions = self.sessions.checked_add(1).ok_or(Refusal::Overflow)?;
        let session = Session(self.sessions);
        self.nodes.insert(node, Node { nonce, session });
        self.live.insert(session, false);
        Ok(session)
    }

    /// Defines limits for a session: all or none. With the `last` piece the session's limits of older revisions retire.
    pub fn define(
        &mut self,
        session: Session,
        _revision: u64,
        definitions: &[Definition],
        last: bool,
    ) -> Result<(), Refusal> {
        self.admit(session)?;
        let past = self.now_ms.saturating_sub(RETIRED_MS);
        self.limits
            .retain(|_, defined| defined.retired_ms.is_none_or(|at| at > past));
        let named: BTreeSet<Identity> = definitions.iter().map(|d| d.identity).collect();
        let new = named
            .iter()
            .filter(|identity| !self.limits.contains_key(identity));
        if self.limits.len() + new.count() > self.bounds.limits_max {
            return Err(Refusal::LimitsFull);
        }
        let mut windows = BTreeMap::new();
        for definition in definitions {
            let known = self
                .limits
                .get(&definition.identity)
                .map(|known| known.window);
            let first = *windows
                .entry(definition.identity)
                .or_insert(definition.window);
            if first != definition.window || known.is_some_and(|window| window != definition.window)
            {
                return Err(Refusal::Conflict);
            }
        }
        for definition in definitions {
            let defined = self
                .limits
                .entry(definition.identity)
                .or_insert_with(|| Defined::new(definition.window));
            defined.max.insert(session, definition.max);
            defined.agree(self.now_ms);
        }
        if last {
            self.undefine(session, |identity| !named.contains(identity));
        }
        Ok(())
    }

    /// Grants quota, or says why not.
    pub fn lease(&mut self, session: Session, ask: &Ask) -> Result<Standing, Refusal> {
        self.admit(session)?;
        let defined = self.limits.get(&ask.identity).ok_or(Refusal::Undefined)?;
        let (max, defined_generation) = (defined.in_force, defined.generation);
        let window = defined.window.id(self.now_ms);
        let end_ms = defined.window.bounds_ms(window).1;
        let standing = self
            .counters
            .get(&ask.key)
            .filter(|counter| counter.window == window)
            .cloned();
        let is_new = standing.is_none();
        let mut counter = standing.unwrap_or(Counter {
            identity: ask.identity,
            window,
            end_ms,
            used: 0,
            generation: 0,
            rows: BTreeMap::new(),
        });
        counter
            .rows
            .retain(|holder, _| self.live.contains_key(holder));
        let (mut seen, mut returned) = (0, 0);
        if ask.window_hint == window || planted!(self, MergeWithoutWindowCheck) {
            (seen, returned) = (ask.seen_granted, ask.returned_total);
        }
        if !counter.merge(session, returned)? {
            self.live.insert(session, true);
            return Err(Refusal::Quarantined);
        }
        let holders = counter
            .rows
            .iter()
            .filter(|(other, row)| **other != session && row.granted > row.returned)
            .count() as u64
            + 1;
        let row = counter.rows.entry(session).or_default();
        let unseen = row.granted.saturating_sub(seen);
        let unseen = u64::try_from(unseen).unwrap_or(u64::MAX);
        let (want, min) = (
            ask.want.saturating_sub(unseen),
            ask.min.saturating_sub(unseen),
        );
        let available = u128::from(max).saturating_sub(counter.used);
        let available = u64::try_from(available).unwrap_or(u64::MAX);
        let share = want.min(available / holders.saturating_mul(2));
        let grant = if available < min {
            0
        } else {
            available.min(min.max(share))
        };
        if grant > 0 {
            if is_new {
                self.room(ask, end_ms)?;
            }
            row.granted = row
                .granted
                .checked_add(grant.into())
                .ok_or(Refusal::Overflow)?;
            counter.used = counter
                .used
                .checked_add(grant.into())
                .ok_or(Refusal::Overflow)?;
        }
        let verdict = Standing {
            window,
            end_ms,
            granted_total: row.granted,
            returned_total: row.returned,
            used: counter.used,
            remaining: available - grant,
            ttl_ms: end_ms.saturating_sub(self.now_ms).min(self.bounds.hold_ms),
            generation: counter.generation.saturating_add(defined_generation),
        };
        if grant > 0 || !is_new {
            self.store(ask, counter, is_new);
        }
        if available < min {
            Err(Refusal::Exhausted(verdict))
        } else {
            Ok(verdict)
        }
    }

    /// Credits what a holder returns to the window in which it was granted.
    pub fn give_back(&mut self, session: Session, returns: &GiveBack) -> Result<(), Refusal> {
        self.admit(session)?;
        let Some(counter) = self.counters.get_mut(&returns.key) else {
            return Ok(());
        };
        // A window that is over takes nothing back, whether or not its counter has rolled already.
        if counter.window != returns.window || counter.end_ms <= self.now_ms {
            return Ok(());
        }
        if !counter.merge(session, returns.returned_total)? {
            self.live.insert(session, true);
            return Err(Refusal::Quarantined);
        }
        Ok(())
    }

    /// Clears away at most this many counters and groups whose window is over.
    pub fn expire(&mut self, most: usize) {
        for _ in 0..most {
            let Some((end_ms, key)) = self.ends.first().copied() else {
                return;
            };
            if end_ms > self.now_ms {
                return;
            }
            self.ends.remove(&(end_ms, key));
            if self.counters.get(&key).is_some_and(|c| c.end_ms == end_ms) {
                self.counters.remove(&key);
            }
            if self.groups.get(&key).is_some_and(|g| g.end_ms == end_ms) {
                self.groups.remove(&key);
            }
        }
    }

    /// Units used in a counter's present window: out with holders or spent.
    pub fn used(&self, key: CounterKey) -> u128 {
        self.counters
            .get(&key)
            .filter(|counter| counter.end_ms > self.now_ms)
            .map_or(0, |counter| counter.used)
    }

    /// Closes a session that has returned everything it did not spend.
    pub fn bye(&mut self, session: Session) -> Result<(), Refusal> {
        self.admit(session)?;
        self.gone(session);
        Ok(())
    }

    /// Ends a session whose node has gone without a word: what it holds is lost until the windows end, or credited.
    pub fn gone(&mut self, session: Session) {
        if self.live.remove(&session).is_some() {
            self.undefine(session, |_| true);
        }
    }

    /// Ends a removed node's session.
    pub fn remove_node(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.remove(&node) {
            self.gone(known.session);
        }
    }

    /// Gives back what ended sessions held of a counter in its present window; units.
    pub fn credit(&mut self, _key: CounterKey) -> Result<u128, Refusal> {
        Err(Refusal::UnknownCounter)
    }

    /// Starts a counter's window anew: whatever was used is forgotten. What is out stays out, until it is recalled.
    pub fn reset(&mut self, _key: CounterKey) -> Result<(), Refusal> {
        Err(Refusal::UnknownCounter)
    }

    /// Sets the clock, back too. Where it goes back every session ends, and every window that began before the former
    /// time counts as used up.
    pub fn set_clock(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// For a ledger that may have lost its newest commands (`recover --force`, `restore`): every session ends, and every
    /// window that has begun counts as used up.
    pub fn recover_used_up(&mut self, _now_ms: u64) {}

    /// Whose session it is, if it is current.
    pub fn node_of(&self, session: Session) -> Option<NodeId> {
        self.nodes
            .iter()
            .find(|(_, node)| node.session == session)
            .map(|(id, _)| *id)
    }

    /// A node's current session.
    pub fn session_of(&self, node: NodeId) -> Option<Session> {
        self.nodes.get(&node).map(|known| known.session)
    }

    /// The highest rules version that a node announced with its newest hello.
    pub fn rules_max_of(&self, _node: NodeId) -> Option<u32> {
        None
    }

    /// Counters in their present windows, and how many there are that fit the question.
    pub fn rows(&self, _counters: &Counters) -> (Vec<Row>, u64) {
        (Vec::new(), 0)
    }

    /// The present window of a counter and its live holders with something out, by node.
    pub fn holders(&self, _key: CounterKey) -> Option<(u64, Vec<Holder>)> {
        None
    }

    /// Limits that live sessions define differently, at most [`CONFLICTS_MAX`].
    pub fn conflicts(&self) -> Vec<Conflict> {
        Vec::new()
    }

    /// Equal for equal states, however they came about. Costs nothing.
    pub fn hash(&self) -> u64 {
        0
    }

    /// The state as it is now, to be written elsewhere and later; cheap.
    pub fn freeze(&self) -> Frozen {
        Frozen {}
    }

    /// The state that was written as records.
    pub fn load(
        bounds: Bounds,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LoadError> {
        records.into_iter().for_each(drop);
        Ok(Self::new(bounds))
    }

    /// Only live sessions in good standing are heard.
    fn admit(&self, session: Session) -> Result<(), Refusal> {
        match self.live.get(&session) {
            None => Err(Refusal::UnknownSession),
            Some(true) => Err(Refusal::Quarantined),
            Some(false) => Ok(()),
        }
    }

    /// Room for one more counter, in the table and in its group; takes the group's place.
    fn room(&mut self, ask: &Ask, end_ms: u64) -> Result<(), Refusal> {
        if !self.counters.contains_key(&ask.key) && self.counters.len() >= self.bounds.counters_max
        {
            return Err(Refusal::CountersFull);
        }
        let Some(group) = ask.group else {
            return Ok(());
        };
        let former = self.groups.get(&group.key).copied();
        let count = former
            .filter(|keys| keys.end_ms == end_ms)
            .map_or(0, |keys| keys.count);
        if count >= group.keys_max {
            return Err(Refusal::KeysFull { end_ms });
        }
        if let Some(former) = former {
            self.ends.remove(&(former.end_ms, group.key));
        }
        self.ends.insert((end_ms, group.key));
        let count = count + 1;
        self.groups.insert(group.key, Keys { end_ms, count });
        Ok(())
    }

    /// Writes a counter back.
    fn store(&mut self, ask: &Ask, counter: Counter, is_new: bool) {
        let end_ms = counter.end_ms;
        let former = self.counters.insert(ask.key, counter);
        if is_new {
            if let Some(former) = former {
                self.ends.remove(&(former.end_ms, ask.key));
            }
            self.ends.insert((end_ms, ask.key));
        }
    }

    /// Takes a session's word out of the limits that `which` names.
    fn undefine(&mut self, session: Session, which: impl Fn(&Identity) -> bool) {
        let now_ms = self.now_ms;
        for (identity, defined) in &mut self.limits {
            if which(identity) {
                defined.forget(session, now_ms);
            }
        }
    }
}

impl Defined {
    fn new(window: Window) -> Self {
        Self {
            window,
            max: BTreeMap::new(),
            generation: 0,
            retired_ms: None,
            in_force: 0,
        }
    }

    /// The smallest `max` rules.
    fn agree(&mut self, now_ms: u64) {
        match self.max.values().min() {
            Some(max) => {
                if *max > self.in_force {
                    self.generation = self.generation.saturating_add(1);
                }
                self.in_force = *max;
                self.retired_ms = None;
            }
            // The last word stays in force while the limit waits to be forgotten.
            None => self.retired_ms = self.retired_ms.or(Some(now_ms)),
        }
    }

    fn forget(&mut self, session: Session, now_ms: u64) {
        self.max.remove(&session);
        self.agree(now_ms);
    }
}

impl Counter {
    /// Merges a session's absolute total; `false` if it returned more than it was granted.
    fn merge(&mut self, session: Session, returned_total: u128) -> Result<bool, Refusal> {
        let Some(row) = self.rows.get_mut(&session) else {
            return Ok(returned_total == 0);
        };
        if returned_total > row.granted {
            return Ok(false);
        }
        let credit = returned_total.saturating_sub(row.returned);
        if credit > 0 {
            self.used = self.used.checked_sub(credit).ok_or(Refusal::Overflow)?;
            row.returned = returned_total;
            self.generation = self.generation.saturating_add(1);
        }
        Ok(true)
    }
}

#[cfg(feature = "faults")]
impl Ledger {
    /// The same ledger with mistakes.
    pub fn with_faults(mut self, faults: crate::faults::Faults) -> Self {
        self.faults = faults;
        self
    }
}
