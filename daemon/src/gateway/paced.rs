//! The pace of a connection: a head must come in time, an idle connection ends, a reply must be read.

use crate::upstream::alarm::Alarm;
use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// The requests that a connection is serving, or since when it serves none.
pub struct Requests {
    open: Cell<usize>,
    idle_since: Cell<Instant>,
    head: Cell<Head>,
    /// When the reply that is being sent must be over.
    until: Cell<Option<Instant>>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            open: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            // The first head is on the clock from the start: whoever connects has something to say.
            head: Cell::new(Head::Since(Instant::now())),
            until: Cell::new(None),
        }
    }
}

/// How far the next request's head is.
#[derive(Clone, Copy, Debug)]
enum Head {
    None,
    /// Bytes of it came. Most heads come whole, so that the clock need not be read for them.
    Begun,
    /// And more are waited for since then.
    Since(Instant),
}

/// Held while a request is being served: a connection is not idle then, however quiet it is.
pub struct Busy(Rc<Requests>);

impl Busy {
    /// Counts one more request.
    pub fn new(requests: &Rc<Requests>) -> Self {
        requests.open.set(requests.open.get() + 1);
        requests.head.set(Head::None);
        Self(requests.clone())
    }

    /// Breaks the connection off if the reply cannot be written by then (HTTP/1: one reply at a time).
    pub fn reply_until(&self, deadline: Instant) {
        self.0.until.set(Some(deadline));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let open = self.0.open.get().saturating_sub(1);
        self.0.open.set(open);
        if open == 0 {
            // The alarm of a busy connection goes on: when it goes off, this is what it finds.
            self.0.idle_since.set(Instant::now());
            self.0.until.set(None);
        }
    }
}

/// A connection that is ended when a head takes too long, when nothing is asked, or when nobody reads a reply.
pub struct Paced<T> {
    io: T,
    busy: Rc<Requests>,
    head: Duration,
    idle: Duration,
    /// When a busy connection is looked at again.
    look: Option<Instant>,
    reading: Alarm,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    /// Watches over a connection.
    pub fn new(io: T, busy: Rc<Requests>, head: Duration, idle: Duration) -> Self {
        Self {
            io,
            busy,
            head,
            idle,
            look: None,
            reading: Alarm::default(),
            writing: None,
        }
    }

    /// Ready when the peer has kept us waiting for too long: with an error for a slow head, in order for no head at all.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.busy.open.get() > 0 {
            // Bodies have their own clock. Nobody says when the last reply is gone, so the alarm stays set, through the
            // requests that follow as well.
            let idle = self.idle;
            loop {
                let look = *self.look.get_or_insert_with(|| Instant::now() + idle);
                ready!(self.reading.poll(cx, look));
                self.look = None;
            }
        }
        let began = match self.busy.head.get() {
            Head::None => {
                let since = self.busy.idle_since.get();
                return self.reading.poll(cx, since + self.idle).map(Ok);
            }
            Head::Begun => Instant::now(),
            Head::Since(began) => began,
        };
        self.busy.head.set(Head::Since(began));
        ready!(self.reading.poll(cx, began + self.head));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the head came too slowly",
        )))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) {
            if buf.filled().len() > before
                && this.busy.open.get() == 0
                && let Head::None = this.busy.head.get()
            {
                this.busy.head.set(Head::Begun);
            }
            return Poll::Ready(read);
        }
        this.poll_patience(cx)
    }
}

impl<T: AsyncWrite + Unpin> Paced<T> {
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.writing = None;
            return done;
        }
        let (idle, until) = (self.idle, self.busy.until.get());
        let timer = self.writing.get_or_insert_with(|| {
            let idle = Instant::now() + idle;
            Box::pin(sleep_until(until.map_or(idle, |until| until.min(idle))))
        });
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(match until {
            // The reply has its record of that.
            Some(until) if until <= Instant::now() => io::ErrorKind::ConnectionAborted.into(),
            _ => io::Error::new(io::ErrorKind::TimedOut, "nobody reads the reply"),
        }))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, done)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, done)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(cx, done)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, done)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
