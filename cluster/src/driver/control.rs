//! Keeps what the node knows of the control plane up to date, and knows how fresh that is.

use crate::{
    handle::Shared,
    wire::{Request, Response},
};
use proto::{control::Control, time::Now};
use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

/// How long a question of the node's own is asked again.
pub(crate) const PATIENCE_NS: u64 = 1_000_000_000;

/// Asks about once a `pause`, and at once where there is reason to.
#[derive(Debug)]
pub(crate) struct Freshener {
    pause_ns: u64,
    /// When to ask next; [`u64::MAX`] while a question is out.
    due_ns: u64,
    /// The newest version that was told of.
    told: u64,
    /// What was read so far; shown when it is whole.
    reading: Control,
}

impl Freshener {
    pub(crate) fn new(pause: Duration, now: Now) -> Self {
        Self {
            pause_ns: u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX),
            due_ns: now.boot_ns,
            told: 0,
            reading: Control::default(),
        }
    }

    /// When it is due, boot clock nanoseconds.
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.due_ns
    }

    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.due_ns <= now.boot_ns
    }

    /// The question, and until when it is asked.
    pub(crate) fn ask(&mut self, now: Now) -> (Request, u64) {
        self.due_ns = u64::MAX;
        let deadline_ns = now.boot_ns.saturating_add(PATIENCE_NS);
        let have = self.reading.position();
        (Request::Fresh { have }, deadline_ns)
    }

    /// The leader has a newer version.
    pub(crate) fn told(&mut self, version: u64, now: Now) {
        self.told = self.told.max(version);
        if self.told > self.reading.version() && self.due_ns != u64::MAX {
            self.due_ns = now.boot_ns;
        }
    }

    /// The answer to a question that was asked at a reading of the clocks; the version of the membership.
    pub(crate) fn heard(
        &mut self,
        response: Option<Response>,
        asked: Now,
        now: Now,
        shared: &Shared,
    ) -> Option<u64> {
        self.due_ns = now.boot_ns.saturating_add(self.pause_ns);
        let Some(Response::Fresh {
            page,
            members_version,
            ..
        }) = response
        else {
            return None;
        };
        match self.reading.adopt(page) {
            Ok(true) if self.reading.is_complete() => {
                shared.control.send_replace(Arc::new(self.reading.clone()));
            }
            Ok(_) => {}
            Err(stale) => {
                tracing::warn!(%stale, "it is read again from the beginning");
                self.reading = Control::default();
                self.due_ns = now.boot_ns.saturating_add(self.pause_ns / 4);
                return Some(members_version);
            }
        }
        if !self.reading.is_complete() {
            // There is no saying yet how fresh the whole is.
            self.due_ns = now.boot_ns;
        } else {
            // The version before the stamp: a reader who sees the stamp sees what it is about.
            let version = self.reading.version();
            shared.fresh_version.store(version, Ordering::Release);
            shared.fresh_ns.store(asked.boot_ns, Ordering::Release);
            if self.told > version {
                self.due_ns = now.boot_ns;
            }
        }
        Some(members_version)
    }
}
