//! What the limiter counts for the metrics; nothing on the way of a call that its bucket serves.

use crate::metrics::Ledger;
use cluster::{handle::Heard, wire::Push};
use proto::limit::ledger::Refusal;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Handles, once they are known.
#[derive(Default)]
pub(super) struct Tally(OnceLock<Arc<Ledger>>);

impl Tally {
    pub(super) fn count_in(&self, ledger: Arc<Ledger>) {
        let _ = self.0.set(ledger);
    }

    /// A question for quota has its answer.
    pub(super) fn leased(&self, answer: Option<&Heard>) {
        let Some(ledger) = self.0.get() else {
            return;
        };
        ledger.leased(match answer.map(|heard| &heard.verdict) {
            None => "unreachable",
            Some(Ok(_)) => "granted",
            Some(Err(Refusal::Exhausted(_))) => "refused",
            Some(Err(Refusal::KeysFull { .. })) => "keys",
            Some(Err(Refusal::Quarantined)) => "quarantined",
            Some(Err(Refusal::Undefined)) => "undefined",
            Some(Err(_)) => "other",
        });
    }

    /// A call waited for quota.
    pub(super) fn waited(&self, took: Duration) {
        if let Some(ledger) = self.0.get() {
            ledger.waited(took);
        }
    }

    /// Quota could not be had.
    pub(super) fn unreachable(&self, reason: &'static str) {
        if let Some(ledger) = self.0.get() {
            ledger.unreachable(reason);
        }
    }

    /// The leader said something by itself.
    pub(super) fn pushed(&self, push: &Push) {
        if let Some(ledger) = self.0.get() {
            match push {
                Push::Recall { .. } => ledger.pushed("recall"),
                Push::Renewed { .. } => ledger.pushed("renewed"),
                Push::Control { .. } => {}
            }
        }
    }
}
