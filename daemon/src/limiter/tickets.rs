//! What a call holds, and what becomes of it.

use super::{
    counter::{Counter, Place, State},
    rate::Outage,
};
use proto::{
    limit::{Limit, Outcome, Settled, bucket::Ticket},
    time::Now,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What a call holds. Dropped without [`Tickets::settle`] it stays charged (an ambiguous end); in-flight places are
/// freed either way.
#[derive(Debug, Default)]
#[must_use = "dropped tickets stay charged"]
pub struct Tickets {
    /// With the index of the charge in the caller's list.
    pub(super) held: SmallVec<[(usize, Held); 2]>,
}

/// One charge that was taken.
#[derive(Debug)]
pub(super) enum Held {
    /// Units of a window.
    Units {
        counter: Arc<Counter>,
        limit: Arc<Limit>,
        ticket: Ticket,
    },
    /// Units admitted while the ledger could not be reached.
    Outage {
        counter: Arc<Counter>,
        limit: Arc<Limit>,
        outage: Outage,
    },
    /// A place behind a gate.
    Place(Place),
}

/// One line of the audit record's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The limit's identity hash.
    pub identity: u128,
    /// The window's id.
    pub window: u64,
    /// Units.
    pub amount: u64,
    /// What became of it.
    pub settled: Settled,
}

/// A list of charges on its way: whatever ends it early, a refusal or a caller that went away, gives everything back.
pub(super) struct Taking {
    pub(super) tickets: Tickets,
    pub(super) now: Now,
}

impl Drop for Taking {
    fn drop(&mut self) {
        for (_, held) in self.tickets.held.drain(..) {
            match held {
                Held::Units {
                    counter, ticket, ..
                } => {
                    if let State::Rate(rate) = &counter.state {
                        let mut inner = rate.lock();
                        inner.holder.roll_back(&rate.bucket, ticket, self.now);
                        counter.came_back(rate, &inner);
                    }
                }
                Held::Outage {
                    counter, outage, ..
                } => {
                    if let State::Rate(rate) = &counter.state {
                        rate.refund_outage(outage, self.now);
                    }
                }
                Held::Place(place) => drop(place),
            }
        }
    }
}

impl Tickets {
    /// Settles every charge exactly once and says what became of each, in the order of the caller's list; in-flight
    /// places are freed and not listed. The clock is read where something is given back.
    pub fn settle(mut self, outcome: Outcome, now: impl Fn() -> Now) -> SmallVec<[Charged; 4]> {
        self.held.sort_by_key(|(index, _)| *index);
        self.held
            .into_iter()
            .filter_map(|(_, held)| held.settle(outcome, &now))
            .collect()
    }
}

impl Held {
    fn settle(self, outcome: Outcome, now: &impl Fn() -> Now) -> Option<Charged> {
        let (limit, window, amount, settled) = match self {
            Held::Place(_) => return None,
            Held::Units {
                counter,
                limit,
                ticket,
            } => {
                let (window, amount) = (ticket.window(), ticket.amount());
                let settled = match &counter.state {
                    State::Rate(rate) if refunds(&limit, outcome) => {
                        let mut inner = rate.lock();
                        let settled =
                            inner
                                .holder
                                .refund(&rate.bucket, ticket, limit.refund_max, now());
                        counter.came_back(rate, &inner);
                        settled
                    }
                    _ => Settled::Charged,
                };
                (limit, window, amount, settled)
            }
            Held::Outage {
                counter,
                limit,
                outage,
            } => {
                let (window, amount) = (outage.window, outage.amount);
                let settled = match &counter.state {
                    State::Rate(rate) if refunds(&limit, outcome) => {
                        rate.refund_outage(outage, now())
                    }
                    _ => Settled::Charged,
                };
                (limit, window, amount, settled)
            }
        };
        Some(Charged {
            identity: limit.identity.0,
            window,
            amount,
            settled,
        })
    }
}

/// Whether this end of a call gives back what this limit charged.
fn refunds(limit: &Limit, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Acted => false,
        Outcome::Unsent | Outcome::Rejected => true,
        Outcome::RpcError => limit.refund_on.rpc_error,
        Outcome::Http5xx => limit.refund_on.http_5xx,
        Outcome::ToolError => limit.refund_on.tool_error,
    }
}
