//! The ledger as records: for snapshots, and to be read elsewhere while it goes on.

use super::{
    Bounds, Ledger, Session,
    counter::{Counter, Totals},
    limits::{Bits, Limit, Limits},
    nodes::{Node, Nodes},
    table::{FrozenTable, Keys, Table},
};
use crate::{
    command::NodeId,
    limit::{CounterKey, Identity, Window},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One piece of a ledger's state; opaque, some 50 bytes for most, at most some 100 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record(Piece);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    /// Comes first.
    Meta {
        now_ms: u64,
        used_up_ms: Option<u64>,
        last_session: u64,
    },
    Node(Node),
    Lost(Session, NodeId),
    Limit(LimitPiece),
    Group {
        key: CounterKey,
        end_ms: u64,
        count: u32,
    },
    Counter(CounterPiece),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LimitPiece {
    identity: Identity,
    window: Window,
    sources: Vec<(u64, Vec<u16>)>,
    named: Vec<u16>,
    generation: u64,
    retired_ms: Option<u64>,
    in_force: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CounterPiece {
    key: CounterKey,
    identity: Identity,
    window: u64,
    end_ms: u64,
    used: u64,
    generation: u64,
    rows: Vec<RowPiece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RowPiece {
    node: NodeId,
    session: Session,
    out: u64,
    lost: u64,
    returned: u128,
}

/// A state that changes no more. It shares its tables with the ledger until that writes to them.
#[derive(Clone, Debug)]
pub struct Frozen {
    now_ms: u64,
    used_up_ms: Option<u64>,
    pub(super) nodes: Nodes,
    pub(super) limits: Arc<Limits>,
    pub(super) counters: FrozenTable<Counter>,
    groups: FrozenTable<Keys>,
}

/// Why records are not a ledger's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records are not a ledger's state: {0}")]
pub struct LoadError(pub &'static str);

impl Ledger {
    /// The state as it is now, to be written elsewhere and later; cheap.
    pub fn freeze(&self) -> Frozen {
        Frozen {
            now_ms: self.now_ms,
            used_up_ms: self.used_up_ms,
            nodes: self.nodes.clone(),
            limits: self.limits.clone(),
            counters: self.counters.freeze(),
            groups: self.groups.freeze(),
        }
    }

    /// The state that was written as records.
    pub fn load(
        bounds: Bounds,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, LoadError> {
        let mut ledger = Self::new(bounds);
        let mut records = records.into_iter();
        let Some(Record(Piece::Meta {
            now_ms,
            used_up_ms,
            last_session,
        })) = records.next()
        else {
            return Err(LoadError("they begin otherwise"));
        };
        (ledger.now_ms, ledger.used_up_ms) = (now_ms, used_up_ms);
        ledger.counters = Table::new(now_ms);
        ledger.groups = Table::new(now_ms);
        ledger.nodes.skip(last_session);
        let mut limits = Limits::default();
        for Record(piece) in records {
            match piece {
                Piece::Meta { .. } => return Err(LoadError("they begin twice")),
                Piece::Node(node) => ensure(
                    ledger.nodes.restore(node, bounds.nodes_max),
                    "a node does not fit",
                )?,
                Piece::Lost(session, node) => ensure(
                    ledger.nodes.restore_lost(session, node),
                    "a lost session does not fit",
                )?,
                Piece::Limit(piece) => {
                    ensure(limits.len() < bounds.limits_max, "too many limits")?;
                    let identity = piece.identity;
                    let limit = piece.limit(bounds.nodes_max)?;
                    ensure(limits.restore(identity, limit), "a limit comes twice")?;
                }
                Piece::Group { key, end_ms, count } => ensure(
                    ledger.groups.insert(key, end_ms, Keys { count }),
                    "a group is over or comes twice",
                )?,
                Piece::Counter(piece) => {
                    ensure(
                        ledger.counters.len() < bounds.counters_max,
                        "too many counters",
                    )?;
                    let (key, end_ms) = (piece.key, piece.end_ms);
                    let counter = piece.counter()?;
                    ensure(
                        ledger.counters.insert(key, end_ms, counter),
                        "a counter is over or comes twice",
                    )?;
                }
            }
        }
        ledger.limits = Arc::new(limits);
        Ok(ledger)
    }
}

impl Frozen {
    /// Everything in it, in pieces.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let meta = Piece::Meta {
            now_ms: self.now_ms,
            used_up_ms: self.used_up_ms,
            last_session: self.nodes.last_session(),
        };
        let nodes = self.nodes.iter().map(|node| Piece::Node(*node));
        let lost = self
            .nodes
            .lost()
            .map(|(session, node)| Piece::Lost(session, node));
        let limits = self
            .limits
            .iter()
            .map(|(identity, limit)| Piece::Limit(LimitPiece::new(*identity, limit)));
        let groups = self.groups.iter().map(|(key, end_ms, keys)| Piece::Group {
            key,
            end_ms,
            count: keys.count,
        });
        let counters = self
            .counters
            .iter()
            .map(|(key, end_ms, counter)| Piece::Counter(CounterPiece::new(key, end_ms, counter)));
        std::iter::once(meta)
            .chain(nodes)
            .chain(lost)
            .chain(limits)
            .chain(groups)
            .chain(counters)
            .map(Record)
    }
}

impl LimitPiece {
    fn new(identity: Identity, limit: &Limit) -> Self {
        let sources = limit.sources.iter();
        Self {
            identity,
            window: limit.window,
            sources: sources
                .map(|(max, nodes)| (*max, nodes.iter().collect()))
                .collect(),
            named: limit.named.iter().collect(),
            generation: limit.generation,
            retired_ms: limit.retired_ms,
            in_force: limit.in_force,
        }
    }

    fn limit(self, nodes_max: usize) -> Result<Limit, LoadError> {
        let mut last = None;
        let mut sources = smallvec::SmallVec::new();
        for (max, slots) in self.sources {
            let is_next = last.is_none_or(|last| last < max) && !slots.is_empty();
            ensure(is_next, "a limit's sources are not in order")?;
            last = Some(max);
            sources.push((max, bits(&slots, nodes_max)?));
        }
        Ok(Limit {
            window: self.window,
            sources,
            named: bits(&self.named, nodes_max)?,
            generation: self.generation,
            retired_ms: self.retired_ms,
            in_force: self.in_force,
        })
    }
}

fn bits(slots: &[u16], nodes_max: usize) -> Result<Bits, LoadError> {
    let mut bits = Bits::default();
    for slot in slots {
        ensure(usize::from(*slot) < nodes_max, "a limit of an unknown node")?;
        bits.set(*slot);
    }
    Ok(bits)
}

impl CounterPiece {
    fn new(key: CounterKey, end_ms: u64, counter: &Counter) -> Self {
        let mut rows: Vec<RowPiece> = counter
            .rows()
            .map(|row| RowPiece {
                node: row.node,
                session: row.session,
                out: row.out,
                lost: row.lost,
                returned: row.returned,
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.node);
        Self {
            key,
            identity: counter.identity,
            window: counter.window,
            end_ms,
            used: counter.used,
            generation: counter.generation,
            rows,
        }
    }

    fn counter(self) -> Result<Counter, LoadError> {
        let mut counter = Counter::new(self.identity, self.window, self.used);
        counter.generation = self.generation;
        let mut last = NodeId(0);
        for row in self.rows {
            ensure(last < row.node, "a counter's holders are not in order")?;
            last = row.node;
            counter.put(Totals {
                node: row.node,
                session: row.session,
                out: row.out,
                lost: row.lost,
                returned: row.returned,
            });
        }
        Ok(counter)
    }
}

fn ensure(holds: bool, problem: &'static str) -> Result<(), LoadError> {
    if holds {
        Ok(())
    } else {
        Err(LoadError(problem))
    }
}
