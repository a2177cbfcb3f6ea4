//! Planted faults: each mistake that the protocol must not make is made, and the invariant that is named here notices.
//! A fault that is not caught means that the simulator is not finished.

use super::{
    plan::{Deed, Plan},
    seeds::run_with,
};
use proto::faults::Fault;

/// Seeds that a fault may stay unnoticed.
const SEEDS: u64 = 400;

/// A fault, what has to happen in a run so that it can do harm, and the invariant that catches it.
const TABLE: [(Fault, &[Deed], &str); 13] = [
    (
        Fault::ReturnWithoutTaking,
        &[],
        "spent + returned + bucket <= granted",
    ),
    (
        Fault::PutBackAfterSend,
        &[Deed::Partition],
        "spent + returned + bucket <= granted",
    ),
    (
        Fault::RefundAcrossWindows,
        &[],
        "spent + returned + bucket <= granted",
    ),
    (
        Fault::MergeWithoutWindowCheck,
        &[Deed::Partition],
        "a window is credited only with its own returns",
    ),
    (
        Fault::RetryGrantsTwice,
        &[Deed::Partition],
        "a repeated question grants nothing new",
    ),
    (Fault::UncappedGrant, &[], "nothing is leased past max"),
    (
        Fault::GrantBeforeCommit,
        &[Deed::Partition, Deed::Kill],
        "spent + returned + bucket <= granted",
    ),
    (
        Fault::SessionReused,
        &[Deed::Kill],
        "a session belongs to one start of one node",
    ),
    (
        Fault::DeltasInsteadOfTotals,
        &[Deed::Partition],
        "used = granted - returned",
    ),
    (
        Fault::AcknowledgeBeforeFsync,
        &[Deed::PowerLoss, Deed::SlowDisk],
        "what was committed stays",
    ),
    (
        Fault::SpentPastWindow,
        &[],
        "nothing is spent after its window",
    ),
    (
        Fault::ForgedReturnAccepted,
        &[Deed::Forge],
        "returned <= granted",
    ),
    (
        Fault::LetGoEarly,
        &[Deed::Members, Deed::PowerLoss],
        "the cluster heals",
    ),
];

#[test]
fn every_planted_fault_is_caught_by_the_invariant_that_is_named() {
    assert_eq!(TABLE.len(), Fault::ALL.len());
    for fault in Fault::ALL {
        let (_, deeds, invariant) = TABLE
            .iter()
            .find(|(planted, _, _)| *planted == fault)
            .unwrap_or_else(|| panic!("{fault:?} is not in the table"));
        let mut others = Vec::new();
        let caught = (1..=SEEDS).find_map(|seed| {
            let mut plan = Plan::new(seed);
            plan.need(deeds);
            let outcome = run_with(plan, false, |world| {
                world.faults = fault.into();
                world.check.plant(fault.into());
            });
            match outcome.invariant {
                Some(name) if name == *invariant => outcome.failure,
                name => {
                    others.extend(name);
                    None
                }
            }
        });
        let caught = caught.unwrap_or_else(|| {
            panic!("{fault:?} was not caught by: {invariant}; others: {others:?}")
        });
        println!("{fault:?}: {caught}");
    }
}
