//! The holder: its state, and everything that it can be told.

use super::{
    Call, Denial, FAILURES_PATIENT, RESEND_NS, Rest, STALLED_NS, Subject, View, WAITING_MAX, Wait,
    denied::Denied, size::Demand,
};
#[cfg(feature = "faults")]
use crate::faults::Faults;
use crate::{
    faulty::planted,
    limit::{
        Settled,
        bucket::{Bucket, Ticket},
        lease::GiveBack,
        ledger::{Group, Session},
    },
    time::Now,
};
use std::collections::VecDeque;

/// One counter on one node: see the module's picture. The counter's own [`Bucket`] is passed to every call.
#[derive(Debug)]
pub struct Holder {
    pub(super) subject: Subject,
    pub(super) session: Option<Session>,
    pub(super) totals: Totals,
    pub(super) denied: Option<Denied>,
    /// The question that is on its way.
    pub(super) asked: Option<Asked>,
    /// A question was not answered: it may have granted something.
    pub(super) unsettled: bool,
    pub(super) failures: u32,
    /// What calls are told while the ledger answers nothing useful.
    pub(super) trouble: Option<Denial>,
    pub(super) ask_after_ns: u64,
    pub(super) prefetch_after_ns: u64,
    /// When a return is said again, and the pause after that.
    pub(super) back_ns: (u64, u64),
    pub(super) demand: Demand,
    /// In the order in which they came.
    pub(super) waiting: VecDeque<Waiter>,
    /// Answers for calls, not yet polled.
    pub(super) ready: VecDeque<(Call, Result<Ticket, Denial>)>,
    /// Until when a large call keeps what there is from smaller ones, and from when on that may happen again.
    pub(super) reserve_ns: (u64, u64),
    pub(super) questions: u64,
    calls: u64,
    pub(super) term: u64,
    dice: u64,
    #[cfg(feature = "faults")]
    pub(super) faults: Faults,
}

/// The lease of the present window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// `None` before the first answer.
    pub(super) window: Option<u64>,
    pub(super) end_ms: u64,
    /// The window's end on the boot clock, rather early than late.
    pub(super) end_ns: u64,
    /// The lease's end.
    pub(super) deadline_ns: u64,
    pub(super) granted: u128,
    pub(super) returned: u128,
    /// What the ledger is known to have credited.
    pub(super) acknowledged: u128,
    /// Out of the bucket, kept for a large call.
    pub(super) reserved: u64,
    pub(super) refunded: u64,
    pub(super) others: u64,
    /// The newest generation heard of.
    pub(super) generation: u64,
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) sent_ns: u64,
    /// `returned_total` that it says.
    pub(super) returned: u128,
    pub(super) why: Why,
}

/// Why a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// For a waiting call of this amount.
    Call(u64),
    /// Before a call has to wait.
    Prefetch,
    /// To hear what an unheard answer granted.
    Settle,
}

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) call: Call,
    pub(super) amount: u64,
    /// When it gives up.
    pub(super) until_ns: u64,
    /// It was refused, and waits for what others return.
    pub(super) refused: Option<Denial>,
}

