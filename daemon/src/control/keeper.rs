//! Puts views in force, one after the other: when files change, and when the log does.
//!
//! A view's limits are defined at the ledger before it takes effect. What it takes away does not wait for that: grants
//! that are revoked or gone are refused at once, also while the ledger is silent.

mod files;

use super::{
    assemble::Assembler,
    judge::{Objection, judge},
};
use crate::{
    clock,
    config::{self, Attempt, FileProblem, Loaded, Settings, watch::Seen},
    gateway::{Gate, listener::Serves},
    limiter::DefineError,
    view::View,
};
use cluster::handle::Handle;
use proto::{
    control::{Change, Control},
    id::ServerName,
};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};

/// How often the age of what is known is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often what the ledger did not take is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the start waits for a ledger before it serves without one: calls with limits are then unreachable.
const FIRST_WAIT: Duration = Duration::from_secs(3);
/// How long a view waits for the ledger to take its limits; then it is tried again beside everything else.
const DEFINE_WAIT: Duration = Duration::from_secs(5);
/// Longest pause between two views from the log; shorter ones follow from how long a view takes.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Resources that are told of in the log at once, when they are newly not in force.
const TOLD_MAX: usize = 20;
/// Questions that wait for the keeper; beyond, askers wait.
pub const ASKS: usize = 16;

/// What the keeper is asked.
pub enum Ask {
    /// Read the files again.
    Reload {
        /// Why, for the log.
        cause: &'static str,
        /// The new revision, or why the old view stays.
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// Would this change of the log make a view that can be put in force here?
    Check {
        /// The change.
        change: Change,
        /// Remarks, or what is wrong.
        answer: oneshot::Sender<Result<Vec<String>, Objection>>,
    },
}

/// See the module.
pub struct Keeper {
    gate: Arc<Gate>,
    path: Option<PathBuf>,
    serves: Vec<Serves>,
    /// As the process was started.
    settings: Settings,
    watched: Option<mpsc::Sender<Vec<Seen>>>,
    /// What the files' watcher was told last: of the files, of the log.
    seen: (Vec<Seen>, Vec<Seen>),
    cluster: Option<Handle>,
    files: Arc<Loaded>,
    /// Files that are good and wait for the ledger to take their limits.
    waiting: Option<Arc<Loaded>>,
    /// The log's part of the view in force may be old.
    late: Option<Instant>,
    assembler: Assembler,
    revision: u64,
}

/// Why a view is not in force.
#[derive(Debug)]
enum Failed {
    /// The ledger is silent: it is tried again.
    Silent,
    /// The ledger refuses its limits, or the files are wrong.
    Refused(String),
}

impl Failed {
    fn why(self) -> String {
        match self {
            Failed::Refused(why) => why,
            Failed::Silent => SILENT.to_owned(),
        }
    }
}

impl Keeper {
    /// Keeps what was loaded; nothing is in force yet. Without a path nothing is reloaded; without a cluster there is no
    /// log.
    pub fn new(
        gate: Arc<Gate>,
        loaded: Loaded,
        path: Option<PathBuf>,
        serves: Vec<Serves>,
        cluster: Option<Handle>,
    ) -> Self {
        Self {
            gate,
            path,
            serves,
            settings: loaded.settings.clone(),
            watched: None,
            seen: Default::default(),
            cluster,
            files: Arc::new(loaded),
            waiting: None,
            late: None,
            assembler: Assembler::default(),
            revision: 0,
        }
    }

    /// Puts the first view in force. A ledger that is silent does not keep a gateway from serving: its limits are
    /// unreachable until it answers.
    pub async fn begin(&mut self) -> anyhow::Result<()> {
        let refused = |why| anyhow::anyhow!("the view cannot be put in force: {why}");
        let first = timeout(FIRST_WAIT, self.of_the_log()).await;
        let view = match first.unwrap_or(Err(Failed::Silent)) {
            Ok(view) => view,
            Err(Failed::Refused(why)) => return Err(refused(why)),
            Err(Failed::Silent) => {
                tracing::warn!("the ledger is silent: limits are unreachable until it answers");
                self.late = Some(Instant::now());
                match self.assemble(self.files.clone()).await {
                    Ok(view) => view,
                    Err(failed) => return Err(refused(failed.why())),
                }
            }
        };
        self.put(view);
        self.gate.metrics.reloaded(true, self.revision);
        Ok(())
    }

