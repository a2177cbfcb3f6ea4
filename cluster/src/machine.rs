//! CORE. What every voter applies: the ledger, the control plane, the members. Deterministic, never panics.

use proto::command::{Batch, Reply};

/// The replicated state machine.
pub struct Machine {}

impl Machine {
    /// Applies one batch; one reply a command, in order.
    pub fn apply(&mut self, _index: u64, _batch: &Batch) -> Vec<Reply> {
        todo!()
    }
    /// Equal on every replica at equal index.
    pub fn hash(&self) -> u64 {
        todo!()
    }
}
