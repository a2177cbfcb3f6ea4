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
    /// HTTP/2: frames come at any time, and only the first head is on the clock.
    framed: bool,
    /// When a busy connection is looked at again.
    look: Option<Instant>,
    reading: Alarm,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    /// Watches over a connection.
    pub fn new(io: T, busy: Rc<Requests>, head: Duration, idle: Duration, framed: bool) -> Self {
        Self {
            io,
            busy,
            head,
            idle,
            framed,
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
                && !this.framed
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    const SOON: Duration = Duration::from_millis(30);
    const NEVER: Duration = Duration::from_secs(600);

    fn connection(head: Duration, idle: Duration) -> (DuplexStream, Paced<DuplexStream>) {
        let (client, ours) = duplex(1024);
        (client, Paced::new(ours, Rc::default(), head, idle, false))
    }

    /// What reading more gives, `None` where it waits for the client.
    async fn more(paced: &mut Paced<DuplexStream>) -> Option<io::Result<usize>> {
        timeout(10 * SOON, paced.read(&mut [0; 64])).await.ok()
    }

    /// A whole request, served before anything more is read.
    async fn serve(client: &mut DuplexStream, paced: &mut Paced<DuplexStream>) {
        client.write_all(b"head").await.unwrap();
        assert_eq!(more(paced).await.unwrap().unwrap(), 4);
        drop(Busy::new(&paced.busy));
    }

    #[tokio::test]
    async fn the_first_head_and_every_further_one_must_come_in_time() {
        let slow = |read: Option<io::Result<usize>>| {
            assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        };
        let (_client, mut paced) = connection(SOON, NEVER);
        slow(more(&mut paced).await);
        let (mut client, mut paced) = connection(SOON, NEVER);
        for _ in 0..2 {
            serve(&mut client, &mut paced).await;
        }
        client.write_all(b"he").await.unwrap();
        assert_eq!(more(&mut paced).await.unwrap().unwrap(), 2);
        slow(more(&mut paced).await);
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_more_is_idle_and_not_slow() {
        let (mut client, mut paced) = connection(SOON, NEVER);
        serve(&mut client, &mut paced).await;
        assert!(more(&mut paced).await.is_none());
        let (mut client, mut paced) = connection(NEVER, SOON);
        serve(&mut client, &mut paced).await;
        assert_eq!(more(&mut paced).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_busy_connection_may_be_quiet_and_is_idle_from_its_reply_on() {
        let (mut client, mut paced) = connection(SOON, SOON);
        client.write_all(b"head").await.unwrap();
        assert_eq!(more(&mut paced).await.unwrap().unwrap(), 4);
        let busy = Busy::new(&paced.busy);
        assert!(more(&mut paced).await.is_none());
        drop(busy);
        assert_eq!(more(&mut paced).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn frames_between_requests_of_http_2_are_no_slow_head() {
        let (mut client, mut paced) = connection(SOON, 20 * SOON);
        paced.framed = true;
        serve(&mut client, &mut paced).await;
        client.write_all(b"ping").await.unwrap();
        assert_eq!(more(&mut paced).await.unwrap().unwrap(), 4);
        assert!(more(&mut paced).await.is_none());
        let idle = timeout(100 * SOON, paced.read(&mut [0; 64])).await;
        assert_eq!(idle.unwrap().unwrap(), 0);
    }
}
