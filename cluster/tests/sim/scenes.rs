//! What happened in runs, counted: a scenario that never came up was not tested.

use std::{cell::Cell, fmt, rc::Rc};

macro_rules! scenes {
    ($($(#[$doc:meta])* $scene:ident = $name:literal,)*) => {
        /// Something that can happen in a run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Scene { $($(#[$doc])* $scene,)* }

        const NAMES: [&str; [$($name),*].len()] = [$($name),*];
    };
}

scenes! {
    // The network.
    Lost = "packets lost",
    Repeated = "packets repeated",
    Overtaken = "packets overtaken by later ones",
    CutOff = "packets stopped by a cut in both directions",
    CutOneWay = "packets stopped by a cut in one direction",
    Disconnected = "connections that broke",
    // Processes, machines, clocks, disks.
    Killed = "processes killed",
    PowerLost = "machines that lost power",
    WriteLost = "unsynced writes lost with the power",
    Stopped = "processes stopped in order",
    Paused = "processes that stood still",
    PausedLong = "pauses longer than a lease",
    PausedInCall = "charges made across a pause",
    ClockJumped = "wall clocks that jumped",
    SlowDisk = "disks that were slow",
    ImageFailed = "snapshots that could not be written",
    // Agreement.
    Committed = "entries committed",
    Batched = "commands applied",
    Overwritten = "entries overwritten by another leader's",
    Elected = "leaders elected after the first",
    Compacted = "logs compacted behind a snapshot",
    Installed = "snapshots installed",
    Reconfigured = "changes of the voters' configuration",
    VoterJoined = "voters joined",
    VoterRemoved = "voters removed",
    RemovedAgain = "removals asked for again while voters changed",
    BlackedOut = "voters that lost power when others were let go",
    LeftAlone = "voters that were left alone and lost power",
    ClientJoined = "lease clients joined",
    ClientRemoved = "lease clients removed",
    RulesRaised = "rolling upgrades that raised the rules",
    ClockWaited = "clusters whose clock an operator accepted",
    ClockSetBack = "replicated clocks set back",
    // Quota.
    Window = "windows in which something was charged",
    UsedUp = "windows used up to the last unit",
    AtBegin = "charges in a window's first 50 ms",
    AtEnd = "charges in a window's last 50 ms",
    Wide = "charges of more than 2^40 units",
    Leased = "leases granted",
    Exhausted = "leases refused for want of quota",
    OfferedAgain = "leases offered again, their answer unheard",
    WindowMissed = "leases asked for in one window and granted in another",
    Returned = "returns credited",
    ReturnedLate = "returns that came after their window",
    Recalled = "recalls",
    Renewed = "refusals lifted by a push",
    HolderRested = "holders put away and woken",
    Waited = "calls that waited",
    GaveUp = "calls that gave up waiting",
    RolledBack = "calls refused by their second limit",
    Admitted = "calls admitted",
    Limited = "calls refused by a limit",
    Unreachable = "calls refused as unreachable",
    Refunded = "charges refunded",
    RefundedLate = "refunds that came too late",
    SessionLost = "sessions that ended with quota out",
    SessionClosed = "sessions closed in order",
    Quarantined = "sessions quarantined",
    Forged = "forged returns",
    // Operators and their control plane.
    MaxRaised = "limits raised",
    MaxLowered = "limits lowered",
    Overdrawn = "limits lowered below what was out",
    Differing = "limits that nodes defined differently",
    Credited = "credits of lost quota",
    Reset = "counters reset in use",
    Granted = "grants made",
    Revoked = "grants revoked",
    UnderGrant = "calls judged under a grant",
    NotGranted = "calls refused for a revoked grant",
    Stale = "calls refused for want of freshness",
    // Of the simulation.
    Deed = "misfortunes and operators' deeds",
    Demanded = "windows in which service was demanded",
}

/// Counts of all scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; NAMES.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        for (sum, one) in self.0.iter_mut().zip(other.0) {
            *sum += one;
        }
    }

    /// Names of scenes that did not happen.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = NAMES.iter().zip(self.0);
        all.filter(|(_, count)| *count == 0)
            .map(|(name, _)| *name)
            .collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in NAMES.iter().zip(self.0) {
            writeln!(f, "{count:>14} {name}")?;
        }
        Ok(())
    }
}

/// Where everything in a world notes what happens.
#[derive(Clone)]
pub struct Scenes(Rc<[Cell<u64>; NAMES.len()]>);

impl Default for Scenes {
    fn default() -> Self {
        Self(Rc::new([const { Cell::new(0) }; NAMES.len()]))
    }
}

impl Scenes {
    pub fn note(&self, scene: Scene) {
        self.note_many(scene, 1);
    }

    pub fn note_many(&self, scene: Scene, times: u64) {
        self.0[scene as usize].update(|count| count + times);
    }

    pub fn counts(&self) -> Counts {
        Counts(self.0.each_ref().map(Cell::get))
    }
}
