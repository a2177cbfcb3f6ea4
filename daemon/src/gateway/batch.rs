//! Batches (2025-03-26 alone): every element is judged and forwarded by itself, in order; the replies are one stream.

use super::{
    Asked, Core, Gate,
    body::{Cut, Out},
    decide::Message,
    decide_and_forward,
    error::Answer,
    headers,
    record::Recorder,
};
use crate::clock;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use proto::{
    mcp,
    scan::{self, Body, Envelope, From, Kind, sse},
};
use std::rc::Rc;
use tokio::sync::mpsc;

/// The one version that has batches.
const VERSION: &str = "2025-03-26";

/// Whether a batch may come here at all.
pub fn check(gate: &Gate, asked: &Asked, elements: usize) -> Result<(), Answer> {
    let (caller, bounds) = (&asked.caller, &asked.view.bounds);
    let id = asked
        .headers
        .get(&headers::MCP_SESSION_ID)
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let session = gate
        .sessions
        .find(id, &caller.grant.id, &caller.server, bounds, asked.now);
    let version = session.and_then(|session| session.version.get().cloned());
    if version.as_deref() != Some(VERSION) {
        let message = "Batches exist only in sessions of 2025-03-26";
        return Err(Answer::refuse(
            StatusCode::BAD_REQUEST,
            None,
            -32600,
            "batch",
            message,
        ));
    }
    if elements > bounds.batch {
        let message = format!("A batch may hold {} messages (bounds.batch)", bounds.batch);
        return Err(Answer::refuse(
            StatusCode::BAD_REQUEST,
            None,
            -32600,
            "batch",
            &message,
        ));
    }
    Ok(())
}

/// Runs a batch. Its elements have audit lines of their own; the recorder given serves the first.
pub async fn run(
    core: Rc<Core>,
    mut asked: Box<Asked>,
    body: &Bytes,
    elements: Vec<Envelope<'_>>,
    recorder: Box<Recorder>,
) -> Response<Out> {
    let asks = elements.iter().any(|element| element.kind == Kind::Request);
    let pieces: Vec<Bytes> = elements
        .iter()
        .map(|element| body.slice_ref(element.raw))
        .collect();
    let (sender, receiver) = mpsc::channel(8);
    let work = async move {
        let mut recorder = Some(recorder);
        for (index, piece) in pieces.into_iter().enumerate() {
            asked.at(clock::now());
            let recorder = match recorder.take() {
                Some(first) => first,
                None => {
                    asked.arrived = asked.now;
                    asked.recorder(&core.gate, "POST").await
                }
            };
            let Ok(Body::One(envelope)) =
                scan::read(&piece, &asked.view.bounds.scan(), From::Client)
            else {
                continue;
            };
            let message = Message {
                envelope: &envelope,
                bytes: piece.clone(),
                batch_index: Some(index as u32),
            };
            let reply = Box::pin(decide_and_forward(&core, &asked, message, recorder)).await;
            if envelope.kind == Kind::Request {
                pass(reply, envelope.id, asked.view.bounds.reply_bytes, &sender).await;
            }
        }
    };
    if !asks {
        work.await;
        let mut accepted = Response::new(Out::full(Bytes::new()));
        *accepted.status_mut() = StatusCode::ACCEPTED;
        return accepted;
    }
    // Leaving is not cancelling here (L9): the work goes on, its replies fall on the floor.
    tokio::task::spawn_local(work);
    let mut response = Response::new(Out::events(receiver));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(&headers::X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Passes one element's reply on as events; what is no stream is held, up to `max` bytes.
async fn pass(
    reply: Response<Out>,
    id: Option<&[u8]>,
    max: usize,
    sender: &mpsc::Sender<Result<Bytes, Cut>>,
) {
    let (parts, mut body) = reply.into_parts();
    let events = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
    let mut whole = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if events {
            let _ = sender.send(Ok(data)).await;
        } else {
            whole.extend_from_slice(&data);
            if whole.len() > max {
                let message = "The reply is over bounds.reply_bytes";
                whole = mcp::error(id, -32603, message, None);
                break;
            }
        }
    }
    if !whole.is_empty() {
        // JSON may hold raw line feeds between its tokens; an event's data may not, and strings never do.
        whole
            .iter_mut()
            .filter(|b| matches!(b, b'\n' | b'\r'))
            .for_each(|b| *b = b' ');
        let mut event = Vec::with_capacity(whole.len() + 16);
        sse::write_event(&mut event, b"", &whole);
        let _ = sender.send(Ok(event.into())).await;
    }
}
