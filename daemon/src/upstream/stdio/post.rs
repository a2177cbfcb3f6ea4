//! One request in flight, and the replies that Tollgate itself makes.

use super::{message::Key, outlet::Outlet, pipes::Line};
use crate::upstream::{Body, Error, ErrorKind, Expects, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use std::{sync::Arc, time::Instant};
use tokio::sync::oneshot;

/// What the waiting half of a POST gets.
pub type Answer = Result<Response, Error>;

/// A request in flight.
pub struct Post {
    /// Counts up with every request of the process.
    pub seq: u64,
    /// Its id and method.
    pub expects: Expects,
    /// Its progress token.
    pub token: Option<Key>,
    /// When it is given up.
    pub deadline: Instant,
    /// The client has cancelled it: at this moment it ends, without a reply and without a second notification.
    pub cancelled: Option<Instant>,
    /// The line that it travels in.
    pub line: Arc<Line>,
    /// How its reply travels.
    pub reply: Reply,
}

/// How its reply travels.
pub enum Reply {
    /// Nothing has come yet.
    Waiting(oneshot::Sender<Answer>),
    /// As events.
    Streaming(Outlet),
}

impl Post {
    /// When it ends at the latest.
    pub fn ends(&self) -> Instant {
        self.cancelled
            .map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// It fails.
    pub fn end(self, error: Error) {
        match self.reply {
            // The client may be gone: then nobody wants it.
            Reply::Waiting(sender) => drop(sender.send(Err(error))),
            Reply::Streaming(outlet) if error.kind == ErrorKind::Timeout => outlet.cut(error),
            Reply::Streaming(outlet) => outlet.fail(error),
        }
    }

    /// An event stream without a reply: what streamable HTTP has for a request that was cancelled.
    pub fn end_without_reply(self) {
        match self.reply {
            Reply::Streaming(outlet) => outlet.finish(),
            Reply::Waiting(sender) => {
                let mut response = Response::new(Body::Full(None));
                let event_stream = HeaderValue::from_static("text/event-stream");
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, event_stream);
                drop(sender.send(Ok(response)));
            }
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Its id is neither a string nor an integer.
    BadId,
    /// Its id, or its progress token, is that of a request in flight.
    Duplicate(&'static str),
    /// Too many are in flight.
    Full,
    /// The process is gone, and why.
    Gone(String),
}

/// The error of whoever comes after the end.
pub fn gone(reason: &str) -> Error {
    Error {
        kind: ErrorKind::SessionGone,
        unsent: true,
        detail: format!("the process has ended: {reason}"),
    }
}

/// A whole JSON reply.
pub fn whole(message: &Bytes) -> Response {
    json(StatusCode::OK, message.clone())
}

/// A JSON body with a status.
pub fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::Full(Some(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
