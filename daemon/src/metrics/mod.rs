//! Metrics: handles made once, labels only from the configuration and from the code's own words.

mod histogram;
mod ledger;
mod table;

pub use ledger::{LedFigures, Ledger, LedgerFigures, VoterFigures};
pub use table::{Kind, Row, TABLE};

use crate::audit::Audit;
use foldhash::fast::RandomState;
use histogram::{Histogram, REQUEST_BOUNDS_NS, STAGE_BOUNDS_NS};
use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    PrometheusBuilder, PrometheusHandle, PrometheusRecorder, formatting,
};
use proto::id::ServerName;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};
use table::*;

/// Servers with series of their own in the life of a process (reloads may bring new names); further ones share one.
const SERVERS_MAX: usize = 4_096;
/// Words one label may take; further ones count as [`OTHER`].
const WORDS_MAX: usize = 128;
/// The label of whatever is beyond a bound.
const OTHER: &str = "(other)";

/// Every metric of the process.
pub struct Metrics {
    registry: Arc<Registry>,
    servers: RwLock<BTreeMap<ServerName, Arc<ServerMetrics>>>,
    stages: [Histogram; Stage::ALL.len()],
    refusals: Words<&'static str>,
    identify_failures: Words<&'static str>,
    connections: Gauge,
    sessions: Gauge,
    http_errors: Counter,
    reloads: [Counter; 2],
    reload_ok: Gauge,
    revision: Gauge,
    control: [Gauge; 3],
    ledger: Arc<Ledger>,
    audit: OnceLock<Audit>,
}

/// The handles of one server, made once.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Kept apart because it is the hot one.
    allowed: Counter,
    requests: Words<(&'static str, &'static str)>,
    upstream_errors: Words<&'static str>,
    request: Histogram,
    in_flight: Gauge,
    processes: Gauge,
    stdio_skipped: Counter,
    refunds: Counter,
}

/// A request's stages that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Token to caller.
    Identify,
    /// Bytes to message.
    Scan,
    /// Message to verdict.
    Decide,
    /// Until the upstream's reply begins.
    Forward,
    /// Until the upstream's reply ends.
    Relay,
}

impl Stage {
    const ALL: [Stage; 5] = [
        Stage::Identify,
        Stage::Scan,
        Stage::Decide,
        Stage::Forward,
        Stage::Relay,
    ];

    fn name(self) -> &'static str {
        match self {
            Stage::Identify => "identify",
            Stage::Scan => "scan",
            Stage::Decide => "decide",
            Stage::Forward => "forward",
            Stage::Relay => "relay",
        }
    }
}

