//! Where a request waits for quota: here alone, once, bounded.

use super::{
    core::Core,
    counter::{Counter, Short},
    rate::{self, Rate, Told},
};
use proto::{
    limit::{
        Charge, Kind,
        bucket::Ticket,
        lease::{Call, Denial, Wait},
    },
    time::Now,
};
use std::sync::{Arc, atomic::Ordering};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// The slow path: the holder has it, or asks for it.
pub(super) async fn fetch(
    core: &Arc<Core>,
    counter: &Arc<Counter>,
    rate: &Rate,
    charge: &Charge<'_>,
    until: Instant,
) -> Result<Ticket, Short> {
    if core.closed.load(Ordering::Acquire) {
        return Err(Short::UNREACHABLE);
    }
    let now = (core.clock)();
    let mut waiting = match begin(core, counter, rate, charge, (until, now)) {
        Ok(ticket) => return Ok(ticket),
        Err(Began::Denied(denial)) => return Err(denied(core, charge, denial)),
        Err(Began::Waits(waiting)) => waiting,
    };
    let begun = Instant::now();
    let answered = timeout_at(until, &mut waiting.answer).await;
    core.tally.waited(begun.elapsed());
    match answered {
        Ok(Ok(Ok(ticket))) => Ok(ticket),
        Ok(Ok(Err(denial))) => Err(denied(core, charge, denial)),
        // Too late, or the holder went away: what it was told in the last moment still counts.
        _ => match waiting.give_up() {
            Ok(ticket) => Ok(ticket),
            Err(denial) => Err(denied(core, charge, denial)),
        },
    }
}

enum Began {
    Denied(Denial),
    Waits(Waiting),
}

fn begin(
    core: &Arc<Core>,
    counter: &Arc<Counter>,
    rate: &Rate,
    charge: &Charge<'_>,
    (until, now): (Instant, Now),
) -> Result<Ticket, Began> {
    let left = until.saturating_duration_since(Instant::now());
    let until_ns = now.boot_ns.saturating_add(left.as_nanos() as u64);
    let mut inner = rate.lock();
    if let (Some(_), Kind::Rate(window)) = (charge.keys_max, charge.limit.kind) {
        inner.holder.set_group(rate::subject(charge, window).group);
    }
    let began = match inner
        .holder
        .wait(&rate.bucket, charge.amount, until_ns, now)
    {
        Wait::Admitted(ticket) => Ok(ticket),
        Wait::Denied(denial) => Err(Began::Denied(denial)),
        Wait::Waits(call) => {
            let (tell, answer) = oneshot::channel();
            inner.calls.push((call, tell));
            Err(Began::Waits(Waiting {
                counter: counter.clone(),
                call,
                answer,
                clock: core.clock.clone(),
            }))
        }
    };
    core.pump(counter, rate, &mut inner, now);
    began
}

fn denied(core: &Core, charge: &Charge<'_>, denial: Denial) -> Short {
    let now = (core.clock)();
    if let Denial::Keys { end_ms } = denial {
        core.note_full(charge, end_ms, now);
    }
    Short::of(denial, core.handle.ledger_ms(now))
}

/// A call that waits. Dropped, it is as if it had not come.
struct Waiting {
    counter: Arc<Counter>,
    call: Call,
    answer: oneshot::Receiver<Told>,
    clock: cluster::handle::Clock,
}

impl Waiting {
    /// Ends the wait: what was told meanwhile, or why there is nothing.
    fn give_up(&mut self) -> Told {
        let Some(rate) = self.counter.as_rate() else {
            return Err(Denial::Unreachable);
        };
        let now = (self.clock)();
        let mut inner = rate.lock();
        inner.calls.retain(|(call, _)| *call != self.call);
        // Under the lock nobody tells it anything more.
        if let Ok(told) = self.answer.try_recv() {
            return told;
        }
        let refused = inner.holder.cancel(&rate.bucket, self.call, now);
        Err(refused.unwrap_or(Denial::Unreachable))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Ok(ticket) = self.give_up()
            && let Some(rate) = self.counter.as_rate()
        {
            let now = (self.clock)();
            let mut inner = rate.lock();
            inner.holder.roll_back(&rate.bucket, ticket, now);
            self.counter.came_back(rate, &inner);
        }
    }
}
