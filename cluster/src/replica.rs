//! CORE. One voter: raft, the machine, the desk where requests become batches and batches become answers, the clock.
//!
//! The shell calls in ([`Replica::tick`], [`Replica::step`], [`Replica::request`] …), then [`Replica::poll`] until it
//! returns `None`, and carries out what it returns. Writes may be carried out behind its back: `poll` goes on meanwhile,
//! and [`Replica::persisted`] tells it of a write and of all before it.

mod admit;
mod api;
mod care;
mod desk;
mod hashes;
mod leader;
mod logger;
mod nudges;
mod peers;
mod reads;
mod ready;
mod store;

pub use api::{Effects, Figures, Persist, Recovered, Settings, Stop};

use crate::{
    clock::Clock,
    codec,
    machine::{Image, Machine},
    membership::Configuration,
    wire::{Request, Response},
};
use desk::{Asker, Desk};
use hashes::Hashes;
use nudges::Nudges;
use proto::{
    command::{Command, NodeId},
    time::Now,
};
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{Entry, HardState, Message, Snapshot},
};
use std::collections::{BTreeMap, VecDeque};
use store::Store;

/// Most bytes of entries in one message, but for one that alone is longer.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Most messages with entries to one peer that are not acknowledged.
const MESSAGES_MAX: usize = 64;
/// Most bytes of entries that are proposed and not committed: beyond them requests wait.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of entries that are applied before other work has its turn.
const APPLIED_BYTES_MAX: u64 = 4 << 20;

/// One voter.
pub struct Replica {
    settings: Settings,
    raft: RawNode<Store>,
    machine: Machine,
    clock: Clock,
    desk: Desk,
    nudges: Nudges,
    hashes: Hashes,
    /// What the next `poll` returns.
    out: Effects,
    /// Writes issued, and those known to be on the disk, by number.
    issued: u64,
    durable: u64,
    /// Which of raft's readies each write that is on its way belongs to.
    readies: VecDeque<(u64, u64)>,
    /// Messages that wait for a write.
    promised: VecDeque<(u64, Vec<Message>)>,
    /// The state of a peer's snapshot that raft has not asked to install yet.
    arrived: Option<Machine>,
    /// A write that installs a snapshot, and its index.
    installing: Option<(u64, u64)>,
    /// The snapshot whose image is being written.
    imaging: Option<Snapshot>,
    /// No image before, boot clock nanoseconds.
    image_after_ns: u64,
    /// The log is to be told of a new snapshot.
    compacts: Option<(Snapshot, u64)>,
    /// The term in which this node leads, and since when.
    led: Option<(u64, u64)>,
    leaderless_since_ns: Option<u64>,
    /// Peers and askers, and when they were heard last.
    heard_ns: BTreeMap<NodeId, u64>,
    pinged_ns: Option<u64>,
    looked_ns: u64,
    /// Elections that this node began: part of the seed of the next one's delay.
    elections: u64,
    /// Numbers of reads.
    reads: u64,
    /// Somebody wants to know the time, and nothing is proposed.
    wants_time: bool,
    /// Control version that was pushed.
    pushed_version: u64,
    stop: Stopping,
    ignored: u64,
    refused: u64,
    batches: u64,
    commands: u64,
    /// The state as if all that was proposed were applied: the fault `GrantBeforeCommit`.
    #[cfg(feature = "faults")]
    ahead: Option<Machine>,
}

/// Whether this voter goes on.
enum Stopping {
    Not,
    Due(Stop),
    Said,
}

/// What a new cluster begins with: to be written (the image first), then started from.
pub fn founded(machine: Machine) -> (Recovered, Image) {
    let image = machine.image();
    let snapshot = snapshot_of(&image, 1, machine.configuration());
    let hard_state = HardState {
        term: 1,
        commit: machine.index(),
        ..HardState::default()
    };
    let recovered = Recovered {
        hard_state,
        snapshot,
        machine: Some(machine),
        entries: Vec::new(),
    };
    (recovered, image)
}

/// What raft and the log know of an image.
fn snapshot_of(image: &Image, term: u64, configuration: &Configuration) -> Snapshot {
    let mut snapshot = Snapshot {
        data: image.manifest.encode().into(),
        ..Snapshot::default()
    };
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (image.manifest.index, term);
    meta.set_conf_state(configuration.write());
    snapshot
}

impl Replica {
    /// Starts from what the disk holds. Errors: what was found contradicts itself.
    pub fn new(settings: Settings, recovered: Recovered, now: Now) -> Result<Self, String> {
        let node = settings.node;
        let index = recovered.snapshot.get_metadata().index;
        let joining = || Machine::joining(settings.cluster, settings.ledger);
        let mut machine = recovered.machine.unwrap_or_else(joining);
        if machine.index() != index || machine.cluster() != settings.cluster {
            return Err("the state is not the snapshot's, or another cluster's".to_owned());
        }
        if index > 0
            && Configuration::read(recovered.snapshot.get_metadata().get_conf_state()).as_ref()
                != Some(machine.configuration())
        {
            return Err("the state's voters are not the snapshot's".to_owned());
        }
        machine.set_rules_max(settings.rules_max);
        #[cfg(feature = "faults")]
        let machine = machine.with_faults(settings.faults);
        let known_ms = newest_ms(&recovered.entries).unwrap_or(machine.now_ms());
        let store = Store::new(recovered.hard_state, recovered.snapshot, recovered.entries)?;
        let config = Config {
            id: node.0,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied: index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_MAX,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: APPLIED_BYTES_MAX,
            ..Config::default()
        };
        let raft = RawNode::new(&config, store, &logger::logger()).map_err(|e| e.to_string())?;
        let clock = Clock::new(node, known_ms, now);
        let mut replica = Self {
            settings,
            raft,
            machine,
            clock,
            desk: Desk::default(),
            nudges: Nudges::default(),
            hashes: Hashes::default(),
            out: Effects::default(),
            issued: 0,
            durable: 0,
            readies: VecDeque::new(),
            promised: VecDeque::new(),
            arrived: None,
            installing: None,
            imaging: None,
            image_after_ns: 0,
            compacts: None,
            led: None,
            leaderless_since_ns: None,
            heard_ns: BTreeMap::new(),
            pinged_ns: None,
            looked_ns: now.boot_ns,
            elections: 0,
            reads: 0,
            wants_time: false,
            pushed_version: 0,
            stop: Stopping::Not,
            ignored: 0,
            refused: 0,
            batches: 0,
            commands: 0,
            #[cfg(feature = "faults")]
            ahead: None,
        };
        let configuration = replica.machine.configuration();
        let is_alone = configuration.voters.len() == 1 && configuration.voters.contains(&node);
        if is_alone && !configuration.is_joint() {
            // Nobody else could lead: no time is lost. Raft declines where the log holds a change of voters.
            let _ = replica.raft.campaign();
        }
        Ok(replica)
    }

