//! Lanes: each carries one request at a time. What a lane does next is the pace's business.

use super::{
    exchange::{Ask, Exchange, Peer},
    stats::{SecondPart, Stats, nanos},
};
use crate::plan::{Balance, Plan};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::Instant,
};

/// What other threads may see of a thread while it works.
#[derive(Debug, Default)]
pub struct Live {
    /// Requests sent.
    pub sent: AtomicU64,
    /// Requests that ended, by class.
    pub done: [AtomicU64; super::stats::CLASSES],
    /// Open loop: requests that could not be sent.
    pub unsent: AtomicU64,
    /// Notifications on listen streams.
    pub listened: AtomicU64,
    /// This thread's share of a processor in the last second, millionths.
    pub busy_ppm: AtomicU64,
    /// Seconds that are complete.
    pub seconds: Mutex<Vec<SecondPart>>,
}

/// A request that is due.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// When it should be sent.
    pub due: Instant,
}

/// A round as a thread sees it.
#[derive(Debug)]
pub struct Context {
    /// What is to be done.
    pub plan: Arc<Plan>,
    /// Which thread this is.
    pub thread: usize,
    /// When measuring begins.
    pub measure: Instant,
    /// When nothing more is due.
    pub end: Instant,
    /// Requests that may still be measured, by all threads together.
    pub budget: Option<Arc<AtomicI64>>,
    /// Whether lanes find their own work.
    pub closed: bool,
    /// What was counted.
    pub stats: RefCell<Stats>,
    /// What others may see.
    pub live: Arc<Live>,
    /// Work for the lanes of an open loop.
    pub queue: RefCell<Queue>,
    /// Nothing more is to be begun.
    pub stop: Cell<bool>,
    /// Requests of this thread so far, over all rounds.
    pub counter: Rc<Cell<u64>>,
    second: RefCell<SecondPart>,
    weights: Vec<u64>,
}

impl Context {
    /// A round that has not begun.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is needed, and one place makes it"
    )]
    pub fn new(
        plan: Arc<Plan>,
        thread: usize,
        times: (Instant, Instant),
        closed: bool,
        budget: Option<Arc<AtomicI64>>,
        live: Arc<Live>,
        counter: Rc<Cell<u64>>,
        lanes: usize,
    ) -> Self {
        Self {
            thread,
            measure: times.0,
            end: times.1,
            budget,
            closed,
            stats: RefCell::new(Stats::new(plan.endpoints.len())),
            live,
            queue: RefCell::new(Queue::new(lanes)),
            stop: Cell::new(false),
            counter,
            second: RefCell::new(SecondPart::new(0)),
            weights: plan.weights(),
            plan,
        }
    }

    /// Whether one more request may be measured.
    pub fn afford(&self) -> bool {
        self.budget
            .as_ref()
            .is_none_or(|budget| budget.fetch_sub(1, Relaxed) > 0)
    }

    /// What the next request is: its id, its call, its grant, its target.
    fn draw(&self, peer: &Peer) -> (u64, usize, usize, usize) {
        let plan = &self.plan;
        let n = self.counter.get();
        self.counter.set(n + 1);
        let turn = n * plan.threads as u64 + self.thread as u64;
        let (targets, grants) = (plan.endpoints.len() as u64, plan.grants.len().max(1) as u64);
        let (target, grant) = match plan.balance {
            Balance::RoundRobin => (turn % targets, turn / targets % grants),
            Balance::Sticky => (turn % grants % targets, turn % grants),
        };
        let call = match self.weights.as_slice() {
            [_] => 0,
            weights => {
                let drawn = peer
                    .rng
                    .borrow_mut()
                    .below(weights.last().copied().unwrap_or(0));
                weights.partition_point(|sum| *sum <= drawn)
            }
        };
        (turn + 1, call, grant as usize, target as usize)
    }

    fn began(&self, job: Job) {
        self.live.sent.fetch_add(1, Relaxed);
        if job.due >= self.measure {
            self.second.borrow_mut().sent += 1;
        }
    }

    fn ended(&self, job: Job, target: usize, exchange: &Exchange) {
        let class = exchange.judged.class as usize;
        if let Some(count) = self.live.done.get(class) {
            count.fetch_add(1, Relaxed);
        }
        if job.due < self.measure {
            return;
        }
        self.stats.borrow_mut().record(target, job.due, exchange);
        self.roll(exchange.done);
        let mut second = self.second.borrow_mut();
        let latency = exchange.done.saturating_duration_since(job.due);
        second.latency.saturating_record(nanos(latency));
        if let Some(count) = second.done.get_mut(class) {
            *count += 1;
        }
    }

    /// Hands the current second over when it is past.
    pub fn roll(&self, now: Instant) {
        let number = now.saturating_duration_since(self.measure).as_secs();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut second = self.second.borrow_mut();
        if number > second.second {
            let past = std::mem::replace(&mut *second, SecondPart::new(number));
            super::lock(&self.live.seconds).push(past);
        }
    }

    /// Hands the last second over.
    pub fn finish(&self) {
        let past = std::mem::replace(&mut *self.second.borrow_mut(), SecondPart::new(u32::MAX));
        if past.second != u32::MAX {
            super::lock(&self.live.seconds).push(past);
        }
    }
}

