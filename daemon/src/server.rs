//! The composition root: puts the parts together, starts one single-thread runtime a core, reloads, shuts down.

use crate::{
    admin,
    audit::Audit,
    clock,
    config::{
        self, Attempt, FileProblem, Loaded, Settings,
        watch::{Seen, Watcher},
    },
    drain::{Drain, Phase},
    gateway::{
        Core, Gate,
        listener::{self, Connections, Serves, Tls},
    },
    limiter::Limiter,
    metrics::Metrics,
    tls,
    upstream::{stdio, streamable_http},
    view::View,
};
use anyhow::Context;
use cluster::memory::Handle;
use proto::limit::ledger::Bounds as LedgerBounds;
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
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
    settings: Settings,
    view: Arc<View>,
    reload: Option<Source>,
    sockets: Vec<Vec<TcpListener>>,
    serves: Vec<Serves>,
    addresses: Vec<SocketAddr>,
    connections: Arc<Connections>,
}

impl Server {
    /// Binds and builds. Without a `source` nothing is reloaded.
    pub fn new(loaded: Loaded, source: Option<Source>) -> anyhow::Result<Self> {
        let Loaded { settings, view, .. } = loaded;
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
        let audit = Audit::start(settings.audit.clone())?;
        metrics.watch_audit(&audit);
        let bounds = LedgerBounds::default();
        let limiter = Arc::new(Limiter::new(
            Handle::single(bounds, clock::now())?,
            view.bounds.counters,
        ));
        let stdio = Arc::new(stdio::Pool::new(metrics.clone()));
        let gate = Arc::new(Gate::new(Arc::default(), limiter, audit, metrics, stdio));
        let connections = Arc::default();
        Ok(Self {
            gate,
            settings,
            view,
            reload: source,
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

    /// Serves until SIGTERM or SIGINT, or until `stop` turns true; then drains. A second signal ends at once.
    /// `ready` is called once connections are served and signals are heard.
    pub fn run(self, stop: watch::Receiver<bool>, ready: impl FnOnce()) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Before the first connection is served: what came early waits in the sockets' queues.
        runtime.block_on(put_in_force(&self.gate, self.view.clone()))?;
        let threads = self.start_cores()?;
        let result = LocalSet::new().block_on(&runtime, self.govern(stop, threads, ready));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }

    fn start_cores(&self) -> anyhow::Result<Vec<JoinHandle<()>>> {
        let runtimes = self.sockets.first().map_or(0, Vec::len);
        let mut threads = Vec::new();
        for index in 0..runtimes {
            let mut mine = Vec::new();
            for (sockets, serves) in self.sockets.iter().zip(&self.serves) {
                mine.push((sockets[index].try_clone()?, serves.clone()));
            }
            let (gate, connections) = (self.gate.clone(), self.connections.clone());
            let thread = std::thread::Builder::new().name(format!("core-{index}"));
            threads.push(thread.spawn(move || core(gate, connections, mine))?);
        }
        Ok(threads)
    }

    async fn govern(
        self,
        mut stop: watch::Receiver<bool>,
        threads: Vec<JoinHandle<()>>,
        ready: impl FnOnce(),
    ) -> anyhow::Result<()> {
        let gate = self.gate.clone();
        let (mut term, mut int, mut hup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        ready();
        let (reload, mut reloads) = mpsc::channel::<oneshot::Sender<Result<u64, String>>>(4);
        let (admin_stop, admin_stopped) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let sessions = gate.sessions.clone();
        let plane = admin::Plane {
            views: gate.views.clone(),
            cluster: cluster::handle::Handle::disconnected(clock::now()),
            data_dir: self.settings.cluster.data_dir.clone(),
            limiter: gate.limiter.clone(),
            audit: gate.audit.clone(),
            metrics: gate.metrics.clone(),
            reload,
            started: Instant::now(),
            draining: draining.clone(),
            sessions: Arc::new(move || sessions.count_open()),
        };
        let settings = self.settings.admin.clone();
        let admin =
            tokio::task::spawn_local(admin::serve(settings, Arc::new(plane), admin_stopped));
        let (path, mut changes, seen) = start_watching(self.reload, self.settings.reload_interval);
        let mut reloader = Reloader {
            gate: gate.clone(),
            path,
            serves: self.serves,
            settings: self.settings,
            seen,
        };
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut admin = Some(admin);
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = stop.wait_for(|stop| *stop) => break,
                _ = hup.recv() => {
                    gate.audit.reopen();
                    let _ = reloader.reload("SIGHUP").await;
                }
                Some(()) = changes.recv() => {
                    let _ = reloader.reload("file change").await;
                }
                Some(answer) = reloads.recv() => {
                    let _ = answer.send(reloader.reload("admin").await);
                }
                _ = sweep.tick() => {
                    let now = clock::now();
                    gate.sweep(now);
                    gate.limiter.sweep(now).await;
                }
                Some(ended) = join(&mut admin) => {
                    admin = None;
                    ended.context("the admin plane ended")??;
                }
            }
        }
        draining.store(true, Relaxed);
        shut_down(&gate, &self.connections, threads, &mut term, &mut int).await;
        let _ = admin_stop.send(true);
        if let Some(admin) = admin {
            let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
        }
        Ok(())
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
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a runtime");
            return gate.drain.advance(Phase::Ended);
        }
    };
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
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
                tokio::time::sleep(SWEEP).await;
                core.http.sweep();
            }
        };
        tokio::select! {
            () = Drain::reached(&mut phase, Phase::Ended) => {}
            () = sweeping => {}
        }
        // What rides in connections that are cut settles as they are dropped, with the LocalSet.
    });
    drop(local);
}

