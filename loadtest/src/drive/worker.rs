//! A thread of the client: a runtime, lanes with their connections, and listen streams; it outlives the rounds.

use super::{
    exchange::{Exchange, Peer, Shared},
    lane::{self, Context, Live},
    listen, pace,
    session::Sessions,
    stats::Stats,
};
use crate::{
    machine::ThreadUse,
    plan::{Plan, rng::Rng},
};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
        mpsc as blocking,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task};

/// How long an interrupted round waits for replies.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(1);
/// How often a thread looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);
/// How long the end of sessions may take.
const END_MAX: Duration = Duration::from_secs(5);

/// One round.
#[derive(Clone, Debug)]
pub struct Order {
    /// When sending begins.
    pub start: Instant,
    /// When measuring begins.
    pub measure: Instant,
    /// When nothing more is due.
    pub end: Instant,
    /// Requests a second of this thread; `None` = closed loop.
    pub rate: Option<f64>,
    /// Requests to measure, of all threads together.
    pub budget: Option<Arc<AtomicI64>>,
    /// Of the random numbers.
    pub seed: u64,
}

/// What a thread has to say of a round.
#[derive(Debug)]
pub struct Part {
    /// What it counted.
    pub stats: Stats,
    /// What it used while measuring.
    pub used: ThreadUse,
    /// For how long.
    pub wall: Duration,
    /// What kept it from working.
    pub error: Option<String>,
}

