//! Faults on purpose: mistakes that the protocol must not make, chosen at run time, so that tests can show that they would
//! be caught. Only in builds with the feature `faults`, which the shipped binary lacks.
//!
//! The owner of a state machine hands the set in (`Ledger::with_faults`); nothing is global.

/// One mistake. Each names the invariant that catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// Ledger: totals of another window are merged into the present one. Caught by: used = granted - returned.
    MergeWithoutWindowCheck,
    /// Ledger: what was granted and not heard of is granted again. Caught by: a repeated question grants nothing new.
    RetryGrantsTwice,
    /// Ledger: the grant is not bounded by what is left. Caught by: charged <= max.
    UncappedGrant,
    /// Ledger: a newer hello of a node gets the session of the one before. Caught by: a session belongs to one nonce.
    SessionReused,
    /// Ledger: totals are added instead of compared. Caught by: repeating a return changes nothing.
    DeltasInsteadOfTotals,
    /// Ledger: a return of more than was granted is credited. Caught by: returned <= granted.
    ForgedReturnAccepted,
    /// Holder: units are returned and stay in the bucket. Caught by: spent + returned + bucket <= granted.
    ReturnWithoutTaking,
    /// Holder: units of a return that was not acknowledged go back into the bucket. Caught by: spent + returned + bucket <=
    /// granted.
    PutBackAfterSend,
    /// Holder: a ticket of an older window is given back to this one. Caught by: spent + returned + bucket <= granted.
    RefundAcrossWindows,
    /// Holder: leases are spent past their deadline. Caught by: nothing is spent after its window's end.
    SpentPastWindow,
    /// Replica: a lease is answered before it is committed. Caught by: charged <= max after a change of leader.
    GrantBeforeCommit,
    /// Replica: entries are acknowledged before they are on the disk. Caught by: charged <= max after a crash.
    AcknowledgeBeforeFsync,
    /// Replica: a node is let go before the change of voters that takes it out is committed. Caught by: the cluster heals.
    LetGoEarly,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 13] = [
        Fault::MergeWithoutWindowCheck,
        Fault::RetryGrantsTwice,
        Fault::UncappedGrant,
        Fault::SessionReused,
        Fault::DeltasInsteadOfTotals,
        Fault::ForgedReturnAccepted,
        Fault::ReturnWithoutTaking,
        Fault::PutBackAfterSend,
        Fault::RefundAcrossWindows,
        Fault::SpentPastWindow,
        Fault::GrantBeforeCommit,
        Fault::AcknowledgeBeforeFsync,
        Fault::LetGoEarly,
    ];
}

/// A set of faults, empty at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u16);

impl Faults {
    /// With one more.
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u8)
    }
    /// Whether it is planted.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u8 != 0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self::default().with(fault)
    }
}
