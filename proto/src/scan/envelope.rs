//! What was read: messages that borrow the bytes they came from.

use super::value::{Type, Value};
use std::borrow::Cow;

/// A body: one message, or a batch (MCP 2025-03-26 alone has batches; the caller refuses them elsewhere).
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// One message.
    One(Envelope<'a>),
    /// A batch with at least one element, in order.
    Batch(Vec<Envelope<'a>>),
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    #[default]
    Request,
    /// Has a method and no id.
    Notification,
    /// Has an id and a result.
    Result,
    /// Has an error with this code; the id may be null.
    Error(i64),
}

/// One message, borrowed from the bytes it was read from.
#[derive(Debug, Default, PartialEq, Eq)]
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
    /// Whether `params.task` is present and not null.
    pub task: bool,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, decoded: its presence makes the request modern.
    pub meta_version: Option<Cow<'a, str>>,
    /// Whether `params._meta["io.modelcontextprotocol/clientCapabilities"]` is an object.
    pub meta_capabilities: bool,
    /// `params._meta.progressToken` as written (a string or integer), if present.
    pub progress_token: Option<&'a [u8]>,
    /// `result` as written, if this is a result.
    pub result: Option<&'a [u8]>,
    /// Whether the result says that a tool failed (`result.isError` is true).
    pub is_tool_error: bool,
}

impl<'a> Envelope<'a> {
    /// The keys of `params.arguments`, in order.
    pub fn argument_keys(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let members = self.arguments.map(|raw| Value::new(raw).members());
        members.into_iter().flatten().map(|(key, _)| key)
    }

    /// A member of `params`, read by path later on.
    pub fn param(&self, key: &str) -> Option<Value<'a>> {
        Value::new(self.params?).get(key)
    }

    /// A member of `result`.
    pub fn result_member(&self, key: &str) -> Option<Value<'a>> {
        Value::new(self.result?).get(key)
    }

    /// `params.requestId` of `notifications/cancelled`, as written.
    pub fn cancelled_request_id(&self) -> Option<&'a [u8]> {
        if self.method != "notifications/cancelled" {
            return None;
        }
        self.param("requestId").and_then(id_like)
    }

    /// `params.progressToken` of `notifications/progress`, as written.
    pub fn progress_of(&self) -> Option<&'a [u8]> {
        if self.method != "notifications/progress" {
            return None;
        }
        self.param("progressToken").and_then(id_like)
    }

    /// `params.protocolVersion` of `initialize`.
    pub fn initialize_version(&self) -> Option<Cow<'a, str>> {
        if self.method != "initialize" {
            return None;
        }
        self.param("protocolVersion")?.as_str()
    }

    /// `result.protocolVersion`, as the reply to `initialize` has it.
    pub fn result_version(&self) -> Option<Cow<'a, str>> {
        self.result_member("protocolVersion")?.as_str()
    }
}

/// A value that may stand for a request: a string or a number, as written.
fn id_like(value: Value<'_>) -> Option<&[u8]> {
    matches!(value.kind(), Type::String | Type::Number).then_some(value.raw())
}
/// What has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// A result, or an error with its code.
    pub kind: Kind,
    /// The id as it is written; of an error it may be absent or `null`.
    pub id: Option<Vec<u8>>,
    /// Whether the result says that a tool failed (`isError` is true).
    pub is_tool_error: bool,
    /// The elements of the result's `tools`, if that is an array.
    pub tools: Option<Vec<Tool>>,
}

/// One tool of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name, decoded; `None` where it has none, so that whoever filters the list refuses it.
    pub name: Option<String>,
    /// Its first byte, counted from the start of the reply.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}
