//! What a holder makes of what the ledger and its leader say.

use super::{
    At, Denial, FAILED_NS, GiveBack, Heard, Holder, LINGER_NS, MS, Question, SCARCE_NS, USELESS_NS,
    denied::Denied,
    holder::{Totals, Why},
    until_ns,
};
use crate::{
    faulty::planted,
    limit::{
        bucket::{Bucket, Span},
        ledger::{Refusal, Session, Standing},
    },
    time::Now,
};

impl Holder {
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
        if planted!(self, SpentPastWindow) {
            (self.totals.deadline_ns, self.totals.end_ns) = (u64::MAX, u64::MAX);
        }
        let totals = &mut self.totals;
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
            if fresh > 0 {
                self.ask_after_ns = now.boot_ns.saturating_add(USELESS_NS);
            }
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
    pub(super) fn span(&self) -> Span {
        let totals = &self.totals;
        Span {
            window: totals.window.unwrap_or_default(),
            end_ns: totals.end_ns,
            deadline_ns: totals.deadline_ns,
        }
    }

    /// Tells the bucket how long the lease holds now.
    fn extend(&self, bucket: &Bucket) {
        bucket.extend(self.totals.deadline_ns, self.totals.end_ns);
    }

    /// Whether the lease is over.
    pub(super) fn is_over(&self, now: Now) -> bool {
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
            self.ready.push_back((waiter.call, Err(denial)));
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
}
