//! The pacer of an open loop: requests become due at their times, whatever comes back.
//!
//! tokio's timers have steps of a millisecond, in which a rate of 10,000 a second would become bursts of ten: a timerfd
//! wakes within tens of microseconds where the system runs the thread at once. A virtual processor that went idle can take
//! milliseconds to come back; busy polling never lets it.

use super::{
    lane::{Context, Job},
    stats::nanos,
};
use crate::plan::rng::Rng;
use rustix::{
    fd::OwnedFd,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    io,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};
use tokio::io::unix::AsyncFd;

/// Requests that may become due in one go before lanes get their turn.
const BATCH_MAX: u32 = 32;

/// A timer of the kernel.
#[derive(Debug)]
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[allow(
            deprecated,
            reason = "its replacement is unsafe for descriptors that are borrowed; this one is owned and never replaced"
        )]
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Waits for this long.
    ///
    /// # Errors
    /// The timer cannot be set or read.
    pub async fn sleep(&self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &value)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| {
                let mut count = [0; 8];
                Ok(rustix::io::read(fd.get_ref(), &mut count)?)
            });
            if let Ok(read) = read {
                read?;
                return Ok(());
            }
        }
    }
}

/// Makes requests due at `rate` a second from `start` on, until the round ends.
///
/// # Errors
/// There is no timer to be had.
pub async fn run(context: &Context, rate: f64, start: Instant, rng: &mut Rng) -> io::Result<()> {
    let timer = Timer::new()?;
    let queue_max = context.plan.share(context.plan.queue_max, context.thread);
    let gap = 1.0 / rate;
    // Threads take turns: the first of each is due a part of the gap after its neighbour's.
    let mut at_s = gap * context.thread as f64 / context.plan.threads as f64;
    let mut batch = 0;
    loop {
        let due = start + Duration::from_secs_f64(at_s);
        if due >= context.end || context.stop.get() {
            return Ok(());
        }
        let now = Instant::now();
        if due > now {
            batch = 0;
            match context.plan.busy_poll {
                // A yield lets all other tasks run and looks for input without waiting for any.
                true => {
                    while Instant::now() < due && !context.stop.get() {
                        tokio::task::yield_now().await;
                    }
                }
                false => timer.sleep(due - now).await?,
            }
        } else {
            batch += 1;
            if batch % BATCH_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
        if context.stop.get() {
            return Ok(());
        }
        if due >= context.measure {
            if !context.afford() {
                return Ok(());
            }
            let mut stats = context.stats.borrow_mut();
            stats.due += 1;
            stats.lag.saturating_record(nanos(due.elapsed()));
        }
        if !context.queue.borrow_mut().push(Job { due }, queue_max) {
            context.live.unsent.fetch_add(1, Relaxed);
            if due >= context.measure {
                context.stats.borrow_mut().unsent += 1;
            }
        }
        at_s += match context.plan.poisson {
            true => gap * rng.exponential(),
            false => gap,
        };
    }
}
