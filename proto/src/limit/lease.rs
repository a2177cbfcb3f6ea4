//! The holder's half of the lease protocol (limits.md §3): what a node asks for, adopts, returns and remembers.

use super::{CounterKey, Identity, ledger::Group};
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
