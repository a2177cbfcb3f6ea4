//! What a seed stands for: how large the cluster is, what is counted, which misfortunes there are and how often.

use super::{
    clock::{MS, SECOND},
    net::Weather,
};
use cluster::dice::Dice;
use proto::limit::{CounterKey, Identity, Window, ledger::Bounds};

/// Misfortunes and operators' deeds that a run may know. Each seed has some of them only: what never happens in a run
/// cannot hide what happens all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Both directions between two groups of hosts.
    Partition,
    /// One direction.
    OneWay,
    /// A link that goes away and comes back.
    Flap,
    /// The process ends and starts again soon.
    Kill,
    /// So does the machine: what was not synced is lost.
    PowerLoss,
    /// Leadership is handed over, everything returned, then the process ends and starts again.
    Restart,
    /// The process stands still.
    Pause,
    /// A wall clock jumps.
    ClockJump,
    /// A disk is slow.
    SlowDisk,
    /// A policy's `max` changes, on every node or on one after the other.
    Redefine,
    /// Credit or Reset.
    Operate,
    /// A grant is made or revoked.
    Control,
    /// A voter joins, is removed or replaced.
    Members,
    /// The rules' version is raised.
    Rules,
    /// A gateway returns more than it should.
    Forge,
}

const DEEDS: [Deed; 15] = [
    Deed::Partition,
    Deed::OneWay,
    Deed::Flap,
    Deed::Kill,
    Deed::PowerLoss,
    Deed::Restart,
    Deed::Pause,
    Deed::ClockJump,
    Deed::SlowDisk,
    Deed::Redefine,
    Deed::Operate,
    Deed::Control,
    Deed::Members,
    Deed::Rules,
    Deed::Forge,
];

/// Mostly short windows: their borders are where mistakes are.
const WINDOWS_MS: [u64; 10] = [
    1_000, 1_000, 2_000, 2_000, 2_000, 2_000, 3_000, 3_000, 5_000, 10_000,
];

/// A limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitPlan {
    pub identity: Identity,
    pub window_ms: u64,
    /// At first.
    pub max: u64,
    /// What a usual call takes is up to this.
    pub amount: u64,
}

impl LimitPlan {
    pub fn window(&self) -> Window {
        Window::Duration(self.window_ms)
    }
}

/// A counter.
#[derive(Clone, Copy, Debug)]
pub struct KeyPlan {
    pub key: CounterKey,
    /// Index of its limit.
    pub limit: usize,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub voters: u64,
    pub clients: u64,
    pub limits: Vec<LimitPlan>,
    pub keys: Vec<KeyPlan>,
    pub deeds: Vec<Deed>,
    /// Mean time from one deed to the next.
    pub deed_every_ns: u64,
    pub weather: Weather,
    /// How long misfortunes go on.
    pub chaos_ns: u64,
    /// Calls a second and node.
    pub calls_per_s: u64,
    /// True time 0, milliseconds since 1970.
    pub start_ms: u64,
    /// Wall clocks are true but for so much; beyond are only those that jump.
    pub skew_ms: i64,
    pub freshness_ns: u64,
    pub snapshot_after_bytes: u64,
    /// Parts in 1,000 of admitted calls that are given back.
    pub refunds: u64,
    pub tick_ms: u64,
}

impl Plan {
    /// Everything follows from the seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let pick = |dice: &mut Dice, from: &[u64]| from[dice.below(from.len() as u64) as usize];
        let voters = pick(&mut dice, &[1, 3, 3, 3, 3, 3, 5]);
        let clients = match voters {
            1 => 1 + dice.below(3),
            _ => dice.below(3),
        };
        let calls_per_s = 4 + dice.below(10);
        let mut limits = Vec::new();
        let mut keys = Vec::new();
        for limit in 0..1 + dice.below(2) {
            let window_ms = pick(&mut dice, &WINDOWS_MS);
            let max = pick(&mut dice, &[1, 7, 30, 30, 1_000, 1 << 42]);
            let keyed = 1 + u64::from(dice.below(3) == 0);
            // About twice what there is.
            let calls = (voters + clients) * calls_per_s * window_ms / 1_000 / keyed;
            limits.push(LimitPlan {
                identity: Identity(100 + u128::from(limit)),
                window_ms,
                max,
                amount: (max * 4 / calls.max(1)).max(1),
            });
            for key in 0..keyed {
                keys.push(KeyPlan {
                    key: CounterKey(u128::from(1_000 * (limit + 1) + key)),
                    limit: limit as usize,
                });
            }
        }
        // Two or three kinds of misfortune more often than all at once.
        let density = pick(&mut dice, &[150, 150, 300, 500]);
        let mut deeds: Vec<Deed> = DEEDS
            .into_iter()
            .filter(|_| dice.below(1_000) < density)
            .collect();
        if dice.below(20) == 0 {
            deeds.clear();
        }
        let weather = match dice.below(3) {
            0 => Weather {
                delay_us: 500,
                ..Weather::default()
            },
            1 => Weather {
                loss: dice.below(20),
                repeat: dice.below(20),
                slow: 20,
                delay_us: 5_000,
                slow_ms: 100,
            },
            _ => Weather {
                loss: dice.below(100),
                repeat: dice.below(100),
                slow: dice.below(200),
                delay_us: 20_000,
                slow_ms: 50 + dice.below(1_500),
            },
        };
        let long = if deeds.contains(&Deed::Pause) { 15 } else { 0 };
        Self {
            seed,
            voters,
            clients,
            limits,
            keys,
            deeds,
            deed_every_ns: (100 + dice.below(2_000)) * MS,
            weather,
            chaos_ns: (6 + dice.below(8 + long)) * SECOND,
            calls_per_s,
            start_ms: 1_785_000_000_000 + dice.below(100_000),
            skew_ms: pick(&mut dice, &[0, 20, 200]) as i64,
            freshness_ns: (1 + dice.below(5)) * SECOND,
            snapshot_after_bytes: pick(&mut dice, &[1 << 10, 8 << 10, 64 << 10]),
            refunds: pick(&mut dice, &[0, 50, 300]),
            tick_ms: pick(&mut dice, &[100, 150, 250]),
        }
    }

    /// With these deeds among those that happen.
    pub fn need(&mut self, deeds: &[Deed]) {
        for deed in deeds {
            if !self.deeds.contains(deed) {
                self.deeds.push(*deed);
            }
        }
    }
}

/// Bounds of the ledger: leases are held for a short time, so that they end in a run.
pub fn bounds() -> Bounds {
    Bounds {
        hold_ms: 2_000,
        ..Bounds::default()
    }
}
