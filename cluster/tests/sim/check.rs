//! The invariants. Their names are what a failing run prints, and what the planted faults are caught by.

use super::{
    books::{Books, Taken},
    clock::MS,
    plan::Plan,
};
use cluster::{codec, machine::Machine, replica::Figures};
use proto::{
    command::{Batch, Command, NodeId, Reply},
    control::Change,
    limit::ledger::Session,
};
use raft::eraftpb::{Entry, EntryType};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
};

/// What is broken: an invariant's name, and how.
pub type Broken = (&'static str, String);

/// An entry as somebody wrote it first.
struct Proposed {
    hash: u64,
    what: What,
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
    /// Most that replicated time was behind true time when an entry was made, and how far it is now; milliseconds.
    pub behind_ms: i64,
    pub lag_ms: i64,
    /// Changes of the control plane: version to name and whether it exists since.
    control: BTreeMap<u64, (String, bool)>,
    /// When operators heard of which version, in order.
    acknowledged: Vec<(u64, u64)>,
    pub broken: Option<Broken>,
    /// Every command is shown.
    pub trace: bool,
}

impl Check {
    pub fn new(plan: &Plan, mut oracle: Machine) -> Self {
        oracle.set_rules_max(u32::MAX);
        Self {
            books: Books::new(plan),
            proposed: BTreeMap::new(),
            committed: BTreeMap::new(),
            oracle_index: oracle.index(),
            oracle,
            hashes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            behind_ms: i64::MIN,
            lag_ms: 0,
            control: BTreeMap::new(),
            acknowledged: Vec::new(),
            broken: None,
            trace: false,
        }
    }

    #[cfg(feature = "faults")]
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
                _ => What::Configuration,
            };
            if let What::Batch(batch) = &what {
                self.lag_ms = true_ms as i64 - batch.now_ms as i64;
                self.behind_ms = self.behind_ms.max(self.lag_ms);
            }
            let mut hasher = DefaultHasher::new();
            entry.data.hash(&mut hasher);
            let hash = hasher.finish();
            self.proposed.insert(key, Proposed { hash, what });
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
        let (hash, what) = (proposed.hash, proposed.what.clone());
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
            match what {
                What::Batch(batch) => self.apply(index, &batch, true_ns),
                What::Nothing => self.oracle.apply_nothing(index),
                // The next change is proposed only by one that has applied this one, so there is none yet.
                What::Configuration => {
                    let configuration = machine.configuration().clone();
                    self.oracle.apply_configuration(index, configuration);
                }
            }
            self.state(NodeId(0), index, self.oracle.hash());
        }
    }

    fn apply(&mut self, index: u64, batch: &Batch, true_ns: u64) {
        let before_ms = self.oracle.now_ms();
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
            self.books.set_back(before_ms);
        }
        if replies.len() != batch.commands.len() {
            self.fail("each command has one reply", format!("index {index}"));
        }
        let now_ms = self.oracle.now_ms();
        for (command, reply) in batch.commands.iter().zip(&replies) {
            if self.trace {
                println!("{:>9}  {index}: {command:?} -> {reply:?}", true_ns / MS);
            }
            if let (Command::Control(change), Reply::Version(version)) = (command, reply) {
                self.controlled(change, *version);
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

    fn controlled(&mut self, change: &Change, version: u64) {
        let newest = self.control.keys().next_back().copied().unwrap_or(0);
        if version != newest + 1 {
            self.fail(
                "control versions count up",
                format!("{version} after {newest}"),
            );
        }
        let entry = (change.name.clone(), change.body.is_some());
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
            let known = *self.leaders.entry(figures.term).or_insert(node);
            if known != node {
                let how = format!("{} and {} in term {}", known.0, node.0, figures.term);
                self.fail("one leader a term", how);
            }
        }
    }

    pub fn took(&mut self, taken: &Taken, true_ns: u64, true_ms: u64, paused: bool) {
        let behind_ms = self.behind_ms;
        if let Err(broken) = self.books.took(taken, true_ns) {
            self.broken.get_or_insert(broken);
        }
        let end_ms = self.books.end_ms(taken) as i64;
        let late_ms = true_ms as i64 - end_ms - behind_ms.max(0);
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
