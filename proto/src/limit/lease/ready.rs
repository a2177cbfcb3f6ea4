//! What a holder has to do, and when.

use super::{
    Ask, Denial, GiveBack, Holder, IDLE_NS, MS, Question, RENEW_NS, RESEND_NS, RESERVE_NS,
    RESERVE_REST_NS, Todo,
    holder::{Asked, Waiter, Why},
};
use crate::{faulty::planted, limit::bucket::Bucket, time::Now};
use std::collections::VecDeque;

impl Holder {
    /// What is to be done now; again until `None`.
    pub fn poll(&mut self, bucket: &Bucket, now: Now) -> Option<Todo> {
        self.turn(bucket, now);
        if let Some((call, answer)) = self.ready.pop_front() {
            return Some(match answer {
                Ok(ticket) => Todo::Admit(call, ticket),
                Err(denial) => Todo::Deny(call, denial),
            });
        }
        if let Some(question) = self.question(bucket, now) {
            return Some(Todo::Ask(question));
        }
        // A holder lives longer than its queues are needed.
        self.ready = VecDeque::new();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        self.give_back(bucket, now)
    }

    /// When to poll again at the latest, boot clock nanoseconds, if nothing happens before. Meanwhile calls spend the
    /// bucket without a word; [`Bucket::take_low`] says when that is worth a poll.
    pub fn due_ns(&self, bucket: &Bucket) -> Option<u64> {
        if !self.ready.is_empty() {
            return Some(0);
        }
        let holds = self.totals.reserved > 0 || bucket.remaining() > 0;
        // While calls wait nothing counts as unused.
        let idle_ns = self.waiting.is_empty().then(|| self.idle_at_ns());
        let held = holds.then(|| {
            idle_ns.map_or(self.totals.deadline_ns, |idle| {
                idle.min(self.totals.deadline_ns)
            })
        });
        let reserved = (self.totals.reserved > 0).then_some(self.reserve_ns.0);
        self.waiting
            .iter()
            .map(|waiter| waiter.until_ns)
            .chain(held)
            .chain(reserved)
            .chain(self.ask_at_ns(bucket).map(|(at_ns, _)| at_ns))
            .chain(self.back_at_ns())
            .min()
    }

    /// Time passes: what is over is taken out, who waited too long is told.
    pub(super) fn turn(&mut self, bucket: &Bucket, now: Now) {
        self.demand.observe(self.spent(bucket), now.boot_ns);
        let holds = self.totals.reserved > 0 || bucket.remaining() > 0;
        if holds && self.is_over(now) {
            self.give_up(bucket, now);
        } else if holds && self.waiting.is_empty() && now.boot_ns >= self.idle_at_ns() {
            self.give_up(bucket, now);
            self.demand.rest();
        }
        if !self.waiting.is_empty() || self.totals.reserved > 0 {
            if !self.is_over(now) {
                self.arrange(bucket, 0, now);
            }
            self.expire(now);
        }
    }

    /// When an unused lease is returned.
    pub(super) fn idle_at_ns(&self) -> u64 {
        let idle_ns = IDLE_NS.min(self.window_ns() / 10);
        self.demand.changed_ns().saturating_add(idle_ns)
    }

    fn window_ns(&self) -> u64 {
        let (start_ms, end_ms) = self
            .subject
            .window
            .bounds_ms(self.totals.window.unwrap_or_default());
        end_ms.saturating_sub(start_ms).saturating_mul(MS)
    }

    /// Calls that waited long enough are refused: as the ledger said, or as unreachable.
    pub(super) fn expire(&mut self, now: Now) {
        let ready = &mut self.ready;
        self.waiting.retain(|waiter| {
            let waits = now.boot_ns < waiter.until_ns;
            if !waits {
                let denial = waiter.refused.unwrap_or(Denial::Unreachable);
                ready.push_back((waiter.call, Err(denial)));
            }
            waits
        });
    }

    /// Gives waiting calls what there is, in their order; the rest is kept for a large call, or goes into the bucket.
    /// Only while the lease holds.
    pub(super) fn arrange(&mut self, bucket: &Bucket, fresh: u64, now: Now) {
        let kept = std::mem::take(&mut self.totals.reserved);
        let mut left = fresh.saturating_add(kept);
        if self.waiting.is_empty() {
            if left > 0 {
                bucket.top_up(left);
            }
            return;
        }
        left = left.saturating_add(bucket.take_back());
        let reserves = now.boot_ns < self.reserve_ns.0 || now.boot_ns >= self.reserve_ns.1;
        let mut held_up = false;
        let ready = &mut self.ready;
        self.waiting.retain(|waiter| {
            let admitted = waiter.amount <= left && !held_up;
            if admitted {
                left -= waiter.amount;
                ready.push_back((waiter.call, Ok(bucket.mint(waiter.amount))));
            }
            held_up |= !admitted && reserves && waiter.refused.is_none();
            !admitted
        });
        if held_up && left > 0 {
            if now.boot_ns >= self.reserve_ns.1 {
                let until_ns = now.boot_ns.saturating_add(RESERVE_NS);
                self.reserve_ns = (until_ns, until_ns.saturating_add(RESERVE_REST_NS));
            }
            self.totals.reserved = left;
        } else if left > 0 {
            bucket.top_up(left);
        }
    }

