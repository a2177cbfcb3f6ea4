//! Bodies on their way to the client.

use super::{inspect, paced::Busy, relay::Ride};
use crate::upstream::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// A reply cut short: the connection is broken off, so that the client sees it too.
#[derive(Debug, thiserror::Error)]
#[error("the reply was cut")]
pub struct Cut;

/// A body on its way to the client, and what must live as long as it.
pub struct Out {
    kind: OutKind,
    _busy: Option<Busy>,
}

pub enum OutKind {
    /// All of it.
    Full(Option<Bytes>),
    /// An upstream's JSON as it comes.
    Json(Box<JsonBody>),
    /// Events from the task that relays them.
    Events(mpsc::Receiver<Result<Bytes, Cut>>),
}

impl std::convert::From<OutKind> for Out {
    fn from(kind: OutKind) -> Self {
        Self { kind, _busy: None }
    }
}

impl Out {
    /// A body that is whole already.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        OutKind::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())).into()
    }
    /// Events from the task that relays them.
    pub fn events(receiver: mpsc::Receiver<Result<Bytes, Cut>>) -> Self {
        OutKind::Events(receiver).into()
    }
    /// Keeps the connection from counting as idle until this body is gone.
    pub fn while_busy(self, busy: Busy) -> Self {
        Self {
            _busy: Some(busy),
            ..self
        }
    }
}

impl http_body::Body for Out {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Poll::Ready(match &mut self.get_mut().kind {
            OutKind::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            OutKind::Events(events) => {
                ready!(events.poll_recv(cx)).map(|item| item.map(Frame::data))
            }
            OutKind::Json(json) => ready!(json.poll(cx)).map(|item| item.map(Frame::data)),
        })
    }
    fn is_end_stream(&self) -> bool {
        matches!(self.kind, OutKind::Full(None))
    }
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            OutKind::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            _ => SizeHint::default(),
        }
    }
}

/// A JSON reply that passes while a bounded copy is kept for the settlement.
pub struct JsonBody {
    body: Body,
    ride: Option<Ride>,
    copy: Option<Vec<u8>>,
    tries: u8,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

/// A reply longer than this is no error that refunds: it stays charged.
const COPY_MAX: usize = 64 << 10;
/// How often an unfinished copy may be read, so that a drip-fed reply costs no more than this many scans.
const TRIES_MAX: u8 = 8;

impl JsonBody {
    /// Lets a reply pass; `inspected` where its settlement depends on it.
    pub fn new(body: Body, inspected: bool, ride: Ride) -> Self {
        let left = ride
            .plan
            .deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let copy = (inspected && ride.recorder.holds()).then(Vec::new);
        Self {
            body,
            ride: Some(ride),
            copy,
            tries: 0,
            deadline: Box::pin(tokio::time::sleep(left)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let Some(ride) = &mut self.ride else {
            return Poll::Ready(None);
        };
        let chunk = match self.body.poll_data(cx) {
            Poll::Ready(chunk) => chunk,
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                ride.recorder.failed("upstream_timeout", "timeout");
                self.ride = None;
                return Poll::Ready(Some(Err(Cut)));
            }
        };
        match chunk {
            Some(Ok(chunk)) => {
                ride.recorder.sent(chunk.len());
                self.inspect(&chunk);
                if self.body.is_end()
                    && let Some(mut ride) = self.ride.take()
                {
                    ride.recorder.complete();
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Some(Err(error)) => {
                tracing::info!(request = %ride.recorder.request(), detail = %error.detail, "upstream broke off");
                ride.recorder.failed("upstream_protocol", "cut");
                self.ride = None;
                Poll::Ready(Some(Err(Cut)))
            }
            None => {
                ride.recorder.complete();
                self.ride = None;
                Poll::Ready(None)
            }
        }
    }

    /// Settles before the last bytes leave, so that a client's next call finds the refund made.
    fn inspect(&mut self, chunk: &[u8]) {
        let (Some(ride), Some(copy)) = (&mut self.ride, &mut self.copy) else {
            return;
        };
        if copy.len() + chunk.len() > COPY_MAX || self.tries >= TRIES_MAX {
            self.copy = None;
            return;
        }
        copy.extend_from_slice(chunk);
        if copy.trim_ascii_end().last() == Some(&b'}') {
            self.tries += 1;
            if let Some(outcome) = inspect::outcome(copy, ride) {
                ride.recorder.settle(outcome);
                self.copy = None;
            }
        }
    }
}
