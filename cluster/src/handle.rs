//! The only way in.
//!
//! A [`Handle`] asks the leader of the cluster, whoever it is, over whatever way there is: another voter's connection or,
//! where this node leads, a channel. Every question is asynchronous, has a patience of its own, and may end as
//! [`Error::Unreachable`]. Questions are idempotent: one whose answer was not heard may be asked again.

mod settings;
mod time;

pub use settings::{OpenError, Settings, Timing};
pub use time::LedgerClock;

use crate::wire::{
    At, Counters, DEFINITIONS_MAX, Operate, Push, RETURNS_MAX, Request, Response, Row, Status,
};
use proto::{
    command::{MemberRefusal, NodeId, Role},
    control::{self, Control},
    limit::{
        HashKey,
        lease::{Ask, GiveBack},
        ledger::{Definition, Refusal, Session, Standing},
    },
    time::Now,
};
use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No leader answered in time, or this node stopped: nothing is known, no limit was reached.
    #[error("the ledger cannot be reached")]
    Unreachable,
    /// The ledger said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The control plane said no.
    #[error(transparent)]
    Control(#[from] control::Refusal),
    /// Membership said no.
    #[error(transparent)]
    Member(#[from] MemberRefusal),
    /// This node may not ask that: it was removed, or its role does not allow it.
    #[error("the cluster does not let this node do that")]
    Forbidden,
    /// The question is larger than a peer takes.
    #[error("the request is too large")]
    TooLarge,
}

/// An answer to [`Handle::lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How the asker stands, or why there is nothing.
    pub verdict: Result<Standing, Refusal>,
    /// The moment in replicated history.
    pub at: At,
    /// The session under which it was asked.
    pub session: Session,
    /// Both clocks of this node before the question was sent for the first time: what the answer grants holds from here.
    pub sent: Now,
}

/// What came of [`Handle::operate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operated {
    /// Done.
    Done,
    /// A credit: units given back.
    Credited(u128),
    /// A change of the control plane: its new version.
    Version(u64),
}

/// How much this node knows of the control plane, and how fresh that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// The control version that was complete here when the stamp was taken. [`Handle::control`] shows at least this one.
    pub version: u64,
    /// Boot clock before the question was asked that a majority has confirmed since, nanoseconds; 0: never.
    pub asked_ns: u64,
}

/// What this node knows of the cluster without asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Who leads, as far as this node has heard.
    pub leader: Option<NodeId>,
    /// Raft's term (voters) or the term of the last answer.
    pub term: u64,
    /// Committed index (voters).
    pub committed: u64,
    /// Applied index (voters).
    pub applied: u64,
    /// Bytes of the log on the disk (voters).
    pub log_bytes: u64,
}

/// A question on its way to the driver.
#[derive(Debug)]
pub(crate) enum ToDriver {
    /// For the leader.
    Ask {
        request: Request,
        deadline_ns: u64,
        answer: oneshot::Sender<(Option<Response>, Now)>,
    },
    /// Write the machine's state into a file.
    Snapshot {
        path: PathBuf,
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// Stop: close connections, sync the log.
    Shutdown { answer: oneshot::Sender<()> },
}

/// What driver and handles share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) cluster: u128,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) secret: HashKey,
    pub(crate) clock: settings::Clock,
    pub(crate) time: Mutex<LedgerClock>,
    pub(crate) session: watch::Sender<Option<Session>>,
    pub(crate) control: watch::Sender<Arc<Control>>,
    pub(crate) fresh_version: AtomicU64,
    pub(crate) fresh_ns: AtomicU64,
    pub(crate) pushes: broadcast::Sender<Push>,
    pub(crate) local: watch::Sender<Local>,
    pub(crate) failed: watch::Sender<Option<String>>,
}

/// A way to the ledger and the control plane; clones share it. The last one dropped does not stop the node:
/// [`Handle::shutdown`] does.
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

impl Shared {
    pub(crate) fn new(identity: Known, clock: settings::Clock, now: Now) -> Self {
        Self {
            node: identity.node,
            cluster: identity.cluster,
            role: identity.role,
            name: identity.name,
            secret: identity.secret,
            clock,
            time: Mutex::new(LedgerClock::new(now)),
            session: watch::Sender::new(None),
            control: watch::Sender::new(Arc::default()),
            fresh_version: AtomicU64::new(0),
            fresh_ns: AtomicU64::new(0),
            pushes: broadcast::Sender::new(PUSHES_MAX),
            local: watch::Sender::new(Local::default()),
            failed: watch::Sender::new(None),
        }
    }
}

