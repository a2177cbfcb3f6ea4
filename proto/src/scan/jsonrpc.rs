//! JSON-RPC 2.0 messages, read once and strictly (RFC 8259, MCP `basic`).

use super::{Bounds, From};
use std::borrow::Cow;

/// A body: one message, or a batch (MCP 2025-03-26 alone has batches; the caller refuses them elsewhere).
#[derive(Debug)]
pub enum Body<'a> {
    /// One message.
    One(Envelope<'a>),
    /// A batch with at least one element, in order.
    Batch(Vec<Envelope<'a>>),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has an id and a result.
    Result,
    /// Has an error with this code; the id may be null.
    Error(i64),
}

/// One message, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The message's own bytes: of a batch, this element alone.
    pub raw: &'a [u8],
    /// Request, notification, result or error.
    pub kind: Kind,
    /// The id as it is written: a JSON string or integer; of an error also `null`.
    pub id: Option<&'a [u8]>,
    /// The method; empty for results and errors.
    pub method: &'a str,
    /// `params` as written (an object), if present.
    pub params: Option<&'a [u8]>,
    /// `params.name`, decoded.
    pub name: Option<Cow<'a, str>>,
    /// `params.uri`, decoded.
    pub uri: Option<Cow<'a, str>>,
    /// `params.arguments` as written (an object), if present and not null.
    pub arguments: Option<&'a [u8]>,
    /// Whether `params.task` is present.
    pub task: bool,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, decoded: its presence makes the request modern.
    pub meta_version: Option<Cow<'a, str>>,
    /// Whether `params._meta["io.modelcontextprotocol/clientCapabilities"]` is an object.
    pub meta_capabilities: bool,
    /// `params._meta.progressToken` as written (a string or integer), if present.
    pub progress_token: Option<&'a [u8]>,
    /// `result` as written, if this is a result.
    pub result: Option<&'a [u8]>,
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub reason: Reason,
    /// Where, in bytes from the start of the body.
    pub at: usize,
}

/// What is wrong with refused bytes. (The scanner's author completes this list.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not RFC 8259 JSON in UTF-8.
    Syntax,
}

impl Reason {
    /// The JSON-RPC error code: -32700 where the bytes are no JSON, else -32600.
    pub fn code(self) -> i64 {
        -32700
    }
    /// A sentence for the client: what is wrong and what would be right.
    pub fn text(self) -> &'static str {
        "not JSON"
    }
    /// A short fixed word for metrics and audit lines, e.g. `duplicate_key`.
    pub fn label(self) -> &'static str {
        "syntax"
    }
}

/// Reads a whole body.
pub fn read<'a>(_body: &'a [u8], _bounds: &Bounds, _from: From) -> Result<Body<'a>, Refusal> {
    todo!()
}
