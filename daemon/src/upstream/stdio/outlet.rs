//! One event stream to a client: a queue with a byte budget that the reader of the child fills, and a task that empties
//! it into the reply's body.
//!
//! ```text
//! child ─► reader ─send─► Outlet (budget) ─► pump ─► Body::Channel ─► relay ─► client
//!             ▲ waits at most STALL when the budget is used up, then the stream is cut
//! ```

use super::{KEEP_ALIVE, STALL, STREAM_BYTES, lock};
use crate::upstream::{Body, Error, ErrorKind, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::sync::{Notify, mpsc};

/// The sending half of a stream; cheap to clone.
#[derive(Clone)]
pub struct Outlet(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Wakes the pump.
    wake: Notify,
    /// Wakes a sender that waits for room.
    room: Notify,
    /// When the stream is given up, however much is still queued.
    deadline: Option<Instant>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    /// The client, or the pump, is gone.
    closed: bool,
}

enum End {
    /// After the queued messages the stream ends properly.
    Finished,
    /// After the queued messages the stream breaks off.
    Broken(Error),
    /// The stream breaks off now.
    Cut(Error),
    /// The stream ends properly now; what is queued goes to its successor.
    Left,
}

/// The stream takes no more messages.
#[derive(Debug)]
pub struct Closed;

enum Push {
    Taken,
    Full,
    Closed,
}

/// What the pump does next.
enum Step {
    Item,
    Idle,
    Finish,
    Break(Error),
}

impl Outlet {
    /// A stream and the task that feeds its body. The task gives back what the client did not get.
    pub fn open(
        first: Vec<Bytes>,
        deadline: Option<Instant>,
    ) -> (
        Self,
        Response,
        impl Future<Output = Vec<Bytes>> + Send + 'static,
    ) {
        let outlet = Outlet(Arc::new(Inner {
            state: Mutex::new(State {
                bytes: first.iter().map(Bytes::len).sum(),
                items: first.into(),
                ..State::default()
            }),
            wake: Notify::new(),
            room: Notify::new(),
            deadline,
        }));
        // One place for data, one kept for the error that ends a cut stream.
        let (sender, receiver) = mpsc::channel(2);
        let mut response = Response::new(Body::Channel(receiver));
        let headers = response.headers_mut();
        let event_stream = HeaderValue::from_static("text/event-stream");
        headers.insert(header::CONTENT_TYPE, event_stream);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let pump = outlet.clone().pump(sender);
        (outlet, response, pump)
    }

    /// Whether messages are refused.
    pub fn is_closed(&self) -> bool {
        let state = lock(&self.0.state);
        state.closed || state.end.is_some()
    }

    /// Queues a message, waiting for room for at most [`STALL`]; a client that read nothing for so long is cut.
    pub async fn send(&self, message: &Bytes) -> Result<(), Closed> {
        let stalled = tokio::time::Instant::now() + STALL;
        loop {
            match self.push(message) {
                Push::Taken => return Ok(()),
                Push::Closed => return Err(Closed),
                Push::Full => {}
            }
            let room = self.0.room.notified();
            if tokio::time::timeout_at(stalled, room).await.is_err() {
                self.cut(Error {
                    kind: ErrorKind::Protocol,
                    unsent: false,
                    detail: "the client does not read its stream".into(),
                });
                return Err(Closed);
            }
        }
    }

    /// Queues a message if there is room.
    pub fn try_send(&self, message: &Bytes) -> bool {
        matches!(self.push(message), Push::Taken)
    }

    fn push(&self, message: &Bytes) -> Push {
        let mut state = lock(&self.0.state);
        if state.closed || state.end.is_some() {
            return Push::Closed;
        }
        // A message of any size passes an empty queue: its own length has been bounded already.
        if !state.items.is_empty() && state.bytes + message.len() > STREAM_BYTES {
            return Push::Full;
        }
        state.bytes += message.len();
        state.items.push_back(message.clone());
        drop(state);
        self.0.wake.notify_one();
        Push::Taken
    }

    /// Puts messages that another stream could not deliver before everything queued here.
    pub fn prepend(&self, messages: Vec<Bytes>) -> Result<(), Vec<Bytes>> {
        let mut state = lock(&self.0.state);
        if state.closed || state.end.is_some() {
            return Err(messages);
        }
        for message in messages.into_iter().rev() {
            state.bytes += message.len();
            state.items.push_front(message);
        }
        drop(state);
        self.0.wake.notify_one();
        Ok(())
    }

    /// The stream ends properly behind what is queued.
    pub fn finish(&self) {
        self.end(End::Finished);
    }

    /// The stream breaks off behind what is queued.
    pub fn fail(&self, error: Error) {
        self.end(End::Broken(error));
    }

    /// The stream breaks off now.
    pub fn cut(&self, error: Error) {
        self.end(End::Cut(error));
    }

    /// The stream ends properly now, and what is queued comes back from its task.
    pub fn leave(&self) {
        self.end(End::Left);
    }

    fn end(&self, end: End) {
        let mut state = lock(&self.0.state);
        if state.end.is_none() || matches!(end, End::Cut(_) | End::Left) {
            state.end = Some(end);
        }
        drop(state);
        self.0.wake.notify_one();
        self.0.room.notify_one();
    }

    fn step(&self, late: bool) -> Step {
        let mut state = lock(&self.0.state);
        if late {
            state.end = Some(End::Cut(Error {
                kind: ErrorKind::Timeout,
                unsent: false,
                detail: "the reply was not over at its deadline".into(),
            }));
        }
        match state.end.take() {
            Some(End::Cut(error)) => Step::Break(error),
            Some(End::Left) => Step::Finish,
            end if !state.items.is_empty() => {
                state.end = end;
                Step::Item
            }
            Some(End::Broken(error)) => Step::Break(error),
            Some(End::Finished) => Step::Finish,
            None => Step::Idle,
        }
    }

    fn pop(&self) -> Option<Bytes> {
        let mut state = lock(&self.0.state);
        let item = state.items.pop_front()?;
        state.bytes -= item.len();
        drop(state);
        self.0.room.notify_one();
        Some(item)
    }

    /// Nothing more is taken; what is left over comes back.
    fn close(&self) -> Vec<Bytes> {
        let mut state = lock(&self.0.state);
        state.closed = true;
        state.bytes = 0;
        let rest = std::mem::take(&mut state.items).into();
        drop(state);
        self.0.room.notify_one();
        rest
    }

    async fn pump(self, sender: mpsc::Sender<Result<Bytes, Error>>) -> Vec<Bytes> {
        let Ok(last_word) = sender.clone().reserve_owned().await else {
            return self.close();
        };
        // Closing on every way out, a dropped task included, keeps senders from waiting for nobody.
        let outlet = CloseOnDrop(self);
        let this = &outlet.0;
        let deadline = async {
            match this.0.deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        let mut late = false;
        loop {
            match this.step(late) {
                Step::Finish => return this.close(),
                Step::Break(error) => {
                    last_word.send(Err(error));
                    return this.close();
                }
                Step::Item => tokio::select! {
                    permit = sender.reserve() => match permit {
                        Ok(permit) => if let Some(message) = this.pop() {
                            permit.send(Ok(event(&message)));
                        },
                        Err(_) => return this.close(),
                    },
                    () = this.0.wake.notified() => {}
                    () = &mut deadline => late = true,
                },
                Step::Idle => tokio::select! {
                    () = this.0.wake.notified() => {}
                    () = sender.closed() => return this.close(),
                    () = tokio::time::sleep(KEEP_ALIVE) => {
                        // Full means that the client has not read the last one: nothing is owed to it.
                        let _ = sender.try_send(Ok(Bytes::from_static(b": keep-alive\n\n")));
                    }
                    () = &mut deadline => late = true,
                },
            }
        }
    }
}

struct CloseOnDrop(Outlet);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A message as one server-sent event.
fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 32);
    proto::scan::sse::write_event(&mut out, b"", message);
    out.into()
}
