//! A node: its clock, and a holder and a bucket for each counter.

use super::book::Key;
use proto::{
    command::NodeId,
    limit::{
        CounterKey, Identity, Window,
        bucket::{Bucket, Ticket},
        lease::{Call, Holder, Subject},
        ledger::Session,
    },
    time::Now,
};

pub fn identity_of(key: Key) -> Identity {
    Identity(1_000 + key as u128)
}
pub fn counter_of(key: Key) -> CounterKey {
    CounterKey(key as u128)
}
pub fn key_of(counter: CounterKey) -> Key {
    counter.0 as Key
}

/// One counter on one node.
#[derive(Debug)]
pub struct Holding {
    pub holder: Holder,
    pub bucket: Bucket,
    /// Calls that wait: their numbers, and what they take.
    pub waiting: Vec<(Call, u64)>,
    /// Tickets of this bucket that may come back.
    pub out: usize,
    /// Polls that were scheduled; only the newest counts.
    pub polls: u64,
}

/// One run of one node.
#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    /// Which process it is.
    pub run: u64,
    pub nonce: u64,
    pub session: Session,
    pub holdings: Vec<Holding>,
    /// Its boot clock: what it showed at the start, and how much quicker it runs, parts in a million.
    boot_ns: u64,
    quicker_ppm: i64,
    /// It does nothing until then (true time).
    pub paused_until_ns: u64,
}

/// A ticket that its call will settle.
#[derive(Debug)]
pub struct Settling {
    pub node: usize,
    pub run: u64,
    pub key: Key,
    pub session: Session,
    pub ticket: Ticket,
}

impl Node {
    pub fn new(
        id: NodeId,
        (nonce, session): (u64, Session),
        windows: &[Window],
        (boot_ns, quicker_ppm): (u64, i64),
        seed: u64,
    ) -> Self {
        let holdings = windows
            .iter()
            .enumerate()
            .map(|(key, window)| Holding {
                holder: Holder::new(subject(key, *window), Some(session), seed + key as u64),
                bucket: Bucket::default(),
                waiting: Vec::new(),
                out: 0,
                polls: 0,
            })
            .collect();
        Self {
            id,
            run: nonce,
            nonce,
            session,
            holdings,
            boot_ns,
            quicker_ppm,
            paused_until_ns: 0,
        }
    }

    /// Its clocks at a moment of true time. The wall clock says nothing that matters.
    pub fn now(&self, true_ns: u64) -> Now {
        let gained = true_ns as i64 / 1_000_000 * self.quicker_ppm;
        Now {
            unix_ms: 0,
            boot_ns: self.boot_ns + true_ns.saturating_add_signed(gained),
        }
    }

    /// When its boot clock will show this, true time, rather late than early.
    pub fn when_ns(&self, boot_ns: u64) -> u64 {
        let passed = boot_ns.saturating_sub(self.boot_ns);
        let gained = passed as i64 / 1_000_000 * self.quicker_ppm;
        passed.saturating_add_signed(-gained) + 1_000
    }

    /// The node has another session without having been started anew.
    pub fn rejoin(&mut self, nonce: u64, session: Session) {
        (self.nonce, self.session) = (nonce, session);
        for holding in &mut self.holdings {
            holding.holder.session(&holding.bucket, session);
        }
    }
}

pub fn subject(key: Key, window: Window) -> Subject {
    Subject {
        identity: identity_of(key),
        key: counter_of(key),
        window,
        group: None,
    }
}