/// A thread.
#[derive(Debug)]
pub struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    parts: blocking::Receiver<Part>,
    /// What can be seen of it.
    pub live: Arc<Live>,
    join: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread or no runtime to be had.
    pub fn start(plan: Arc<Plan>, number: usize) -> io::Result<Self> {
        let (orders, incoming) = mpsc::unbounded_channel();
        let (outgoing, parts) = blocking::channel();
        let live = Arc::new(Live::default());
        let seen = live.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let join = std::thread::Builder::new()
            .name(format!("load-{number}"))
            .spawn(move || {
                let local = task::LocalSet::new();
                local.block_on(&runtime, work(plan, number, incoming, outgoing, seen));
                drop(local);
                runtime.shutdown_background();
            })?;
        Ok(Self {
            orders,
            parts,
            live,
            join: Some(join),
        })
    }

    /// Begins a round.
    pub fn order(&self, order: Order) {
        // A thread that is gone is noticed when its part does not come.
        let _ = self.orders.send(order);
    }

    /// The round's part, if it is over; an error when the thread is gone.
    pub fn part(&self, wait: Duration) -> Result<Option<Part>, String> {
        match self.parts.recv_timeout(wait) {
            Ok(part) => Ok(Some(part)),
            Err(blocking::RecvTimeoutError::Timeout) => Ok(None),
            Err(blocking::RecvTimeoutError::Disconnected) => {
                Err("a thread of the load tester ended before its time".into())
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Closes the channel: the thread ends its sessions and itself.
        self.orders = mpsc::unbounded_channel().0;
        if let Some(join) = self.join.take() {
            let _ = join.join();
        }
    }
}

async fn work(
    plan: Arc<Plan>,
    number: usize,
    mut orders: mpsc::UnboundedReceiver<Order>,
    parts: blocking::Sender<Part>,
    live: Arc<Live>,
) {
    let sessions = Rc::new(Sessions::new(&plan));
    let rng = Rc::new(RefCell::new(Rng::new(plan.seed)));
    let shared = shared(&plan, number);
    let counter = Rc::new(Cell::new(0));
    let lanes = plan.share(plan.lanes, number);
    let peer = |lane| {
        let (sessions, rng, shared) = (sessions.clone(), rng.clone(), shared.clone());
        Peer::new(plan.clone(), sessions, rng, shared, lane)
    };
    let mut peers: Vec<Peer> = (0..lanes).map(peer).collect();
    let listens = plan.share(plan.listens, number);
    let listening: Vec<_> = (0..listens)
        .map(|n| task::spawn_local(listen::hold(peer(n), n, live.clone())))
        .collect();
    while let Some(order) = orders.recv().await {
        // Every thread has numbers of its own, the same ones in every run.
        let seed = Rng::new(order.seed ^ ((number as u64) << 32)).next();
        *rng.borrow_mut() = Rng::new(seed);
        let times = (order.measure, order.end);
        let context = Rc::new(Context::new(
            plan.clone(),
            number,
            times,
            order.rate.is_none(),
            order.budget.clone(),
            live.clone(),
            counter.clone(),
            lanes,
        ));
        let part = round(&context, &mut peers, order).await;
        while peers.len() < lanes {
            peers.push(peer(peers.len()));
        }
        if parts.send(part).is_err() {
            break;
        }
    }
    for stream in listening {
        stream.abort();
    }
    if let Some(peer) = peers.first_mut() {
        let mut out = Exchange::begin();
        let _ = tokio::time::timeout(END_MAX, sessions.end_all(peer, &mut out)).await;
    }
}

/// HTTP/2 connections of this thread.
fn shared(plan: &Plan, number: usize) -> Shared {
    let connections = plan.share(plan.connections, number).max(1);
    let slots = || {
        (0..connections)
            .map(|_| tokio::sync::Mutex::new(None))
            .collect()
    };
    Rc::new(plan.endpoints.iter().map(|_| slots()).collect())
}

async fn round(context: &Rc<Context>, peers: &mut Vec<Peer>, order: Order) -> Part {
    let listened = context.live.listened.load(Relaxed);
    let mut lanes = task::JoinSet::new();
    for (lane, peer) in peers.drain(..).enumerate() {
        lanes.spawn_local(lane::run(context.clone(), peer, lane, order.start));
    }
    tokio::time::sleep_until(order.start.into()).await;
    let failed: Rc<RefCell<Option<String>>> = Rc::default();
    if let Some(rate) = order.rate {
        let (context, failed) = (context.clone(), failed.clone());
        let mut rng = Rng::new(order.seed.wrapping_add(context.thread as u64));
        task::spawn_local(async move {
            if let Err(error) = pace::run(&context, rate, order.start, &mut rng).await {
                *failed.borrow_mut() = Some(format!("no timer: {error}"));
            }
            context.queue.borrow_mut().close();
        });
    }
    let mut watch = Watch::new(context);
    let mut interrupted: Option<Instant> = None;
    loop {
        tokio::select! {
            joined = lanes.join_next() => match joined {
                Some(Ok(peer)) => peers.push(peer),
                Some(Err(_)) => {}
                None => break,
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        watch.look(context);
        if context.plan.interrupted.load(Relaxed) && interrupted.is_none() {
            interrupted = Some(Instant::now());
            context.stop.set(true);
            let waiting = {
                let mut queue = context.queue.borrow_mut();
                queue.close();
                queue.clear()
            };
            context.stats.borrow_mut().unsent += waiting;
        }
        if interrupted.is_some_and(|at| at.elapsed() > INTERRUPTED_WAIT) {
            context.stats.borrow_mut().abandoned += lanes.len() as u64;
            lanes.abort_all();
        }
    }
    let (used, wall) = watch.end();
    context.finish();
    let mut stats = std::mem::replace(
        &mut *context.stats.borrow_mut(),
        Stats::new(context.plan.endpoints.len()),
    );
    stats.listened = context.live.listened.load(Relaxed) - listened;
    let error = failed.borrow_mut().take();
    Part {
        stats,
        used,
        wall,
        error,
    }
}

/// Reads this thread's use of the processor while measuring.
struct Watch {
    began: Option<(Instant, ThreadUse)>,
    last: (Instant, Duration),
}

impl Watch {
    fn new(context: &Context) -> Self {
        let began = Instant::now() >= context.measure;
        Self {
            began: began.then(|| (Instant::now(), ThreadUse::now())),
            last: (Instant::now(), ThreadUse::now().cpu),
        }
    }

    fn look(&mut self, context: &Context) {
        let now = Instant::now();
        if self.began.is_none() && now >= context.measure {
            self.began = Some((now, ThreadUse::now()));
        }
        if now.duration_since(self.last.0) >= Duration::from_millis(500) {
            let cpu = ThreadUse::now().cpu;
            let share = cpu.saturating_sub(self.last.1).as_secs_f64()
                / now.duration_since(self.last.0).as_secs_f64();
            // Of a thread that polls without pause it would say nothing.
            if context.closed || !context.plan.busy_poll {
                context.live.busy_ppm.store((share * 1e6) as u64, Relaxed);
            }
            self.last = (now, cpu);
        }
        if now >= context.measure {
            context.roll(now);
        }
    }

    fn end(self) -> (ThreadUse, Duration) {
        match self.began {
            Some((at, used)) => (ThreadUse::now().since(used), at.elapsed()),
            None => (ThreadUse::default(), Duration::ZERO),
        }
    }
}
