//! The audit line: what is recorded of one request, bounded and as JSON.

use crate::{
    id::{GrantId, RequestId, ServerName},
    limit::Settled,
    mcp::Era,
};
use std::sync::Arc;

/// Bytes of a tool's name that are kept; a longer one is cut and its SipHash added.
pub const TOOL_BYTES: usize = 128;
/// Argument keys that are kept.
pub const KEYS: usize = 32;
/// Bytes of each.
pub const KEY_BYTES: usize = 64;

/// One request that reached `identify` with a known grant.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id, also in answers (`requestId`) and logs.
    pub request: RequestId,
    /// When it arrived, milliseconds since 1970.
    pub unix_ms: u64,
    /// The client's address.
    pub source: Option<std::net::IpAddr>,
    /// The grant's id.
    pub grant: GrantId,
    /// The grant's label.
    pub label: Option<Arc<str>>,
    /// The legacy session, hashed to 16 hexadecimal digits (an id is a credential of sorts).
    pub session: Option<String>,
    /// The server.
    pub server: ServerName,
    /// The era, once known.
    pub era: Option<Era>,
    /// HTTP verb.
    pub verb: &'static str,
    /// JSON-RPC method (bounded like a tool's name).
    pub method: Option<String>,
    /// Tool name (the caller bounds it with [`bounded_tool`]).
    pub tool: Option<String>,
    /// Position in a batch.
    pub batch_index: Option<u32>,
    /// `allow`, `deny`, `shadow` (would have been denied), `refuse` (unreadable or against the protocol), `error` (upstream).
    pub decision: &'static str,
    /// A denial's code, a refusal's label or an upstream error's label.
    pub code: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The policy's name and revision.
    pub policy: Option<(Arc<str>, Arc<str>)>,
    /// Keys of the arguments, never values (the caller bounds them with [`bounded_keys`]).
    pub argument_keys: Vec<String>,
    /// HTTP status sent to the client.
    pub status: u16,
    /// HTTP status of the upstream.
    pub upstream_status: Option<u16>,
    /// Whose fault an error is: `downstream`, `upstream`, `internal`.
    pub side: Option<&'static str>,
    /// How the reply ended: `complete`, `cancelled`, `cut`, `timeout`.
    pub end: &'static str,
    /// From arrival to the end of the reply, microseconds.
    pub latency_us: u64,
    /// From arrival to the decision, microseconds.
    pub decide_us: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the reply's body.
    pub bytes_out: u64,
    /// Every limit that was charged.
    pub limits: Vec<LimitLine>,
}

/// What one limit was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitLine {
    /// The limit's identity hash.
    pub identity: u128,
    /// The window's id.
    pub window: u64,
    /// Units.
    pub amount: u64,
    /// What became of it.
    pub settled: Settled,
}

impl Record {
    /// Appends the record as one line of JSON, LF included.
    pub fn write_line(&self, _out: &mut Vec<u8>) {
        todo!()
    }
}

/// Cuts a client's name to [`TOOL_BYTES`] at a character's border and adds `…#<hash>` when it was longer.
pub fn bounded_tool(_name: &str) -> String {
    todo!()
}

/// The keys of an arguments object (validated bytes), at most [`KEYS`], each at most [`KEY_BYTES`].
pub fn bounded_keys(_arguments: &[u8]) -> Vec<String> {
    todo!()
}