    /// A tick has passed: called every `tick_ms`.
    pub fn tick(&mut self, now: Now) {
        if self.is_stopped() {
            return;
        }
        self.tick_raft(now);
        self.ask_clocks(now);
        self.look_around(now);
    }

    /// A request of an authenticated node. `id` is echoed in the answer; there is at most one.
    pub fn request(&mut self, from: NodeId, id: u64, request: Request, now: Now) {
        let asker = Asker { node: from, id };
        self.desk.waiting += 1;
        if matches!(request, Request::Members) {
            let members = self.members();
            return self.answer(asker, members);
        }
        if self.is_stopped() || self.led.is_none() || !self.leads() {
            let leader = self.leader().filter(|leader| *leader != self.settings.node);
            return self.answer(asker, Response::NotLeader { leader });
        }
        if self.desk.waiting > self.settings.requests_max {
            self.refused += 1;
            return self.answer(asker, Response::Unknown);
        }
        self.heard_ns.insert(from, now.boot_ns);
        self.desk.inbox.push_back(desk::Asked { asker, request });
    }

    /// What is to be done now; `None`: nothing.
    pub fn poll(&mut self, now: Now) -> Option<Effects> {
        if self.is_stopped() {
            return self.last_words();
        }
        loop {
            self.follow_role(now);
            self.lead(now);
            self.begin_image(now);
            if !self.raft.has_ready() {
                break;
            }
            self.handle_ready(now);
            if self.is_stopped() {
                return self.last_words();
            }
            if self.out.persist.is_some() {
                break;
            }
        }
        self.follow_role(now);
        if let Some(compact) = self.compacts.take() {
            self.persist_with(|persist| {
                persist.compact = Some(compact);
                persist.must_sync = true;
            });
        }
        let is_something = !self.out.is_empty();
        is_something.then(|| std::mem::take(&mut self.out))
    }

    /// When to call `poll` again at the latest, though nothing came and no tick is due; boot clock nanoseconds.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.nudges.deadline_ns()
    }

    /// Hands leadership to another voter, if there is one: the node is about to stop.
    pub fn resign(&mut self) {
        if let Some(heir) = self.heir(|_| true) {
            self.raft.transfer_leader(heir.0);
        }
    }

    /// Who leads, where known.
    pub fn leader(&self) -> Option<NodeId> {
        match self.raft.raft.leader_id {
            0 => None,
            leader => Some(NodeId(leader)),
        }
    }

    /// What has been applied here.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Figures for metrics.
    pub fn figures(&self, now: Now) -> Figures {
        let raft = &self.raft.raft;
        Figures {
            term: raft.term,
            leads: self.leads(),
            last: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
            applied: self.machine.index(),
            snapshot: self.raft.store().snapshot_index(),
            log_bytes: self.raft.store().bytes(),
            requests: self.desk.waiting,
            elections: self.elections,
            ignored: self.ignored,
            refused: self.refused,
            batches: self.batches,
            commands: self.commands,
            clock_offset_ms: self.clock.off_ms(now),
            clock_problem: self.clock.problem().is_some(),
        }
    }

    fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn is_stopped(&self) -> bool {
        !matches!(self.stop, Stopping::Not)
    }

    fn stop(&mut self, stop: Stop) {
        if !self.is_stopped() {
            self.stop = Stopping::Due(stop);
        }
    }

    /// The effects of a voter that ends.
    fn last_words(&mut self) -> Option<Effects> {
        match std::mem::replace(&mut self.stop, Stopping::Said) {
            Stopping::Due(stop) => Some(Effects {
                stop: Some(stop),
                ..Effects::default()
            }),
            _ => None,
        }
    }

    fn answer(&mut self, asker: Asker, response: Response) {
        self.desk.waiting = self.desk.waiting.saturating_sub(1);
        self.out.responses.push((asker.node, asker.id, response));
    }
}

/// Replicated time as the log's last batch tells it: the state on the disk may be much older.
fn newest_ms(entries: &[Entry]) -> Option<u64> {
    let batches = entries.iter().rev().filter(|entry| !entry.data.is_empty());
    let batch = batches
        .filter_map(|entry| codec::decode_batch(&entry.data).ok())
        .next()?;
    let set = batch
        .commands
        .iter()
        .rev()
        .find_map(|command| match command {
            Command::SetClock { now_ms } => Some(*now_ms),
            _ => None,
        });
    Some(set.unwrap_or(batch.now_ms))
}

#[cfg(test)]
mod tests;
