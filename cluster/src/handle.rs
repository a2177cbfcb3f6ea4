//! The only way in.
//!
//! A [`Handle`] asks the leader of the cluster, whoever it is, over whatever way there is: another voter's connection or,
//! where this node leads, a channel. Every question is asynchronous, has a patience of its own, and may end as
//! [`Error::Unreachable`]. Questions are idempotent: one whose answer was not heard may be asked again.

mod answer;
mod settings;
mod shared;
mod time;

pub use crate::node::open;
pub use answer::{Error, Failure, Fresh, Heard, Local, Operated};
pub use settings::{Clock, OpenError, Settings, Synced, Timing};
pub(crate) use shared::{Known, Shared, ToDriver};
pub use time::LedgerClock;

use crate::join::Token;
use crate::transport::{Stats, Watcher};
use crate::wire::{
    At, Counters, DEFINITIONS_MAX, Operate, Push, RETURNS_MAX, Request, Response, Row, Status,
};
use answer::refusal;
use proto::{
    command::{NodeId, Role},
    control::Control,
    limit::{
        HashKey,
        lease::{Ask, GiveBack},
        ledger::{Definition, Session},
    },
    time::Now,
};
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// How long a lease or a return is asked for again.
pub const LEASE_PATIENCE: Duration = Duration::from_secs(2);
/// How long everything else is.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that wait for the driver; beyond that askers wait.
pub(crate) const ASKS_MAX: usize = 4_096;
/// Pushes that a slow hearer may be behind before the oldest are lost.
pub(crate) const PUSHES_MAX: usize = 4_096;

