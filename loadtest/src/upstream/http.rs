//! Streamable HTTP, both eras.

use super::{
    Eras, Reply,
    core::{Answer, Context, Core, Emit},
    era::{context, session, text},
    fast,
    fault::{self, Delivery},
    parse::parse,
    session::Session,
    tools,
    wire::{AbortOnDrop, Raw, RawSlot, ReplyBody, Tap, encode, event, events, reply},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use std::{convert::Infallible, future::Future, net::TcpListener, sync::Arc, time::Instant};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};

/// Largest request body, bytes.
const BODY_MAX: usize = 64 << 20;
/// Messages waiting in one reply's stream.
const EVENTS_MAX: usize = 16;

type Head = http::request::Parts;

/// What is noted of a request besides its message.
struct Came {
    arrived: Instant,
    headers: Vec<(String, String)>,
}
type Replied = Response<ReplyBody>;

/// Serves until `stop` resolves.
pub(super) async fn serve(core: Arc<Core>, listener: TcpListener, mut stop: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("upstream: {error}"),
    };
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: give the others a chance to end.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        if core.options.reset_on_accept {
            let _ = stream.set_zero_linger();
            continue;
        }
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(core.clone(), stream));
    }
}

async fn connection(core: Arc<Core>, stream: TcpStream) {
    let raw = RawSlot::default();
    let tap = Tap {
        stream,
        raw: raw.clone(),
        written: 0,
    };
    let http2 = core.options.http2;
    let service = service_fn(|request: http::Request<Incoming>| {
        let (core, raw) = (core.clone(), raw.clone());
        async move { Ok::<_, Infallible>(respond(core, raw, request).await) }
    });
    if http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .serve_connection(TokioIo::new(tap), service);
        let _ = connection.await;
        return;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A timer a request, on a server whose clients are tests and load.
        .header_read_timeout(None)
        .max_buf_size(1 << 20)
        .serve_connection(TokioIo::new(tap), service);
    let _ = connection.await;
}

async fn respond(core: Arc<Core>, raw: RawSlot, request: http::Request<Incoming>) -> Replied {
    let (head, body) = request.into_parts();
    core.stall();
    if head.uri.path() == "/record" {
        return match head.method {
            Method::GET => reply(200, "application/json", core.recorder.to_json().to_string()),
            Method::DELETE => {
                core.recorder.clear();
                reply(204, "", "")
            }
            _ => reply(405, "", ""),
        };
    }
    if head.uri.path() == "/record/calls" && head.method == Method::GET {
        return reply(200, "application/jsonl", core.recorder.lines());
    }
    if head.uri.path() == "/record/summary" && head.method == Method::GET {
        let summary = core.recorder.summary().to_string();
        return reply(200, "application/json", summary);
    }
    let arrived = Instant::now();
    let Some(body) = whole(body).await else {
        return reply(413, "", "");
    };
    if head.method == Method::POST
        && let Some(response) = fast::answer(&core, &head.headers, &body)
    {
        core.recorder.took(arrived.elapsed());
        return response;
    }
    // Copies that only a full record needs.
    let headers = match core.recorder.keeps_requests() {
        true => list(&head.headers),
        false => Vec::new(),
    };
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    core.recorder
        .request(head.method.as_str(), path, &headers, &body);
    match head.method {
        Method::POST => {
            let came = Came { arrived, headers };
            post(core, raw, head, came, body).await
        }
        Method::GET => get(&core, &head),
        Method::DELETE => delete(&core, &head),
        _ => not_allowed(&core),
    }
}

/// A whole body; mostly it is one frame, which is not copied.
async fn whole(mut body: Incoming) -> Option<Bytes> {
    if body
        .size_hint()
        .exact()
        .is_none_or(|n| n <= BODY_MAX as u64)
        && let Some(Ok(frame)) = body.frame().await
    {
        let first = frame.into_data().unwrap_or_default();
        if body.is_end_stream() {
            return Some(first);
        }
        let rest = Limited::new(body, BODY_MAX).collect().await.ok()?;
        let mut all = first.to_vec();
        all.extend_from_slice(&rest.to_bytes());
        return Some(all.into());
    }
    let rest = Limited::new(body, BODY_MAX).collect().await.ok()?;
    Some(rest.to_bytes())
}

fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

fn not_allowed(core: &Core) -> Replied {
    let mut response = reply(405, "", "");
    let allowed = if core.options.eras == Eras::Modern {
        "POST"
    } else {
        "POST, GET, DELETE"
    };
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn get(core: &Arc<Core>, head: &Head) -> Replied {
    if core.options.eras == Eras::Modern {
        return not_allowed(core);
    }
    match session(core, &head.headers, &Value::Null) {
        Err(answer) => send(answer),
        Ok(session) => events(ReplyBody::Events {
            receiver: session.open_stream(),
            first: Some(opening(core)),
            ids: core.options.event_ids.then_some(0),
            _abort: None,
        }),
    }
}

/// What opens a long stream: a comment, or the priming event of resumable streams.
fn opening(core: &Core) -> Bytes {
    Bytes::from_static(if core.options.event_ids {
        b"id: 0\nretry: 1000\ndata: \n\n"
    } else {
        b": open\n\n"
    })
}

fn delete(core: &Core, head: &Head) -> Replied {
    if core.options.eras == Eras::Modern || !core.options.sessions {
        return not_allowed(core);
    }
    match text(&head.headers, "mcp-session-id") {
        None => reply(400, "", ""),
        Some(id) if core.end_session(id) => reply(200, "", ""),
        Some(_) => reply(404, "", ""),
    }
}

fn send(answer: Answer) -> Replied {
    let body = answer.body.map(|b| b.to_string()).unwrap_or_default();
    let content_type = if body.is_empty() {
        ""
    } else {
        "application/json"
    };
    let mut response = reply(answer.status, content_type, body);
    if let Some(id) = answer.opened.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert("mcp-session-id", id);
    }
    response
}

async fn post(core: Arc<Core>, raw: RawSlot, head: Head, came: Came, body: Bytes) -> Replied {
    let Some(message) = parse(core.options.parser, &body) else {
        return send(Answer::error(400, &Value::Null, -32700, "Parse error"));
    };
    let accept = text(&head.headers, "accept").unwrap_or_default();
    let takes = |kind: &str| accept.contains("*/*") || accept.contains(kind);
    if !(takes("application/json") && takes("text/event-stream")) {
        let sentence = "Not Acceptable: application/json and text/event-stream must be accepted";
        return send(Answer::error(406, &Value::Null, -32000, sentence));
    }
    let context = match context(&core, &head.headers, came.headers, &message) {
        Ok(context) => context,
        Err(answer) => return send(answer),
    };
    match message {
        Value::Array(messages) => batch(core, context, messages).await,
        message if message.get("method").is_none() || message.get("id").is_none() => {
            core.take(&message, &context.session);
            reply(202, "", "")
        }
        message => request(core, raw, context, message, came.arrived).await,
    }
}

/// Every element in turn, as the servers do that still take batches.
async fn batch(core: Arc<Core>, context: Context, messages: Vec<Value>) -> Replied {
    let mut answers = Vec::new();
    for message in messages {
        if message.get("method").is_none() || message.get("id").is_none() {
            core.take(&message, &context.session);
        } else {
            let answer = core.answer(&message, &context, &Emit::default()).await;
            answers.extend(answer.body);
        }
    }
    if answers.is_empty() {
        return reply(202, "", "");
    }
    let answers = Value::Array(answers);
    match core.options.reply {
        Reply::Sse => events(ReplyBody::Full(Some(event(&answers, &mut None)))),
        _ => reply(200, "application/json", answers.to_string()),
    }
}

