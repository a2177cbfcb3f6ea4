//! Reading replies: what they mean for charges, sessions and lists.

use super::relay::{Ride, What};
use bytes::Bytes;
use http::StatusCode;
use proto::{
    limit::Outcome,
    mcp::{self, Era},
    scan::{self, Body, From, Kind, Value, reply::Reply, tools},
};

/// What an HTTP status alone says; `None` where the body decides.
pub fn outcome_of_status(status: StatusCode) -> Option<Outcome> {
    match status.as_u16() {
        400 | 401 | 403 | 404 | 405 | 413 | 415 | 422 | 429 => Some(Outcome::Rejected),
        500..=599 => Some(Outcome::Http5xx),
        200..=299 => None,
        _ => Some(Outcome::Acted),
    }
}

fn outcome_of(kind: Kind, is_tool_error: bool) -> Outcome {
    match kind {
        Kind::Error(-32700 | -32600 | -32601 | -32602 | -32022..=-32020) => Outcome::Rejected,
        Kind::Error(_) => Outcome::RpcError,
        _ if is_tool_error => Outcome::ToolError,
        _ => Outcome::Acted,
    }
}

fn answers(kind: Kind, theirs: Option<&[u8]>, ours: Option<&[u8]>) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        a == b
            || matches!((Value::new(a).as_str(), Value::new(b).as_str()), (Some(a), Some(b)) if a == b)
    };
    matches!(kind, Kind::Result | Kind::Error(_))
        && match (theirs, ours) {
            (Some(theirs), Some(ours)) => same(theirs, ours),
            _ => false,
        }
}

/// The outcome that a whole JSON reply means; `None` when these bytes are no reply (yet).
pub fn outcome(bytes: &[u8], ride: &Ride) -> Option<Outcome> {
    match scan::read(bytes, &ride.plan.scan, From::Server) {
        Ok(Body::One(message)) if answers(message.kind, message.id, ride.plan.id.as_deref()) => {
            Some(outcome_of(message.kind, message.is_tool_error))
        }
        _ => None,
    }
}

/// The same of a reply that came in pieces and is complete.
pub fn outcome_in_pieces(reply: Reply, ride: &Ride) -> Option<Outcome> {
    let passed = reply.finish().ok()?;
    let ours = answers(passed.kind, passed.id.as_deref(), ride.plan.id.as_deref());
    ours.then(|| outcome_of(passed.kind, passed.is_tool_error))
}

/// Judges one message of a reply: settles, begins the session, filters the list. `Some` = forward these bytes instead.
pub fn message(bytes: &[u8], ride: &mut Ride) -> Result<Option<Bytes>, String> {
    let strict =
        matches!(ride.plan.what, What::List | What::Initialize) || ride.plan.filter().is_some();
    let read = scan::read(bytes, &ride.plan.scan, From::Server);
    let message = match read {
        Ok(Body::One(message)) => message,
        Ok(Body::Batch(_)) if strict => return Err("a batch".into()),
        Err(refusal) if strict => {
            return Err(format!("{} at byte {}", refusal.reason.label(), refusal.at));
        }
        _ => return Ok(None),
    };
    let final_reply = answers(message.kind, message.id, ride.plan.id.as_deref());
    if final_reply {
        ride.plan.answered = true;
        ride.recorder
            .settle(outcome_of(message.kind, message.is_tool_error));
        if let (Kind::Result, Some(opening)) = (message.kind, ride.opening.take()) {
            let result = message.result.map(Value::new);
            let version = result
                .and_then(|r| r.get("protocolVersion"))
                .and_then(|v| v.as_str());
            // A version that has no sessions cannot be what this session speaks (L4).
            let version = version
                .filter(|v| mcp::VERSIONS.contains(&&**v) && !mcp::MODERN.contains(&&**v))
                .unwrap_or("2025-11-25".into());
            opening.keep(&version);
        }
    }
    let Some(shown) = ride.plan.filter() else {
        return Ok(None);
    };
    // A resumed list arrives on a GET stream, where its request is not known: its shape decides there.
    let list = match ride.plan.what {
        What::List => message.kind == Kind::Result,
        What::Stream => message
            .result
            .map(Value::new)
            .is_some_and(|r| r.get("tools").is_some()),
        _ => false,
    };
    if !list {
        return Ok(None);
    }
    let modern = ride.plan.era == Era::Modern;
    match tools::filter(bytes, &ride.plan.scan, modern, |tool| shown.shows(tool)) {
        Ok(tools::Filtered::Unchanged) => Ok(None),
        Ok(tools::Filtered::Spliced { bytes, .. }) => Ok(Some(bytes.into())),
        Err(refusal) => Err(format!("{} at byte {}", refusal.reason.label(), refusal.at)),
    }
}
