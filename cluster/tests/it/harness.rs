//! Nodes in temporary directories.

use cluster::{
    handle::{self, Handle, Heard, OpenError, Settings},
    join::Wish,
    setup,
    wire::Status,
};
use proto::{
    command::{NodeId, Role},
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
        ledger::{Definition, Refusal, Session, Standing},
    },
    time::Now,
};
use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A limit of 10 a day.
pub const LIMIT: Definition = Definition {
    identity: Identity(1),
    window: Window::Duration(86_400_000),
    max: 10,
};

/// Reads both clocks.
pub fn now() -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_millis() as u64);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Now {
        unix_ms,
        boot_ns: boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64,
    }
}

pub fn settings(dir: &Path) -> Settings {
    Settings::alone(dir.to_owned(), Arc::new(now))
}

pub fn open(dir: &Path) -> Result<Handle, OpenError> {
    handle::open(settings(dir))
}

/// A session with [`LIMIT`] defined.
pub async fn begin(handle: &Handle) -> Session {
    handle.define(1, &[LIMIT]).await.unwrap()
}

/// Asks for exactly this much of a counter, as a holder that never heard of it.
pub async fn lease(handle: &Handle, session: Session, key: u128, units: u64) -> Heard {
    handle.lease(session, ask(key, units)).await.unwrap()
}

pub fn ask(key: u128, units: u64) -> Ask {
    Ask {
        identity: LIMIT.identity,
        key: CounterKey(key),
        window_hint: u64::MAX,
        want: units,
        min: units,
        seen_granted: 0,
        returned_total: 0,
        group: None,
        waiting: true,
    }
}

pub fn back(key: u128, window: u64, returned_total: u128) -> GiveBack {
    GiveBack {
        key: CounterKey(key),
        window,
        returned_total,
    }
}

/// Runs a test on a runtime of its own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(120), test)
                .await
                .expect("the test takes too long")
        })
}

/// A node of a cluster of several, in a directory of its own.
pub struct Node {
    pub dir: TempDir,
    /// Where it listens; `None`: a lease client.
    pub listen: Option<SocketAddr>,
    handle: Option<Handle>,
}

impl Node {
    /// The first node of a cluster that others can join.
    pub fn first() -> Self {
        let mut node = Self::new(Some(free_address()));
        let address = node.listen.unwrap().to_string();
        setup::init(node.dir.path(), "n1", &address, now()).unwrap();
        node.start();
        node
    }

    /// Joins the cluster of another node, and starts.
    pub async fn join(name: &str, role: Role, other: &Self) -> Self {
        let listen = (role == Role::Voter).then(free_address);
        let mut node = Self::new(listen);
        let hour = Duration::from_secs(3_600);
        let token = other.handle().token(role, hour).await.unwrap().unwrap();
        let wish = Wish {
            name: name.to_owned(),
            address: listen.map(|at| at.to_string()).unwrap_or_default(),
            role,
        };
        let peers = [other.listen.unwrap().to_string()];
        setup::join(node.dir.path(), &peers, &token, &wish)
            .await
            .unwrap();
        node.start();
        node
    }

    fn new(listen: Option<SocketAddr>) -> Self {
        // Many nodes on one disk keep each other waiting; what they do to it is tested elsewhere.
        let in_memory = tempfile::Builder::new()
            .prefix("tollgate-it-")
            .tempdir_in("/dev/shm");
        Self {
            dir: in_memory.unwrap_or_else(|_| tempfile::tempdir().unwrap()),
            listen,
            handle: None,
        }
    }

    pub fn start(&mut self) {
        let opened = handle::open(Settings {
            listen: self.listen,
            bootstrap: false,
            ..settings(self.dir.path())
        });
        self.handle = Some(opened.unwrap());
    }

    pub async fn stop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
    }

    pub fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("the node is stopped")
    }

    pub fn id(&self) -> NodeId {
        self.handle().node()
    }
}

/// An address on loopback that nobody uses at the moment.
fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// Waits until a leader's answer is so, and returns it.
pub async fn until(handle: &Handle, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
    let began = Instant::now();
    loop {
        let status = handle.status().await;
        if let Ok(status) = &status
            && is_so(status)
        {
            return status.clone();
        }
        assert!(
            began.elapsed() < PATIENCE,
            "it never came to this: {what}; at last {status:#?}, here {:#?}",
            handle.local()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Voters that vote.
pub fn voters(status: &Status) -> usize {
    let members = status.members.iter();
    members
        .filter(|m| m.role == Role::Voter && !m.learner && !m.leaving)
        .count()
}

/// Asks until it is answered, as a holder does; what the ledger says.
pub async fn insist(handle: &Handle, key: u128, units: u64) -> Result<Standing, Refusal> {
    let began = Instant::now();
    loop {
        let session = match handle.define(1, &[LIMIT]).await {
            Ok(session) => session,
            Err(error) => {
                assert!(began.elapsed() < PATIENCE, "{error}");
                continue;
            }
        };
        match handle.lease(session, ask(key, units)).await {
            Ok(heard) => return heard.verdict,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    }
}
