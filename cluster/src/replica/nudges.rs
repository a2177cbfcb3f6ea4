//! What the leader says by itself so that quota reaches who waits for it. Liveness alone: all of it may be lost, and all
//! of it is forgotten with the leadership.

use super::desk::Asked;
use crate::wire::{Push, Request};
use proto::{
    command::{Command, NodeId, Reply},
    limit::{
        CounterKey,
        lease::Ask,
        ledger::{self, Ledger, Refusal},
    },
};
use std::collections::{BTreeMap, VecDeque};

/// A counter's holders are recalled once in this time.
const RECALL_NS: u64 = 20 * MS;
/// New chunks of a counter wait this long for a call that needs many units at once …
const PAUSE_NS: u64 = 50 * MS;
/// … and then not again for this long after the pause began.
const PAUSE_AGAIN_NS: u64 = 500 * MS;
/// Most counters that are remembered as recalled, paused or refused, each.
const COUNTERS_MAX: usize = 65_536;
/// Most nodes that are told when a counter has something again.
const NODES_MAX: usize = 64;
/// Most requests that are held back by pauses.
const HELD_MAX: usize = 4_096;
const MS: u64 = 1_000_000;

/// Recalls, pauses, refusals.
#[derive(Debug, Default)]
pub(super) struct Nudges {
    /// When each counter was recalled last; the order in which they were.
    recalled: BTreeMap<CounterKey, u64>,
    recalls: VecDeque<(u64, CounterKey)>,
    /// Who was refused at which generation; the order in which they were.
    refused: BTreeMap<CounterKey, Refused>,
    refusals: BTreeMap<u64, CounterKey>,
    /// Refusals so far.
    count: u64,
    /// For whom a counter is paused since when.
    paused: BTreeMap<CounterKey, Pause>,
    pauses: VecDeque<(u64, CounterKey)>,
    held: VecDeque<(u64, CounterKey, Asked)>,
}

#[derive(Debug)]
struct Refused {
    /// Under which number it is in the order of refusals.
    number: u64,
    generation: u64,
    nodes: Vec<NodeId>,
}

#[derive(Debug)]
struct Pause {
    since_ns: u64,
    /// Until then new chunks wait; 0: not any more.
    until_ns: u64,
    whose: NodeId,
}

impl Nudges {
    /// Holds a request back if its counter is paused for another node; `Some`: it is not.
    pub(super) fn hold(&mut self, asked: Asked, now_ns: u64) -> Option<Asked> {
        let Request::Lease { ask, .. } = &asked.request else {
            return Some(asked);
        };
        let key = ask.key;
        let until_ns = match self.paused.get(&key) {
            Some(pause) if pause.whose != asked.asker.node => pause.until_ns,
            _ => 0,
        };
        if until_ns <= now_ns || self.held.len() >= HELD_MAX {
            return Some(asked);
        }
        // Every pause is equally long, so the queue is in the order of its ends.
        self.held.push_back((until_ns, key, asked));
        None
    }

    /// Requests whose pause is over.
    pub(super) fn release(&mut self, now_ns: u64) -> Vec<Asked> {
        let is_over = |until_ns: u64, key: &CounterKey| {
            until_ns <= now_ns
                || self
                    .paused
                    .get(key)
                    .is_none_or(|pause| pause.until_ns <= now_ns)
        };
        let mut released = Vec::new();
        let mut kept = VecDeque::new();
        for (until_ns, key, asked) in std::mem::take(&mut self.held) {
            if is_over(until_ns, &key) {
                released.push(asked);
            } else {
                kept.push_back((until_ns, key, asked));
            }
        }
        self.held = kept;
        while let Some((_, key)) = self
            .pauses
            .pop_front_if(|(since, _)| since.saturating_add(PAUSE_AGAIN_NS) <= now_ns)
        {
            self.paused.remove(&key);
        }
        while let Some((_, key)) = self
            .recalls
            .pop_front_if(|(at, _)| at.saturating_add(RECALL_NS) <= now_ns)
        {
            self.recalled.remove(&key);
        }
        released
    }

