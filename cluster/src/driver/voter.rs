//! A voter's part of the loop: the replica and the threads that keep its log and states.

use super::{
    Driver, States, Writer,
    states::{Done, Job},
    writer::Written,
};
use crate::{
    handle::{Failure, Local},
    replica::{Effects, Replica},
    transport::SnapshotFile,
};
use proto::{command::NodeId, time::Now};
use raft::eraftpb::{Message, MessageType};
use std::{collections::BTreeMap, path::PathBuf};
use tokio::sync::oneshot;

/// How often a voter's figures are shown.
const SHOW_NS: u64 = 250_000_000;

/// A voter's replica, log and states.
pub(crate) struct Voter {
    pub(crate) replica: Replica,
    pub(crate) writer: Writer,
    states: States,
    /// Where the states lie.
    dir: PathBuf,
    tick_ns: u64,
    next_tick_ns: u64,
    /// States that are being sent, by receiver.
    sending: BTreeMap<NodeId, u64>,
    /// A newer state is named in a write on its way: older ones are cleared away after it.
    newest: Option<u64>,
    shown_ns: u64,
    /// There were effects last time: there may be more.
    is_busy: bool,
}

impl Voter {
    pub(crate) fn new(
        replica: Replica,
        writer: Writer,
        states: States,
        dir: PathBuf,
        tick_ms: u64,
        now: Now,
    ) -> Self {
        let tick_ns = tick_ms.max(1).saturating_mul(1_000_000);
        Self {
            replica,
            writer,
            states,
            dir,
            tick_ns,
            next_tick_ns: now.boot_ns.saturating_add(tick_ns),
            sending: BTreeMap::new(),
            newest: None,
            shown_ns: 0,
            is_busy: true,
        }
    }

    /// When the replica must be called, boot clock nanoseconds.
    pub(crate) fn deadline_ns(&self) -> u64 {
        if self.is_busy && self.writer.has_room() {
            return 0;
        }
        let wanted_ns = self.replica.deadline_ns().unwrap_or(u64::MAX);
        wanted_ns.min(self.next_tick_ns)
    }

    /// Lets time pass, a tick at a time. A node that stood still does not catch up with elections.
    pub(crate) fn tick(&mut self, now: Now) {
        if now.boot_ns >= self.next_tick_ns {
            self.next_tick_ns = now.boot_ns.saturating_add(self.tick_ns);
            self.replica.tick(now);
        }
    }

    /// A peer's state has come.
    pub(crate) fn load(&mut self, message: Message, file: SnapshotFile) {
        if !self.states.queue(Job::Load(Box::new(message), file)) {
            tracing::warn!("too many states at once: one is dropped");
        }
    }

    /// A state was delivered to a peer, or not.
    pub(crate) fn snapshot_sent(&mut self, to: NodeId, ok: bool) {
        self.sending.remove(&to);
        self.replica.snapshot_sent(to, ok);
    }

    /// Adds what a voter knows, now and then.
    pub(crate) fn show(&mut self, local: Local, now: Now) -> Local {
        if now.boot_ns < self.shown_ns {
            return local;
        }
        self.shown_ns = now.boot_ns.saturating_add(SHOW_NS);
        let figures = self.replica.figures(now);
        Local {
            term: figures.term,
            committed: figures.committed,
            applied: figures.applied,
            log_bytes: self.writer.bytes(),
            figures: Some(figures),
            ..local
        }
    }

    fn tidy(&self, newest: u64) {
        let sending = self.sending.values().copied().collect();
        // If there is no room now, the next snapshot tidies.
        let _ = self.states.queue(Job::Tidy { newest, sending });
    }
}

impl Driver {
    /// Carries out what the replica wants; whether there was anything.
    pub(super) fn pump_voter(&mut self, now: Now) -> bool {
        let Some(voter) = &mut self.voter else {
            return false;
        };
        if !voter.writer.has_room() {
            return false;
        }
        let effects = voter.replica.poll(now);
        voter.is_busy = effects.is_some();
        match effects {
            Some(effects) => {
                self.carry_out(effects, now);
                true
            }
            None => false,
        }
    }

