//! Which limits are defined, by whom, and how large.
//!
//! Nearly all sessions define a limit alike, so a limit keeps one set of nodes for each `max` that is defined.

use super::{CONFLICT_SOURCES_MAX, CONFLICTS_MAX, Definition, RETIRED_MS, Refusal};
use crate::{
    digest::Digest,
    limit::{Identity, Window, amount::UNITS_MAX},
};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A set of nodes, by their slots; no zeros at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(SmallVec<[u64; 2]>);

impl Bits {
    pub(super) fn has(&self, slot: u16) -> bool {
        let word = self.0.get(usize::from(slot / 64));
        word.is_some_and(|word| word & 1 << (slot % 64) != 0)
    }
    pub(super) fn set(&mut self, slot: u16) {
        let at = usize::from(slot / 64);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (slot % 64);
    }
    pub(super) fn clear(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot / 64)) {
            *word &= !(1 << (slot % 64));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        let slots = 0..self.0.len().saturating_mul(64);
        slots
            .map_while(|slot| u16::try_from(slot).ok())
            .filter(|slot| self.has(*slot))
    }
    fn digest(&self, digest: Digest) -> Digest {
        let length = digest.word(self.0.len() as u64);
        self.0
            .iter()
            .fold(length, |digest, word| digest.word(*word))
    }
}

/// A limit as the live sessions define it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) window: Window,
    /// By `max`, the smallest first.
    pub(super) sources: SmallVec<[(u64, Bits); 1]>,
    /// Nodes that named it in a view of which not all was heard yet.
    pub(super) named: Bits,
    /// Grows when the `max` in force rises.
    pub(super) generation: u64,
    /// Since when nobody defines it.
    pub(super) retired_ms: Option<u64>,
    /// The smallest `max`; the last one where nobody defines it any more.
    pub(super) in_force: u64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    limits: BTreeMap<Identity, Limit>,
    /// Of their digests.
    sum: u64,
}

impl Limits {
    pub(super) fn len(&self) -> usize {
        self.limits.len()
    }

