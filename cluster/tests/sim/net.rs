//! The network: loss, repetition, reordering, delay, partitions in either direction, links that flap.

use cluster::{
    dice::Dice,
    wire::{Extra, Push, Request, Response},
};
use proto::command::NodeId;
use raft::eraftpb::Message;
use std::{collections::BTreeMap, rc::Rc};

use super::clock::MS;

/// What travels.
#[derive(Clone)]
pub enum Packet {
    Raft(Message),
    /// A snapshot's message and the chunks of its state.
    Snapshot(Message, Rc<Vec<Vec<u8>>>),
    Extra(Extra),
    Request(u64, Request),
    /// Answers and pushes belong to the connection of one run of the process.
    Response(u32, u64, Response),
    Push(u32, Push),
}

/// How bad the network is, parts in 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u64,
    pub repeat: u64,
    /// Delayed by up to `slow_ms` instead of up to `delay_ms`.
    pub slow: u64,
    pub delay_us: u64,
    pub slow_ms: u64,
}

/// Who reaches whom.
pub struct Net {
    pub weather: Weather,
    /// Until when nothing goes from one host to another.
    cut: BTreeMap<(NodeId, NodeId), u64>,
    dice: Dice,
}

impl Net {
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            cut: BTreeMap::new(),
            dice: Dice::new(seed),
        }
    }

    /// After how many nanoseconds each copy of a packet arrives, if one does.
    pub fn delays(&mut self, from: NodeId, to: NodeId, true_ns: u64) -> [Option<u64>; 2] {
        let is_cut = self.is_cut(from, to, true_ns);
        let copies = if is_cut || self.dice.below(1_000) < self.weather.loss {
            0
        } else {
            1 + u64::from(self.dice.below(1_000) < self.weather.repeat)
        };
        let mut delays = [None; 2];
        for delay in delays.iter_mut().take(copies as usize) {
            *delay = Some(self.delay_ns());
        }
        delays
    }

    fn delay_ns(&mut self) -> u64 {
        let most_ns = if self.dice.below(1_000) < self.weather.slow {
            self.weather.slow_ms * MS
        } else {
            self.weather.delay_us * 1_000
        };
        50_000 + self.dice.below(most_ns)
    }

    pub fn is_cut(&self, from: NodeId, to: NodeId, true_ns: u64) -> bool {
        self.cut
            .get(&(from, to))
            .is_some_and(|until_ns| true_ns < *until_ns)
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: NodeId, to: NodeId, until_ns: u64) {
        let until = self.cut.entry((from, to)).or_default();
        *until = until_ns.max(*until);
    }

    /// The network is well again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.weather = Weather {
            delay_us: 1_000,
            ..Weather::default()
        };
    }
}
