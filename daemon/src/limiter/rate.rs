//! A counter of amounts in windows: its bucket, what it has heard of the ledger, and what the window still allows.

use super::counter::Short;
use cluster::memory::{Ask, Error, GiveBack, Handle};
use proto::{
    limit::{
        Charge, CounterKey, HashKey, Kind, Limit, Settled, Window,
        bucket::{Bucket, Span, Ticket},
        identity::counter_key,
        ledger::{Definition, Group, Refusal, Standing},
    },
    policy::Code,
    time::Now,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A first lease is this many times the call's amount.
const FIRST_LEASE: u64 = 4;
/// A lease that is used up sooner than this was too small: the next one is twice as large.
const SHORT_LEASE_NS: u64 = 200_000_000;
/// A refusal is believed this long at first, then twice as long each time, up to the bound or a tenth of the window.
const DENIED_MS: u64 = 250;
const DENIED_MS_MAX: u64 = 5_000;
/// Units admitted while the ledger could not be reached.
#[derive(Debug)]
pub(super) struct Outage {
    pub window: u64,
    pub amount: u64,
    end_ns: u64,
}

/// A counter of amounts in windows.
#[derive(Debug)]
pub(super) struct Rate {
    window: Window,
    pub bucket: Bucket,
    /// One question at a time.
    holding: tokio::sync::Mutex<Holding>,
    known: Mutex<Known>,
}

/// The holder's half of the lease protocol; nothing in it is lost when a waiting call gives up.
#[derive(Debug, Default)]
struct Holding {
    /// The window to which the totals belong; `None` before the first answer.
    window: Option<u64>,
    seen_granted: u128,
    returned_total: u128,
    /// How much the last lease asked for, and when.
    want: u64,
    leased_ns: u64,
}

/// What this node knows of the counter without asking.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub window: u64,
    /// The window's end on the ledger's clock; 0 before the first answer.
    pub end_ms: u64,
    end_ns: u64,
    /// Granted to this node and not returned: spent or in the bucket.
    pub held: u64,
    /// Used by other nodes, as last heard.
    pub others: u64,
    /// Given back on this node in the window.
    pub refunded: u64,
    /// The `max` in force.
    pub max: u64,
    /// Admitted without the ledger, and in which window (`on_unreachable: allow`).
    outage: u64,
    outage_window: u64,
    denied: Option<Denied>,
    /// Counts what may make a refusal out of date.
    credits: u64,
}

/// A refusal that was heard.
#[derive(Clone, Copy, Debug)]
struct Denied {
    /// The smallest amount refused.
    from: u64,
    remaining: u64,
    /// Until when nobody asks again, ledger milliseconds.
    until_ms: u64,
    /// How long that was.
    believed_ms: u64,
}

impl Known {
    /// Whether a charge is known to be refused at this moment of the ledger's time.
    pub(super) fn refusal(&self, amount: u64, at_ms: u64) -> Option<Short> {
        let denied = self.denied.filter(|denied| amount >= denied.from)?;
        (at_ms < denied.until_ms.min(self.end_ms))
            .then(|| Short::limit(denied.remaining, self.retry_ms(at_ms)))
    }
    /// Time to the window's end.
    pub(super) fn retry_ms(&self, at_ms: u64) -> Option<u64> {
        Some(self.end_ms.saturating_sub(at_ms).max(1))
    }
    /// Whether the window is still running.
    pub(super) fn is_live(&self, at_ms: u64) -> bool {
        at_ms < self.end_ms
    }
    /// Remembers a refusal. While refusals follow each other it is believed for longer and longer.
    fn deny(&mut self, amount: u64, standing: &Standing, window: Window, at_ms: u64) {
        let (start_ms, end_ms) = window.bounds_ms(standing.window);
        let most_ms = DENIED_MS_MAX.min((end_ms.saturating_sub(start_ms) / 10).max(1));
        let believed_ms = self
            .denied
            .map_or(DENIED_MS, |denied| denied.believed_ms.saturating_mul(2))
            .min(most_ms);
        self.denied = Some(Denied {
            from: amount,
            remaining: standing.remaining,
            until_ms: at_ms.saturating_add(believed_ms),
            believed_ms,
        });
    }
    /// Whatever was refused may be had now.
    fn credit(&mut self) {
        self.credits = self.credits.wrapping_add(1);
        self.denied = None;
    }
}

impl Rate {
    pub(super) fn new(window: Window, max: u64) -> Self {
        Self {
            window,
            bucket: Bucket::default(),
            holding: tokio::sync::Mutex::default(),
            known: Mutex::new(Known {
                max,
                ..Known::default()
            }),
        }
    }

    /// Keeps everybody else from asking.
    #[cfg(test)]
    pub(super) async fn hold(&self) -> impl Sized + '_ {
        self.holding.lock().await
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Plain numbers, written without anything between that could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Units charged in the window that is running at this moment: used, without what waits in the bucket.
    pub(super) fn charged(&self, known: &Known, at_ms: u64) -> u64 {
        if !known.is_live(at_ms) {
            return 0;
        }
        known
            .others
            .saturating_add(known.held)
            .saturating_sub(self.bucket.remaining())
    }

