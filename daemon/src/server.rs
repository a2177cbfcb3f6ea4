//! The composition root: puts the parts together, starts one single-thread runtime a core, reloads, shuts down.

pub mod node;
mod observe;

use crate::{
    admin,
    audit::Audit,
    clock,
    config::{
        self, Loaded, Settings,
        watch::{Seen, Watcher},
    },
    control::{self, Ask, Keeper},
    drain::{Drain, Phase},
    freshness::Freshness,
    gateway::{
        Core, Gate,
        listener::{self, Connections, Serves},
    },
    limiter::Limiter,
    metrics::Metrics,
    tls,
    upstream::{stdio, streamable_http},
};
use anyhow::Context;
use cluster::handle::{Failure, Handle};
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    runtime::LocalOptions,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
};

/// How often what is over is cleared away.
const SWEEP: Duration = Duration::from_secs(2);

/// Where a configuration came from, to be read again when it changes.
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What was read.
    pub seen: Vec<Seen>,
}

/// A gateway whose sockets are bound: what must fail, failed before this existed.
pub struct Server {
    gate: Arc<Gate>,
    handle: Handle,
    settings: Settings,
    loaded: Loaded,
    source: Option<Source>,
    sockets: Vec<Vec<TcpListener>>,
    serves: Vec<Serves>,
    addresses: Vec<SocketAddr>,
    connections: Arc<Connections>,
}