/// A way to the ledger and the control plane; clones share it. When the last one is dropped the node stops,
/// but [`Handle::bye`] and [`Handle::shutdown`] are the polite way.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    driver: Option<mpsc::Sender<ToDriver>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("node", &self.shared.node)
            .field("role", &self.shared.role)
            .field("connected", &self.driver.is_some())
            .finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, driver: mpsc::Sender<ToDriver>) -> Self {
        Self {
            shared,
            driver: Some(driver),
        }
    }

    /// A node without a ledger, for tests: every question is answered [`Error::Unreachable`] at once.
    pub fn disconnected(now: Now) -> Self {
        let known = Known {
            node: NodeId(0),
            cluster: 0,
            role: Role::Client,
            name: String::new(),
            secret: HashKey([0; 16]),
            local_addr: None,
            authority: None,
            connections: Watcher::default(),
        };
        Self {
            shared: Arc::new(Shared::new(known, Arc::new(move || now), now)),
            driver: None,
        }
    }

    /// How it is connected with other nodes.
    pub fn connections(&self) -> Stats {
        self.shared.connections.stats()
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// The cluster's id.
    pub fn cluster(&self) -> u128 {
        self.shared.cluster
    }

    /// Whether it votes.
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it listens for other nodes.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local_addr
    }

    /// The secret with which identities and keys of limits are hashed: the cluster's, or the configured one.
    pub fn secret(&self) -> HashKey {
        self.shared.secret.clone()
    }

    /// The present session. When it changes, whatever was held under the former one is void and every limit must be
    /// defined again. `None`: no leader was heard yet.
    pub fn session(&self) -> watch::Receiver<Option<Session>> {
        self.shared.session.subscribe()
    }

    /// The ledger's time, as far as this node can tell without asking, milliseconds since 1970.
    pub fn ledger_ms(&self, now: Now) -> u64 {
        self.time().ledger_ms(now)
    }

    /// When this node's boot clock will show a moment of the ledger's time, nanoseconds.
    pub fn boot_ns(&self, ledger_ms: u64) -> u64 {
        self.time().boot_ns(ledger_ms)
    }

    fn time(&self) -> LedgerClock {
        // Plain numbers: no panic leaves them half-written.
        *self
            .shared
            .time
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Defines every limit of a view, in pieces; with the last piece the session's limits of older revisions go out of
    /// force. Answers under which session that was; after a change of session it must be done again.
    pub async fn define(
        &self,
        revision: u64,
        definitions: &[Definition],
    ) -> Result<Session, Error> {
        let until_ns = self.until_ns(PATIENCE);
        let session = self.wait_for_session(PATIENCE).await?;
        let pieces = definitions.len().div_ceil(DEFINITIONS_MAX).max(1);
        for piece in 0..pieces {
            let from = piece * DEFINITIONS_MAX;
            let upto = (from + DEFINITIONS_MAX).min(definitions.len());
            let request = Request::Define {
                session,
                revision,
                definitions: definitions[from..upto].to_vec(),
                last: piece + 1 == pieces,
            };
            done(self.ask(request, until_ns).await?)?;
        }
        Ok(session)
    }

    /// Defines limits beside those of the view in force, for a call that came before its view was announced. `revision`
    /// is that of the view.
    pub async fn define_more(
        &self,
        revision: u64,
        definitions: &[Definition],
    ) -> Result<Session, Error> {
        let until_ns = self.until_ns(LEASE_PATIENCE);
        let session = self.wait_for_session(LEASE_PATIENCE).await?;
        for piece in definitions.chunks(DEFINITIONS_MAX) {
            let request = Request::Define {
                session,
                revision,
                definitions: piece.to_vec(),
                last: false,
            };
            done(self.ask(request, until_ns).await?)?;
        }
        Ok(session)
    }

    /// Asks for quota under a session. Dropping the future loses nothing: the next answer offers again what was not heard.
    pub async fn lease(&self, session: Session, ask: Ask) -> Result<Heard, Error> {
        let sent = (self.shared.clock)();
        let request = Request::Lease { session, ask };
        match self.ask(request, after(sent, LEASE_PATIENCE)).await? {
            Response::Lease { verdict, at } => Ok(Heard {
                verdict,
                at,
                session,
                sent,
            }),
            other => Err(refusal(other)),
        }
    }

    /// Returns quota. Absolute totals: on an error they are simply said again.
    pub async fn give_back(&self, session: Session, returns: &[GiveBack]) -> Result<(), Error> {
        let until_ns = self.until_ns(LEASE_PATIENCE);
        for piece in returns.chunks(RETURNS_MAX) {
            let request = Request::Return {
                session,
                returns: piece.to_vec(),
                bye: false,
            };
            done(self.ask(request, until_ns).await?)?;
        }
        Ok(())
    }

    /// Returns everything and closes the session: nothing is leased to this run of the node any more.
    pub async fn bye(&self, session: Session, returns: &[GiveBack]) -> Result<(), Error> {
        let (most, last) = returns.split_at(returns.len().saturating_sub(RETURNS_MAX));
        self.give_back(session, most).await?;
        let request = Request::Return {
            session,
            returns: last.to_vec(),
            bye: true,
        };
        let until_ns = self.until_ns(LEASE_PATIENCE);
        done(self.ask(request, until_ns).await?)
    }

    /// What the leader says by itself, from now on. A hearer that falls behind loses the oldest, which costs time only.
    pub fn pushes(&self) -> broadcast::Receiver<Push> {
        self.shared.pushes.subscribe()
    }

    /// The control plane as this node knows it; kept up to date by the node, about once a second and at once when the
    /// leader tells of a change.
    pub fn control(&self) -> watch::Receiver<Arc<Control>> {
        self.shared.control.subscribe()
    }

    /// How fresh that is.
    pub fn fresh(&self) -> Fresh {
        // The stamp first: a version that is published meanwhile is a newer one, which does no harm.
        let asked_ns = self.shared.fresh_ns.load(Ordering::Acquire);
        Fresh {
            version: self.shared.fresh_version.load(Ordering::Acquire),
            asked_ns,
        }
    }

    /// Counters as the ledger holds them, and how many there are; linearizable.
    pub async fn counters(&self, counters: Counters) -> Result<(Vec<Row>, u64, At), Error> {
        let request = Request::Counters(counters);
        match self.ask(request, self.until_ns(PATIENCE)).await? {
            Response::Counters { rows, total, at } => Ok((rows, total, at)),
            other => Err(refusal(other)),
        }
    }

    /// How the cluster is, as its leader sees it.
    pub async fn status(&self) -> Result<Status, Error> {
        let until_ns = self.until_ns(PATIENCE);
        match self.ask(Request::Status, until_ns).await? {
            Response::Status(status) => Ok(*status),
            other => Err(refusal(other)),
        }
    }

    /// What this node knows without asking; for when nobody answers.
    pub fn local(&self) -> Local {
        self.shared.local.borrow().clone()
    }

    /// An operator's write. Ok = committed. [`Error::Unreachable`]: it may or may not have been.
    pub async fn operate(&self, operate: Operate) -> Result<Operated, Error> {
        let request = Request::Operate(operate);
        match self.ask(request, self.until_ns(PATIENCE)).await? {
            Response::Done { .. } => Ok(Operated::Done),
            Response::Credited(units) => Ok(Operated::Credited(units)),
            Response::Version(version) => Ok(Operated::Version(version)),
            other => Err(refusal(other)),
        }
    }

    /// Makes a token that lets one node in, as that and for that long (of the ledger's time). `None`: this node was never
    /// made ready for others.
    pub async fn token(&self, role: Role, ttl: Duration) -> Result<Option<Token>, Error> {
        let Some(authority) = &self.shared.authority else {
            return Ok(None);
        };
        let token = Token::new(authority);
        let operate = Operate::Token {
            hash: token.hash(),
            role,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        };
        self.operate(operate).await.map(|_| Some(token))
    }

    /// Writes the machine's state as of now into a new file and answers its index (voters only).
    pub async fn snapshot_to(&self, path: PathBuf) -> Result<u64, String> {
        let (answer, answered) = oneshot::channel();
        let driver = self.driver.as_ref().ok_or("there is no ledger")?;
        driver
            .send(ToDriver::Snapshot { path, answer })
            .await
            .map_err(|_| "the node stopped")?;
        answered.await.map_err(|_| "the node stopped")?
    }

    /// The voters and where they listen, as this node knows them.
    pub fn voters(&self) -> BTreeMap<NodeId, String> {
        self.shared.voters.borrow().clone()
    }

    /// What reads both clocks.
    pub(crate) fn clock(&self) -> settings::Clock {
        self.shared.clock.clone()
    }

    /// A handle that does not keep the node running.
    pub(crate) fn downgrade(&self) -> WeakHandle {
        let driver = self.driver.as_ref().map(mpsc::Sender::downgrade);
        WeakHandle {
            shared: self.shared.clone(),
            driver: driver.unwrap_or_else(|| mpsc::channel(1).0.downgrade()),
        }
    }

    /// Why the node had to stop by itself, once it had to. It acknowledges nothing any more; the process should settle what
    /// is in flight as charged and end with [`Failure::exit_code`].
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.shared.failed.subscribe()
    }

    /// Stops the node: its connections close, its log is on the disk. Say [`Handle::bye`] first.
    pub async fn shutdown(&self) {
        let (answer, answered) = oneshot::channel();
        if let Some(driver) = &self.driver
            && driver.send(ToDriver::Shutdown { answer }).await.is_ok()
        {
            let _ = answered.await;
        }
    }

    /// Waits for a session, no longer than that.
    pub async fn wait_for_session(&self, patience: Duration) -> Result<Session, Error> {
        if self.driver.is_none() {
            return Err(Error::Unreachable);
        }
        let mut session = self.session();
        let found = tokio::time::timeout(patience, session.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(session)) => session.ok_or(Error::Unreachable),
            _ => Err(Error::Unreachable),
        }
    }

    fn until_ns(&self, patience: Duration) -> u64 {
        after((self.shared.clock)(), patience)
    }

    async fn ask(&self, request: Request, deadline_ns: u64) -> Result<Response, Error> {
        let driver = self.driver.as_ref().ok_or(Error::Unreachable)?;
        let (answer, answered) = oneshot::channel();
        let asked = ToDriver::Ask {
            request,
            deadline_ns,
            answer,
        };
        driver.send(asked).await.map_err(|_| Error::Unreachable)?;
        match answered.await {
            Ok(Some(response)) => Ok(response),
            _ => Err(Error::Unreachable),
        }
    }
}

/// A handle that does not keep the node running.
#[derive(Clone)]
pub(crate) struct WeakHandle {
    shared: Arc<Shared>,
    driver: mpsc::WeakSender<ToDriver>,
}

impl WeakHandle {
    /// A handle, while there is another one.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        let driver = self.driver.upgrade()?;
        Some(Handle::new(self.shared.clone(), driver))
    }

    /// Where a voter listens.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<String> {
        self.shared.voters.borrow().get(&node).cloned()
    }
}

fn after(now: Now, patience: Duration) -> u64 {
    let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    now.boot_ns.saturating_add(patience_ns)
}

fn done(response: Response) -> Result<(), Error> {
    match response {
        Response::Done { .. } => Ok(()),
        other => Err(refusal(other)),
    }
}