    /// Takes everything out that is not spent, first out of the bucket, then into the total: a unit is never in both.
    pub(super) fn give_up(&mut self, bucket: &Bucket, now: Now) {
        if planted!(self, ReturnWithoutTaking) {
            self.totals.returned += u128::from(bucket.remaining());
            self.back_ns = (now.boot_ns, RESEND_NS.0);
            return;
        }
        // An empty bucket is no reason to ask for more.
        bucket.set_low(0);
        let kept = std::mem::take(&mut self.totals.reserved);
        let taken = u128::from(bucket.take_back()) + u128::from(kept);
        if taken > 0 {
            self.totals.returned = self.totals.returned.saturating_add(taken);
            self.back_ns = (now.boot_ns, RESEND_NS.0);
        }
    }

    /// The first call for which it is worth asking.
    fn head(&self) -> Option<&Waiter> {
        let covered = |amount| self.denied.is_some_and(|denied| denied.covers(amount));
        self.waiting
            .iter()
            .find(|waiter| waiter.refused.is_none() || !covered(waiter.amount))
    }

    /// When the next question is due, and why it would be asked; at most one is on its way.
    fn ask_at_ns(&self, bucket: &Bucket) -> Option<(u64, Why)> {
        if self.asked.is_some() || self.session.is_none() {
            return None;
        }
        if let Some(head) = self.head() {
            return Some((self.ask_after_ns, Why::Call(head.amount)));
        }
        if self.unsettled {
            return Some((self.ask_after_ns, Why::Settle));
        }
        let left = bucket.remaining();
        let totals = &self.totals;
        if !self.demand.is_used() || totals.window.is_none() {
            return None;
        }
        let lease_ns = totals.deadline_ns.saturating_sub(self.demand.sized_ns());
        let renew_ns = totals.deadline_ns - RENEW_NS.min(lease_ns / 4).min(totals.deadline_ns);
        let at_ns = if bucket.is_low(left) {
            0
        } else if left > 0 {
            renew_ns
        } else {
            return None;
        };
        let scarce_ns = self.denied.map_or(0, |denied| denied.until_ns());
        let at_ns = at_ns
            .max(self.ask_after_ns)
            .max(self.prefetch_after_ns)
            .max(scarce_ns);
        // A lease that is over is not renewed: whoever calls next asks.
        (at_ns < totals.deadline_ns).then_some((at_ns, Why::Prefetch))
    }

    fn question(&mut self, bucket: &Bucket, now: Now) -> Option<Question> {
        let (at_ns, why) = self.ask_at_ns(bucket)?;
        if now.boot_ns < at_ns {
            return None;
        }
        if why == Why::Prefetch && self.is_over(now) {
            // Whoever calls next asks; an empty bucket alone is no reason any more.
            bucket.set_low(0);
            return None;
        }
        let session = self.session?;
        let (want, min) = self.amounts(bucket, why, now);
        bucket.set_low(0);
        self.questions = self.questions.wrapping_add(1);
        self.unsettled = true;
        self.asked = Some(Asked {
            number: self.questions,
            sent_ns: now.boot_ns,
            returned: self.totals.returned,
            why,
        });
        Some(Question {
            number: self.questions,
            sent_ns: now.boot_ns,
            session,
            ask: Ask {
                identity: self.subject.identity,
                key: self.subject.key,
                // Before the first answer there is no window to which anything could be credited.
                window_hint: self.totals.window.unwrap_or(u64::MAX),
                want,
                min,
                seen_granted: self.totals.granted,
                returned_total: self.totals.returned,
                group: self.subject.group,
                waiting: matches!(why, Why::Call(_)),
            },
        })
    }

    /// How much to ask for: what would be welcome, and what is needed at least.
    fn amounts(&mut self, bucket: &Bucket, why: Why, now: Now) -> (u64, u64) {
        let hold_ns = self.window_ns() / 5;
        match why {
            Why::Settle => (0, 0),
            Why::Prefetch => {
                let size = self.demand.next(1, hold_ns, now.boot_ns);
                (size.saturating_sub(bucket.remaining()), 0)
            }
            Why::Call(amount) => {
                let size = self.demand.next(amount, hold_ns, now.boot_ns);
                let needed = self
                    .waiting
                    .iter()
                    .fold(0u64, |sum, waiter| sum.saturating_add(waiter.amount));
                let kept = self.totals.reserved;
                let want = size.max(needed).saturating_sub(kept);
                (want, amount.saturating_sub(kept))
            }
        }
    }

    /// When a return is to be said (again): until it is acknowledged or its window is over. What a question on its way
    /// says need not be said twice.
    fn back_at_ns(&self) -> Option<u64> {
        let totals = &self.totals;
        let said = |asked: Asked| asked.returned == totals.returned;
        let owes = totals.returned > totals.acknowledged && !self.asked.is_some_and(said);
        (owes && self.session.is_some() && self.back_ns.0 < totals.end_ns).then_some(self.back_ns.0)
    }

    fn give_back(&mut self, bucket: &Bucket, now: Now) -> Option<Todo> {
        let at_ns = self.back_at_ns()?;
        if now.boot_ns < at_ns {
            return None;
        }
        if now.boot_ns >= self.totals.end_ns {
            // Too late to be credited, unless the window is heard to last longer.
            self.back_ns.0 = self.totals.end_ns;
            return None;
        }
        let pause_ns = self.back_ns.1;
        let next_ns = pause_ns.saturating_mul(2).min(RESEND_NS.1);
        self.back_ns = (now.boot_ns.saturating_add(pause_ns), next_ns);
        if planted!(self, PutBackAfterSend) {
            let sent = self.totals.returned - self.totals.acknowledged;
            bucket.top_up(u64::try_from(sent).unwrap_or(u64::MAX));
        }
        Some(Todo::GiveBack(
            self.session?,
            GiveBack {
                key: self.subject.key,
                window: self.totals.window?,
                returned_total: self.totals.returned,
            },
        ))
    }
}