impl Server {
    /// Binds and builds. Without a `source` nothing is reloaded.
    pub fn new(loaded: Loaded, source: Option<Source>) -> anyhow::Result<Self> {
        let settings = loaded.settings.clone();
        let (mut sockets, mut serves, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for listener in &settings.listeners {
            let bound = bind(listener.address, settings.runtimes)
                .with_context(|| format!("cannot listen on {}", listener.address))?;
            addresses.push(bound[0].local_addr()?);
            sockets.push(bound);
            let tls = match &listener.tls {
                None => None,
                Some(files) => Some(Arc::new(RwLock::new(tls::server_config(
                    files,
                    &[b"h2", b"http/1.1"],
                )?))),
            };
            let serve = listener.serve;
            serves.push(Serves {
                mcp: serve.mcp,
                health: serve.health,
                metrics: serve.metrics,
                tls,
            });
        }
        let metrics = Metrics::new();
        let handle = node::open(&settings, &metrics)?;
        let audit = Audit::start(settings.audit.clone())?;
        metrics.watch_audit(&audit);
        let limiter = Arc::new(Limiter::new(
            handle.clone(),
            loaded.view.bounds.counters,
            Arc::new(clock::now),
        ));
        limiter.count_in(metrics.ledger().clone());
        let stdio = Arc::new(stdio::Pool::new(metrics.clone()));
        let freshness = Arc::new(Freshness::new(settings.cluster.freshness_max));
        let views = Arc::default();
        let gate = Gate::new(views, freshness, limiter, audit, metrics, stdio);
        let gate = Arc::new(gate);
        let connections = Arc::default();
        Ok(Self {
            gate,
            handle,
            settings,
            loaded,
            source,
            sockets,
            serves,
            addresses,
            connections,
        })
    }

    /// The addresses that are listened on, in the configuration's order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until SIGTERM or SIGINT, or until `stop` turns true; then drains. A second signal ends at once, and so does a
    /// node that can no longer keep its ledger, with a code of its own. `ready` is called once connections are served and
    /// signals are heard.
    pub fn run(
        self,
        stop: watch::Receiver<bool>,
        ready: impl FnOnce(),
    ) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let Self {
            gate,
            handle,
            settings,
            loaded,
            source,
            sockets,
            serves,
            connections,
            ..
        } = self;
        let (path, seen) = source.map(|source| (source.path, source.seen)).unzip();
        let mut keeper = Keeper::new(
            gate.clone(),
            loaded,
            path,
            serves.clone(),
            Some(handle.clone()),
        );
        // Before the first connection is served: what came early waits in the sockets' queues.
        runtime.block_on(async {
            node::wait_for_leader(&handle).await;
            keeper.begin().await
        })?;
        let threads = start_cores(&gate, &connections, &sockets, &serves)?;
        let running = Running {
            gate,
            handle,
            connections,
            threads,
            settings,
            keeper,
            seen,
        };
        let result = LocalSet::new().block_on(&runtime, running.govern(stop, ready));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

fn start_cores(
    gate: &Arc<Gate>,
    connections: &Arc<Connections>,
    sockets: &[Vec<TcpListener>],
    serves: &[Serves],
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let runtimes = sockets.first().map_or(0, Vec::len);
    let mut threads = Vec::new();
    for index in 0..runtimes {
        let mut mine = Vec::new();
        for (sockets, serves) in sockets.iter().zip(serves) {
            mine.push((sockets[index].try_clone()?, serves.clone()));
        }
        let (gate, connections) = (gate.clone(), connections.clone());
        let thread = std::thread::Builder::new().name(format!("core-{index}"));
        threads.push(thread.spawn(move || core(gate, connections, mine))?);
    }
    Ok(threads)
}

/// A gateway whose connections are served.
struct Running {
    gate: Arc<Gate>,
    handle: Handle,
    connections: Arc<Connections>,
    threads: Vec<JoinHandle<()>>,
    settings: Settings,
    keeper: Keeper,
    /// Files that were read; `None`: nothing is reloaded.
    seen: Option<Vec<Seen>>,
}

impl Running {
    async fn govern(
        self,
        mut stop: watch::Receiver<bool>,
        ready: impl FnOnce(),
    ) -> anyhow::Result<ExitCode> {
        let gate = self.gate.clone();
        let (mut term, mut int, mut hup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        ready();
        let (asks, asked) = mpsc::channel(control::ASKS);
        let (admin_stop, admin_stopped) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let sessions = gate.sessions.clone();
        let plane = admin::Plane {
            views: gate.views.clone(),
            freshness: gate.freshness.clone(),
            cluster: self.handle.clone(),
            data_dir: self.settings.cluster.data_dir.clone(),
            limiter: gate.limiter.clone(),
            audit: gate.audit.clone(),
            metrics: gate.metrics.clone(),
            keeper: asks.clone(),
            started: Instant::now(),
            draining: draining.clone(),
            sessions: Arc::new(move || sessions.count_open()),
        };
        let (observed, metrics) = (plane.cluster.clone(), gate.metrics.clone());
        tokio::task::spawn_local(async move {
            observe::observe(observed, metrics.ledger()).await;
        });
        let settings = self.settings.admin.clone();
        let admin =
            tokio::task::spawn_local(admin::serve(settings, Arc::new(plane), admin_stopped));
        let interval = self.settings.reload_interval;
        let interval = interval.filter(|_| self.seen.is_some());
        let seen = self.seen.unwrap_or_default();
        let (changes, watched) = start_watching(seen.clone(), interval);
        let keeper = self.keeper.run(asked, changes, watched, seen);
        let keeper = tokio::task::spawn_local(keeper);
        let leases = tokio::spawn(gate.limiter.run());
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut admin = Some(admin);
        let mut failed = self.handle.failed();
        let failure = loop {
            tokio::select! {
                _ = term.recv() => break None,
                _ = int.recv() => break None,
                _ = stop.wait_for(|stop| *stop) => break None,
                Ok(failure) = failed.wait_for(Option::is_some) => break failure.clone(),
                _ = hup.recv() => {
                    gate.audit.reopen();
                    // With a full queue there is a reload waiting already, or about to.
                    let (answer, _) = oneshot::channel();
                    let _ = asks.try_send(Ask::Reload { cause: "SIGHUP", answer });
                }
                _ = sweep.tick() => {
                    let now = clock::now();
                    gate.sweep(now);
                    gate.limiter.sweep(now);
                }
                Some(ended) = join(&mut admin) => {
                    admin = None;
                    ended.context("the admin plane ended")??;
                }
            }
        };
        draining.store(true, Relaxed);
        let (connections, threads) = (&self.connections, self.threads);
        let at_once = failure.is_some();
        shut_down(&gate, connections, threads, &mut term, &mut int, at_once).await;
        // Everything is settled: what was leased and not spent goes back.
        gate.limiter.close(clock::now()).await;
        leases.abort();
        keeper.abort();
        let _ = admin_stop.send(true);
        if let Some(admin) = admin {
            let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
        }
        self.handle.shutdown().await;
        Ok(exit_code(failure))
    }
}

async fn join<T>(
    task: &mut Option<tokio::task::JoinHandle<T>>,
) -> Option<Result<T, tokio::task::JoinError>> {
    match task {
        Some(task) => Some(task.await),
        None => std::future::pending().await,
    }
}

/// One runtime: accepts on its own sockets, serves on its own connections, until the shutdown ends.
fn core(gate: Arc<Gate>, connections: Arc<Connections>, sockets: Vec<(TcpListener, Serves)>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a runtime");
            return gate.drain.advance(Phase::Ended);
        }
    };
    runtime.block_on(async move {
        let mut phase = gate.drain.subscribe();
        let core = Rc::new(Core {
            gate,
            http: streamable_http::Pool::default(),
        });
        for (socket, serves) in sockets {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(listener) => {
                    tokio::task::spawn_local(listener::accept(
                        core.clone(),
                        listener,
                        serves,
                        connections.clone(),
                    ));
                }
                Err(error) => tracing::error!(%error, "cannot use a socket"),
            }
        }
        let sweeping = async {
            loop {
                tokio::time::sleep(streamable_http::SWEEP).await;
                core.http.sweep();
            }
        };
        tokio::select! {
            () = Drain::reached(&mut phase, Phase::Ended) => {}
            () = sweeping => {}
        }
        // What rides in connections that are cut settles as they are dropped, with the runtime.
    });
    drop(runtime);
}