async fn request(
    core: Arc<Core>,
    raw: RawSlot,
    context: Context,
    message: Value,
    arrived: Instant,
) -> Replied {
    let method = message
        .get("method")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let tool = message
        .pointer("/params/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let token = message.pointer("/params/_meta/progressToken").cloned();
    let whole = core.fault_for(&method).is_some()
        || core.encoding(&method) != super::Encoding::Identity
        || method == "initialize"
        || (method == "tools/call" && tools::sets_status(tool));
    let steps = core.options.chance.progress_steps > 0 && token.is_some() && method == "tools/call";
    let streamed = match core.options.reply {
        Reply::Json => method == "subscriptions/listen",
        Reply::Sse => true,
        Reply::Auto => {
            method == "subscriptions/listen"
                || steps
                || (method == "tools/call" && tools::streams(tool))
        }
    };
    if streamed && !whole {
        return stream(core, context, message, token, arrived);
    }
    let modern = context.modern;
    let id = message.get("id").cloned().unwrap_or_default();
    let session = context.session.clone();
    let working = core.clone();
    let work = async move { working.answer(&message, &context, &Emit::default()).await };
    let answer = if modern {
        work.await
    } else {
        // Going away is not cancellation in this era: the work goes on.
        match detached(&session, &id, work).await {
            Some(answer) => answer,
            None => return events(ReplyBody::Full(None)),
        }
    };
    if let Some(fault) = answer.fault {
        return broken(fault, &core, raw, &answer).await;
    }
    let response = finish(&core, &method, answer);
    if method == "tools/call" {
        core.recorder.took(arrived.elapsed());
    }
    response
}

/// A whole reply, as JSON or as one event, perhaps compressed.
fn finish(core: &Core, method: &str, answer: Answer) -> Replied {
    let sse = core.options.reply == Reply::Sse && answer.status == 200;
    let encoding = core.encoding(method);
    let mut response = send(answer);
    if sse && let ReplyBody::Full(Some(body)) = response.body_mut() {
        *body = super::wire::event_text(
            &String::from_utf8_lossy(body),
            &mut core.options.event_ids.then_some(0),
        );
        let value = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    if let ReplyBody::Full(body) = response.body_mut()
        && let Some(bytes) = body.take()
    {
        let bytes = encode(encoding, bytes, response.headers_mut());
        *response.body_mut() = ReplyBody::Full(Some(bytes));
    }
    response
}

/// Runs to the end even if nobody waits; `None` when it was cancelled.
async fn detached<T: Send + 'static>(
    session: &Session,
    id: &Value,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let task = tokio::spawn(work);
    session.track(id, task.abort_handle());
    task.await.ok()
}

fn stream(
    core: Arc<Core>,
    context: Context,
    message: Value,
    token: Option<Value>,
    arrived: Instant,
) -> Replied {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let method = message.get("method").and_then(Value::as_str);
    let (long, call) = (
        method == Some("subscriptions/listen"),
        method == Some("tools/call"),
    );
    let first = (long || core.options.event_ids).then(|| opening(&core));
    let ids = core.options.event_ids.then_some(0);
    let modern = context.modern;
    let session = context.session.clone();
    let id = message.get("id").cloned().unwrap_or_default();
    let task = tokio::spawn(async move {
        let emit = Emit {
            sender: Some(sender.clone()),
            token,
        };
        let answer = core.answer(&message, &context, &emit).await;
        if let Some(body) = answer.body {
            let _ = sender.send(body).await;
        }
        if call {
            core.recorder.took(arrived.elapsed());
        }
    });
    session.track(&id, task.abort_handle());
    events(ReplyBody::Events {
        receiver,
        first,
        ids,
        _abort: modern.then(|| AbortOnDrop(task.abort_handle())),
    })
}

async fn broken(fault: super::Fault, core: &Core, raw: RawSlot, answer: &Answer) -> Replied {
    let body = answer.body.clone().unwrap_or_default();
    match fault::deliver(fault, &body, core.options.reply == Reply::Sse) {
        Delivery::Never => std::future::pending().await,
        Delivery::Reply(response) => *response,
        Delivery::Raw { bytes, reset } => {
            *super::record::lock(&raw) = Some(Raw { bytes, reset });
            let mut response = reply(200, "", "");
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            response
        }
    }
}
