//! The granter: who has been given how much of a counter's window (limits.md §2).
//!
//! ```text
//! Hello ──► nodes ── session ──┐            Define ──► limits (the smallest `max` of live sessions rules)
//! Lease ──► lease.rs ──────────┼──► counters: used, and for each node what is out with it
//! Return, Bye, Gone ───────────┘            Credit, Reset, SetClock ──► operate.rs
//! ```
//!
//! A pure state machine: equal commands in equal order make equal states. It knows integers and checked arithmetic, no
//! clock, and no map whose order could matter. Nothing panics: a command that cannot be carried out is refused with a
//! type. `granted_total` is written by the ledger alone, `returned_total` by the holder alone; both are absolute and
//! only grow within a window, so loss, repetition and reordering of commands need no table of what was seen.

mod counter;
mod dump;
mod lease;
mod limits;
mod nodes;
mod operate;
mod show;
mod table;
mod types;

pub use dump::{Frozen, LoadError, Record};
pub use types::*;

use super::CounterKey;
use crate::{command::NodeId, digest::Digest};
use counter::Counter;
use limits::Limits;
use nodes::{Hello, Nodes, State};
use std::sync::Arc;
use table::{Keys, Table};

/// A limit that nobody defines any more is kept at least this long: calls judged by the former view still find it.
pub const RETIRED_MS: u64 = 60_000;

/// Past counters whose room a batch frees, and a command that makes a new one.
const SWEPT_PER_BATCH: usize = 256;
const SWEPT_PER_COUNTER: usize = 4;

/// Where nothing is known of a window but that it may have been used up, this much counts as used: more than any `max`,
/// and still more than any `max` when everything that can be out has been returned.
const USED_UP: u64 = u64::MAX;

/// Session numbers that are skipped when the newest ones may have been forgotten.
const SESSIONS_SKIPPED: u64 = 1 << 32;

