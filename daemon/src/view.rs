//! The immutable view: grants, policies, servers and bounds in force, swapped whole.

use crate::{bounds::Bounds, upstream::streamable_http::Route};
use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use proto::{
    grant::TokenHash,
    id::{GrantId, PolicyName, ServerName},
    policy::{Keys, Policy},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Where a resource stands: the two are shown apart and never take each other's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In this node's files.
    File,
    /// In the cluster's log.
    Log,
}

impl Origin {
    /// The word in what is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::File => "file",
            Origin::Log => "log",
        }
    }
}

/// Everything that a request is judged by.
#[derive(Clone, Debug)]
pub struct View {
    /// Counts up by one with every view that takes effect, from 1.
    pub revision: u64,
    /// Grants by the hash of their token (during a rotation one grant may stand under two).
    pub grants: HashMap<TokenHash, Arc<Grant>, foldhash::fast::RandomState>,
    /// Servers by name.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// Policies as they are used, each once for every server that it is used on.
    pub policies: BTreeMap<(PolicyName, ServerName), UsedPolicy>,
    /// The version of the cluster's control plane that is in here; 0: nothing of it.
    pub control: u64,
    /// Resources of the log that cannot be put in force on this node.
    pub unresolved: Arc<[Unresolved]>,
    /// Bounds in force.
    pub bounds: Arc<Bounds>,
    /// Accepted `Host` values beyond loopback names and the listeners' addresses, lower case, without port.
    pub hosts: Vec<String>,
    /// Accepted `Origin` values beyond those of accepted hosts, e.g. `https://app.example.com`.
    pub origins: Vec<String>,
}

/// A policy on a server.
#[derive(Clone, Debug)]
pub struct UsedPolicy {
    /// The policy, compiled for that server.
    pub policy: Arc<Policy>,
    /// Where its document stands.
    pub origin: Origin,
}

/// A resource of the log that cannot be put in force on this node: what needs it is refused, everything else goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// What it is.
    pub kind: proto::control::Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Why, a sentence each, with places in its document.
    pub why: Vec<String>,
}

/// A grant as the gateway sees it.
#[derive(Debug)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// A name for people.
    pub label: Option<Arc<str>>,
    /// Refused from this moment on, milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Refused always: kept in the file so that the audit can name it.
    pub revoked: bool,
    /// Where it stands. One from the log is refused while this node's knowledge of the log is too old.
    pub origin: Origin,
    /// It stands here under a token that was replaced: `expires_ms` is that token's end.
    pub former: bool,
    /// It cannot be put in force on this node: everything is refused.
    pub barred: bool,
    /// Servers that it names and that cannot be put in force on this node for it.
    pub unresolved: Vec<ServerName>,
    /// The servers it may use.
    pub servers: HashMap<ServerName, Binding, foldhash::fast::RandomState>,
}

impl Grant {
    /// Whether it has not expired at this time, milliseconds since 1970.
    pub fn lives(&self, at_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| at_ms < expires_ms)
    }
}

/// What a grant may do on one server.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The server.
    pub server: Arc<Server>,
    /// Its policy there; without one every call is denied.
    pub policy: Option<Arc<Policy>>,
    /// The keys of its counters under that policy.
    pub keys: Keys,
}

/// A server behind the gateway.
#[derive(Debug, PartialEq)]
pub struct Server {
    /// Its name: the last segment of `/mcp/<name>`.
    pub name: ServerName,
    /// Where it stands.
    pub origin: Origin,
    /// How it is reached.
    pub transport: Transport,
    /// Methods passed although the closed table does not know them.
    pub extra_methods: Vec<String>,
    /// Absolute timeout of one call (the bound `upstream_timeout`, or the server's own).
    pub timeout: Duration,
    /// Most calls in flight.
    pub calls: usize,
}

/// How a server is reached.
#[derive(Debug, PartialEq)]
pub enum Transport {
    /// Streamable HTTP.
    Http(HttpTarget),
    /// A child process that speaks JSON-RPC lines.
    Stdio(StdioTarget),
}

impl Transport {
    /// Whether a session that began with `self` still speaks to the same peer after a reload: the same URL, the same
    /// command. Another timeout or another upstream token ends no session.
    pub fn same_peer(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(ours), Self::Http(theirs)) => ours.url == theirs.url,
            (Self::Stdio(ours), Self::Stdio(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

/// A streamable HTTP endpoint.
#[derive(Debug)]
pub struct HttpTarget {
    /// `http` or `https`, host, optional port, path and query.
    pub url: http::Uri,
    /// Headers added to every request, values marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What is made of these on the first request.
    pub route: OnceLock<Result<Route, String>>,
}

impl PartialEq for HttpTarget {
    fn eq(&self, other: &Self) -> bool {
        (&self.url, &self.headers, &self.ca_file) == (&other.url, &other.headers, &other.ca_file)
    }
}

/// A command to start.
#[derive(Clone, Debug, PartialEq)]
pub struct StdioTarget {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment beyond PATH, HOME, LANG, TMPDIR; resolved values, never logged.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub dir: Option<PathBuf>,
    /// How processes are shared.
    pub processes: Processes,
    /// Most processes at once.
    pub processes_max: usize,
    /// Numeric user and group to run as.
    pub user: Option<(u32, u32)>,
    /// Resource limits of the child.
    pub rlimits: Rlimits,
}

/// How a stdio server's processes are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// One process a session.
    Session,
}

/// Resource limits; `None` = inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rlimits {
    /// RLIMIT_AS, bytes.
    pub memory_bytes: Option<u64>,
    /// RLIMIT_CPU, seconds.
    pub cpu_seconds: Option<u64>,
    /// RLIMIT_NOFILE.
    pub files: Option<u64>,
}

impl View {
    /// The policies as they are used by the grants of the view: compiled ones that nobody uses are not among them.
    pub fn used_policies<'g>(
        grants: impl IntoIterator<Item = &'g Arc<Grant>>,
        origin: impl Fn(&str) -> Origin,
    ) -> BTreeMap<(PolicyName, ServerName), UsedPolicy> {
        let mut seen = HashSet::new();
        let mut used = BTreeMap::new();
        for (server, binding) in grants.into_iter().flat_map(|grant| &grant.servers) {
            let Some(policy) = &binding.policy else {
                continue;
            };
            // Thousands of grants share a policy: only the first costs more than this.
            if seen.insert(Arc::as_ptr(policy)) {
                let origin = origin(&policy.name);
                let key = (PolicyName::new(&policy.name), server.clone());
                let policy = policy.clone();
                used.insert(key, UsedPolicy { policy, origin });
            }
        }
        used
    }
}

/// The place where the view in force is kept, and where streams hear of a new one.
#[derive(Debug)]
pub struct Views {
    current: ArcSwapOption<View>,
    revision: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            revision: AtomicU64::new(0),
            changed: watch::channel(0).0,
        }
    }
}

impl Views {
    /// The view in force; `None` until the first one was put.
    pub fn load(&self) -> Option<Arc<View>> {
        self.current.load_full()
    }
    /// Whether the view of this revision is (still) the one in force; one atomic load.
    pub fn is_in_force(&self, revision: u64) -> bool {
        self.revision.load(Ordering::Acquire) == revision
    }
    /// Puts a view in force and tells the streams.
    pub fn put(&self, view: Arc<View>) {
        let revision = view.revision;
        self.current.store(Some(view));
        self.revision.store(revision, Ordering::Release);
        self.changed.send_replace(revision);
    }
    /// Wakes when a view takes effect; the value is its revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