impl Metrics {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        let registry = Arc::new(Registry::new());
        let version = vec![Label::new("version", env!("CARGO_PKG_VERSION"))];
        registry.gauge(BUILD, version).set(1.0);
        let words = |name, label| {
            let registry = registry.clone();
            Words::new(move |word: Option<&'static str>| {
                registry.counter(name, vec![Label::new(label, word.unwrap_or(OTHER))])
            })
        };
        let result = |word| registry.counter(RELOADS, vec![Label::new("result", word)]);
        Arc::new(Self {
            servers: RwLock::default(),
            stages: Stage::ALL.map(|_| Histogram::new(STAGE_BOUNDS_NS)),
            refusals: words(REFUSALS, "reason"),
            identify_failures: words(IDENTIFY_FAILURES, "reason"),
            connections: registry.gauge(CONNECTIONS, vec![]),
            sessions: registry.gauge(SESSIONS, vec![]),
            http_errors: registry.counter(HTTP_ERRORS, vec![]),
            reloads: [result("error"), result("ok")],
            reload_ok: registry.gauge(RELOAD_OK, vec![]),
            revision: registry.gauge(REVISION, vec![]),
            control: [CONTROL_VERSION, CONTROL_UNRESOLVED, CONTROL_AGE]
                .map(|name| registry.gauge(name, vec![])),
            ledger: Arc::new(Ledger::new(&registry)),
            audit: OnceLock::new(),
            registry,
        })
    }

    /// The handles of the ledger and of what is leased.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Shows this audit trail's state among the metrics.
    pub fn watch_audit(&self, audit: &Audit) {
        self.audit.get_or_init(|| audit.clone());
    }

    /// The handles of a configured server (never called with a name from a client).
    pub fn server(&self, name: &ServerName) -> Arc<ServerMetrics> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(name) {
            return server.clone();
        }
        drop(servers);
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        let name = match servers.len() < SERVERS_MAX || servers.contains_key(name) {
            true => name.clone(),
            false => ServerName::new(OTHER),
        };
        let made = || Arc::new(ServerMetrics::new(&self.registry, &name));
        servers.entry(name.clone()).or_insert_with(made).clone()
    }

    /// Adds one stage's time.
    pub fn stage(&self, stage: Stage, nanos: u64) {
        self.stages[stage as usize].record(nanos);
    }
    /// Counts a body or headers that the scanner or the protocol's rules refused, by a word of the code.
    pub fn refused(&self, label: &'static str) {
        self.refusals.count(label);
    }
    /// Counts a caller that could not be identified, by a word of the code.
    pub fn identify_failed(&self, label: &'static str) {
        self.identify_failures.count(label);
    }
    /// Counts a client's connection.
    pub fn connection_opened(&self) {
        self.connections.increment(1.0);
    }
    /// Counts its end.
    pub fn connection_closed(&self) {
        self.connections.decrement(1.0);
    }
    /// Counts a connection that ended in an HTTP protocol error.
    pub fn http_protocol_error(&self) {
        self.http_errors.increment(1);
    }
    /// Counts a reload (the first load too); `revision` is that of the view in force.
    pub fn reloaded(&self, ok: bool, revision: u64) {
        self.reloads[usize::from(ok)].increment(1);
        self.reload_ok.set(f64::from(u8::from(ok)));
        self.revision.set(revision as f64);
    }
    /// A view is in force: its revision, its version of the control plane, and what of that is not in force here.
    pub fn view(&self, revision: u64, control: u64, unresolved: usize) {
        self.revision.set(revision as f64);
        self.control[0].set(control as f64);
        self.control[1].set(unresolved as f64);
    }
    /// Sets the age of what is known of the control plane; `None`: nothing was ever confirmed.
    pub fn control_age(&self, age: Option<Duration>) {
        self.control[2].set(age.map_or(-1.0, |age| age.as_secs_f64()));
    }
    /// Sets the number of sessions.
    pub fn set_sessions(&self, n: usize) {
        self.sessions.set(n as f64);
    }
    /// Sets the number of child processes of a configured server.
    pub fn processes(&self, server: &ServerName, n: usize) {
        self.server(server).processes.set(n as f64);
    }
    /// Counts lines on a stdio server's standard output that are no JSON-RPC messages.
    pub fn stdio_skipped(&self, server: &ServerName, lines: u64) {
        self.server(server).stdio_skipped.increment(lines);
    }

    /// The text that Prometheus reads (exposition format 0.0.4).
    pub fn render(&self) -> String {
        if let Some(audit) = self.audit.get() {
            let registry = &self.registry;
            registry
                .gauge(AUDIT_QUEUE, vec![])
                .set(audit.queued() as f64);
            registry
                .gauge(AUDIT_READY, vec![])
                .set(f64::from(u8::from(audit.ready())));
            registry
                .counter(AUDIT_REFUSED, vec![])
                .absolute(audit.refused());
            registry
                .counter(AUDIT_SUPPRESSED, vec![])
                .absolute(audit.suppressed());
        }
        let mut out = self.registry.handle.render();
        let mut family = |name| {
            let help = TABLE
                .iter()
                .find(|row| row.name == name)
                .map_or("", |row| row.help);
            formatting::write_help_line(&mut out, name, None, None, help);
            formatting::write_type_line(&mut out, name, None, None, "histogram");
            match name {
                STAGE => Stage::ALL.iter().for_each(|stage| {
                    let label = ("stage", stage.name());
                    self.stages[*stage as usize].render(name, Some(label), &mut out);
                }),
                RAFT_FSYNC | LEASE_WAIT => self.ledger.render(name, &mut out),
                _ => self
                    .servers
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .for_each(|(server, m)| {
                        m.request.render(name, Some(("server", server)), &mut out);
                    }),
            }
        };
        family(STAGE);
        family(REQUEST);
        family(RAFT_FSYNC);
        family(LEASE_WAIT);
        out
    }
}

