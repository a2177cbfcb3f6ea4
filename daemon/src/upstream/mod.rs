//! Upstreams: an Admitted request goes in, an HTTP-shaped reply comes out, whatever the transport.

use alarm::Alarm;
use bytes::Bytes;
use http::{HeaderMap, Method};
use std::{
    task::{Context, Poll},
    time::Instant,
};

pub mod alarm;
mod link;
pub mod stdio;
pub mod streamable_http;

pub use link::Reply;

/// What goes to an upstream: judged bytes and the few headers that may travel.
#[derive(Debug)]
pub struct Request {
    /// POST, GET (the session's stream) or DELETE.
    pub verb: Method,
    /// The judged bytes; empty for GET and DELETE.
    pub body: Bytes,
    /// For POST: whether a reply is awaited (a JSON-RPC request), and its id and progress token as written.
    pub expects: Option<Expects>,
    /// `Accept`, `Content-Type`, `MCP-Protocol-Version`, `Mcp-*`, `Last-Event-ID` as the upstream shall see them.
    pub headers: HeaderMap,
    /// When the call is given up, absolute; `None` for GET streams.
    pub deadline: Option<Instant>,
}

/// What identifies the reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expects {
    /// The method, for routing and for logs.
    pub method: String,
    /// The id's JSON text.
    pub id: Bytes,
    /// The progress token's JSON text.
    pub progress_token: Option<Bytes>,
}

/// A failed call.
#[derive(Debug)]
pub struct Error {
    /// What happened.
    pub kind: ErrorKind,
    /// Whether the upstream certainly got nothing (then a charge is given back).
    pub unsent: bool,
    /// For logs, never for the agent.
    pub detail: String,
}

/// What happened to a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Could not connect, or could not start the process.
    Connect,
    /// The deadline passed.
    Timeout,
    /// The upstream broke off, or broke the protocol.
    Protocol,
    /// A bound of the gateway on this upstream is reached (processes).
    Overloaded,
    /// The upstream does not know the session (HTTP 404; the process has ended).
    SessionGone,
    /// The upstream answered a redirect, which is never followed.
    Redirect,
}

impl ErrorKind {
    /// The word in audit lines and metrics.
    pub fn label(self) -> &'static str {
        match self {
            ErrorKind::Connect => "upstream_connect",
            ErrorKind::Timeout => "upstream_timeout",
            ErrorKind::Protocol => "upstream_protocol",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::SessionGone => "session_gone",
            ErrorKind::Redirect => "upstream_redirect",
        }
    }
}

/// The body of an upstream's reply.
pub enum Body {
    /// Straight from an HTTP upstream.
    Http(Box<Reply>),
    /// From a stdio upstream: ready-made chunks (JSON, or SSE events) through a bounded channel.
    Channel(tokio::sync::mpsc::Receiver<Result<Bytes, Error>>),
    /// Nothing more than this.
    Full(Option<Bytes>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Body::Http(..) => "Body::Http",
            Body::Channel(_) => "Body::Channel",
            Body::Full(_) => "Body::Full",
        })
    }
}

impl Body {
    /// Whether nothing more will come, as far as that is known before asking.
    pub fn is_end(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.is_none(),
            Body::Http(reply) => reply.is_end(),
            Body::Channel(_) => false,
        }
    }
    /// The next chunk of data; `None` at the proper end, an error at any other.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match self {
            Body::Full(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(Ok)),
            Body::Channel(receiver) => receiver.poll_recv(cx),
            Body::Http(reply) => reply.poll_data(cx),
        }
    }
    /// Ready once the deadline has passed, after [`Body::poll_data`] had nothing. `spare` is for transports without an
    /// alarm of their own.
    pub fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Instant,
        spare: &mut Alarm,
    ) -> Poll<()> {
        match self {
            Body::Http(reply) => reply.poll_deadline(cx, deadline.into()),
            _ => spare.poll(cx, deadline.into()),
        }
    }
}

/// An upstream's reply.
pub type Response = http::Response<Body>;
