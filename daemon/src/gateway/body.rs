//! Bodies on their way to the client.

use super::{inspect, paced::Busy, relay::Ride};
use crate::upstream::{Body, alarm::Alarm};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
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
            OutKind::Full(bytes) => bytes.as_ref().is_none_or(|bytes| bytes.len() <= COPY_MAX),
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

/// A JSON reply that passes while a bounded copy is kept for the settlement.
pub struct JsonBody {
    state: Rc<RefCell<State>>,
    deadline: Instant,
    /// For transports without an alarm of their own.
    alarm: Alarm,
    /// The deadline while an HTTP/2 client keeps us waiting: nobody asks this body for anything then. (An HTTP/1
    /// connection that cannot write is watched over as a whole.)
    watch: Option<tokio::task::JoinHandle<()>>,
}

#[allow(
    clippy::large_enum_variant,
    reason = "made once a reply, and almost always the large one"
)]
enum State {
    Passing(Passing),
    Over,
    Cut,
}

struct Passing {
    body: Body,
    ride: Ride,
    copy: Option<Vec<u8>>,
    tries: u8,
}

/// A reply longer than this is no error that refunds: it stays charged.
const COPY_MAX: usize = 64 << 10;
/// How often an unfinished copy may be read, so that a drip-fed reply costs no more than this many scans.
const TRIES_MAX: u8 = 8;

impl JsonBody {
    /// Lets a reply pass; `inspected` where its settlement depends on it.
    pub fn new(body: Body, inspected: bool, ride: Ride) -> Self {
        let deadline = ride.plan.deadline;
        let copy = (inspected && ride.recorder.holds()).then(Vec::new);
        let passing = Passing {
            body,
            ride,
            copy,
            tries: 0,
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
        let (ride, Some(copy)) = (&mut self.ride, &mut self.copy) else {
            return;
        };
        if copy.len() + chunk.len() > COPY_MAX || self.tries >= TRIES_MAX {
            self.copy = None;
            return;
        }
        let ends = chunk.trim_ascii_end().last() == Some(&b'}');
        if ends {
            self.tries += 1;
        }
        // Most replies come in one piece, of which no copy is needed.
        let alone = copy.is_empty() && ends;
        if !alone {
            copy.extend_from_slice(chunk);
        }
        let whole = if alone { chunk } else { &copy[..] };
        let outcome = ends.then(|| inspect::outcome(whole, ride)).flatten();
        match outcome {
            Some(outcome) => {
                ride.recorder.settle(outcome);
                self.copy = None;
            }
            None if alone => copy.extend_from_slice(chunk),
            None => {}
        }
    }
}