impl ServerMetrics {
    fn new(registry: &Arc<Registry>, name: &ServerName) -> Self {
        let server = Label::new("server", name.to_string());
        let labels = || vec![server.clone()];
        let requests = {
            let (registry, server) = (registry.clone(), server.clone());
            move |words: Option<(&'static str, &'static str)>| {
                let (decision, code) = words.unwrap_or((OTHER, OTHER));
                let words = [Label::new("decision", decision), Label::new("code", code)];
                registry.counter(
                    REQUESTS,
                    [std::slice::from_ref(&server), &words[..]].concat(),
                )
            }
        };
        let upstream_errors = {
            let (registry, server) = (registry.clone(), server.clone());
            move |code: Option<&'static str>| {
                let code = Label::new("code", code.unwrap_or(OTHER));
                registry.counter(UPSTREAM_ERRORS, vec![server.clone(), code])
            }
        };
        Self {
            allowed: requests(Some(("allow", "none"))),
            requests: Words::new(requests),
            upstream_errors: Words::new(upstream_errors),
            request: Histogram::new(REQUEST_BOUNDS_NS),
            in_flight: registry.gauge(IN_FLIGHT, labels()),
            processes: registry.gauge(PROCESSES, labels()),
            stdio_skipped: registry.counter(STDIO_SKIPPED, labels()),
            refunds: registry.counter(REFUNDS, labels()),
        }
    }

    /// Counts a request that ended; both words are the code's own (`none` where there is no code).
    pub fn finished(&self, decision: &'static str, code: &'static str, latency_us: u64) {
        self.request.record(latency_us.saturating_mul(1_000));
        match (decision, code) {
            ("allow", "none") => self.allowed.increment(1),
            words => self.requests.count(words),
        }
    }
    /// Counts a call that was forwarded and has not ended.
    pub fn call_started(&self) {
        self.in_flight.increment(1.0);
    }
    /// Counts its end.
    pub fn call_ended(&self) {
        self.in_flight.decrement(1.0);
    }
    /// Counts an upstream's failure ([`crate::upstream::ErrorKind::label`]).
    pub fn upstream_error(&self, code: &'static str) {
        self.upstream_errors.count(code);
    }
    /// Counts a charge that was given back.
    pub fn refunded(&self) {
        self.refunds.increment(1);
    }
}

/// Counters of one metric by words of the code, at most [`WORDS_MAX`] of them.
struct Words<K> {
    counters: RwLock<HashMap<K, Counter, RandomState>>,
    /// `None` makes the counter of everything beyond the bound.
    make: Box<dyn Fn(Option<K>) -> Counter + Send + Sync>,
}

impl<K: Copy + Eq + Hash> Words<K> {
    fn new(make: impl Fn(Option<K>) -> Counter + Send + Sync + 'static) -> Self {
        Self {
            counters: RwLock::default(),
            make: Box::new(make),
        }
    }

    fn count(&self, word: K) {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(&word) {
            return counter.increment(1);
        }
        drop(counters);
        let mut counters = self
            .counters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if counters.len() >= WORDS_MAX && !counters.contains_key(&word) {
            return (self.make)(None).increment(1);
        }
        let made = || (self.make)(Some(word));
        counters.entry(word).or_insert_with(made).increment(1);
    }
}

impl<K: fmt::Debug> fmt::Debug for Words<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words")
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// The exporter's recorder of this set, not installed globally: tests run many gateways in one process.
struct Registry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

const METADATA: Metadata<'static> = Metadata::new("tollgate", Level::INFO, None);

impl Registry {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for row in TABLE {
            let name = row.name.into();
            match row.kind {
                Kind::Counter => recorder.describe_counter(name, None, row.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, None, row.help.into()),
                Kind::Histogram => recorder.describe_histogram(name, None, row.help.into()),
            }
        }
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        let key = Key::from_parts(name, labels);
        self.recorder.register_counter(&key, &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        let key = Key::from_parts(name, labels);
        self.recorder.register_gauge(&key, &METADATA)
    }
}

#[cfg(test)]
mod tests;
