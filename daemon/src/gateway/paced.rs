//! The pace of a connection: a head must come in time, an idle connection ends, a reply must be read.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// The requests that a connection is serving, and who waits for the last of them to end.
#[derive(Default)]
pub struct Requests {
    open: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

/// Held while a request is being served: a connection is not idle then, however quiet it is.
pub struct Busy(Rc<Requests>);

impl Busy {
    /// Counts one more request.
    pub fn new(requests: &Rc<Requests>) -> Self {
        requests.open.set(requests.open.get() + 1);
        Self(requests.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let open = self.0.open.get().saturating_sub(1);
        self.0.open.set(open);
        // Only now does the reader's clock begin to run.
        if open == 0
            && let Some(reader) = self.0.reader.borrow_mut().take()
        {
            reader.wake();
        }
    }
}

/// A connection that is ended when a head takes too long, when nothing is asked, or when nobody reads a reply.
pub struct Paced<T> {
    io: T,
    busy: Rc<Requests>,
    head: Duration,
    idle: Duration,
    /// When the first byte of the head that is being read came.
    began: Option<Instant>,
    /// Since when nothing was asked.
    idle_since: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    /// Watches over a connection.
    pub fn new(io: T, busy: Rc<Requests>, head: Duration, idle: Duration) -> Self {
        // The first head is on the clock from the start: whoever connects has something to say.
        let now = Instant::now();
        let read_timer = Box::pin(sleep_until(now + head));
        Self {
            io,
            busy,
            head,
            idle,
            began: Some(now),
            idle_since: None,
            read_timer,
            write_timer: None,
        }
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
            if buf.filled().len() > before && this.busy.open.get() == 0 && this.began.is_none() {
                this.began = Some(Instant::now());
            }
            return Poll::Ready(read);
        }
        if this.busy.open.get() > 0 {
            // Bodies have their own clock; the next head starts a new one.
            (this.began, this.idle_since) = (None, None);
            *this.busy.reader.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let began = this.began.is_some();
        let at = match this.began {
            Some(began) => began + this.head,
            None => *this.idle_since.get_or_insert_with(Instant::now) + this.idle,
        };
        this.read_timer.as_mut().reset(at);
        match this.read_timer.as_mut().poll(cx) {
            // An idle connection ends in order; a slow head is an error.
            Poll::Ready(()) if !began => Poll::Ready(Ok(())),
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head came too slowly",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncWrite + Unpin> Paced<T> {
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.write_timer = None;
            return done;
        }
        let idle = self.idle;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nobody reads the reply",
            ))),
            Poll::Pending => Poll::Pending,
        }
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
