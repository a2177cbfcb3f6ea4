//! What raft has ready: messages, writes, committed entries; snapshots out and in.

use super::{Effects, Persist, Replica, Stop, desk, desk::Removal, snapshot_of};
use crate::{
    codec,
    machine::{Error, Manifest},
    membership::{self, Configuration},
    wire::{At, Extra, HASH_EVERY, Push, Response},
};
use proto::{
    command::{Batch, Command, Reply},
    time::Now,
};
use raft::{
    Storage,
    eraftpb::{Entry, EntryType, Snapshot},
};

/// A failed image is tried again after this.
const IMAGE_AGAIN_NS: u64 = 10_000_000_000;

impl Replica {
    /// Everything of one of raft's readies but the waiting for the disk.
    pub(super) fn handle_ready(&mut self, now: Now) {
        let mut ready = self.raft.ready();
        self.out.messages.extend(ready.take_messages());
        let install = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let entries = ready.take_entries();
        let hard_state = ready.hs().cloned();
        if let Some(snapshot) = &install
            && !self.install(snapshot)
        {
            return;
        }
        let store = self.raft.mut_store();
        store.append(&entries);
        if let Some(hard_state) = &hard_state {
            store.set_hard_state(hard_state.clone());
        }
        if install.is_some() || !entries.is_empty() || hard_state.is_some() {
            let must_sync = ready.must_sync();
            let index = install
                .as_ref()
                .map(|snapshot| snapshot.get_metadata().index);
            let number = self.persist_with(|persist| {
                persist.install = install;
                persist.entries = entries;
                persist.hard_state = hard_state;
                persist.must_sync = must_sync;
            });
            self.readies.push_back((number, ready.number()));
            if let Some(index) = index {
                self.installing = Some((number, index));
            }
        }
        let promised = ready.take_persisted_messages();
        if self.issued == self.durable {
            self.out.messages.extend(promised);
        } else if !promised.is_empty() {
            self.promised.push_back((self.issued, promised));
        }
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.raft.advance_append_async(ready);
        if self.readies.is_empty() {
            self.raft.on_persist_ready(number);
        }
        #[cfg(feature = "faults")]
        if self
            .settings
            .faults
            .has(proto::faults::Fault::AcknowledgeBeforeFsync)
        {
            self.persisted(self.issued, now);
        }
        for read in reads {
            self.confirmed(&read.request_ctx, read.index);
        }
        let last = committed.last().map(|entry| entry.index);
        for entry in committed {
            self.apply(entry, now);
            if self.is_stopped() {
                return;
            }
        }
        if let Some(last) = last {
            self.raft.advance_apply_to(last);
        }
        self.answer_reads(now);
    }

    /// Adds to the write that these effects ask for; its number.
    pub(super) fn persist_with(&mut self, add: impl FnOnce(&mut Persist)) -> u64 {
        let Effects { persist, .. } = &mut self.out;
        let issued = &mut self.issued;
        let persist = persist.get_or_insert_with(|| {
            *issued += 1;
            Persist {
                number: *issued,
                ..Persist::default()
            }
        });
        let must_sync = persist.must_sync;
        add(persist);
        persist.must_sync |= must_sync;
        persist.number
    }

    /// A write and all before it are on the disk.
    pub fn persisted(&mut self, number: u64, now: Now) {
        if self.is_stopped() {
            return;
        }
        self.durable = self.durable.max(number.min(self.issued));
        let mut ready = None;
        while let Some((_, number)) = self
            .readies
            .pop_front_if(|(write, _)| *write <= self.durable)
        {
            ready = Some(number);
        }
        if let Some(ready) = ready {
            self.raft.on_persist_ready(ready);
        }
        if let Some((_, index)) = self.installing.take_if(|(write, _)| *write <= self.durable) {
            self.raft.advance_apply_to(index);
        }
        while let Some((_, messages)) = self
            .promised
            .pop_front_if(|(write, _)| *write <= self.durable)
        {
            self.out.messages.extend(messages);
        }
        self.follow_role(now);
    }

