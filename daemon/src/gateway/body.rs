//! Bodies on their way to the client.

use super::{inspect, paced::Busy, relay::Ride};
use crate::upstream::{Body, alarm::Alarm};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use proto::scan::reply::Reply;
use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
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

/// A whole body of no more than this many bytes is as good as sent.
const SHORT_MAX: usize = 64 << 10;

pub enum OutKind {
    /// All of it.
    Full(Option<Bytes>),
    /// An upstream's JSON as it comes.
    Json(JsonBody),
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
    /// Keeps the connection from counting as idle until this body is gone; a short one is as good as gone, or a client
    /// that lets nothing through (an HTTP/2 window of zero) would hold its connection for ever.
    pub fn while_busy(mut self, busy: Busy, h2: bool) -> Self {
        let gone = match &mut self.kind {
            OutKind::Full(bytes) => bytes.as_ref().is_none_or(|bytes| bytes.len() <= SHORT_MAX),
            OutKind::Json(json) => {
                match h2 {
                    true => json.watch(),
                    false => busy.reply_until(json.deadline.into()),
                }
                false
            }
            OutKind::Events(_) => false,
        };
        self._busy = Some(busy).filter(|_| !gone);
        self
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

/// A JSON reply that is read for the settlement as it passes.
pub struct JsonBody {
    state: Rc<RefCell<State>>,
    deadline: Instant,
    /// For transports without an alarm of their own.
    alarm: Alarm,
    /// The deadline while an HTTP/2 client keeps us waiting: nobody asks this body for anything then. (An HTTP/1
    /// connection that cannot write is watched over as a whole.)
    watch: Option<tokio::task::JoinHandle<()>>,
}

enum State {
    Passing(Passing),
    Over,
    Cut,
}

struct Passing {
    body: Body,
    ride: Box<Ride>,
    reading: Reading,
}

/// How far a reply is read whose settlement depends on it.
enum Reading {
    /// Not begun.
    Ahead,
    /// It comes in pieces.
    Pieces(Box<Reply>),
    /// Read, refused, or not asked for.
    Done,
}

impl JsonBody {
    /// Lets a reply pass; `inspected` where its settlement depends on it.
    pub fn new(body: Body, inspected: bool, ride: Box<Ride>) -> Self {
        let deadline = ride.plan.deadline;
        let reading = match inspected && ride.recorder.holds() {
            true => Reading::Ahead,
            false => Reading::Done,
        };
        let passing = Passing {
            body,
            ride,
            reading,
        };
        Self {
            state: Rc::new(RefCell::new(State::Passing(passing))),
            deadline,
            alarm: Alarm::default(),
            watch: None,
        }
    }

    /// Ends the exchange at its deadline even if the client never asks for another byte.
    fn watch(&mut self) {
        let (state, deadline) = (Rc::downgrade(&self.state), self.deadline.into());
        self.watch.get_or_insert_with(|| {
            tokio::task::spawn_local(async move {
                tokio::time::sleep_until(deadline).await;
                if let Some(state) = state.upgrade() {
                    state.borrow_mut().time_out();
                }
            })
        });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let mut state = self.state.borrow_mut();
        if let Poll::Ready(polled) = state.poll(cx) {
            return Poll::Ready(polled);
        }
        if let State::Passing(passing) = &mut *state {
            let (deadline, alarm) = (self.deadline, &mut self.alarm);
            ready!(passing.body.poll_deadline(cx, deadline, alarm));
        }
        state.time_out();
        Poll::Ready(Some(Err(Cut)))
    }
}

impl Drop for JsonBody {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        let mut state = self.state.borrow_mut();
        // The connection may have been broken off at the deadline.
        if matches!(&*state, State::Passing(_)) && Instant::now() >= self.deadline {
            state.time_out();
        }
    }
}

impl State {
    fn time_out(&mut self) {
        if let State::Passing(passing) = self {
            passing.ride.recorder.failed("upstream_timeout", "timeout");
            *self = State::Cut;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let passing = match self {
            State::Passing(passing) => passing,
            State::Over => return Poll::Ready(None),
            State::Cut => return Poll::Ready(Some(Err(Cut))),
        };
        let recorder = &mut passing.ride.recorder;
        match ready!(passing.body.poll_data(cx)) {
            Some(Ok(chunk)) => {
                recorder.sent(chunk.len());
                passing.inspect(&chunk);
                if passing.body.is_end() {
                    passing.ride.recorder.complete();
                    *self = State::Over;
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Some(Err(error)) => {
                tracing::info!(request = %recorder.request(), detail = %error.detail, "upstream broke off");
                recorder.failed("upstream_protocol", "cut");
                *self = State::Over;
                Poll::Ready(Some(Err(Cut)))
            }
            None => {
                recorder.complete();
                *self = State::Over;
                Poll::Ready(None)
            }
        }
    }
}

impl Passing {
    /// Settles before the last bytes leave, so that a client's next call finds the refund made.
    fn inspect(&mut self, chunk: &[u8]) {
        let ride = &mut self.ride;
        let mut reply = match std::mem::replace(&mut self.reading, Reading::Done) {
            Reading::Done => return,
            Reading::Pieces(reply) => reply,
            Reading::Ahead => {
                // Most replies come in one piece, and are read as fast as a request is.
                let whole = chunk.trim_ascii_end().ends_with(b"}");
                if let Some(outcome) = whole.then(|| inspect::outcome(chunk, ride)).flatten() {
                    ride.recorder.settle(outcome);
                    return;
                }
                Box::new(Reply::new(&ride.plan.scan))
            }
        };
        // What is refused, or longer than any reply that is held whole, stays charged.
        if reply.push(chunk).is_err() || reply.position() > ride.plan.reply_bytes {
            return;
        }
        if !reply.is_whole() {
            self.reading = Reading::Pieces(reply);
        } else if let Some(outcome) = inspect::outcome_in_pieces(*reply, ride) {
            ride.recorder.settle(outcome);
        }
    }
}
