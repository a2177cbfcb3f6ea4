//! Metrics: handles made once, labels only from the configuration.

use proto::id::ServerName;
use std::sync::Arc;

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {}

/// The handles of one server.
#[derive(Debug)]
pub struct ServerMetrics {}

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

impl Metrics {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        todo!()
    }
    /// The handles of a configured server (never called with a name from a client).
    pub fn server(&self, _name: &ServerName) -> Arc<ServerMetrics> {
        todo!()
    }
    /// Adds one stage's time.
    pub fn stage(&self, _stage: Stage, _nanos: u64) {
        todo!()
    }
    /// Counts a body that the scanner or the protocol's rules refused; the label is one of the code's own words.
    pub fn refused(&self, _label: &'static str) {
        todo!()
    }
    /// Counts a caller that could not be identified.
    pub fn identify_failed(&self, _label: &'static str) {
        todo!()
    }
    /// Counts a client's connection.
    pub fn connection_opened(&self) {
        todo!()
    }
    /// Counts its end.
    pub fn connection_closed(&self) {
        todo!()
    }
    /// Counts a connection that ended in an HTTP protocol error.
    pub fn http_protocol_error(&self) {
        todo!()
    }
    /// Counts a reload; `revision` is that of the view in force.
    pub fn reloaded(&self, _ok: bool, _revision: u64) {
        todo!()
    }
    /// Sets the number of sessions.
    pub fn set_sessions(&self, _n: usize) {
        todo!()
    }
    /// Sets the number of child processes of a configured server.
    pub fn processes(&self, _server: &ServerName, _n: usize) {
        todo!()
    }
    /// Counts lines on a stdio server's standard output that are no JSON-RPC messages.
    pub fn stdio_skipped(&self, _server: &ServerName, _lines: u64) {
        todo!()
    }
    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        todo!()
    }
}

impl ServerMetrics {
    /// Counts a request that ended; both words are the code's own.
    pub fn finished(&self, _decision: &'static str, _code: Option<&'static str>, _latency_us: u64) {
        todo!()
    }
    /// Counts a call that was forwarded and has not ended.
    pub fn call_started(&self) {
        todo!()
    }
    /// Counts its end.
    pub fn call_ended(&self) {
        todo!()
    }
    /// Counts an upstream's failure ([`crate::upstream::ErrorKind::label`]).
    pub fn upstream_error(&self, _code: &'static str) {
        todo!()
    }
    /// Counts a charge that was given back.
    pub fn refunded(&self) {
        todo!()
    }
}