    /// The slow path: asks the ledger for enough, for this call first.
    pub(super) async fn fetch(
        &self,
        handle: &Handle,
        charge: &Charge<'_>,
        now: Now,
    ) -> Result<Ticket, Short> {
        let mut holding = self.holding.lock().await;
        // Whoever held the lock before may have fetched enough, or heard the refusal.
        if let Some(ticket) = self.bucket.try_take(charge.amount, now) {
            return Ok(ticket);
        }
        let at_ms = handle.ledger_ms(now);
        let credits = {
            let known = self.known();
            if let Some(short) = known.refusal(charge.amount, at_ms) {
                return Err(short);
            }
            known.credits
        };
        // First out of the bucket, then into the total, then told: a unit is never in two places. What is left counts
        // towards what is asked for, so a call that fits into the two together is not refused.
        holding.returned_total += u128::from(self.bucket.take_back());
        holding.resize(charge, now);
        let answer = ask(handle, charge, &holding, now).await;
        let (standing, granted) = match answer {
            Ok(standing) => (standing, true),
            Err(Error::Refused(Refusal::Exhausted(standing))) => (standing, false),
            Err(Error::Refused(Refusal::KeysFull { end_ms })) => {
                return Err(Short {
                    code: Code::Rule,
                    remaining: 0,
                    retry_after_ms: Some(end_ms.saturating_sub(at_ms).max(1)),
                });
            }
            Err(Error::Refused(Refusal::CountersFull | Refusal::LimitsFull)) => {
                return Err(Short::OVERLOADED);
            }
            Err(_) => return Err(Short::UNREACHABLE),
        };
        let wanted = if granted { charge.amount } else { 0 };
        let ticket = self
            .adopt(&mut holding, handle, &standing, wanted, now)
            .ok_or(Short::UNREACHABLE)?;
        if granted {
            return Ok(ticket);
        }
        let mut known = self.known();
        if known.credits == credits {
            known.deny(charge.amount, &standing, self.window, at_ms);
        }
        Err(Short::limit(standing.remaining, known.retry_ms(at_ms)))
    }

    /// Takes in what an answer grants: `amount` for the caller, the rest for the bucket. Answers of older windows are
    /// dropped.
    fn adopt(
        &self,
        holding: &mut Holding,
        handle: &Handle,
        standing: &Standing,
        amount: u64,
        now: Now,
    ) -> Option<Ticket> {
        if holding
            .window
            .is_some_and(|window| standing.window < window)
        {
            return None;
        }
        let rolled = holding.window != Some(standing.window);
        if rolled {
            holding.window = Some(standing.window);
            // Nothing was heard of this window yet: what is out is everything granted and not returned.
            holding.seen_granted = standing.returned_total;
            holding.returned_total = standing.returned_total;
        }
        let fresh = standing.granted_total.saturating_sub(holding.seen_granted);
        let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
        holding.seen_granted = holding.seen_granted.max(standing.granted_total);
        let rest = fresh.checked_sub(amount)?;
        let end_ns = handle.boot_ns(standing.end_ms);
        let ttl_ns = standing.ttl_ms.saturating_mul(1_000_000);
        let deadline_ns = now.boot_ns.saturating_add(ttl_ns).min(end_ns);
        let held = holding.held();
        // Under the lock, so that a refund sees window and bucket change together.
        let mut known = self.known();
        if rolled {
            let span = Span {
                window: standing.window,
                end_ns,
                deadline_ns,
            };
            self.bucket.install(span, rest);
            known.credit();
            (known.window, known.end_ms, known.end_ns) = (standing.window, standing.end_ms, end_ns);
            known.refunded = 0;
        } else {
            self.bucket.extend(deadline_ns, end_ns);
            self.bucket.top_up(rest);
        }
        known.held = held;
        known.others = u64::try_from(standing.used)
            .unwrap_or(u64::MAX)
            .saturating_sub(held);
        Some(self.bucket.mint(amount))
    }

    /// Gives a refused call's units back: it never was admitted, so nothing counts as refunded.
    pub(super) fn roll_back(&self, ticket: Ticket, now: Now) {
        let mut known = self.known();
        if self.bucket.refund(ticket, now) {
            known.credit();
        }
    }

    /// Gives an admitted call's units back, inside its window and within the limit's bound.
    pub(super) fn refund(&self, ticket: Ticket, refund_max: u64, now: Now) -> Settled {
        let amount = ticket.amount();
        let mut known = self.known();
        if known.window != ticket.window() || now.boot_ns >= known.end_ns {
            return Settled::Charged;
        }
        let refunded = known.refunded.saturating_add(amount);
        if refunded > refund_max {
            return Settled::RefundBound;
        }
        if !self.bucket.refund(ticket, now) {
            return Settled::Charged;
        }
        known.refunded = refunded;
        known.credit();
        Settled::Refunded
    }

