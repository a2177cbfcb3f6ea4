//! The ledger as operators are shown it.

use super::{
    Conflict, Counters, Frozen, Holder, Holding, Ledger, ROWS_MAX, Row, counter::Counter,
    lease::used_shown, limits::Limits, nodes::Nodes,
};
use crate::limit::CounterKey;
use std::{cmp::Reverse, collections::BinaryHeap};

impl Ledger {
    /// Counters in their present windows, and how many there are that fit the question. It walks over all of them: where
    /// that takes too long, ask [`Ledger::freeze`] elsewhere.
    pub fn rows(&self, counters: &Counters) -> (Vec<Row>, u64) {
        let Some(key) = counters.key else {
            return self.freeze().rows(counters);
        };
        let fits = |counter: &Counter| {
            counters
                .identity
                .is_none_or(|identity| identity == counter.identity)
        };
        match self.counters.get(key) {
            Some((counter, end_ms)) if fits(counter) && counters.most > 0 => {
                let max = max(&self.limits, counter);
                (vec![row(&self.nodes, max, key, counter, end_ms)], 1)
            }
            Some((counter, _)) if fits(counter) => (Vec::new(), 1),
            _ => (Vec::new(), 0),
        }
    }

    /// What can still be leased of a counter in its present window, and its generation as a lease would tell it.
    pub fn available(&self, key: CounterKey) -> Option<(u64, u64)> {
        let (counter, _) = self.counters.get(key)?;
        let limit = self.limits.get(counter.identity)?;
        Some((
            limit.in_force.saturating_sub(counter.used),
            counter.generation.saturating_add(limit.generation),
        ))
    }

    /// The present window of a counter and its live holders with something out.
    pub fn holders(&self, key: CounterKey) -> Option<(u64, Vec<Holder>)> {
        let (counter, _) = self.counters.get(key)?;
        let holders = counter
            .rows()
            .filter(|row| row.out > 0 && self.nodes.is_live(row.session))
            .map(|row| Holder {
                node: row.node,
                session: row.session,
                granted_total: row.granted(),
                out: row.out,
            });
        Some((counter.window, holders.collect()))
    }

    /// Limits that live sessions define differently, at most [`super::CONFLICTS_MAX`].
    pub fn conflicts(&self) -> Vec<Conflict> {
        let node = |slot: u16| self.nodes.iter().find(|node| node.slot == slot);
        self.limits
            .conflicts()
            .into_iter()
            .map(|(identity, sources)| Conflict {
                identity,
                sources: sources
                    .into_iter()
                    .filter_map(|(slot, max)| Some((node(slot)?.id, max)))
                    .collect(),
            })
            .collect()
    }
}

/// A counter's place in the answer: the fullest first, then by key.
type Rank = (Reverse<u64>, CounterKey);

impl Frozen {
    /// As [`Ledger::rows`], of a state that changes no more.
    pub fn rows(&self, counters: &Counters) -> (Vec<Row>, u64) {
        let most = counters.most.min(ROWS_MAX);
        let mut first: BinaryHeap<Rank> = BinaryHeap::with_capacity(most.saturating_add(1));
        let mut total = 0u64;
        for (key, _, counter) in self.counters.iter() {
            let fits = counters.key.is_none_or(|wanted| wanted == key)
                && counters
                    .identity
                    .is_none_or(|identity| identity == counter.identity);
            if !fits {
                continue;
            }
            total = total.saturating_add(1);
            let fullness = if counters.fullest {
                self.permille(counter)
            } else {
                0
            };
            first.push((Reverse(fullness), key));
            if first.len() > most {
                first.pop();
            }
        }
        let ranks = first.into_sorted_vec();
        let mut rows: Vec<Option<Row>> = ranks.iter().map(|_| None).collect();
        let places: std::collections::BTreeMap<CounterKey, usize> = ranks
            .iter()
            .enumerate()
            .map(|(at, (_, key))| (*key, at))
            .collect();
        for (key, end_ms, counter) in self.counters.iter() {
            if let Some(at) = places.get(&key) {
                let max = max(&self.limits, counter);
                rows[*at] = Some(row(&self.nodes, max, key, counter, end_ms));
            }
        }
        (rows.into_iter().flatten().collect(), total)
    }

    /// Used of `max`, in tenths of a percent.
    fn permille(&self, counter: &Counter) -> u64 {
        let max = max(&self.limits, counter);
        let used = u128::from(used_shown(counter.used, max));
        u64::try_from(used * 1_000 / u128::from(max.max(1))).unwrap_or(u64::MAX)
    }
}

/// The `max` in force of a counter's limit; 0 where nobody defines it any more.
fn max(limits: &Limits, counter: &Counter) -> u64 {
    let limit = limits.get(counter.identity);
    limit.map_or(0, |limit| limit.in_force)
}

fn row(nodes: &Nodes, max: u64, key: CounterKey, counter: &Counter, end_ms: u64) -> Row {
    let mut holders: Vec<Holding> = counter
        .rows()
        .map(|row| {
            let is_lost = nodes.is_lost(row.session);
            let ended = if is_lost { row.out } else { 0 };
            Holding {
                node: row.node,
                granted: row.granted(),
                returned: row.returned,
                lost: row.lost.saturating_add(ended),
            }
        })
        .collect();
    holders.sort_unstable_by_key(|holding| holding.node);
    Row {
        key,
        identity: counter.identity,
        window: counter.window,
        end_ms,
        max,
        used: used_shown(counter.used, max).into(),
        lost: holders.iter().map(|holding| u128::from(holding.lost)).sum(),
        holders,
    }
}