    /// Serves until every asker is gone. `watched` hears which files were read, for `changes` of them; `seen` is what
    /// was read at the start.
    pub async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut changes: mpsc::Receiver<()>,
        watched: Option<mpsc::Sender<Vec<Seen>>>,
        seen: Vec<Seen>,
    ) {
        self.watched = watched;
        self.seen.0 = seen;
        self.watch_log().await;
        let mut control = self.cluster.as_ref().map(Handle::control);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::Reload { cause, answer }) => {
                        let _ = answer.send(self.reload(cause).await);
                    }
                    Some(Ask::Check { change, answer }) => {
                        let _ = answer.send(self.check(change).await);
                    }
                    None => return,
                },
                Some(()) = changes.recv() => {
                    let _ = self.reload("file change").await;
                }
                () = changed(&mut control, not_before) => {
                    let began = Instant::now();
                    self.follow_log().await;
                    // Whatever changes meanwhile comes with the next view.
                    not_before = Instant::now() + (2 * began.elapsed()).min(PAUSE_MAX);
                }
                _ = look.tick() => {
                    if self.late.is_some_and(|since| since.elapsed() >= RETRY) {
                        self.try_again().await;
                    }
                    self.confirm();
                }
            }
        }
    }

    /// Reads the files again.
    async fn reload(&mut self, cause: &'static str) -> Result<u64, String> {
        let Some(path) = self.path.clone() else {
            return Err("this gateway was not started from a file".into());
        };
        let (next, settings) = (self.revision + 1, self.settings.clone());
        let read = spawn_blocking(move || config::attempt(&path, next, Some(&settings)));
        let Ok(Attempt { outcome, seen }) = read.await else {
            return Err("the gateway is stopping".into());
        };
        self.seen.0 = seen;
        self.tell_watcher().await;
        let tried = match outcome {
            Ok(loaded) => self.adopt(Arc::new(loaded)).await,
            Err(problems) => Err(Failed::Refused(lines(&problems))),
        };
        match tried {
            Ok(()) => {
                self.gate.metrics.reloaded(true, self.revision);
                tracing::info!(cause, revision = self.revision, "a new view is in force");
                Ok(self.revision)
            }
            Err(failed) => {
                self.gate.metrics.reloaded(false, self.revision);
                let why = failed.why();
                tracing::error!(
                    cause,
                    revision = self.revision,
                    "reload refused, the old view stays in force:\n{why}"
                );
                Err(why)
            }
        }
    }

    /// Puts what the log says now in force.
    async fn follow_log(&mut self) {
        match self.of_the_log().await {
            Ok(view) => {
                let (control, unresolved) = (view.control, view.unresolved.clone());
                let former = self.gate.views.load();
                self.put(view);
                self.late = self.waiting.as_ref().map(|_| Instant::now());
                self.watch_log().await;
                tracing::info!(
                    revision = self.revision,
                    control,
                    "a new view is in force: the log changed"
                );
                let known = former
                    .map(|view| view.unresolved.clone())
                    .unwrap_or_default();
                let new = unresolved.iter().filter(|found| !known.contains(found));
                for found in new.take(TOLD_MAX) {
                    let place = config::log::place(found.kind, &found.name);
                    let why = found.why.join("; ");
                    tracing::warn!(place, why, "not in force on this node");
                }
            }
            Err(failed) => {
                if self.late.is_none() {
                    let why = failed.why();
                    tracing::warn!(why, "a change of the log cannot be put in force yet");
                }
                self.late = Some(Instant::now());
            }
        }
        self.confirm();
    }

    /// The view with what the log says now, its limits defined. What it takes away is gone at once.
    async fn of_the_log(&mut self) -> Result<View, Failed> {
        self.assembler.accept();
        let view = self.assemble(self.files.clone()).await?;
        self.put_reduced(&view);
        let refused = match self.define(&view).await {
            Err(Failed::Refused(why)) => why,
            defined => return defined.map(|()| view),
        };
        // What is new in it is too much: everything else goes on without.
        let why = format!("the ledger does not take its limits: {refused}");
        let policies = self.new_policies(&view);
        self.assembler.refuse(policies, &why);
        let view = self.assemble(self.files.clone()).await?;
        self.define(&view).await.map(|()| view)
    }

    async fn try_again(&mut self) {
        self.late = Some(Instant::now());
        match self.waiting.take() {
            None => self.follow_log().await,
            Some(files) => match self.adopt(files).await {
                Ok(()) => {
                    self.gate.metrics.reloaded(true, self.revision);
                    tracing::info!(revision = self.revision, "a new view is in force");
                }
                Err(Failed::Silent) => {}
                Err(Failed::Refused(why)) => {
                    tracing::error!("reload refused, the old view stays in force:\n{why}");
                }
            },
        }
    }

    /// Says on the request path how old the view in force is. A stamp counts once everything that was known when it was
    /// asked for is in force.
    fn confirm(&self) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let now = clock::now();
        let fresh = cluster.fresh();
        let view = self.gate.views.load();
        if fresh.asked_ns != 0 && view.is_some_and(|view| view.control >= fresh.version) {
            self.gate.freshness.confirm(fresh.asked_ns);
        }
        if fresh.asked_ns != 0 {
            self.gate.freshness.hear(cluster.ledger_ms(now));
        }
        let age = self.gate.freshness.age(now);
        self.gate.metrics.control_age(age);
    }

    fn control(&self) -> Arc<Control> {
        match &self.cluster {
            Some(cluster) => cluster.control().borrow().clone(),
            None => Arc::default(),
        }
    }

    /// Assembles away from the threads that serve.
    async fn assemble(&mut self, files: Arc<Loaded>) -> Result<View, Failed> {
        let (control, mut assembler) = (self.control(), std::mem::take(&mut self.assembler));
        let work = move || {
            let view = assembler.assemble(&files, &control, 0);
            (view, assembler)
        };
        match spawn_blocking(work).await {
            Ok((view, assembler)) => {
                self.assembler = assembler;
                Ok(view)
            }
            // A fault of this program's: the old view stays, and what it knows of the log ages.
            Err(error) => Err(Failed::Refused(format!("it cannot be assembled: {error}"))),
        }
    }

    async fn check(&mut self, change: Change) -> Result<Vec<String>, Objection> {
        let (files, control) = (self.files.clone(), self.control());
        let assembler = self.assembler.clone();
        let view = self.gate.views.load();
        let work = move || judge(assembler, &files, &control, view.as_deref(), &change);
        spawn_blocking(work)
            .await
            .unwrap_or(Err(Objection::Stopping))
    }

    async fn define(&self, view: &View) -> Result<(), Failed> {
        let limits = view.policies.values().flat_map(|used| &used.policy.limits);
        let define = self.gate.limiter.define(limits, clock::now());
        match timeout(DEFINE_WAIT, define).await {
            Ok(Ok(())) => Ok(()),
            Err(_) | Ok(Err(DefineError::Unreachable)) => Err(Failed::Silent),
            Ok(Err(error)) => Err(Failed::Refused(error.to_string())),
        }
    }

    /// Policies of the log whose limits the view in force does not have.
    fn new_policies(&self, view: &View) -> Vec<(String, ServerName)> {
        let in_force = self.gate.views.load();
        let known = |key| in_force.as_ref().and_then(|old| old.policies.get(key));
        let new = view.policies.iter().filter(|(key, used)| {
            known(key).is_none_or(|old| !Arc::ptr_eq(&old.policy, &used.policy))
        });
        new.map(|((policy, server), _)| (policy.to_string(), server.clone()))
            .collect()
    }

    /// What a view takes away is gone at once, whatever else it has to wait for.
    fn put_reduced(&mut self, next: &View) {
        let Some(old) = self.gate.views.load() else {
            return;
        };
        let gone = old.grants.iter().filter(|(hash, grant)| {
            !grant.revoked
                && (next.grants.get(*hash)).is_none_or(|next| next.revoked || next.barred)
        });
        let gone: Vec<_> = gone.map(|(hash, _)| *hash).collect();
        if gone.is_empty() {
            return;
        }
        let mut reduced = View::clone(&old);
        for hash in gone {
            match next.grants.get(&hash) {
                Some(grant) => reduced.grants.insert(hash, grant.clone()),
                None => reduced.grants.remove(&hash),
            };
        }
        self.put(reduced);
    }

    fn put(&mut self, mut view: View) {
        self.revision += 1;
        view.revision = self.revision;
        let gate = &self.gate;
        gate.metrics
            .view(view.revision, view.control, view.unresolved.len());
        gate.views.put(Arc::new(view));
        gate.sweep(clock::now());
    }

    /// Files that servers of the log refer to are watched like those of the configuration.
    async fn watch_log(&mut self) {
        let seen = self.assembler.seen();
        if seen != self.seen.1 {
            self.seen.1 = seen;
            self.tell_watcher().await;
        }
    }

    async fn tell_watcher(&self) {
        if let Some(watched) = &self.watched {
            let all = [&self.seen.0[..], &self.seen.1[..]].concat();
            let _ = watched.send(all).await;
        }
    }
}

/// Why a view is late.
const SILENT: &str = "the ledger is silent: what is revoked is refused already, the rest is put in force as soon as it \
                      answers";

fn lines(problems: &[FileProblem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Waits for the pause after the last change to end, and then for a change of the log.
async fn changed(control: &mut Option<watch::Receiver<Arc<Control>>>, not_before: Instant) {
    let Some(control) = control else {
        return std::future::pending().await;
    };
    sleep_until(not_before.into()).await;
    if control.changed().await.is_err() {
        std::future::pending().await
    }
}
