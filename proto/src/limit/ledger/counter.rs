//! A counter in its present window: who was granted how much.

use super::{Session, table::Value};
use crate::{
    command::NodeId,
    digest::Digest,
    limit::{CounterKey, Identity},
};

/// What one node has of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) node: NodeId,
    /// The session to which `out` and `returned` belong.
    pub(super) session: Session,
    /// Granted and not returned: spent or held.
    pub(super) out: u64,
    /// Out with former sessions of the node that ended without returning it.
    pub(super) lost: u64,
    pub(super) returned: u128,
}

/// Those of further nodes, by node.
#[derive(Clone, Debug, Default)]
struct More {
    rows: Vec<Totals>,
}

/// A counter. With its first holder inline it takes 96 bytes.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    pub(super) identity: Identity,
    pub(super) window: u64,
    /// Granted and not returned, at least [`super::USED_UP`] where the whole window counts as used up.
    pub(super) used: u64,
    /// Grows with every credit.
    pub(super) generation: u64,
    /// Of node 0, which does not exist, while there is none.
    first: Totals,
    more: Option<Box<More>>,
}

impl Default for Counter {
    fn default() -> Self {
        Self::new(Identity(0), 0, 0)
    }
}

impl Totals {
    const NONE: Totals = Totals::new(NodeId(0), Session(0));

    pub(super) const fn new(node: NodeId, session: Session) -> Self {
        Self {
            node,
            session,
            out: 0,
            lost: 0,
            returned: 0,
        }
    }

    /// Everything granted to the session in the window.
    pub(super) fn granted(&self) -> u128 {
        self.returned.saturating_add(self.out.into())
    }
}

impl Counter {
    pub(super) fn new(identity: Identity, window: u64, used: u64) -> Self {
        Self {
            identity,
            window,
            used,
            generation: 0,
            first: Totals::NONE,
            more: None,
        }
    }

    /// Every node's totals, in no order that means anything.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Totals> {
        let first = (self.first.node != NodeId(0)).then_some(&self.first);
        first
            .into_iter()
            .chain(self.more.iter().flat_map(|more| &more.rows))
    }

    pub(super) fn row(&self, node: NodeId) -> Option<&Totals> {
        if self.first.node == node {
            return Some(&self.first);
        }
        let rows = &self.more.as_ref()?.rows;
        let at = rows.binary_search_by_key(&node, |row| row.node).ok()?;
        rows.get(at)
    }

    /// Puts a node's totals in place of what there was.
    pub(super) fn put(&mut self, row: Totals) {
        let is_free = self.first.node == NodeId(0) && self.more.is_none();
        if is_free || self.first.node == row.node {
            self.first = row;
            return;
        }
        let rows = &mut self.more.get_or_insert_default().rows;
        match rows.binary_search_by_key(&row.node, |row| row.node) {
            Ok(at) => rows[at] = row,
            Err(at) => {
                // Most counters have few holders: room for those that there are.
                rows.reserve_exact(1);
                rows.insert(at, row);
            }
        }
    }

    /// Changes every node's totals; those for which `change` says so are dropped.
    pub(super) fn retain(&mut self, mut change: impl FnMut(&mut Totals) -> bool) {
        if self.first.node != NodeId(0) && !change(&mut self.first) {
            self.first = Totals::NONE;
        }
        if let Some(more) = &mut self.more {
            more.rows.retain_mut(change);
            if more.rows.is_empty() {
                self.more = None;
            }
        }
    }
}

impl Value for Counter {
    fn digest(&self, key: CounterKey, end_ms: u64) -> u64 {
        let own = Digest::new("counter")
            .wide(key.0)
            .wide(self.identity.0)
            .word(self.window)
            .word(end_ms)
            .word(self.used)
            .word(self.generation)
            .finish();
        // Rows depend on their counter too, or two counters could swap theirs unnoticed.
        self.rows().fold(own, |sum, row| {
            sum.wrapping_add(
                Digest::new("row")
                    .word(own)
                    .word(row.node.0)
                    .word(row.session.0)
                    .word(row.out)
                    .word(row.lost)
                    .wide(row.returned)
                    .finish(),
            )
        })
    }
}
