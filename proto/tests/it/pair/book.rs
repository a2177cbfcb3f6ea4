//! What happened, kept apart from the machines under test, and the invariants.

use super::node::Holding;
use proto::limit::ledger::Session;
use std::collections::HashMap;

pub const CHARGED: &str = "charged <= max";
pub const NOTHING_TWICE: &str = "spent + returned + bucket <= granted";
pub const IN_TIME: &str = "nothing is spent after its window's end";
pub const LIVE: &str = "what is left is not refused";

/// Counters are told apart by their number.
pub type Key = usize;

#[derive(Debug, Default)]
pub struct Book {
    /// Admitted less refunded, by counter and window.
    charged: HashMap<(Key, u64), i128>,
    /// The same by session.
    spent: HashMap<(Session, Key, u64), i128>,
    /// The largest `max` of a window.
    max: HashMap<(Key, u64), u64>,
    /// What the ledger has granted to a session, as its verdicts said.
    granted: HashMap<(Session, Key, u64), u128>,
}

impl Book {
    /// `max` is in force in this window, among others perhaps.
    pub fn rule(&mut self, key: Key, window: u64, max: u64) {
        let largest = self.max.entry((key, window)).or_default();
        *largest = max.max(*largest);
    }

    pub fn granted(&mut self, session: Session, key: Key, window: u64, total: u128) {
        let most = self.granted.entry((session, key, window)).or_default();
        *most = total.max(*most);
    }

    /// A call was admitted at a moment of the ledger's time.
    pub fn admit(
        &mut self,
        (session, key, window): (Session, Key, u64),
        amount: u64,
        (now_ms, end_ms): (u64, u64),
    ) -> Result<(), String> {
        *self.spent.entry((session, key, window)).or_default() += i128::from(amount);
        let charged = self.charged.entry((key, window)).or_default();
        *charged += i128::from(amount);
        let max = self.max.get(&(key, window)).copied().unwrap_or_default();
        if *charged > i128::from(max) {
            return Err(format!(
                "{CHARGED}: counter {key}, window {window}: {charged} > {max}"
            ));
        }
        if now_ms > end_ms {
            return Err(format!(
                "{IN_TIME}: counter {key}, window {window}: {} ms late",
                now_ms - end_ms
            ));
        }
        Ok(())
    }

    pub fn refund(&mut self, (session, key, window): (Session, Key, u64), amount: u64) {
        *self.spent.entry((session, key, window)).or_default() -= i128::from(amount);
        *self.charged.entry((key, window)).or_default() -= i128::from(amount);
    }

    pub fn charged(&self, key: Key, window: u64) -> u64 {
        let charged = self
            .charged
            .get(&(key, window))
            .copied()
            .unwrap_or_default();
        u64::try_from(charged).unwrap_or_default()
    }

    /// No unit is in two places.
    pub fn audit(&self, key: Key, holding: &Holding) -> Result<(), String> {
        let Some((session, window, granted, returned)) = holding.holder.totals() else {
            return Ok(());
        };
        let spent = self
            .spent
            .get(&(session, key, window))
            .copied()
            .unwrap_or_default();
        let in_hand =
            i128::from(holding.bucket.remaining()) + i128::from(holding.holder.reserved());
        let sum = spent + returned as i128 + in_hand;
        if sum > granted as i128 {
            return Err(format!(
                "{NOTHING_TWICE}: counter {key}, window {window}: {spent} + {returned} + {in_hand} > {granted}"
            ));
        }
        let told = self.granted.get(&(session, key, window)).copied();
        if granted > told.unwrap_or_default() && granted > returned {
            return Err(format!(
                "{NOTHING_TWICE}: counter {key}, window {window}: {granted} of {told:?} granted"
            ));
        }
        Ok(())
    }
}
