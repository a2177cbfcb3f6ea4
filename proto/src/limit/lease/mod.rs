//! The holder's half of the lease protocol (limits.md §3): what a node asks for, adopts, returns and remembers.
//!
//! One [`Holder`] and one [`Bucket`](super::bucket::Bucket) a counter and node. The bucket is spent lock-free by whoever has it; the holder is
//! a state machine without sockets or clock that fills and empties it:
//!
//! ```text
//!   bucket.try_take ──no──► Holder::wait ─► Admitted | Denied | Waits(call)
//!                                                             │
//!   driver ◄── Todo::{Ask, GiveBack, Admit, Deny} ◄── Holder::poll      (again and again until None; due_ns says when)
//!      │ Ask ────► ledger ────► Holder::heard                  (or Holder::failed; the same Question either way)
//!      │ GiveBack ► ledger ───► Holder::acknowledged           (nothing heard: poll says it again)
//!      └ pushes, session changes ► Holder::{recall, renewed, session}
//! ```
//!
//! `granted_total` is written by the ledger alone and `returned_total` by the holder alone; both are absolute and only
//! grow within a window. So every message may be lost, repeated, delayed or reordered, and always
//! *spent + returned + reserved + bucket ≤ granted*.

mod denied;
mod hear;
mod holder;
mod ready;
mod size;
#[cfg(test)]
mod tests;

pub use holder::Holder;

use super::{
    CounterKey, Identity, Window,
    bucket::Ticket,
    ledger::{Group, Refusal, Session, Standing},
};
use serde::{Deserialize, Serialize};

/// A question for quota; the receiving voter adds whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The limit.
    pub identity: Identity,
    /// The counter.
    pub key: CounterKey,
    /// The window to which the totals belong.
    pub window_hint: u64,
    /// Units that would be welcome.
    pub want: u64,
    /// Units below which the asker has no use for any.
    pub min: u64,
    /// The last `granted_total` heard.
    pub seen_granted: u128,
    /// Everything returned in the window.
    pub returned_total: u128,
    /// The bound of distinct keys, where the limit has one.
    pub group: Option<Group>,
    /// A call waits for it: other holders may be asked to return what they do not use.
    pub waiting: bool,
}

/// Quota that is no longer needed. Absolute: repeating it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveBack {
    /// The counter.
    pub key: CounterKey,
    /// The window to which the total belongs; another window's is ignored.
    pub window: u64,
    /// Everything returned in the window.
    pub returned_total: u128,
}

/// The moment in replicated history to which an answer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Replicated time, milliseconds since 1970.
    pub now_ms: u64,
    /// Raft's term.
    pub term: u64,
}

/// The ledger's answer to a [`Question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The session under which it was asked.
    pub session: Session,
    /// When it was applied.
    pub at: At,
    /// How the asker stands, or why there is nothing.
    pub verdict: Result<Standing, Refusal>,
}

/// What a holder is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The limit.
    pub identity: Identity,
    /// The counter.
    pub key: CounterKey,
    /// The limit's window.
    pub window: Window,
    /// The bound of distinct keys, where the limit has one.
    pub group: Option<Group>,
}

/// A question to the ledger. It goes back into [`Holder::heard`] with the answer or into [`Holder::failed`] without one;
/// an answer that comes after that, or twice, is welcome too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Counts this holder's questions.
    pub number: u64,
    /// Boot clock before it is sent, nanoseconds: what the answer grants holds from here.
    pub sent_ns: u64,
    /// To be asked under this session.
    pub session: Session,
    /// What.
    pub ask: Ask,
}

/// A call that waits at a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call(pub u64);

/// What becomes of a call that found too little in the bucket.
#[derive(Debug, PartialEq, Eq)]
pub enum Wait {
    /// It has its units after all.
    Admitted(Ticket),
    /// It is refused without asking.
    Denied(Denial),
    /// [`Todo::Admit`] or [`Todo::Deny`] will name it, unless [`Holder::cancel`] does.
    Waits(Call),
}

