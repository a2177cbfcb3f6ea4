//! What operators do to counters and to the clock.

use super::{Ledger, Refusal, SESSIONS_SKIPPED, table::Table};
use crate::limit::CounterKey;
use std::sync::Arc;

impl Ledger {
    /// Gives back what ended sessions held of a counter in its present window; units.
    pub fn credit(&mut self, key: CounterKey) -> Result<u128, Refusal> {
        let place = self.counters.find(key).ok_or(Refusal::UnknownCounter)?;
        let nodes = &self.nodes;
        let lost = self.counters.edit(place, |counter| {
            let mut lost = 0u64;
            counter.retain(|row| {
                lost = lost.saturating_add(std::mem::take(&mut row.lost));
                let is_lost = nodes.is_lost(row.session);
                if is_lost {
                    lost = lost.saturating_add(row.out);
                }
                !is_lost
            });
            if lost > 0 {
                counter.used = counter.used.saturating_sub(lost);
                counter.generation = counter.generation.saturating_add(1);
            }
            lost
        });
        Ok(lost.into())
    }

    /// Starts a counter's window anew: whatever was used is forgotten. What is out with live sessions stays theirs, so
    /// that their totals go on: up to that much more than `max` may be charged, unless it is recalled.
    pub fn reset(&mut self, key: CounterKey) -> Result<(), Refusal> {
        let place = self.counters.find(key).ok_or(Refusal::UnknownCounter)?;
        let nodes = &self.nodes;
        self.counters.edit(place, |counter| {
            counter.retain(|row| {
                row.lost = 0;
                nodes.is_live(row.session)
            });
            counter.used = 0;
            counter.generation = counter.generation.saturating_add(1);
        });
        Ok(())
    }

    /// Sets the clock, back too. Where it goes back every session ends, and every window that began before the former
    /// time counts as used up.
    pub fn set_clock(&mut self, now_ms: u64) {
        if now_ms >= self.now_ms {
            self.advance(now_ms);
            return;
        }
        let former_ms = self.now_ms;
        self.now_ms = now_ms;
        self.use_up(former_ms);
    }

    /// For a ledger that may have lost its newest commands (`recover --force`, `restore`): every session ends, and every
    /// window that has begun by this moment counts as used up.
    pub fn recover_used_up(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.use_up(self.now_ms);
        self.nodes.skip(SESSIONS_SKIPPED);
    }

    /// Every window that began up to this moment counts as used up. Counters are forgotten: what nobody knows is used up
    /// too, and is written down again when somebody asks for it.
    fn use_up(&mut self, until_ms: u64) {
        self.used_up_ms = self.used_up_ms.max(Some(until_ms));
        self.nodes.end_all();
        Arc::make_mut(&mut self.limits).undefine_all(self.now_ms);
        self.counters = Table::new(self.now_ms);
        self.groups = Table::new(self.now_ms);
    }
}