/// Says so, waits, stops accepting, lets finish, cuts, flushes. A second signal ends the process at once.
async fn shut_down(
    gate: &Arc<Gate>,
    connections: &Connections,
    threads: Vec<JoinHandle<()>>,
    term: &mut Signal,
    int: &mut Signal,
    at_once: bool,
) {
    let mut bounds = gate
        .views
        .load()
        .map(|view| (*view.bounds).clone())
        .unwrap_or_default();
    if at_once {
        (bounds.drain_delay, bounds.drain_timeout) = (Duration::ZERO, Duration::ZERO);
    }
    tracing::info!(delay_s = bounds.drain_delay.as_secs_f32(), "draining");
    gate.drain.advance(Phase::Draining);
    let orderly = async {
        tokio::time::sleep(bounds.drain_delay).await;
        gate.drain.advance(Phase::Stopping);
        let until = Instant::now() + bounds.drain_timeout;
        while (connections.open() > 0 || gate.inflight.calls() > 0) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.drain.advance(Phase::Ended);
        let until = Instant::now() + Duration::from_secs(5);
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gate.sessions.end_all();
        gate.stdio.close().await;
        gate.audit.close().await;
        tracing::info!("ended");
    };
    tokio::select! {
        () = orderly => {}
        _ = term.recv() => std::process::exit(1),
        _ = int.recv() => std::process::exit(1),
    }
}

fn exit_code(failure: Option<Failure>) -> ExitCode {
    match failure {
        Some(failure) => {
            // Calls that were in flight are cut, and stay charged.
            eprintln!("tollgate: {failure}");
            ExitCode::from(failure.exit_code())
        }
        None => ExitCode::SUCCESS,
    }
}

/// Watches files for changes: signals of settled ones, and where to say what each reload has read.
fn start_watching(
    seen: Vec<Seen>,
    interval: Option<Duration>,
) -> (mpsc::Receiver<()>, Option<mpsc::Sender<Vec<Seen>>>) {
    let (changed, changes) = mpsc::channel(1);
    let Some(interval) = interval else {
        return (changes, None);
    };
    let (list, lists) = mpsc::channel(4);
    let watcher = Watcher::new(seen);
    tokio::task::spawn_local(config::watch::watch(watcher, interval, changed, lists));
    (changes, Some(list))
}

/// Binds one socket a runtime to the same address (SO_REUSEPORT), after making sure that nobody else has it.
fn bind(address: SocketAddr, runtimes: usize) -> anyhow::Result<Vec<TcpListener>> {
    use socket2::{Domain, Protocol, Socket, Type};
    // Without SO_REUSEPORT first: a second gateway must not share the port unseen.
    let probe = TcpListener::bind(address)?;
    let address = probe.local_addr()?;
    drop(probe);
    (0..runtimes.max(1))
        .map(|_| {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(1024)?;
            Ok(TcpListener::from(socket))
        })
        .collect()
}
