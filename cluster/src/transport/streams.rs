//! One stream: frames out of a queue, frames into events.

use super::{Close, Queue, endpoint::preamble};
use crate::codec::{Class, Frames};
use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use std::{future::pending, io, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Packets taken from a stream at a time.
const CHUNKS_MAX: usize = 16;
/// A frame larger than this needs leave to be put together.
pub(super) const LARGE_BYTES: usize = 64 << 10;
/// How long the other side may take to acknowledge the end of a stream.
const FINISH: Duration = Duration::from_secs(1);

/// Writes what the queue has. Ends only if the stream breaks: having sent all of a queue that is drained it waits for the
/// other side to end the connection, which it does when it has read everything.
pub(super) async fn write(mut stream: SendStream, class: Class, queue: Arc<Queue>) {
    if stream.write_all(&preamble(class)).await.is_err() {
        return;
    }
    if write_on(&mut stream, &queue).await.is_ok() {
        // Nobody answers on this stream: that it has arrived must do.
        let _ = tokio::time::timeout(FINISH, stream.stopped()).await;
        queue.settle();
        pending::<()>().await;
    }
}

/// The same on a stream on which the other side answers, or which it opened.
pub(super) async fn converse(mut stream: SendStream, queue: Arc<Queue>) {
    if write_on(&mut stream, &queue).await.is_ok() {
        pending::<()>().await;
    }
}

async fn write_on(stream: &mut SendStream, queue: &Queue) -> io::Result<()> {
    while let Some(bytes) = queue.take().await {
        stream.write_chunk(bytes).await?;
    }
    // Closed by who looks after it: nothing is left to be said.
    let _ = stream.finish();
    Ok(())
}

/// Reads the two bytes that open a stream.
pub(crate) async fn class(stream: &mut RecvStream, known: &[Class]) -> Result<Class, Close> {
    let mut opening = [0; 2];
    stream
        .read_exact(&mut opening)
        .await
        .map_err(|_| Close::Nonsense)?;
    let found = known.iter().find(|class| preamble(**class) == opening);
    found.copied().ok_or(Close::Nonsense)
}

/// Frames of a stream.
pub(crate) struct Reader {
    stream: RecvStream,
    frames: Frames,
    /// Leave for large frames, and the one in hand.
    large: Option<Arc<Semaphore>>,
    leave: Option<OwnedSemaphorePermit>,
}

impl Reader {
    pub(crate) fn new(stream: RecvStream, class: Class, large: Option<Arc<Semaphore>>) -> Self {
        Self {
            stream,
            frames: Frames::new(class),
            large,
            leave: None,
        }
    }

    /// Reads no more, and tells the other side why.
    pub(super) fn stop(&mut self, why: VarInt) {
        // It may be at its end.
        let _ = self.stream.stop(why);
    }

    /// The next frame, with the leave that a large one holds until it is dealt with; `None` at the stream's end.
    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<(Bytes, Option<OwnedSemaphorePermit>)>, Close> {
        loop {
            if let Some(frame) = self.frames.pop().map_err(|_| Close::Nonsense)? {
                let leave = (frame.len() > LARGE_BYTES).then(|| self.leave.take());
                return Ok(Some((frame, leave.flatten())));
            }
            if self.frames.waiting() > LARGE_BYTES
                && self.leave.is_none()
                && let Some(large) = &self.large
            {
                // The semaphore is never closed.
                self.leave = large.clone().acquire_owned().await.ok();
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS_MAX];
            match self.stream.read_chunks(&mut chunks).await {
                Ok(Some(count)) => {
                    for chunk in &chunks[..count] {
                        self.frames.extend(chunk);
                    }
                }
                Ok(None) => return Ok(None),
                // The connection's end says why.
                Err(_) => return Err(Close::Done),
            }
        }
    }
}
