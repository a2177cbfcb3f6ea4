//! The holder: its state, and everything that it can be told.

use super::{
    At, Call, Denial, FAILED_NS, FAILURES_PATIENT, GiveBack, Heard, LINGER_NS, MS, Question,
    RESEND_NS, Rest, SCARCE_NS, STALLED_NS, Subject, Todo, USELESS_NS, View, WAITING_MAX, Wait,
    denied::Denied, size::Demand, until_ns,
};
#[cfg(feature = "faults")]
use crate::faults::{Fault, Faults};
use crate::{
    limit::{
        Settled,
        bucket::{Bucket, Span, Ticket},
        ledger::{Refusal, Session, Standing},
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
    pub(super) ready: VecDeque<Todo>,
    /// Until when a large call keeps what there is from smaller ones, and from when on that may happen again.
    pub(super) reserve_ns: (u64, u64),
    pub(super) questions: u64,
    calls: u64,
    term: u64,
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
    refunded: u64,
    others: u64,
    /// The newest generation heard of.
    generation: u64,
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
            questions: 0,
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

    /// The call went away. What it was given meanwhile goes back into the bucket.
    pub fn cancel(&mut self, bucket: &Bucket, call: Call, now: Now) {
        self.waiting.retain(|waiter| waiter.call != call);
        let given = self
            .ready
            .iter()
            .position(|todo| matches!(todo, Todo::Admit(to, _) | Todo::Deny(to, _) if *to == call));
        if let Some(Todo::Admit(_, ticket)) = given.and_then(|at| self.ready.remove(at)) {
            bucket.refund(ticket, now);
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

    /// The ledger answered a question. Answers of older windows and of other sessions are dropped; late and repeated
    /// ones are as good as any.
    pub fn heard(&mut self, bucket: &Bucket, question: &Question, heard: &Heard, now: Now) {
        if self.session != Some(heard.session) || question.session != heard.session {
            return;
        }
        let asked = self
            .asked
            .take_if(|asked| asked.number == question.number)
            .map(|asked| asked.why);
        if asked.is_some() {
            (self.unsettled, self.failures, self.trouble) = (false, 0, None);
        }
        if heard.at.term > self.term {
            self.term = heard.at.term;
            self.denied = None;
        }
        match heard.verdict {
            Ok(standing) => self.leased(bucket, asked, question, &standing, heard.at, now),
            Err(Refusal::Exhausted(standing)) => {
                let is_ours = self.adopt(bucket, question.sent_ns, &standing, heard.at, now);
                if let (true, Some(Why::Call(amount))) = (is_ours, asked) {
                    self.exhausted(bucket, amount, &standing, now);
                }
            }
            Err(refusal) if asked.is_some() => self.rejected(refusal, now),
            Err(_) => {}
        }
    }

    fn leased(
        &mut self,
        bucket: &Bucket,
        asked: Option<Why>,
        question: &Question,
        standing: &Standing,
        at: At,
        now: Now,
    ) {
        let before = self.totals;
        if !self.adopt(bucket, question.sent_ns, standing, at, now) {
            // A clock that was set back: nothing of that window can be used here any more.
            self.ask_after_ns = now.boot_ns.saturating_add(USELESS_NS);
            return;
        }
        let brought = before.window != self.totals.window || before.granted < self.totals.granted;
        match asked {
            // It is to be had after all.
            Some(Why::Call(amount)) => {
                self.denied = self.denied.filter(|denied| !denied.covers(amount));
            }
            Some(Why::Prefetch) if !brought => {
                self.prefetch_after_ns = now.boot_ns.saturating_add(SCARCE_NS);
            }
            Some(Why::Settle) if self.waiting.is_empty() => self.give_up(bucket, now),
            _ => {}
        }
    }

    /// Takes in what the ledger granted, before anything else of an answer is read. `false`: it is of an older window.
    fn adopt(
        &mut self,
        bucket: &Bucket,
        sent_ns: u64,
        standing: &Standing,
        at: At,
        now: Now,
    ) -> bool {
        if self
            .totals
            .window
            .is_some_and(|window| standing.window < window)
        {
            return false;
        }
        if self.totals.window != Some(standing.window) {
            self.roll(bucket, standing);
        }
        let totals = &mut self.totals;
        let left_ms = standing.end_ms.saturating_sub(at.now_ms);
        totals.end_ms = standing.end_ms;
        totals.end_ns = totals.end_ns.max(until_ns(sent_ns, left_ms));
        totals.deadline_ns = totals
            .deadline_ns
            .max(until_ns(sent_ns, standing.ttl_ms.min(left_ms)));
        let fresh = standing.granted_total.saturating_sub(totals.granted);
        let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
        totals.granted = totals.granted.max(standing.granted_total);
        totals.acknowledged = totals.acknowledged.max(standing.returned_total);
        let held = standing
            .granted_total
            .saturating_sub(standing.returned_total);
        totals.others = u64::try_from(standing.used.saturating_sub(held)).unwrap_or(u64::MAX);
        self.renewed(standing.generation);
        self.extend(bucket);
        if self.is_over(now) {
            // Too late to be spent.
            self.totals.reserved = self.totals.reserved.saturating_add(fresh);
            self.give_up(bucket, now);
            self.ask_after_ns = now.boot_ns.saturating_add(USELESS_NS);
        } else {
            self.arrange(bucket, fresh, now);
            if fresh > 0 {
                // Less than this is low: 30 % of what there is now.
                let left = bucket.remaining();
                bucket.set_low(left.saturating_mul(3).div_ceil(10));
            }
        }
        true
    }

    /// A later window: nothing of the former one counts any more.
    fn roll(&mut self, bucket: &Bucket, standing: &Standing) {
        self.totals = Totals {
            window: Some(standing.window),
            end_ms: standing.end_ms,
            // What was returned was seen.
            granted: standing.returned_total,
            returned: standing.returned_total,
            acknowledged: standing.returned_total,
            ..Totals::default()
        };
        bucket.install(self.span(), 0);
        self.denied = None;
        self.prefetch_after_ns = 0;
        self.demand.roll();
    }

    /// Where and until when the bucket may be spent.
    fn span(&self) -> Span {
        let totals = &self.totals;
        Span {
            window: totals.window.unwrap_or_default(),
            end_ns: totals.end_ns,
            deadline_ns: totals.deadline_ns,
        }
    }

    /// Tells the bucket how long the lease holds now.
    fn extend(&self, bucket: &Bucket) {
        #[cfg(feature = "faults")]
        if self.faults.has(Fault::SpentPastWindow) {
            bucket.extend(u64::MAX, u64::MAX);
            return;
        }
        bucket.extend(self.totals.deadline_ns, self.totals.end_ns);
    }

    /// Whether the lease is over.
    pub(super) fn is_over(&self, now: Now) -> bool {
        #[cfg(feature = "faults")]
        if self.faults.has(Fault::SpentPastWindow) {
            return false;
        }
        now.boot_ns >= self.totals.deadline_ns
    }

    /// Less than a call needs is left for it.
    fn exhausted(&mut self, bucket: &Bucket, amount: u64, standing: &Standing, now: Now) {
        if self.totals.generation > standing.generation {
            // It is out of date already. Once: a hint that no answer bears out is forgotten.
            self.totals.generation = standing.generation;
            return;
        }
        let remaining = standing.remaining.saturating_add(bucket.remaining());
        let window = self.subject.window.bounds_ms(standing.window);
        let window_ns = window.1.saturating_sub(window.0).saturating_mul(MS);
        let denied = Denied::hear(
            self.denied,
            (amount, remaining, standing.generation),
            window_ns,
            (now.boot_ns, self.roll_dice()),
        );
        self.denied = Some(denied);
        let denial = denied.denial(standing.end_ms);
        // Where nobody else holds anything, nobody will return anything.
        let lingers = self.totals.others > 0;
        let until_ns = now.boot_ns.saturating_add(LINGER_NS);
        for waiter in &mut self.waiting {
            if denied.covers(waiter.amount) && waiter.refused.is_none() {
                waiter.refused = Some(denial);
                let latest_ns = if lingers { until_ns } else { now.boot_ns };
                waiter.until_ns = waiter.until_ns.min(latest_ns);
            }
        }
        self.expire(now);
    }

    /// The ledger says something that is no standing.
    fn rejected(&mut self, refusal: Refusal, now: Now) {
        let denial = match refusal {
            Refusal::KeysFull { end_ms } => Denial::Keys { end_ms },
            Refusal::CountersFull | Refusal::LimitsFull | Refusal::NodesFull => Denial::Full,
            // A new session is on its way: calls wait for it.
            Refusal::UnknownSession | Refusal::Quarantined => {
                self.pause(now);
                return;
            }
            _ => Denial::Unreachable,
        };
        if !matches!(denial, Denial::Keys { .. }) {
            self.pause(now);
            self.trouble = Some(denial);
        }
        for waiter in self.waiting.drain(..) {
            self.ready.push_back(Todo::Deny(waiter.call, denial));
        }
    }

    /// A question got no answer. It may have been carried out.
    pub fn failed(&mut self, question: &Question, now: Now) {
        if self
            .asked
            .take_if(|asked| asked.number == question.number)
            .is_some()
        {
            self.pause(now);
        }
    }

    fn pause(&mut self, now: Now) {
        let (first, longest) = FAILED_NS;
        let pause_ns = (first << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.ask_after_ns = now.boot_ns.saturating_add(pause_ns);
    }

    /// The leader asks for what is not used; or, with no total, the node itself wants to hold nothing.
    pub fn recall(&mut self, bucket: &Bucket, told: Option<(Session, u64, u128)>, now: Now) {
        if let Some((session, window, granted_total)) = told {
            if self.session != Some(session) {
                return;
            }
            match self.totals.window {
                Some(known) if known == window => {
                    let fresh = granted_total.saturating_sub(self.totals.granted);
                    self.totals.granted = self.totals.granted.max(granted_total);
                    let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
                    self.totals.reserved = self.totals.reserved.saturating_add(fresh);
                }
                Some(known) if known > window => return,
                // An answer was lost, or is still on its way: ask what it was.
                _ => self.unsettled = true,
            }
        }
        self.give_up(bucket, now);
        self.demand.shrink();
        self.prefetch_after_ns = now.boot_ns.saturating_add(SCARCE_NS);
    }

    /// The counter has this generation now: what was refused at an older one may be had.
    pub fn renewed(&mut self, generation: u64) {
        self.totals.generation = self.totals.generation.max(generation);
        self.denied = self.denied.filter(|denied| denied.generation >= generation);
    }

    /// The limit's definition changed.
    pub fn redefined(&mut self) {
        self.denied = None;
        self.trouble = None;
    }

    /// The node has this session now. Under a new one everything held is void; waiting calls ask again.
    pub fn session(&mut self, bucket: &Bucket, session: Session) {
        if self.session == Some(session) {
            return;
        }
        self.session = Some(session);
        let window = self.totals.window.unwrap_or_default();
        self.totals = Totals::default();
        bucket.install(
            Span {
                window,
                end_ns: 0,
                deadline_ns: 0,
            },
            0,
        );
        (self.asked, self.unsettled, self.failures) = (None, false, 0);
        (self.denied, self.trouble) = (None, None);
        (self.ask_after_ns, self.prefetch_after_ns) = (0, 0);
        self.demand.roll();
    }

    /// The ledger has heard of a return.
    pub fn acknowledged(&mut self, session: Session, back: &GiveBack) {
        if self.session == Some(session) && self.totals.window == Some(back.window) {
            let totals = &mut self.totals;
            totals.acknowledged = totals
                .acknowledged
                .max(back.returned_total)
                .min(totals.returned);
        }
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
        #[cfg(feature = "faults")]
        let live = live || self.faults.has(Fault::RefundAcrossWindows);
        if !live {
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
        #[cfg(feature = "faults")]
        if self.faults.has(Fault::RefundAcrossWindows) {
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

    /// What must be kept of a holder that has nothing in hand and nothing to say; `None` while it has. Keep it until
    /// the ledger has been *heard* to be past `end_ms`: forgotten before, its units would be granted twice.
    pub fn rest(&self, bucket: &Bucket, now: Now) -> Option<Rest> {
        let totals = &self.totals;
        let said = totals.returned == totals.acknowledged || now.boot_ns >= totals.end_ns;
        let believes = |denied: Denied| denied.is_believed(now.boot_ns);
        if !self.is_quiet(bucket) || !said || self.denied.is_some_and(believes) {
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

    fn roll_dice(&mut self) -> u64 {
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
