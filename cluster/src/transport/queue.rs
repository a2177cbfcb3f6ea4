//! What waits to be written on one stream: encoded at once, sent together.

use super::Unsent;
use crate::codec;
use bytes::{Bytes, BytesMut};
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;

/// Memory is taken in pieces of at least this, when less than a small frame's bytes are left of the last one.
const PIECE_BYTES: usize = 16 << 10;
const SMALL_BYTES: usize = 256;

/// A queue of frames. Whoever puts one in does not wait; the stream's writer takes all there is at a time.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
    /// Bytes beyond which nothing is taken in. One frame may go over it.
    bytes_max: usize,
    /// The writer has nothing more to send, and what it sent has arrived.
    settled: AtomicBool,
}

#[derive(Debug)]
struct Waiting {
    bytes: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no stream.
    Closed,
    Open,
    /// What waits is sent, nothing is added.
    Draining,
}

impl Queue {
    /// A queue without a stream.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                bytes: BytesMut::new(),
                state: State::Closed,
            }),
            ready: Notify::new(),
            bytes_max,
            settled: AtomicBool::new(true),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Frames are put in whole or not at all, so what another thread left is sound.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream begins.
    pub(super) fn open(&self) {
        let mut waiting = self.waiting();
        waiting.bytes.clear();
        waiting.state = State::Open;
        self.settled.store(false, Ordering::Relaxed);
    }

    /// The stream is gone, and what waited for it.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.bytes = BytesMut::new();
        waiting.state = State::Closed;
        drop(waiting);
        self.settle();
        self.ready.notify_one();
    }

    /// Whether there is no stream.
    pub(super) fn is_closed(&self) -> bool {
        self.waiting().state == State::Closed
    }

    /// Nothing is added any more.
    pub(super) fn drain(&self) {
        let mut waiting = self.waiting();
        if waiting.state == State::Open {
            waiting.state = State::Draining;
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// What was drained has arrived.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is on its way.
    pub(super) fn settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Puts a frame in, if there is a stream and no more than a part of the bound waits already.
    pub(super) fn put_if_below(
        &self,
        part: usize,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), codec::Error>,
    ) -> Result<(), Unsent> {
        let mut waiting = self.waiting();
        if waiting.state != State::Open {
            return Err(Unsent::NotConnected);
        }
        if waiting.bytes.len() >= part {
            return Err(Unsent::Full);
        }
        let first = waiting.bytes.is_empty();
        if waiting.bytes.capacity() - waiting.bytes.len() < SMALL_BYTES {
            waiting.bytes.reserve(PIECE_BYTES);
        }
        encode(&mut waiting.bytes).map_err(|_| Unsent::TooLarge)?;
        drop(waiting);
        if first {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Puts a frame in.
    pub(super) fn put(
        &self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), codec::Error>,
    ) -> Result<(), Unsent> {
        self.put_if_below(self.bytes_max, encode)
    }

    /// As [`Queue::put`], but for what may be lost: half of the queue is kept free of it.
    pub(super) fn put_if_half_empty(
        &self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), codec::Error>,
    ) -> Result<(), Unsent> {
        self.put_if_below(self.bytes_max / 2, encode)
    }

    /// Waits for frames and takes all; `None`: there will be none.
    pub(super) async fn take(&self) -> Option<Bytes> {
        loop {
            let ready = self.ready.notified();
            {
                let mut waiting = self.waiting();
                if !waiting.bytes.is_empty() {
                    return Some(waiting.bytes.split().freeze());
                }
                if waiting.state != State::Open {
                    return None;
                }
            }
            ready.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> impl FnOnce(&mut BytesMut) -> Result<(), codec::Error> {
        move |buffer| {
            buffer.extend_from_slice(&vec![1; bytes]);
            Ok(())
        }
    }

    #[tokio::test]
    async fn frames_wait_within_the_bound_and_leave_together() {
        let queue = Queue::new(100);
        assert_eq!(queue.put(frame(1)), Err(Unsent::NotConnected));
        queue.open();
        assert_eq!(queue.put(frame(60)), Ok(()));
        assert_eq!(queue.put_if_half_empty(frame(1)), Err(Unsent::Full));
        assert_eq!(queue.put(frame(60)), Ok(()), "one frame may go over");
        assert_eq!(queue.put(frame(1)), Err(Unsent::Full));
        assert_eq!(queue.take().await.unwrap().len(), 120);
        let too_large = queue.put(|_| Err(codec::Error::TooLarge));
        assert_eq!(too_large, Err(Unsent::TooLarge));
    }

    #[tokio::test]
    async fn a_drained_queue_gives_what_it_has_and_a_closed_one_nothing() {
        let queue = Queue::new(100);
        queue.open();
        queue.put(frame(3)).unwrap();
        queue.drain();
        assert_eq!(queue.put(frame(1)), Err(Unsent::NotConnected));
        assert_eq!(queue.take().await.unwrap().len(), 3);
        assert_eq!(queue.take().await, None);
        queue.open();
        queue.put(frame(3)).unwrap();
        queue.close();
        assert_eq!(queue.take().await, None);
    }
}
