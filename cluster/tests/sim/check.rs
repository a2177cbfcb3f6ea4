//! The invariants. Their names are what a failing run prints, and what the planted faults are caught by.

use super::{
    books::{Books, Taken},
    clock::MS,
    plan::{Deed, Plan},
    scenes::{Scene, Scenes},
};
use cluster::{codec, machine::Machine, replica::Figures};
use proto::{
    command::{Batch, Command, Member, NodeId, Reply, Role},
    control::Change,
    limit::ledger::Session,
};
use raft::eraftpb::{Entry, EntryType};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
};

/// What is near a window's border.
const NEAR_MS: i64 = 50;
/// How much farther than the worst clock of all replicated time may be from true time, milliseconds: for drift.
const TRUE_MS: i64 = 50;

/// What is broken: an invariant's name, and how.
pub type Broken = (&'static str, String);

/// An entry as somebody wrote it first.
struct Proposed {
    hash: u64,
    what: What,
    /// True time less its stamp, milliseconds.
    lag_ms: i64,
}

#[derive(Clone)]
enum What {
    Batch(Rc<Batch>),
    Nothing,
    Configuration,
}

/// Everything that must hold, and what is known for that.
pub struct Check {
    pub books: Books,
    scenes: Scenes,
    /// Entries by index and term.
    proposed: BTreeMap<(u64, u64), Proposed>,
    /// Term and hash of what was applied somewhere at each index: never anything else.
    committed: BTreeMap<u64, (u64, u64)>,
    /// A machine of our own, fed with what was committed.
    oracle: Machine,
    oracle_index: u64,
    /// The state's hash at each index.
    hashes: BTreeMap<u64, u64>,
    leaders: BTreeMap<u64, NodeId>,
    /// Of all members that there ever were.
    roles: BTreeMap<NodeId, Role>,
    /// How far replicated time was behind true time when the newest entry was made, milliseconds.
    pub lag_ms: i64,
    /// How far it may be where no clock jumps.
    lag_max_ms: Option<i64>,
    /// Changes of the control plane: version to name and whether it exists since.
    control: BTreeMap<u64, (String, bool)>,
    /// When operators heard of which version, in order.
    acknowledged: Vec<(u64, u64)>,
    /// Voters that were let go, and that a change of voters was written: since somebody looked.
    pub left: Vec<NodeId>,
    pub changing: bool,
    pub broken: Option<Broken>,
    /// Every command is shown.
    pub trace: bool,
}

impl Check {
    pub fn new(plan: &Plan, mut oracle: Machine, scenes: Scenes) -> Self {
        oracle.set_rules_max(u32::MAX);
        let jumps = !plan.deeds.contains(&Deed::ClockJump);
        let roles = oracle.members().map(|(node, entry)| (node, entry.role));
        let roles = roles.collect();
        Self {
            books: Books::new(plan, scenes.clone()),
            scenes,
            proposed: BTreeMap::new(),
            committed: BTreeMap::new(),
            oracle_index: oracle.index(),
            oracle,
            hashes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            roles,
            lag_ms: 0,
            lag_max_ms: jumps.then_some(plan.skew_ms + TRUE_MS),
            control: BTreeMap::new(),
            acknowledged: Vec::new(),
            left: Vec::new(),
            changing: false,
            broken: None,
            trace: false,
        }
    }

    pub fn plant(&mut self, faults: proto::faults::Faults) {
        self.oracle = self.oracle.clone().with_faults(faults);
    }

    /// The first thing that is broken is the one that counts.
    pub fn fail(&mut self, invariant: &'static str, how: String) {
        self.broken.get_or_insert((invariant, how));
    }

    pub fn oracle(&self) -> &Machine {
        &self.oracle
    }

    /// Somebody writes entries; `true_ms` is the true time, milliseconds since 1970.
    pub fn proposed(&mut self, entries: &[Entry], true_ms: u64) {
        for entry in entries {
            let key = (entry.index, entry.term);
            if self.proposed.contains_key(&key) {
                continue;
            }
            let what = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => What::Nothing,
                EntryType::EntryNormal => match codec::decode_batch(&entry.data) {
                    Ok(batch) => What::Batch(Rc::new(batch)),
                    Err(error) => return self.fail("entries can be read", error.to_string()),
                },
                _ => {
                    self.changing = true;
                    What::Configuration
                }
            };
            if let What::Batch(batch) = &what {
                self.lag_ms = true_ms as i64 - batch.now_ms as i64;
                self.keeps_time();
            }
            let same = (entry.index, 0)..=(entry.index, u64::MAX);
            if self.proposed.range(same).next().is_some() {
                self.scenes.note(Scene::Overwritten);
            }
            let mut hasher = DefaultHasher::new();
            entry.data.hash(&mut hasher);
            let hash = hasher.finish();
            let lag_ms = self.lag_ms;
            self.proposed.insert(key, Proposed { hash, what, lag_ms });
        }
    }

    fn keeps_time(&mut self) {
        if self.lag_max_ms.is_some_and(|most| self.lag_ms.abs() > most) {
            let how = format!("{} ms behind", self.lag_ms);
            self.fail("replicated time is near the clocks' time", how);
        }
    }

    /// A voter has applied this entry: the log holds it there.
    pub fn applied(
        &mut self,
        (node, machine): (NodeId, &Machine),
        index: u64,
        term: u64,
        true_ns: u64,
    ) {
        let Some(proposed) = self.proposed.get(&(index, term)) else {
            return self.fail(
                "what is applied was written",
                format!("index {index} term {term}"),
            );
        };
        let (hash, what, lag_ms) = (proposed.hash, proposed.what.clone(), proposed.lag_ms);
        let known = *self.committed.entry(index).or_insert((term, hash));
        if known != (term, hash) {
            let how = format!(
                "node {} has term {term} at index {index}, before it was term {}",
                node.0, known.0
            );
            return self.fail("what was committed stays", how);
        }
        if index == self.oracle_index + 1 {
            self.oracle_index = index;
            self.scenes.note(Scene::Committed);
            match what {
                What::Batch(batch) => self.apply(index, &batch, true_ns, lag_ms),
                What::Nothing => self.oracle.apply_nothing(index),
                // The next change is proposed only by one that has applied this one, so there is none yet.
                What::Configuration => {
                    let configuration = machine.configuration().clone();
                    self.oracle.apply_configuration(index, configuration);
                    self.scenes.note(Scene::Reconfigured);
                }
            }
            self.state(NodeId(0), index, self.oracle.hash());
        }
    }

    fn apply(&mut self, index: u64, batch: &Batch, true_ns: u64, lag_ms: i64) {
        let before_ms = self.oracle.now_ms();
        let rules = self.oracle.rules_version();
        let replies = match self.oracle.apply(index, batch) {
            Ok(replies) => replies,
            Err(error) => return self.fail("what was committed can be applied", error.to_string()),
        };
        let sets_clock = |c: &Command| matches!(c, Command::SetClock { .. });
        if self.oracle.now_ms() < before_ms && !batch.commands.iter().any(sets_clock) {
            let how = format!("{before_ms} -> {}", self.oracle.now_ms());
            self.fail("replicated time is monotone", how);
        }
        if self.oracle.now_ms() < before_ms {
            self.scenes.note(Scene::ClockSetBack);
            self.books.set_back(before_ms);
        }
        if self.oracle.rules_version() > rules {
            self.scenes.note(Scene::RulesRaised);
        }
        self.scenes
            .note_many(Scene::Batched, batch.commands.len() as u64);
        if replies.len() != batch.commands.len() {
            self.fail("each command has one reply", format!("index {index}"));
        }
        let now_ms = self.oracle.now_ms();
        self.books.observe(now_ms, lag_ms);
        for (command, reply) in batch.commands.iter().zip(&replies) {
            if self.trace {
                println!("{:>9}  {index}: {command:?} -> {reply:?}", true_ns / MS);
            }
            if let (Command::Control(change), Reply::Version(version)) = (command, reply) {
                self.controlled(change, *version);
            }
            if matches!(reply, Reply::Done) {
                self.joined_or_left(command);
            }
            if let Err(broken) = self
                .books
                .apply(command, reply, now_ms, |node| self.oracle.removed(node))
            {
                self.broken.get_or_insert(broken);
            }
        }
        if let Err(broken) = self.books.compare(self.oracle.ledger()) {
            self.broken.get_or_insert(broken);
        }
    }

    fn joined_or_left(&mut self, command: &Command) {
        if let Command::Member(Member::Join { node, role, .. }) = command {
            self.roles.insert(*node, *role);
        }
        self.scenes.note(match command {
            Command::Member(Member::Join {
                role: Role::Voter, ..
            }) => Scene::VoterJoined,
            Command::Member(Member::Join { .. }) => Scene::ClientJoined,
            Command::Member(Member::Remove { node }) => {
                // A voter leaves in two steps.
                if !self.oracle.removed(*node) {
                    return;
                }
                match self.roles.get(node) {
                    Some(Role::Voter) => {
                        self.left.push(*node);
                        Scene::VoterRemoved
                    }
                    _ => Scene::ClientRemoved,
                }
            }
            Command::SetClock { .. } => Scene::ClockWaited,
            _ => return,
        });
    }

    fn controlled(&mut self, change: &Change, version: u64) {
        let newest = self.control.keys().next_back().copied().unwrap_or(0);
        if version != newest + 1 {
            self.fail(
                "control versions count up",
                format!("{version} after {newest}"),
            );
        }
        let entry = (change.name.clone(), change.body.is_some());
        self.scenes.note(if entry.1 {
            Scene::Granted
        } else {
            Scene::Revoked
        });
        self.control.insert(version, entry);
    }

    /// Whoever applies an entry first has it in its log, so this model has seen them all.
    pub fn keeps_up(&mut self, index: u64) {
        if self.oracle_index < index {
            let how = format!("{index} is applied, {} is known", self.oracle_index);
            self.fail("what is applied was written", how);
        }
    }

    /// A voter's state after the last entry that it applied.
    pub fn state(&mut self, node: NodeId, index: u64, hash: u64) {
        let known = *self.hashes.entry(index).or_insert(hash);
        if known != hash {
            let how = format!("node {} at index {index}", node.0);
            self.fail("equal states at equal indexes", how);
        }
    }

    pub fn leads(&mut self, node: NodeId, figures: &Figures) {
        if figures.leads {
            let known = *self.leaders.entry(figures.term).or_insert_with(|| {
                self.scenes.note(Scene::Elected);
                node
            });
            if known != node {
                let how = format!("{} and {} in term {}", known.0, node.0, figures.term);
                self.fail("one leader a term", how);
            }
        }
    }

    pub fn took(&mut self, taken: &Taken, true_ms: u64, paused: bool) {
        if let Err(broken) = self.books.took(taken) {
            self.broken.get_or_insert(broken);
        }
        let (start_ms, end_ms, behind_ms) = self.books.bounds_ms(taken);
        let at_ms = true_ms as i64 - self.lag_ms;
        if at_ms - (start_ms as i64) < NEAR_MS {
            self.scenes.note(Scene::AtBegin);
        }
        if end_ms as i64 - at_ms < NEAR_MS {
            self.scenes.note(Scene::AtEnd);
        }
        let late_ms = true_ms as i64 - end_ms as i64 - behind_ms.max(0);
        if !paused && late_ms > 500 {
            let how = format!("{taken:?} {late_ms} ms late");
            self.fail("nothing is spent after its window", how);
        }
    }

    pub fn gave_back(&mut self, taken: &Taken, true_ns: u64) {
        if let Err(broken) = self.books.gave_back(taken, true_ns) {
            self.broken.get_or_insert(broken);
        }
    }

    /// An operator hears that a version of the control plane is committed.
    pub fn acknowledged(&mut self, version: u64, true_ns: u64) {
        if !self.control.contains_key(&version) {
            self.fail(
                "what is acknowledged was committed",
                format!("version {version}"),
            );
        }
        self.acknowledged.push((true_ns, version));
    }

    /// The newest version of which an operator heard before this moment; 0: of none.
    pub fn newest_acknowledged(&self, before_ns: u64) -> u64 {
        let heard = self.acknowledged.iter();
        let versions = heard
            .filter(|(at_ns, _)| *at_ns < before_ns)
            .map(|(_, version)| *version);
        versions.max().unwrap_or(0)
    }

    /// A call came in under a grant of the log, on a node that knew this version, judged by clocks read then.
    pub fn grant_used(&mut self, name: &str, version: u64, read_ns: u64, freshness_ns: u64) {
        let last = self
            .control
            .range(..=version)
            .rev()
            .find(|(_, (changed, _))| changed == name);
        if !last.is_some_and(|(_, (_, exists))| *exists) {
            let how = format!("{name} at version {version}");
            self.fail("nothing is admitted for a grant that was revoked", how);
        }
        let horizon_ns = read_ns.saturating_sub(freshness_ns + freshness_ns / 1_000 + MS);
        let known = self
            .acknowledged
            .iter()
            .filter(|(at_ns, _)| *at_ns < horizon_ns)
            .map(|(_, version)| *version)
            .max();
        if known.is_some_and(|known| known > version) {
            let how =
                format!("{name} at version {version}, {known:?} was acknowledged long before");
            self.fail("nothing is admitted beyond freshness_max", how);
        }
    }

    pub fn session_began(&mut self, node: NodeId, run: u64, session: Session) {
        if let Err(broken) = self.books.session_began(node, run, session) {
            self.broken.get_or_insert(broken);
        }
    }
}
