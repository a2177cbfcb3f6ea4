//! Every bound of the gateway, named (invariant 8). The configuration's `bounds` section fills it.

use std::time::Duration;

/// Bounds in force. Defaults are those of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Largest request body, bytes. Beyond: 413.
    pub body_bytes: usize,
    /// Largest reply that must be held whole (a filtered list, a message of a stdio server, one SSE event), bytes.
    pub reply_bytes: usize,
    /// Largest request head, bytes (hyper's minimum is 8,192). Beyond: 431.
    pub header_bytes: usize,
    /// Most header fields in a request. Beyond: 431.
    pub headers: usize,
    /// Deepest nesting of a body.
    pub depth: usize,
    /// Most keys in one object.
    pub keys_object: usize,
    /// Most keys in a body.
    pub keys_body: usize,
    /// Most elements in a batch.
    pub batch: usize,
    /// Most open connections of clients. Beyond: accepted and closed at once.
    pub connections: usize,
    /// Most open connections of one source address.
    pub connections_source: usize,
    /// Most calls in flight. Beyond: code `overloaded`.
    pub calls: usize,
    /// Most calls in flight to one server.
    pub calls_server: usize,
    /// Most calls in flight of one grant.
    pub calls_grant: usize,
    /// Most streams (GET, listen) of one grant.
    pub streams_grant: usize,
    /// Most sessions.
    pub sessions: usize,
    /// Most sessions of one grant.
    pub sessions_grant: usize,
    /// Most new sessions of one grant in a minute.
    pub sessions_new_minute: usize,
    /// A session without a request for this long ends.
    pub session_idle: Duration,
    /// A session ends after this long, whatever it does.
    pub session_life: Duration,
    /// Most child processes.
    pub processes: usize,
    /// Most child processes of one server (a server may set its own).
    pub processes_server: usize,
    /// Wrong tokens that one source address may send in a minute. Beyond: 429 for wrong ones; right ones pass.
    pub failed_tokens_minute: usize,
    /// From the first byte of a connection (or, in HTTP/1.1, of a further request) to the end of its head; TLS handshake too.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// To open a connection to an upstream.
    pub connect_timeout: Duration,
    /// From forwarding a call to the end of its reply, absolute. GET streams are bounded by `session_life`.
    pub upstream_timeout: Duration,
    /// Idle connections kept to one upstream by one runtime.
    pub upstream_idle: usize,
    /// Most counters of limits that this node remembers.
    pub counters: usize,
    /// How long a full audit queue may delay a call.
    pub audit_wait: Duration,
    /// On shutdown: how long `/readyz` says 503 while connections are still accepted.
    pub drain_delay: Duration,
    /// On shutdown: how long calls in flight may take to finish.
    pub drain_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            body_bytes: 4 << 20,
            reply_bytes: 16 << 20,
            header_bytes: 32 << 10,
            headers: 100,
            depth: 64,
            keys_object: 1_024,
            keys_body: 16_384,
            batch: 64,
            connections: 4_096,
            connections_source: 512,
            calls: 4_096,
            calls_server: 1_024,
            calls_grant: 256,
            streams_grant: 32,
            sessions: 10_000,
            sessions_grant: 8,
            sessions_new_minute: 60,
            session_idle: s(30 * 60),
            session_life: s(24 * 3600),
            processes: 256,
            processes_server: 32,
            failed_tokens_minute: 30,
            header_timeout: s(10),
            body_timeout: s(30),
            idle_timeout: s(75),
            connect_timeout: s(5),
            upstream_timeout: s(300),
            upstream_idle: 64,
            counters: 1_000_000,
            audit_wait: Duration::from_millis(100),
            drain_delay: s(5),
            drain_timeout: s(30),
        }
    }
}

impl Bounds {
    /// The part that the scanner needs.
    pub fn scan(&self) -> proto::scan::Bounds {
        proto::scan::Bounds {
            depth_max: self.depth,
            keys_object_max: self.keys_object,
            keys_body_max: self.keys_body,
        }
    }
}
