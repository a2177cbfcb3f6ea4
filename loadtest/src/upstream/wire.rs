//! Reply bodies: JSON, SSE, content codings, and raw bytes behind hyper's back.

use super::Encoding;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame};
use serde_json::Value;
use std::{
    convert::Infallible,
    io::{self, Write as _},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::mpsc,
    task::AbortHandle,
};

use super::record::lock;

/// The body of a reply.
pub(super) enum ReplyBody {
    Full(Option<Bytes>),
    /// SSE events from a channel; closing the stream aborts the work behind it where that is the era's rule.
    Events {
        receiver: mpsc::Receiver<Value>,
        first: Option<Bytes>,
        ids: Option<u64>,
        /// Held for its drop alone.
        _abort: Option<AbortOnDrop>,
    },
    /// This chunk, then the next one again and again; `None` hangs.
    Endless {
        first: Option<Bytes>,
        again: Option<Bytes>,
    },
}

/// Aborts a task when the body that waits for it goes away.
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |bytes: Bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match self.get_mut() {
            ReplyBody::Full(bytes) => bytes.take().map_or(Poll::Ready(None), frame),
            ReplyBody::Events {
                receiver,
                first,
                ids,
                ..
            } => {
                if let Some(first) = first.take() {
                    return frame(first);
                }
                match ready!(receiver.poll_recv(cx)) {
                    Some(message) => frame(event(&message, ids)),
                    None => Poll::Ready(None),
                }
            }
            ReplyBody::Endless { first, again } => match first.take().or_else(|| again.clone()) {
                Some(bytes) => frame(bytes),
                None => Poll::Pending,
            },
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            ReplyBody::Full(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            _ => hyper::body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Full(None))
    }
}

/// One SSE event; `ids` counts where events carry ids.
pub(super) fn event(message: &Value, ids: &mut Option<u64>) -> Bytes {
    event_text(&message.to_string(), ids)
}

pub(super) fn event_text(data: &str, ids: &mut Option<u64>) -> Bytes {
    let mut text = String::with_capacity(data.len() + 48);
    if let Some(id) = ids {
        *id += 1;
        text.push_str(&format!("id: {id}\n"));
    }
    text.push_str("event: message\n");
    for line in data.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

pub(super) fn reply(
    status: u16,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<ReplyBody> {
    let body: Bytes = body.into();
    let mut response = Response::new(ReplyBody::Full((!body.is_empty()).then_some(body)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !content_type.is_empty() {
        let value = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

pub(super) fn events(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Encodes a whole body and says so.
pub(super) fn encode(encoding: Encoding, body: Bytes, headers: &mut http::HeaderMap) -> Bytes {
    let (name, encoded) = match encoding {
        Encoding::Identity => return body,
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            (
                "gzip",
                encoder.write_all(&body).and_then(|()| encoder.finish()),
            )
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            (
                "deflate",
                encoder.write_all(&body).and_then(|()| encoder.finish()),
            )
        }
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    encoded.map_or(body, Bytes::from)
}

/// What replaces everything that hyper would write on a connection.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) bytes: Bytes,
    /// Reset the connection instead of closing it.
    pub(super) reset: bool,
}

/// Shared by a connection and the service on it.
pub(super) type RawSlot = Arc<Mutex<Option<Raw>>>;

/// A connection whose replies can be replaced by raw bytes.
pub(super) struct Tap {
    pub(super) stream: TcpStream,
    pub(super) raw: RawSlot,
    pub(super) written: usize,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let raw = lock(&self.raw).clone();
        let Some(raw) = raw else {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        };
        while let Some(rest) = raw
            .bytes
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
        }
        // hyper's own reply is swallowed.
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if lock(&self.raw).as_ref().is_some_and(|raw| raw.reset) {
            let _ = self.stream.set_zero_linger();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