impl Holder {
    /// A holder that knows nothing yet. `seed` is for jitter alone.
    pub fn new(subject: Subject, session: Option<Session>, seed: u64) -> Self {
        Self {
            subject,
            session,
            totals: Totals::default(),
            denied: None,
            asked: None,
            unsettled: false,
            failures: 0,
            trouble: None,
            ask_after_ns: 0,
            prefetch_after_ns: 0,
            back_ns: (0, RESEND_NS.0),
            demand: Demand::default(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            reserve_ns: (0, 0),
            // A holder that went on from a rest takes no answer to an earlier one's question for its own.
            questions: seed,
            calls: 0,
            term: 0,
            dice: seed,
            #[cfg(feature = "faults")]
            faults: Faults::default(),
        }
    }

    /// Goes on from where [`Holder::rest`] left off, with an empty bucket. `end_ns`: the window's end on the boot clock,
    /// about. Under another session the totals are void, and this is a new holder.
    pub fn wake(
        subject: Subject,
        session: Option<Session>,
        bucket: &Bucket,
        (rest, end_ns): (&Rest, u64),
        seed: u64,
    ) -> Self {
        let mut holder = Self::new(subject, session, seed);
        if session == Some(rest.session) {
            holder.totals = Totals {
                window: Some(rest.window),
                end_ms: rest.end_ms,
                end_ns,
                granted: rest.granted_total,
                returned: rest.returned_total,
                acknowledged: rest.returned_total,
                others: rest.others,
                refunded: rest.refunded,
                ..Totals::default()
            };
            bucket.install(holder.span(), 0);
        }
        holder
    }

    /// The group to which its key belongs, as the newest charge knows it.
    pub fn set_group(&mut self, group: Option<Group>) {
        self.subject.group = group;
    }

    /// What it is about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// A call that found too little in the bucket. It waits until `until_ns` (boot clock) at most.
    pub fn wait(&mut self, bucket: &Bucket, amount: u64, until_ns: u64, now: Now) -> Wait {
        self.turn(bucket, now);
        // Whoever had the holder before may have filled the bucket.
        if let Some(ticket) = self.take(bucket, amount, now) {
            return Wait::Admitted(ticket);
        }
        if let Some(denial) = self.refusal(amount, now) {
            return Wait::Denied(denial);
        }
        if self.is_stalled(now) {
            return Wait::Denied(self.trouble.unwrap_or(Denial::Unreachable));
        }
        if self.waiting.len() >= WAITING_MAX {
            return Wait::Denied(Denial::Full);
        }
        self.demand.touch(now.boot_ns);
        self.calls += 1;
        let call = Call(self.calls);
        self.waiting.push_back(Waiter {
            call,
            amount,
            until_ns,
            refused: None,
        });
        Wait::Waits(call)
    }

    fn take(&mut self, bucket: &Bucket, amount: u64, now: Now) -> Option<Ticket> {
        let ticket = bucket.try_take(amount, now)?;
        self.demand.touch(now.boot_ns);
        Some(ticket)
    }

    /// The call went away. What it was given meanwhile goes back into the bucket. Says why it would have been refused, if
    /// the ledger has said that.
    pub fn cancel(&mut self, bucket: &Bucket, call: Call, now: Now) -> Option<Denial> {
        let at = self.waiting.iter().position(|waiter| waiter.call == call);
        let waiter = at.and_then(|at| self.waiting.remove(at));
        let given = self.ready.iter().position(|(to, _)| *to == call);
        match given.and_then(|at| self.ready.remove(at)) {
            Some((_, Ok(ticket))) => {
                bucket.refund(ticket, now);
                None
            }
            Some((_, Err(denial))) => Some(denial),
            _ => waiter?.refused,
        }
    }

    /// Whether an amount is known to be refused, without asking.
    pub fn refusal(&self, amount: u64, now: Now) -> Option<Denial> {
        let denied = self.denied.filter(|denied| denied.covers(amount))?;
        // While somebody asks again the former answer still serves.
        let asks = |asked: Asked| matches!(asked.why, Why::Call(amount) if denied.covers(amount));
        let believed = denied.is_believed(now.boot_ns) || self.asked.is_some_and(asks);
        (believed && now.boot_ns < self.totals.end_ns).then(|| denied.denial(self.totals.end_ms))
    }

    /// Whether calls are refused at once because the ledger does not answer.
    fn is_stalled(&self, now: Now) -> bool {
        let slow = |asked: Asked| now.boot_ns.saturating_sub(asked.sent_ns) > STALLED_NS;
        self.asked.is_some_and(slow)
            || (self.failures >= FAILURES_PATIENT && now.boot_ns < self.ask_after_ns)
    }

    /// Gives an admitted call's units back, inside its window and at most `refund_max` of them in it.
    pub fn refund(
        &mut self,
        bucket: &Bucket,
        ticket: Ticket,
        refund_max: u64,
        now: Now,
    ) -> Settled {
        let amount = ticket.amount();
        let totals = &self.totals;
        let live = totals.window == Some(ticket.window()) && now.boot_ns < totals.end_ns;
        if !live && !planted!(self, RefundAcrossWindows) {
            return Settled::Charged;
        }
        let refunded = totals.refunded.saturating_add(amount);
        if refunded > refund_max {
            return Settled::RefundBound;
        }
        if !self.put_back(bucket, ticket, now) {
            return Settled::Charged;
        }
        self.totals.refunded = refunded;
        Settled::Refunded
    }

    /// Gives the units of a call back that was not admitted: that is no refund.
    pub fn roll_back(&mut self, bucket: &Bucket, ticket: Ticket, now: Now) {
        self.put_back(bucket, ticket, now);
    }

    fn put_back(&mut self, bucket: &Bucket, ticket: Ticket, now: Now) -> bool {
        if planted!(self, RefundAcrossWindows) {
            bucket.top_up(ticket.amount());
            return true;
        }
        let back = bucket.refund(ticket, now);
        if back {
            // It makes room at once. Where the lease is over, the next poll returns it.
            self.denied = None;
        }
        back
    }

    /// What this node knows without asking.
    pub fn view(&self, bucket: &Bucket) -> View {
        let totals = &self.totals;
        View {
            window: totals.window.unwrap_or_default(),
            end_ms: totals.end_ms,
            charged: u64::try_from(self.spent(bucket))
                .unwrap_or(u64::MAX)
                .saturating_add(totals.others),
            refunded: totals.refunded,
        }
    }

    /// Units spent here in the window: granted, and neither returned nor in hand.
    pub fn spent(&self, bucket: &Bucket) -> u128 {
        let totals = &self.totals;
        let in_hand = u128::from(totals.reserved) + u128::from(bucket.remaining());
        totals
            .granted
            .saturating_sub(totals.returned)
            .saturating_sub(in_hand)
    }

    /// The totals: session, window, granted, returned. For checks.
    pub fn totals(&self) -> Option<(Session, u64, u128, u128)> {
        let totals = &self.totals;
        Some((
            self.session?,
            totals.window?,
            totals.granted,
            totals.returned,
        ))
    }

    /// Units kept for a large call. For checks.
    pub fn reserved(&self) -> u64 {
        self.totals.reserved
    }

    /// Whether nothing can come of it any more without a call: nobody waits, nothing is on its way or in hand.
    fn is_quiet(&self, bucket: &Bucket) -> bool {
        self.waiting.is_empty()
            && self.ready.is_empty()
            && self.asked.is_none()
            && !self.unsettled
            && self.totals.reserved == 0
            && bucket.remaining() == 0
    }

    /// The return that the ledger is not known to have heard of, for a goodbye.
    pub fn owed(&self) -> Option<GiveBack> {
        let totals = &self.totals;
        (totals.returned > totals.acknowledged).then_some(GiveBack {
            key: self.subject.key,
            window: totals.window?,
            returned_total: totals.returned,
        })
    }

    /// What must be kept of a holder that nobody uses and that has nothing in hand and nothing to say; `None` while it has. Keep it until
    /// the ledger has been *heard* to be past `end_ms`: forgotten before, its units would be granted twice.
    pub fn rest(&self, bucket: &Bucket, now: Now) -> Option<Rest> {
        let totals = &self.totals;
        let said = totals.returned == totals.acknowledged || now.boot_ns >= totals.end_ns;
        let believes = |denied: Denied| denied.is_believed(now.boot_ns);
        let used = now.boot_ns < self.idle_at_ns();
        if !self.is_quiet(bucket) || !said || used || self.denied.is_some_and(believes) {
            return None;
        }
        Some(Rest {
            session: self.session?,
            window: totals.window?,
            end_ms: totals.end_ms,
            granted_total: totals.granted,
            returned_total: totals.returned,
            others: totals.others,
            refunded: totals.refunded,
        })
    }

    /// Whether it may be forgotten altogether: nothing was ever granted, or the ledger was heard to be past its window.
    pub fn is_past(&self, heard_ms: u64) -> bool {
        let past = self.totals.window.is_none() || self.totals.end_ms <= heard_ms;
        let silent = self.asked.is_none() && !self.unsettled;
        past && silent && self.waiting.is_empty() && self.ready.is_empty()
    }

    pub(super) fn roll_dice(&mut self) -> u64 {
        // SplitMix64.
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Makes it misbehave.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, faults: Faults) {
        self.faults = faults;
    }
}
