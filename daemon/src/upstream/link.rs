//! One connection to an upstream, moved on by the very task that waits for its reply: no task of its own, no waking to
//! and fro.

use super::{Error, ErrorKind, alarm::Alarm, streamable_http::Origin};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;

/// The half that reads and writes.
pub(super) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;
type Outgoing = http::Request<Full<Bytes>>;

/// A connection, and the alarm for the deadlines of its requests.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// `None`: it has ended.
    driver: Option<Driver>,
    alarm: Alarm,
}

impl Link {
    pub(super) fn new(sender: SendRequest<Full<Bytes>>, driver: Driver) -> Self {
        Self {
            sender,
            driver: Some(driver),
            alarm: Alarm::default(),
        }
    }

    /// Reads and writes what can be read and written now. Whatever comes of it (a reply, a piece of a body) is there when
    /// this returns, so whoever takes it needs no waker.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(ended) = driver.as_mut().poll(cx)
        {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to an upstream ended");
            }
            self.driver = None;
        }
    }

    /// Whether it can take a request, as far as is known without asking the upstream.
    pub(super) fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        self.driver.is_some() && !self.sender.is_closed() && self.sender.is_ready()
    }

    /// Sends, and waits for the head of the reply; `None`: the deadline has passed.
    pub(super) async fn send(
        &mut self,
        outgoing: Outgoing,
        deadline: Instant,
    ) -> Option<Result<http::Response<Incoming>, TrySendError<Outgoing>>> {
        let mut reply = pin!(self.sender.try_send_request(outgoing));
        let (driver, alarm) = (&mut self.driver, &mut self.alarm);
        poll_fn(|cx| {
            if let Some(running) = driver
                && running.as_mut().poll(cx).is_ready()
            {
                *driver = None;
            }
            let mut unwoken = Context::from_waker(Waker::noop());
            if let Poll::Ready(reply) = reply.as_mut().poll(&mut unwoken) {
                return Poll::Ready(Some(reply));
            }
            alarm.poll(cx, deadline).map(|()| None)
        })
        .await
    }
}

/// A reply's body and the connection that it comes on, which goes back to its pool once the body was read to the end.
pub struct Reply {
    incoming: Incoming,
    link: Option<Link>,
    home: Home,
}

/// Where an idle connection is kept.
pub(super) struct Home {
    pub(super) origin: Arc<Origin>,
    pub(super) idle: Weak<Mutex<super::streamable_http::Kept>>,
    pub(super) idle_max: usize,
}

impl Reply {
    pub(super) fn new(incoming: Incoming, link: Link, home: Home) -> Self {
        let mut reply = Self {
            incoming,
            link: Some(link),
            home,
        };
        if reply.incoming.is_end_stream() {
            reply.give_back();
        }
        reply
    }

    /// Whether nothing more will come, as far as that is known before asking.
    pub fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// Bytes that are still to come, where that is known.
    pub fn bytes_left(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Ready once the deadline has passed, with the connection's own alarm.
    pub fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match &mut self.link {
            Some(link) => link.alarm.poll(cx, deadline),
            None => Poll::Pending,
        }
    }

    /// The next chunk of data; `None` at the proper end, an error at any other.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut unwoken = Context::from_waker(Waker::noop());
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(&mut unwoken) {
                Poll::Ready(None) => {
                    self.give_back();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not passed on.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    // With a Content-Length nobody may ask again after the last byte.
                    if self.incoming.is_end_stream() {
                        self.give_back();
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(Error {
                        kind: ErrorKind::Protocol,
                        unsent: false,
                        detail: error.to_string(),
                    })));
                }
                Poll::Pending => {}
            }
            match &mut self.link {
                Some(link) if !driven => link.drive(cx),
                _ => return Poll::Pending,
            }
            driven = true;
        }
    }

    /// The reply is over: the connection is free again.
    fn give_back(&mut self) {
        let (Some(mut link), Some(idle)) = (self.link.take(), self.home.idle.upgrade()) else {
            return;
        };
        // Lets it see that the body is over; nobody is to be woken for it from here on.
        if !link.is_ready(&mut Context::from_waker(Waker::noop())) {
            return;
        }
        let Ok(mut idle) = idle.lock() else { return };
        if !idle.contains_key(&*self.home.origin) {
            idle.insert(self.home.origin.clone(), Vec::new());
        }
        if let Some(list) = idle.get_mut(&*self.home.origin)
            && list.len() < self.home.idle_max
        {
            list.push((link, 0));
        }
    }
}