    /// A peer's snapshot takes the place of this state.
    fn install(&mut self, snapshot: &Snapshot) -> bool {
        let index = snapshot.get_metadata().index;
        let Some(mut machine) = self
            .arrived
            .take()
            .filter(|machine| machine.index() == index)
        else {
            self.stop(Stop::Log("a snapshot without its state".to_owned()));
            return false;
        };
        machine.set_rules_max(self.settings.rules_max);
        #[cfg(feature = "faults")]
        let machine = machine.with_faults(self.settings.faults);
        self.raft.mut_store().install(snapshot.clone());
        self.machine = machine;
        self.hashes.clear();
        self.compacts = None;
        let configuration = self.machine.configuration();
        self.clock.retain(|node| configuration.votes(node));
        true
    }

    fn apply(&mut self, entry: Entry, now: Now) {
        let (index, term) = (entry.index, entry.term);
        let applied = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {
                self.machine.apply_nothing(index);
                Ok(None)
            }
            EntryType::EntryNormal => self.apply_batch(index, &entry.data, now).map(Some),
            EntryType::EntryConfChangeV2 => self.apply_change(index, &entry.data).map(|()| None),
            EntryType::EntryConfChange => {
                Err(Error::Damaged("a change of the old kind".to_owned()))
            }
        };
        match applied {
            Ok(applied) => self.settle((index, term), applied, now),
            Err(error) => return self.stop(Stop::Entry { index, error }),
        }
        if index.is_multiple_of(HASH_EVERY) {
            let hash = self.machine.hash();
            self.tell_voters(Extra::Hash { index, hash });
            self.compare((index, self.settings.node, hash));
        }
    }

    fn apply_batch(
        &mut self,
        index: u64,
        data: &[u8],
        now: Now,
    ) -> Result<(Batch, Vec<Reply>), Error> {
        let batch = codec::decode_batch(data).map_err(|error| Error::Damaged(error.to_string()))?;
        let replies = self.machine.apply(index, &batch)?;
        let set = batch
            .commands
            .iter()
            .rev()
            .find_map(|command| match command {
                Command::SetClock { now_ms } => Some(*now_ms),
                _ => None,
            });
        match set {
            Some(now_ms) if self.led.is_some() => self.clock.accepted(now_ms, now),
            _ => self.clock.applied(self.machine.now_ms(), now),
        }
        Ok((batch, replies))
    }

    fn apply_change(&mut self, index: u64, data: &[u8]) -> Result<(), Error> {
        let unreadable = || Error::Damaged("a change of voters".to_owned());
        let change = membership::read_change(data).ok_or_else(unreadable)?;
        // A change that does not apply is refused alike by all.
        let Ok(state) = self.raft.apply_conf_change(&change) else {
            self.machine.apply_nothing(index);
            return Ok(());
        };
        let configuration = Configuration::read(&state).ok_or_else(unreadable)?;
        self.clock.retain(|node| configuration.votes(node));
        if self.leads() && !configuration.votes(self.settings.node) {
            // Raft lets it lead on: it could propose nothing, its heartbeats would keep the others from an election, and
            // its own writes still on their way would be looked for among the voters'.
            let term = self.raft.raft.term;
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
        self.machine.apply_configuration(index, configuration);
        // Raft asks for no sync where only the commit is new. `status` shows these voters from now on, and nobody should
        // find after a power loss that they are still to be asked for.
        let hard_state = self.raft.store().hard_state().clone();
        self.persist_with(|persist| {
            persist.hard_state = Some(hard_state);
            persist.must_sync = true;
        });
        Ok(())
    }

    /// Answers those whose request this entry was, and tells whom it concerns.
    fn settle(
        &mut self,
        (index, term): (u64, u64),
        applied: Option<(Batch, Vec<Reply>)>,
        now: Now,
    ) {
        let (flight, lost) = self.desk.landed(index, term);
        for part in lost.into_iter().flat_map(|flight| flight.parts) {
            if let Some(asker) = part.asker {
                self.answer(asker, Response::Unknown);
            }
        }
        let at = self.at();
        if let (Some(flight), Some((_, replies))) = (flight, &applied) {
            let mut replies = replies.as_slice();
            for part in flight.parts {
                let (mine, rest) = replies.split_at(part.commands.min(replies.len()));
                replies = rest;
                let Some(asker) = part.asker else { continue };
                let response = desk::response(mine, at);
                let is_removal =
                    !part.removes.is_empty() && matches!(response, Response::Done { .. });
                if is_removal {
                    let nodes = part.removes;
                    self.desk.removals.push(Removal { asker, nodes });
                } else {
                    self.answer(asker, response);
                }
            }
        }
        if self.led.is_none() {
            return;
        }
        if let Some((batch, replies)) = applied {
            let Effects { pushes, .. } = &mut self.out;
            for (command, reply) in batch.commands.iter().zip(&replies) {
                self.nudges
                    .after(command, reply, self.machine.ledger(), now.boot_ns, pushes);
            }
        }
        self.settle_removals(at);
        self.push_control();
    }

    fn settle_removals(&mut self, at: At) {
        let machine = &self.machine;
        let is_over = |removal: &mut Removal| {
            removal
                .nodes
                .iter()
                .all(|node| machine.member(*node).is_none())
        };
        let over: Vec<Removal> = self.desk.removals.extract_if(.., is_over).collect();
        for removal in over {
            self.answer(removal.asker, Response::Done { at });
        }
    }

    fn push_control(&mut self) {
        let version = self.machine.control().version();
        if version <= self.pushed_version {
            return;
        }
        self.pushed_version = version;
        let ledger = self.machine.ledger();
        let nodes = self.machine.members().map(|(node, _)| node);
        let awake = nodes.filter(|node| ledger.session_of(*node).is_some());
        self.out
            .pushes
            .extend(awake.map(|node| (node, Push::Control { version })));
    }

    /// This moment of replicated history.
    pub(super) fn at(&self) -> At {
        At {
            now_ms: self.machine.now_ms(),
            term: self.raft.raft.term,
        }
    }

    /// Freezes the state, if enough has happened since the last time, or a peer needs it.
    pub(super) fn begin_image(&mut self, now: Now) {
        let store = self.raft.store();
        let index = self.machine.index();
        let is_due = store.since_image() > self.settings.snapshot_after_bytes || store.is_wanted();
        let is_new = index > store.snapshot_index();
        if !is_due
            || !is_new
            || self.imaging.is_some()
            || self.installing.is_some()
            || now.boot_ns < self.image_after_ns
        {
            return;
        }
        let Ok(term) = store.term(index) else { return };
        let image = self.machine.image();
        let snapshot = snapshot_of(&image, term, self.machine.configuration());
        self.raft.mut_store().image_begun();
        self.imaging = Some(snapshot);
        self.out.image = Some(image);
    }

    /// The file of an image is on the disk, or could not be written.
    pub fn image_written(&mut self, manifest: Manifest, ok: bool, now: Now) {
        let Some(snapshot) = self.imaging.take() else {
            return;
        };
        if !ok || snapshot.data != manifest.encode() {
            self.image_after_ns = now.boot_ns.saturating_add(IMAGE_AGAIN_NS);
            return;
        }
        if self.is_stopped() || manifest.index <= self.raft.store().snapshot_index() {
            return;
        }
        let keep = self.needed_by_peers();
        let tail_bytes = self.settings.snapshot_after_bytes / 2;
        let upto = self
            .raft
            .mut_store()
            .compact(snapshot.clone(), tail_bytes, keep);
        self.compacts = Some((snapshot, upto));
    }
}