    /// When the next pause ends for a request that waits.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.held.front().map(|(until_ns, _, _)| *until_ns)
    }

    /// All requests that are held back.
    pub(super) fn clear(&mut self) -> Vec<Asked> {
        let held = std::mem::take(self).held;
        held.into_iter().map(|(_, _, asked)| asked).collect()
    }

    /// What to say after a command was applied.
    pub(super) fn after(
        &mut self,
        command: &Command,
        reply: &Reply,
        ledger: &Ledger,
        now_ns: u64,
        pushes: &mut Vec<(NodeId, Push)>,
    ) {
        match (command, reply) {
            (Command::Lease { session, ask }, Reply::Lease(verdict)) => {
                let Some(node) = ledger.node_of(*session) else {
                    return;
                };
                match verdict {
                    Err(Refusal::Exhausted(standing)) => {
                        self.refuse(node, ask.key, standing.generation);
                        if ask.waiting {
                            self.pause(node, ask, now_ns);
                            self.recall(node, ask.key, ledger, now_ns, pushes);
                        }
                    }
                    _ => self.end_pause(node, ask.key),
                }
            }
            (Command::Return { back, .. }, Reply::Done) => self.renew(back.key, ledger, pushes),
            (Command::Credit { key }, Reply::Credited(_))
            | (Command::Reset { key }, Reply::Done) => {
                self.renew(*key, ledger, pushes);
            }
            (Command::Define { last: true, .. }, Reply::Done) => {
                let keys: Vec<CounterKey> = self.refused.keys().copied().collect();
                keys.into_iter()
                    .for_each(|key| self.renew(key, ledger, pushes));
            }
            _ => {}
        }
    }

    fn refuse(&mut self, node: NodeId, key: CounterKey, generation: u64) {
        if let Some(refused) = self.refused.get_mut(&key) {
            refused.generation = refused.generation.max(generation);
            if !refused.nodes.contains(&node) && refused.nodes.len() < NODES_MAX {
                refused.nodes.push(node);
            }
            return;
        }
        if self.refused.len() >= COUNTERS_MAX
            && let Some((_, oldest)) = self.refusals.pop_first()
        {
            self.refused.remove(&oldest);
        }
        self.count += 1;
        self.refusals.insert(self.count, key);
        let refused = Refused {
            number: self.count,
            generation,
            nodes: vec![node],
        };
        self.refused.insert(key, refused);
    }

    /// Holders give back what they do not use.
    fn recall(
        &mut self,
        asker: NodeId,
        key: CounterKey,
        ledger: &Ledger,
        now_ns: u64,
        pushes: &mut Vec<(NodeId, Push)>,
    ) {
        let is_recent = |at: &u64| at.saturating_add(RECALL_NS) > now_ns;
        if self.recalled.get(&key).is_some_and(is_recent) || self.recalled.len() >= COUNTERS_MAX {
            return;
        }
        let Some((window, holders)) = ledger.holders(key) else {
            return;
        };
        for holder in holders.iter().filter(|holder| holder.node != asker) {
            let recall = Push::Recall {
                session: holder.session,
                key,
                window,
                granted_total: holder.granted_total,
            };
            pushes.push((holder.node, recall));
        }
        self.recalled.insert(key, now_ns);
        self.recalls.push_back((now_ns, key));
    }

    /// A counter has something again: those who were refused may ask.
    fn renew(&mut self, key: CounterKey, ledger: &Ledger, pushes: &mut Vec<(NodeId, Push)>) {
        if !self.refused.contains_key(&key) {
            return;
        }
        let question = ledger::Counters {
            key: Some(key),
            most: 1,
            ..ledger::Counters::default()
        };
        let (rows, _) = ledger.rows(&question);
        if rows
            .first()
            .is_some_and(|row| row.used >= u128::from(row.max))
        {
            return;
        }
        if let Some(refused) = self.refused.remove(&key) {
            self.refusals.remove(&refused.number);
            // Something was credited or raised since: the generation is greater by one at least.
            let generation = refused.generation.saturating_add(1);
            let renewed = Push::Renewed { key, generation };
            pushes.extend(refused.nodes.into_iter().map(|node| (node, renewed)));
        }
    }

    /// A call needs more at once than there is: what comes back is kept together for it for a moment.
    fn pause(&mut self, whose: NodeId, ask: &Ask, now_ns: u64) {
        let is_free = self
            .paused
            .get(&ask.key)
            .is_none_or(|pause| pause.since_ns.saturating_add(PAUSE_AGAIN_NS) <= now_ns);
        if ask.min < 2 || !is_free || self.paused.len() >= COUNTERS_MAX {
            return;
        }
        let pause = Pause {
            since_ns: now_ns,
            until_ns: now_ns.saturating_add(PAUSE_NS),
            whose,
        };
        self.paused.insert(ask.key, pause);
        self.pauses.push_back((now_ns, ask.key));
    }

    /// It has what it needed.
    fn end_pause(&mut self, whose: NodeId, key: CounterKey) {
        if let Some(pause) = self.paused.get_mut(&key)
            && pause.whose == whose
        {
            pause.until_ns = 0;
        }
    }
}