    /// Admits without the ledger, at most `max` in a window.
    pub(super) fn take_outage(
        &self,
        amount: u64,
        max: u64,
        handle: &Handle,
        now: Now,
    ) -> Option<Outage> {
        let window = self.window.id(handle.ledger_ms(now));
        let mut known = self.known();
        if known.outage_window != window {
            (known.outage_window, known.outage) = (window, 0);
        }
        known.outage = known.outage.checked_add(amount).filter(|sum| *sum <= max)?;
        Some(Outage {
            window,
            end_ns: handle.boot_ns(self.window.bounds_ms(window).1),
            amount,
        })
    }

    /// Gives back what was admitted without the ledger, inside its window.
    pub(super) fn refund_outage(&self, outage: Outage, now: Now) -> Settled {
        let mut known = self.known();
        if known.outage_window != outage.window || now.boot_ns >= outage.end_ns {
            return Settled::Charged;
        }
        known.outage = known.outage.saturating_sub(outage.amount);
        Settled::Refunded
    }

    /// Returns everything unspent.
    pub(super) async fn recall(&self, key: CounterKey, handle: &Handle, now: Now) {
        let mut holding = self.holding.lock().await;
        let Some(window) = holding.window else {
            return;
        };
        holding.returned_total += u128::from(self.bucket.take_back());
        let held = holding.held();
        self.known().held = held;
        // Unheard, it is said again with the next lease: the total is absolute.
        let _ = handle
            .give_back(
                GiveBack {
                    key,
                    window,
                    returned_total: holding.returned_total,
                },
                now,
            )
            .await;
    }

    /// The limit's `max` changed.
    pub(super) fn redefine(&self, max: u64) {
        let mut known = self.known();
        known.max = max;
        known.credit();
    }

    /// When the sweep should look again, ledger milliseconds; `None`: nothing of it matters any more.
    pub(super) fn next_look(&self, handle: &Handle, now: Now) -> Option<Look> {
        let Ok(holding) = self.holding.try_lock() else {
            return Some(Look::Busy);
        };
        let at_ms = handle.ledger_ms(now);
        let known = self.known();
        if known.outage > 0 && self.window.id(at_ms) == known.outage_window {
            return Some(Look::At(self.window.bounds_ms(known.outage_window).1));
        }
        if holding.window.is_none() || !known.is_live(at_ms) {
            return None;
        }
        let deadline_ns = self.bucket.span().deadline_ns;
        if now.boot_ns < deadline_ns {
            return Some(Look::At(
                at_ms + (deadline_ns - now.boot_ns) / 1_000_000 + 1,
            ));
        }
        if self.bucket.remaining() > 0 {
            return Some(Look::Idle(known.end_ms));
        }
        Some(Look::At(known.end_ms))
    }
}

/// What the sweep should do with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Somebody is asking for it.
    Busy,
    /// Look again then.
    At(u64),
    /// Return what is unspent, then look again then.
    Idle(u64),
}

impl Holding {
    /// Granted and not returned.
    fn held(&self) -> u64 {
        u64::try_from(self.seen_granted.saturating_sub(self.returned_total)).unwrap_or(u64::MAX)
    }

    /// How much to ask for.
    fn resize(&mut self, charge: &Charge<'_>, now: Now) {
        let first = charge.amount.saturating_mul(FIRST_LEASE);
        let quick = now.boot_ns.saturating_sub(self.leased_ns) < SHORT_LEASE_NS;
        let sized = if quick {
            self.want.saturating_mul(2)
        } else {
            self.want / 2
        };
        self.want = sized.max(first).min(charge.limit.max).max(charge.amount);
        self.leased_ns = now.boot_ns;
    }
}

/// What the ledger must know of a limit; `None` for one that it does not count.
pub(super) fn definition(limit: &Limit) -> Option<Definition> {
    let Kind::Rate(window) = limit.kind else {
        return None;
    };
    Some(Definition {
        identity: limit.identity,
        window,
        max: if limit.counts_only {
            u64::MAX
        } else {
            limit.max
        },
    })
}

/// Asks for quota; a limit that was not announced yet is announced by its first call.
async fn ask(
    handle: &Handle,
    charge: &Charge<'_>,
    holding: &Holding,
    now: Now,
) -> Result<Standing, Error> {
    let ask = Ask {
        identity: charge.limit.identity,
        key: charge.key,
        // Before the first answer there is nothing that could be credited to a window.
        window_hint: holding.window.unwrap_or(u64::MAX),
        want: holding.want,
        min: charge.amount,
        seen_granted: holding.seen_granted,
        returned_total: holding.returned_total,
        group: charge.keys_max.map(|keys_max| Group {
            // The identity is secret and the same on every node, so it can key the hash of the group.
            key: counter_key(
                &HashKey(charge.limit.identity.0.to_le_bytes()),
                charge.limit.identity,
                charge.scope_value,
                None,
            ),
            keys_max,
        }),
    };
    match handle.lease(ask, now).await {
        Err(Error::Refused(Refusal::Undefined)) => {
            let definition = definition(charge.limit).ok_or(Error::Unreachable)?;
            handle.define(&[definition], false, now).await?;
            handle.lease(ask, now).await
        }
        answer => answer,
    }
}