/// Why a call gets no units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Less than it needs is left in the window.
    Limit {
        /// Units that were left, as last heard.
        remaining: u64,
        /// The window's end, replicated milliseconds since 1970.
        end_ms: u64,
    },
    /// The limit's group has as many distinct keys as it may.
    Keys {
        /// The window's end, replicated milliseconds since 1970.
        end_ms: u64,
    },
    /// The ledger's tables, or this holder's queue, are full.
    Full,
    /// Nothing is known: no answer in time, or none that says anything about quota.
    Unreachable,
}

/// What the driver of a holder must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    /// Ask the ledger.
    Ask(Question),
    /// Tell the ledger, under this session; [`Holder::acknowledged`] when it has answered.
    GiveBack(Session, GiveBack),
    /// A waiting call has its units.
    Admit(Call, Ticket),
    /// A waiting call gets none.
    Deny(Call, Denial),
}

/// What a node knows of a counter without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The window's id.
    pub window: u64,
    /// Its end, replicated milliseconds since 1970; 0 before the first answer.
    pub end_ms: u64,
    /// Units charged in the window as far as this node knows: spent here, and used by others when last heard.
    pub charged: u64,
    /// Units given back on this node in the window.
    pub refunded: u64,
}

/// What must not be forgotten of a holder at rest while its window lives: see [`Holder::rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The session to which the totals belong: void under another one.
    pub session: Session,
    /// The window's id.
    pub window: u64,
    /// Its end, replicated milliseconds since 1970.
    pub end_ms: u64,
    /// Everything granted in the window.
    pub granted_total: u128,
    /// Everything returned in the window.
    pub returned_total: u128,
    /// Used by others, as last heard.
    pub others: u64,
    /// Units given back on this node in the window.
    pub refunded: u64,
}

impl Rest {
    /// Units charged in the window as far as this node knows.
    pub fn charged(&self) -> u64 {
        let spent = self.granted_total.saturating_sub(self.returned_total);
        u64::try_from(spent)
            .unwrap_or(u64::MAX)
            .saturating_add(self.others)
    }
}

const MS: u64 = 1_000_000;
/// Longest pause that a reservation for a large call makes for smaller calls of the key, and how long there is none after.
const RESERVE_NS: u64 = 50 * MS;
const RESERVE_REST_NS: u64 = 500 * MS;
/// A call that was refused while others hold quota waits so long for what they are asked to return.
const LINGER_NS: u64 = 50 * MS;
/// Calls that wait at one holder; the next is refused.
pub const WAITING_MAX: usize = 4_096;
/// An answer that takes longer makes the ledger unreachable for calls that come meanwhile.
const STALLED_NS: u64 = 200 * MS;
/// Pause after a question without an answer: doubles from the first to the longest.
const FAILED_NS: (u64, u64) = (10 * MS, 500 * MS);
/// Failures in a row after which calls are refused at once until the pause is over.
const FAILURES_PATIENT: u32 = 3;
/// Pause after an answer that cannot be used (its window is ending).
const USELESS_NS: u64 = 5 * MS;
/// An unused lease is returned after so long, or a tenth of its window.
const IDLE_NS: u64 = 1_000 * MS;
/// Pause before a return is said again: doubles from the first to the longest.
const RESEND_NS: (u64, u64) = (500 * MS, 5_000 * MS);
/// Pause of prefetching after a recall, or after an answer that brought nothing.
const SCARCE_NS: u64 = 250 * MS;
/// A lease in use is asked for again this long before its end, or a quarter of its time.
const RENEW_NS: u64 = 1_000 * MS;
/// Clocks of two machines differ by less than a thousandth, and what is taken in time is sent in time.
const MARGIN_NS: u64 = 5 * MS;

/// Until when something that lasts `ms` from a moment on holds for certain.
fn until_ns(from_ns: u64, ms: u64) -> u64 {
    let ns = ms.saturating_mul(MS / 1_000 * 999);
    from_ns.saturating_add(ns).saturating_sub(MARGIN_NS)
}
