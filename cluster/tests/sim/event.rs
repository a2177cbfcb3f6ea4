//! What can happen, and in which order it does.

use super::{disk::Chunks, net::Packet};
use cluster::machine::Manifest;
use proto::command::NodeId;
use raft::eraftpb::Message;
use std::{cmp::Reverse, collections::BinaryHeap};

/// What happens at a moment. Those with a `run` are of one run of a host's process and die with it.
pub enum Event {
    Tick {
        host: usize,
        run: u32,
    },
    Wake {
        host: usize,
        run: u32,
    },
    Packet {
        host: usize,
        from: NodeId,
        packet: Packet,
    },
    /// A connection broke.
    Lost {
        host: usize,
        run: u32,
        node: NodeId,
    },
    Written {
        host: usize,
        run: u32,
        number: u64,
        synced: bool,
    },
    ImageWritten {
        host: usize,
        run: u32,
        manifest: Manifest,
        chunks: Option<Chunks>,
    },
    SnapshotStored {
        host: usize,
        run: u32,
        manifest: Manifest,
        message: Box<Message>,
        chunks: Chunks,
    },
    SnapshotSent {
        host: usize,
        run: u32,
        to: NodeId,
        ok: bool,
    },
    /// The next call of the workload.
    Call {
        host: usize,
        run: u32,
    },
    Take {
        host: usize,
        run: u32,
        id: u64,
    },
    Settle {
        host: usize,
        run: u32,
        id: u64,
    },
    Retry {
        host: usize,
        run: u32,
        charges: Vec<(usize, u64)>,
        until_ns: u64,
    },
    /// A node takes up its new configuration.
    Configure {
        host: usize,
        run: u32,
        limit: usize,
        max: u64,
    },
    Resume {
        host: usize,
    },
    Start {
        host: usize,
    },
    Deed,
    /// An operator removes once more who is still leaving.
    RemoveAgain,
    /// All voters lose power.
    Blackout,
    Flap {
        host: usize,
        left: u32,
    },
    Heal,
    Mend,
    Settled,
    /// A window in which everybody who keeps asking must get through: it begins, and the demand is looked at.
    Probe {
        index: usize,
        count: u64,
    },
    Probed {
        index: usize,
        window: u64,
    },
    /// A machine that was taken out of the cluster is switched off.
    Retire {
        host: usize,
    },
    Done,
}

impl Event {
    /// Whose process it concerns.
    pub fn of(&self) -> Option<(usize, Option<u32>)> {
        Some(match self {
            Event::Tick { host, run }
            | Event::Wake { host, run }
            | Event::Lost { host, run, .. }
            | Event::Written { host, run, .. }
            | Event::ImageWritten { host, run, .. }
            | Event::SnapshotStored { host, run, .. }
            | Event::SnapshotSent { host, run, .. }
            | Event::Call { host, run }
            | Event::Take { host, run, .. }
            | Event::Settle { host, run, .. }
            | Event::Retry { host, run, .. }
            | Event::Configure { host, run, .. } => (*host, Some(*run)),
            Event::Packet { host, .. } => (*host, None),
            _ => return None,
        })
    }
}

/// What is going to happen: the earliest first, then in the order in which it was put there.
#[derive(Default)]
pub struct Queue {
    /// When, a number that counts up, where in `events`.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    numbers: u64,
}

impl Queue {
    pub fn push(&mut self, at_ns: u64, event: Event) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[at] = Some(event);
        self.numbers += 1;
        self.order.push(Reverse((at_ns, self.numbers, at)));
    }

    /// The next event and when it happens.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse((at_ns, _, at)) = self.order.pop()?;
        self.free.push(at);
        Some((at_ns, self.events[at].take()?))
    }
}