/// The ledger. A clone is as expensive as the ledger is large; [`Ledger::freeze`] is cheap.
#[derive(Clone, Debug)]
pub struct Ledger {
    bounds: Bounds,
    now_ms: u64,
    /// Windows that began up to this moment and that the ledger does not know count as used up.
    used_up_ms: Option<u64>,
    nodes: Nodes,
    limits: Arc<Limits>,
    counters: Table<Counter>,
    groups: Table<Keys>,
    #[cfg(feature = "faults")]
    faults: crate::faults::Faults,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            now_ms: 0,
            used_up_ms: None,
            nodes: Nodes::default(),
            limits: Arc::default(),
            counters: Table::new(0),
            groups: Table::new(0),
            #[cfg(feature = "faults")]
            faults: crate::faults::Faults::default(),
        }
    }

    /// The same ledger with mistakes.
    #[cfg(feature = "faults")]
    pub fn with_faults(mut self, faults: crate::faults::Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Moves time on, as each batch does; it never moves back.
    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.counters.expire(self.now_ms);
        self.groups.expire(self.now_ms);
        self.sweep(SWEPT_PER_BATCH);
    }

    /// Frees the room of at most this many past counters. No answer depends on it.
    pub fn sweep(&mut self, most: usize) {
        self.counters.sweep(most);
        self.groups.sweep(most);
    }

    /// The ledger's time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Counters with a live window.
    pub fn counters(&self) -> usize {
        self.counters.len()
    }

    /// Limits that are defined, and those that were until lately.
    pub fn limits(&self) -> usize {
        self.limits.len()
    }

    /// Opens a node's session. Idempotent by nonce; a greater nonce replaces the session, whose leases are lost until
    /// their windows end; a smaller one is refused, and so is that of a session that has ended: the node must choose a
    /// greater one. `secret_check` must be that of every other live session.
    pub fn hello(
        &mut self,
        node: NodeId,
        nonce: u64,
        secret_check: u64,
        rules_max: u32,
    ) -> Result<Session, Refusal> {
        if node == NodeId(0) {
            return Err(Refusal::Overflow);
        }
        #[cfg(feature = "faults")]
        if self.faults.has(crate::faults::Fault::SessionReused)
            && let Some(session) = self.session_of(node)
        {
            return Ok(session);
        }
        let nodes_max = self.bounds.nodes_max;
        match self
            .nodes
            .hello(node, nonce, secret_check, rules_max, nodes_max)?
        {
            Hello::Known(session) => Ok(session),
            Hello::New(session, slot) => {
                Arc::make_mut(&mut self.limits).undefine(slot, self.now_ms);
                Ok(session)
            }
        }
    }

    /// Defines limits of a view, all of this piece or none. Pieces of an older revision than the newest that the session
    /// began change nothing. With the `last` piece the limits that the session did not name in this revision go out of
    /// force; more of the same revision may follow.
    pub fn define(
        &mut self,
        session: Session,
        revision: u64,
        definitions: &[Definition],
        last: bool,
    ) -> Result<(), Refusal> {
        let id = self.nodes.admit(session)?;
        let node = self.nodes.node_mut(id).ok_or(Refusal::UnknownSession)?;
        if revision < node.revision {
            return Ok(());
        }
        let limits = Arc::make_mut(&mut self.limits);
        limits.check(definitions, self.bounds.limits_max, self.now_ms)?;
        if revision > node.revision {
            (node.revision, node.whole) = (revision, false);
            limits.begin(node.slot);
        }
        for definition in definitions {
            limits.define(node.slot, definition, !node.whole);
        }
        if last && !node.whole {
            node.whole = true;
            limits.finish(node.slot, self.now_ms);
        }
        Ok(())
    }

    /// Closes a session that has returned everything it did not spend.
    pub fn bye(&mut self, session: Session) -> Result<(), Refusal> {
        self.nodes.admit(session)?;
        self.end(session, State::Ended, false);
        Ok(())
    }

    /// Ends a session whose node has gone without a word: what it holds is lost until the windows end, or credited.
    pub fn gone(&mut self, session: Session) {
        self.end(session, State::Ended, true);
    }

    /// Ends a removed node's session and forgets the node.
    pub fn remove_node(&mut self, node: NodeId) {
        if let Some(session) = self.session_of(node) {
            self.gone(session);
        }
        self.nodes.remove(node);
    }

    fn end(&mut self, session: Session, state: State, is_lost: bool) {
        if let Some(slot) = self.nodes.end(session, state, is_lost) {
            Arc::make_mut(&mut self.limits).undefine(slot, self.now_ms);
        }
    }

    /// Whose session it is, if it is current and in good standing.
    pub fn node_of(&self, session: Session) -> Option<NodeId> {
        self.nodes.admit(session).ok()
    }

    /// A node's current session, if it is in good standing.
    pub fn session_of(&self, node: NodeId) -> Option<Session> {
        let node = self.nodes.node(node)?;
        (node.state == State::Live).then_some(node.session)
    }

    /// The highest rules version that a node announced with its newest hello.
    pub fn rules_max_of(&self, node: NodeId) -> Option<u32> {
        self.nodes.node(node).map(|node| node.rules_max)
    }

    /// Units used in a counter's present window: out with holders or spent.
    pub fn used(&self, key: CounterKey) -> u128 {
        self.counters
            .get(key)
            .map_or(0, |(counter, _)| counter.used.into())
    }

    /// Equal for equal states, however they came about. Counters are not walked through.
    pub fn hash(&self) -> u64 {
        Digest::new("ledger")
            .word(self.now_ms)
            .word(self.used_up_ms.is_some().into())
            .word(self.used_up_ms.unwrap_or_default())
            .word(self.nodes.last_session())
            .word(self.nodes.digest())
            .word(self.limits.sum())
            .word(self.counters.sum())
            .word(self.groups.sum())
            .finish()
    }
}

#[cfg(test)]
mod tests;