/// Work that waits for a lane, and lanes that wait for work: the lane that worked last is asked first, so that no more
/// connections are in use than are needed.
#[derive(Debug)]
pub struct Queue {
    jobs: VecDeque<Job>,
    idle: Vec<usize>,
    hands: Vec<(Option<Job>, Option<Waker>)>,
    closed: bool,
}

impl Queue {
    fn new(lanes: usize) -> Self {
        Self {
            jobs: VecDeque::new(),
            idle: Vec::with_capacity(lanes),
            hands: (0..lanes).map(|_| (None, None)).collect(),
            closed: false,
        }
    }

    /// Gives work to an idle lane, or lets it wait; `false` when too much waits already.
    pub fn push(&mut self, job: Job, waiting_max: usize) -> bool {
        if let Some(lane) = self.idle.pop()
            && let Some(hand) = self.hands.get_mut(lane)
        {
            hand.0 = Some(job);
            if let Some(waker) = hand.1.take() {
                waker.wake();
            }
            return true;
        }
        if self.jobs.len() >= waiting_max {
            return false;
        }
        self.jobs.push_back(job);
        true
    }

    /// No more work comes: lanes end when what waits is done.
    pub fn close(&mut self) {
        self.closed = true;
        for (_, waker) in &mut self.hands {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// Forgets what waits; returns how much that was.
    pub fn clear(&mut self) -> u64 {
        std::mem::take(&mut self.jobs).len() as u64
    }
}

async fn take(context: &Context, lane: usize) -> Option<Job> {
    let mut waits = false;
    poll_fn(|cx| {
        let mut queue = context.queue.borrow_mut();
        if let Some(hand) = queue.hands.get_mut(lane)
            && let Some(job) = hand.0.take()
        {
            return Poll::Ready(Some(job));
        }
        if !waits && let Some(job) = queue.jobs.pop_front() {
            return Poll::Ready(Some(job));
        }
        if queue.closed || context.stop.get() {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut waits, true) {
            queue.idle.push(lane);
        }
        if let Some(hand) = queue.hands.get_mut(lane) {
            hand.1 = Some(cx.waker().clone());
        }
        Poll::Pending
    })
    .await
}

fn next(context: &Context) -> Option<Job> {
    let now = Instant::now();
    if context.stop.get() || now >= context.end || (now >= context.measure && !context.afford()) {
        return None;
    }
    if now >= context.measure {
        context.stats.borrow_mut().due += 1;
    }
    Some(Job { due: now })
}

/// Works from `start` on until there is nothing more to do; gives the peer back for the next round.
pub async fn run(context: Rc<Context>, mut peer: Peer, lane: usize, start: Instant) -> Peer {
    if context.closed {
        tokio::time::sleep_until(start.into()).await;
    }
    loop {
        let job = match context.closed {
            true => next(&context),
            false => take(&context, lane).await,
        };
        let Some(job) = job else {
            return peer;
        };
        if !context.closed && job.due.elapsed() > context.plan.timeout {
            // Whoever asked this has long given up.
            context.live.unsent.fetch_add(1, Relaxed);
            if job.due >= context.measure {
                context.stats.borrow_mut().unsent += 1;
            }
            continue;
        }
        let (id, call, grant, target) = context.draw(&peer);
        let plan = context.plan.clone();
        let Some(call) = plan.calls.get(call) else {
            return peer;
        };
        let ask = Ask {
            id,
            call,
            target,
            grant,
            extra: "",
        };
        context.began(job);
        let exchange = peer.exchange(&ask).await;
        context.ended(job, target, &exchange);
    }
}