    pub(super) fn get(&self, identity: Identity) -> Option<&Limit> {
        self.limits.get(&identity)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Identity, &Limit)> {
        self.limits.iter()
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// Whether these can be defined. Where the table is nearly full, limits out of force make room first.
    pub(super) fn check(
        &mut self,
        definitions: &[Definition],
        limits_max: usize,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if self.limits.len().saturating_add(definitions.len()) > limits_max {
            self.forget_retired(now_ms);
        }
        let mut new = BTreeMap::new();
        for definition in definitions {
            let window = match definition.window {
                Window::Duration(ms) => Window::duration(ms).map_err(|_| Refusal::Overflow)?,
                word => word,
            };
            if definition.max > UNITS_MAX && definition.max != u64::MAX {
                return Err(Refusal::Overflow);
            }
            let known = match self.limits.get(&definition.identity) {
                Some(known) => known.window,
                None => *new.entry(definition.identity).or_insert(window),
            };
            if known != window {
                return Err(Refusal::Conflict);
            }
        }
        if self.limits.len().saturating_add(new.len()) > limits_max {
            return Err(Refusal::LimitsFull);
        }
        Ok(())
    }

    /// Takes a node's word; `named`: in a view of which not all was heard.
    pub(super) fn define(&mut self, slot: u16, definition: &Definition, named: bool) {
        let limit = self
            .limits
            .entry(definition.identity)
            .or_insert_with(|| Limit::new(definition.window));
        let before = limit.digest_if_known(definition.identity);
        limit.withdraw(slot);
        let at = limit
            .sources
            .partition_point(|(max, _)| *max < definition.max);
        match limit.sources.get_mut(at) {
            Some((max, nodes)) if *max == definition.max => nodes.set(slot),
            _ => {
                let mut nodes = Bits::default();
                nodes.set(slot);
                limit.sources.insert(at, (definition.max, nodes));
            }
        }
        if named {
            limit.named.set(slot);
        }
        limit.agree(0);
        let after = limit.digest(definition.identity);
        self.sum = self.sum.wrapping_sub(before).wrapping_add(after);
    }

    /// A node begins a view: nothing is named yet.
    pub(super) fn begin(&mut self, slot: u16) {
        self.edit(
            |limit| limit.named.has(slot),
            |limit| limit.named.clear(slot),
        );
    }

    /// A node's view is whole: what it did not name it no longer defines.
    pub(super) fn finish(&mut self, slot: u16, now_ms: u64) {
        self.edit(
            |limit| limit.named.has(slot) || limit.has(slot),
            |limit| {
                if !limit.named.has(slot) {
                    limit.withdraw(slot);
                    limit.agree(now_ms);
                }
                limit.named.clear(slot);
            },
        );
        self.forget_retired(now_ms);
    }

    /// A node defines nothing any more.
    pub(super) fn undefine(&mut self, slot: u16, now_ms: u64) {
        self.edit(
            |limit| limit.named.has(slot) || limit.has(slot),
            |limit| {
                limit.named.clear(slot);
                limit.withdraw(slot);
                limit.agree(now_ms);
            },
        );
    }

    /// No node defines anything any more, and the clock may have gone back.
    pub(super) fn undefine_all(&mut self, now_ms: u64) {
        self.edit(
            |_| true,
            |limit| {
                limit.named = Bits::default();
                limit.sources.clear();
                limit.agree(now_ms);
                limit.retired_ms = limit.retired_ms.map(|at| at.min(now_ms));
            },
        );
    }

    /// Limits that nobody has defined for a while are gone.
    fn forget_retired(&mut self, now_ms: u64) {
        let sum = &mut self.sum;
        self.limits.retain(|identity, limit| {
            let keeps = limit
                .retired_ms
                .is_none_or(|at| at.saturating_add(RETIRED_MS) > now_ms);
            if !keeps {
                *sum = sum.wrapping_sub(limit.digest(*identity));
            }
            keeps
        });
    }

    fn edit(&mut self, which: impl Fn(&Limit) -> bool, change: impl Fn(&mut Limit)) {
        for (identity, limit) in &mut self.limits {
            if which(limit) {
                let before = limit.digest(*identity);
                change(limit);
                let after = limit.digest(*identity);
                self.sum = self.sum.wrapping_sub(before).wrapping_add(after);
            }
        }
    }

    /// Limits that are defined differently, each with up to two slots for each `max`.
    pub(super) fn conflicts(&self) -> Vec<(Identity, Vec<(u16, u64)>)> {
        self.limits
            .iter()
            .filter(|(_, limit)| limit.sources.len() > 1)
            .take(CONFLICTS_MAX)
            .map(|(identity, limit)| {
                let sources = limit
                    .sources
                    .iter()
                    .flat_map(|(max, nodes)| nodes.iter().take(2).map(|slot| (slot, *max)));
                (*identity, sources.take(CONFLICT_SOURCES_MAX).collect())
            })
            .collect()
    }

    /// Puts a limit of a dump back.
    pub(super) fn restore(&mut self, identity: Identity, limit: Limit) -> bool {
        self.sum = self.sum.wrapping_add(limit.digest(identity));
        self.limits.insert(identity, limit).is_none()
    }
}

impl Limit {
    fn new(window: Window) -> Self {
        Self {
            window,
            sources: SmallVec::new(),
            named: Bits::default(),
            generation: 0,
            retired_ms: None,
            in_force: 0,
        }
    }

    fn has(&self, slot: u16) -> bool {
        self.sources.iter().any(|(_, nodes)| nodes.has(slot))
    }

    fn withdraw(&mut self, slot: u16) {
        for (_, nodes) in &mut self.sources {
            nodes.clear(slot);
        }
        self.sources.retain(|(_, nodes)| !nodes.is_empty());
    }

    /// The smallest `max` rules.
    fn agree(&mut self, now_ms: u64) {
        match self.sources.first() {
            Some((max, _)) => {
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

    /// Of a limit that was just made: nothing was counted of it yet.
    fn digest_if_known(&self, identity: Identity) -> u64 {
        if self.sources.is_empty() && self.retired_ms.is_none() {
            0
        } else {
            self.digest(identity)
        }
    }

    fn digest(&self, identity: Identity) -> u64 {
        let (window, ms) = match self.window {
            Window::Duration(ms) => (0, ms),
            Window::Week => (1, 0),
            Window::Month => (2, 0),
        };
        let digest = Digest::new("limit")
            .wide(identity.0)
            .word(window)
            .word(ms)
            .word(self.generation)
            .word(self.retired_ms.is_some().into())
            .word(self.retired_ms.unwrap_or_default())
            .word(self.in_force)
            .word(self.sources.len() as u64);
        let digest = self.named.digest(digest);
        let sources = self.sources.iter();
        sources
            .fold(digest, |digest, (max, nodes)| {
                nodes.digest(digest.word(*max))
            })
            .finish()
    }
}