    fn carry_out(&mut self, effects: Effects, now: Now) {
        if let Some(stop) = effects.stop {
            return self.fail(Failure::Stopped(stop));
        }
        for message in effects.messages {
            self.send_raft(message);
        }
        if let Some(transport) = &self.transport {
            for (to, extra) in &effects.extras {
                transport.send_extra(*to, extra);
            }
        }
        if let Some(voter) = &mut self.voter {
            if let Some(persist) = effects.persist {
                let newest = persist.compact.as_ref().map(|(snapshot, _)| snapshot);
                let newest = newest.or(persist.install.as_ref());
                let newest = newest.map(|snapshot| snapshot.get_metadata().index);
                if let Err(why) = voter.writer.write(persist) {
                    return self.fail(Failure::Storage(why));
                }
                if let Some(newest) = newest {
                    voter.newest = Some(newest);
                }
            }
            if let Some(image) = effects.image {
                let manifest = image.manifest;
                if !voter.states.queue(Job::Write(image)) {
                    voter.replica.image_written(manifest, false, now);
                }
            }
        }
        let own = self.shared.node;
        for (to, id, response) in effects.responses {
            if to == own {
                self.receive(own, id, response, now);
            } else {
                self.respond(to, id, &response);
            }
        }
        for (to, push) in effects.pushes {
            if to == own {
                self.client.pushed(own, push, now);
            } else if let Some(transport) = &self.transport {
                transport.send_push(to, &push);
            }
        }
    }

    fn send_raft(&mut self, message: Message) {
        let (Some(transport), Some(voter)) = (&self.transport, &mut self.voter) else {
            return;
        };
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let index = message.get_snapshot().get_metadata().index;
            voter.sending.insert(NodeId(message.to), index);
            let file = crate::snapshot_file::path(&voter.dir, index);
            transport.send_snapshot(message, file);
        } else {
            transport.send_raft(&message);
        }
    }

    /// The log's thread says something.
    pub(super) fn written(&mut self, written: Option<Written>, now: Now) {
        let Some(voter) = &mut self.voter else {
            return;
        };
        match written {
            Some(Written::Upto(number)) => {
                voter.writer.written();
                voter.replica.persisted(number, now);
                if voter.writer.is_idle()
                    && let Some(newest) = voter.newest.take()
                {
                    voter.tidy(newest);
                }
            }
            Some(Written::Failed(why)) => self.fail(Failure::Storage(why)),
            None => self.fail(Failure::Storage("the log's thread ended".into())),
        }
    }

    /// The states' thread says something.
    pub(super) fn state(&mut self, done: Done, now: Now) {
        let Some(voter) = &mut self.voter else {
            return;
        };
        match done {
            Done::Written(manifest, written) => {
                if let Err(error) = &written {
                    tracing::error!(
                        error,
                        "the state cannot be written: the log is not shortened"
                    );
                }
                voter.replica.image_written(manifest, written.is_ok(), now);
            }
            Done::Loaded(message, Ok(machine)) => {
                voter.replica.step_snapshot(*message, *machine, now);
            }
            Done::Loaded(_, Err(error)) => {
                tracing::error!(error, "a state that came is of no use");
            }
        }
    }

    /// Writes the machine's state under a name of the operator's.
    pub(super) fn export(&mut self, path: PathBuf, answer: oneshot::Sender<Result<u64, String>>) {
        let Some(voter) = &mut self.voter else {
            let _ = answer.send(Err("this node holds no ledger: ask a voter".into()));
            return;
        };
        let image = voter.replica.machine().image();
        // A queue that is full drops the answer with the job.
        let _ = voter.states.queue(Job::Export {
            image,
            secret: self.shared.secret.0,
            path,
            answer,
        });
    }
}