/// Says so, waits, stops accepting, lets finish, cuts, flushes. A second signal ends the process at once.
async fn shut_down(
    gate: &Arc<Gate>,
    connections: &Connections,
    threads: Vec<JoinHandle<()>>,
    term: &mut Signal,
    int: &mut Signal,
) {
    let bounds = gate
        .views
        .load()
        .map(|view| view.bounds.clone())
        .unwrap_or_default();
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

type Watching = (
    Option<PathBuf>,
    mpsc::Receiver<()>,
    Option<mpsc::Sender<Vec<Seen>>>,
);

/// Watches what was read for changes; the sender takes what each reload has read.
fn start_watching(source: Option<Source>, interval: Option<Duration>) -> Watching {
    let (changed, changes) = mpsc::channel(1);
    let (list, lists) = mpsc::channel(4);
    let (path, seen) = source.map(|source| (source.path, source.seen)).unzip();
    match (seen, interval) {
        (Some(seen), Some(interval)) => {
            tokio::task::spawn_local(config::watch::watch(
                Watcher::new(seen),
                interval,
                changed,
                lists,
            ));
            (path, changes, Some(list))
        }
        _ => (path, changes, None),
    }
}

/// Limits are made known to the ledger before the view that names them takes effect.
async fn put_in_force(gate: &Gate, view: Arc<View>) -> anyhow::Result<()> {
    let policies = view
        .grants
        .values()
        .flat_map(|grant| grant.servers.values())
        .filter_map(|b| b.policy.clone());
    let policies: Vec<_> = policies.collect();
    let limits = policies.iter().flat_map(|policy| &policy.limits);
    gate.limiter
        .define(limits, clock::now())
        .await
        .context("the ledger refuses a limit")?;
    gate.metrics.reloaded(true, view.revision);
    gate.views.put(view);
    Ok(())
}

/// Reloads all or nothing.
struct Reloader {
    gate: Arc<Gate>,
    path: Option<PathBuf>,
    serves: Vec<Serves>,
    settings: Settings,
    seen: Option<mpsc::Sender<Vec<Seen>>>,
}

impl Reloader {
    async fn reload(&mut self, cause: &str) -> Result<u64, String> {
        let Some(path) = &self.path else {
            return Err("this gateway was not started from a file".into());
        };
        let revision = self.gate.views.load().map_or(0, |view| view.revision) + 1;
        let Attempt { outcome, seen } = config::attempt(path, revision, Some(&self.settings));
        if let Some(watcher) = &self.seen {
            let _ = watcher.send(seen).await;
        }
        match self.try_reload(outcome).await {
            Ok(()) => {
                self.gate.sweep(clock::now());
                tracing::info!(cause, revision, "a new view is in force");
                Ok(revision)
            }
            Err(why) => {
                self.gate.metrics.reloaded(false, revision - 1);
                tracing::error!(
                    cause,
                    revision = revision - 1,
                    "reload refused, the old view stays in force:\n{why}"
                );
                Err(why)
            }
        }
    }

    async fn try_reload(&self, outcome: Result<Loaded, Vec<FileProblem>>) -> Result<(), String> {
        let loaded = outcome.map_err(|problems| {
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })?;
        let tls = self
            .tls(&loaded.settings)
            .map_err(|error| format!("{error:#}"))?;
        put_in_force(&self.gate, loaded.view)
            .await
            .map_err(|error| format!("{error:#}"))?;
        for (held, fresh) in tls {
            if let Ok(mut held) = held.write() {
                *held = fresh;
            }
        }
        for setting in config::needs_restart(&self.settings, &loaded.settings) {
            tracing::warn!(setting, "changed in the file, takes effect with a restart");
        }
        Ok(())
    }

    /// Every certificate is read before any is replaced.
    fn tls(&self, settings: &Settings) -> anyhow::Result<Vec<(Tls, Arc<rustls::ServerConfig>)>> {
        let mut fresh = Vec::new();
        let started = self.settings.listeners.iter().enumerate();
        for ((index, ours), serves) in started.zip(&self.serves) {
            // Listeners may have changed places in the file: a socket keeps to the entry with its address.
            let here = settings.listeners.get(index);
            let here = here.filter(|listener| listener.address == ours.address);
            let listener = here.or_else(|| {
                let mut all = settings.listeners.iter();
                all.find(|listener| listener.address == ours.address)
            });
            if let (Some(held), Some(files)) = (
                &serves.tls,
                listener.and_then(|listener| listener.tls.as_ref()),
            ) {
                fresh.push((
                    held.clone(),
                    tls::server_config(files, &[b"h2", b"http/1.1"])?,
                ));
            }
        }
        Ok(fresh)
    }
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