/// Who this node is.
pub(crate) struct Known {
    pub(crate) node: NodeId,
    pub(crate) cluster: u128,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) secret: HashKey,
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
        };
        Self {
            shared: Arc::new(Shared::new(known, Arc::new(move || now), now)),
            driver: None,
        }
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
        let deadline_ns = self.deadline_ns(PATIENCE);
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
            self.done(self.ask(request, deadline_ns).await?.0)?;
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
        let deadline_ns = self.deadline_ns(LEASE_PATIENCE);
        let session = self.wait_for_session(LEASE_PATIENCE).await?;
        for piece in definitions.chunks(DEFINITIONS_MAX) {
            let request = Request::Define {
                session,
                revision,
                definitions: piece.to_vec(),
                last: false,
            };
            self.done(self.ask(request, deadline_ns).await?.0)?;
        }
        Ok(session)
    }

    /// Asks for quota under a session. Dropping the future loses nothing: the next answer offers again what was not heard.
    pub async fn lease(&self, session: Session, ask: Ask) -> Result<Heard, Error> {
        let deadline_ns = self.deadline_ns(LEASE_PATIENCE);
        let request = Request::Lease { session, ask };
        match self.ask(request, deadline_ns).await? {
            (Response::Lease { verdict, at }, sent) => Ok(Heard {
                verdict,
                at,
                session,
                sent,
            }),
            (other, _) => Err(refusal(other)),
        }
    }

    /// Returns quota. Absolute totals: on an error they are simply said again.
    pub async fn give_back(&self, session: Session, returns: &[GiveBack]) -> Result<(), Error> {
        let deadline_ns = self.deadline_ns(LEASE_PATIENCE);
        for piece in returns.chunks(RETURNS_MAX) {
            let request = Request::Return {
                session,
                returns: piece.to_vec(),
                bye: false,
            };
            self.done(self.ask(request, deadline_ns).await?.0)?;
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
        let deadline_ns = self.deadline_ns(LEASE_PATIENCE);
        self.done(self.ask(request, deadline_ns).await?.0)
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
        match self.ask(request, self.deadline_ns(PATIENCE)).await?.0 {
            Response::Counters { rows, total, at } => Ok((rows, total, at)),
            other => Err(refusal(other)),
        }
    }

    /// How the cluster is, as its leader sees it.
    pub async fn status(&self) -> Result<Status, Error> {
        let deadline_ns = self.deadline_ns(PATIENCE);
        match self.ask(Request::Status, deadline_ns).await?.0 {
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
        match self.ask(request, self.deadline_ns(PATIENCE)).await?.0 {
            Response::Done { .. } => Ok(Operated::Done),
            Response::Credited(units) => Ok(Operated::Credited(units)),
            Response::Version(version) => Ok(Operated::Version(version)),
            other => Err(refusal(other)),
        }
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

    /// Why the node had to stop by itself, once it had to: its disk failed or is full. It acknowledges nothing any more;
    /// the process should settle what is in flight as charged and exit with [`EXIT_STORAGE`].
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
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

    fn deadline_ns(&self, patience: Duration) -> u64 {
        let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        (self.shared.clock)().boot_ns.saturating_add(patience_ns)
    }

    async fn ask(&self, request: Request, deadline_ns: u64) -> Result<(Response, Now), Error> {
        let driver = self.driver.as_ref().ok_or(Error::Unreachable)?;
        let (answer, answered) = oneshot::channel();
        let asked = ToDriver::Ask {
            request,
            deadline_ns,
            answer,
        };
        driver.send(asked).await.map_err(|_| Error::Unreachable)?;
        match answered.await {
            Ok((Some(response), sent)) => Ok((response, sent)),
            _ => Err(Error::Unreachable),
        }
    }

    fn done(&self, response: Response) -> Result<(), Error> {
        match response {
            Response::Done { .. } => Ok(()),
            other => Err(refusal(other)),
        }
    }
}

/// The exit code of a process whose voter could not keep its log (sysexits: an input or output error).
pub const EXIT_STORAGE: u8 = 74;

/// What an answer that was not hoped for means.
fn refusal(response: Response) -> Error {
    match response {
        Response::Refused(refusal) => Error::Refused(refusal),
        Response::Control(refusal) => Error::Control(refusal),
        Response::Member(refusal) => Error::Member(refusal),
        Response::Forbidden => Error::Forbidden,
        _ => Error::Unreachable,
    }
}
