//! Limits: what is counted, in which windows, and the lock-free bucket that decides.
//!
//! ```text
//! policy ──Charge──► limiter ──try_take──► Bucket ◄──install/top_up── ledger
//!                        └──Ticket──► settle: commit, or give back once, inside its epoch
//! ```

pub mod amount;
pub mod bucket;
pub mod identity;
pub mod lease;
pub mod ledger;
mod sync;
pub mod window;

pub use amount::Scale;
pub use identity::{CounterKey, HashKey, Identity};
pub use window::Window;

use std::sync::Arc;

/// Over what a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One MCP session (where there is none: the grant).
    Session,
    /// One grant.
    Grant,
    /// Every caller of one server.
    Server,
    /// Every call through the gateway.
    All,
}

/// What to answer when quota cannot be had from the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnreachable {
    /// Deny with code `unreachable` (the default).
    Deny,
    /// Admit at most `max` more on this node in the window.
    Allow,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Amounts in a window.
    Rate(Window),
    /// Calls in flight on this node; freed when the reply's stream ends.
    InFlight,
}

/// Outcomes beyond `unsent` and `rejected` that give a charge back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefundOn {
    /// Any JSON-RPC error reply.
    pub rpc_error: bool,
    /// An HTTP 5xx of the upstream.
    pub http_5xx: bool,
    /// A tool result with `isError: true`.
    pub tool_error: bool,
}

/// One limit of a compiled policy on one server.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Server, policy, tool key, counter, scope, window, scale: hashed with the cluster's secret.
    pub identity: Identity,
    /// Names for people: `server/policy/tool/counter`, bounded to 256 bytes.
    pub label: Arc<str>,
    /// JSON Pointer of the rule in the document as written.
    pub rule: Arc<str>,
    /// What is counted.
    pub kind: Kind,
    /// Over what.
    pub scope: Scope,
    /// The fixed point of amounts and of `max`.
    pub scale: Scale,
    /// Units that may be charged in a window, or calls in flight.
    pub max: u64,
    /// The author's message for a denial.
    pub on_deny: Option<Arc<str>>,
    /// What to do without the cluster.
    pub on_unreachable: OnUnreachable,
    /// Which further outcomes refund.
    pub refund_on: RefundOn,
    /// Most units given back in a window on this node.
    pub refund_max: u64,
    /// Counts but never refuses (shadow mode, or a `state` rule without a bound).
    pub counts_only: bool,
}

/// One limit's share of one call: what the limiter must take before the call is forwarded.
#[derive(Clone, Debug)]
pub struct Charge<'a> {
    /// The limit.
    pub limit: &'a Arc<Limit>,
    /// Which counter: identity, scope value and `key` value, hashed.
    pub key: CounterKey,
    /// Units; 0 takes nothing and passes.
    pub amount: u64,
    /// The scope's value for people (grant id, session id, server name, `*`).
    pub scope_value: &'a str,
    /// The `key` value for people, if the limit has one.
    pub key_text: Option<String>,
    /// The limit's `key` bound applies: at most this many distinct keys a limit, scope value and window.
    pub keys_max: Option<u32>,
}

/// How a forwarded call ended, as far as refunds care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream may have acted (the default for every doubt).
    Acted,
    /// Certainly not sent: connection refused, request not fully written.
    Unsent,
    /// Certainly not acted: HTTP 400 401 403 404 405 413 415 422 429, or JSON-RPC -32700 -32600 -32601 -32602 -32020…-32022.
    Rejected,
    /// Another JSON-RPC error.
    RpcError,
    /// An HTTP 5xx.
    Http5xx,
    /// A tool result with `isError: true`.
    ToolError,
}

/// What became of one charge, for the audit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It stays charged.
    Charged,
    /// It was given back.
    Refunded,
    /// It would have been given back, but the window's `refund_max` is spent.
    RefundBound,
}
