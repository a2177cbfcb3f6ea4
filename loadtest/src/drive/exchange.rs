//! One request and its reply, timed and judged.

use super::session::Sessions;
use crate::{
    judge::{self, Asked, Judged},
    plan::{
        Plan,
        call::{Call, Protocol},
        rng::Rng,
    },
    result::Class,
    target::{Connection, Endpoint, Failure},
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use proto::{
    mcp,
    scan::{self, Body, Bounds, From, Kind, sse},
};
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};

/// Largest reply that is read, bytes.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

/// HTTP/2 connections of a thread, `[target][n]`: many lanes share one.
pub type Shared = Rc<Vec<Vec<tokio::sync::Mutex<Option<Connection>>>>>;

/// What one lane holds: connections, and what it needs to use them.
#[derive(Debug)]
pub struct Peer {
    /// What is to be done.
    pub plan: Arc<Plan>,
    /// Sessions, shared by the lanes of a thread.
    pub sessions: Rc<Sessions>,
    /// Randomness, shared by the lanes of a thread.
    pub rng: Rc<RefCell<Rng>>,
    shared: Shared,
    own: Vec<Option<Connection>>,
    lane: usize,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The id.
    pub id: u64,
    /// The request.
    pub call: &'a Call,
    /// Of whom, by index.
    pub target: usize,
    /// As whom, by index; beyond the grants = as nobody.
    pub grant: usize,
    /// Further members of the arguments.
    pub extra: &'a str,
}

/// What came of it.
#[derive(Debug)]
pub struct Exchange {
    /// The verdict.
    pub judged: Judged,
    /// When it was sent (before a connection was made for it).
    pub sent: Instant,
    /// When its reply was complete.
    pub done: Instant,
    /// When the first event of a stream came.
    pub first_event: Option<Instant>,
    /// Progress notifications.
    pub progress: u64,
    /// Bytes of the bodies, out and in.
    pub bytes: (u64, u64),
    /// Connections made.
    pub connects: u64,
    /// Sessions opened.
    pub opened: u64,
}

impl Exchange {
    /// One that begins now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self {
            judged: Judged::OK,
            sent: now,
            done: now,
            first_event: None,
            progress: 0,
            bytes: (0, 0),
            connects: 0,
            opened: 0,
        }
    }
}

impl Peer {
    /// A lane without connections yet.
    pub fn new(
        plan: Arc<Plan>,
        sessions: Rc<Sessions>,
        rng: Rc<RefCell<Rng>>,
        shared: Shared,
        lane: usize,
    ) -> Self {
        let own = plan.endpoints.iter().map(|_| None).collect();
        Self {
            plan,
            sessions,
            rng,
            shared,
            own,
            lane,
        }
    }

    /// Asks, waits at most the plan's timeout, judges.
    pub async fn exchange(&mut self, ask: &Ask<'_>) -> Exchange {
        let mut out = Exchange::begin();
        let timeout = self.plan.timeout;
        let ended = tokio::time::timeout(timeout, self.attempt(ask, &mut out)).await;
        let failed = !matches!(ended, Ok(Ok(_)));
        match ended {
            Ok(Ok(judged)) => out.judged = judged,
            Ok(Err(failure)) => {
                out.done = Instant::now();
                out.judged = Judged::new(Class::Transport, failure.code, &failure.text);
            }
            Err(_) => {
                out.done = Instant::now();
                let text = format!("no complete reply within {timeout:?}");
                out.judged = Judged::new(Class::Timeout, "", &text);
                out.judged.code = None;
            }
        }
        // A half-read HTTP/1.1 connection is of no use; of HTTP/2 only the stream is gone.
        if failed || self.plan.churn {
            self.drop_connection(ask.target);
        }
        out
    }

    fn drop_connection(&mut self, target: usize) {
        if let Some(own) = self.own.get_mut(target) {
            *own = None;
        }
    }

    async fn attempt(&mut self, ask: &Ask<'_>, out: &mut Exchange) -> Result<Judged, Failure> {
        let plan = self.plan.clone();
        let session = match &plan.protocol {
            Protocol::Modern => None,
            Protocol::Legacy(_) => {
                let sessions = self.sessions.clone();
                sessions.for_call(self, ask, out).await?
            }
        };
        let made = {
            let mut rng = self.rng.borrow_mut();
            let call = ask.call;
            call.make(&plan.protocol, ask.id, ask.extra, plan.progress, &mut rng)
        };
        let body = Bytes::from(made.body);
        out.bytes.0 += body.len() as u64;
        let expected = match plan.check {
            true => ask
                .call
                .expected(body.get(made.arguments).unwrap_or_default()),
            false => None,
        };
        let asked = Asked {
            id: ask.id,
            method: &ask.call.method,
            text: expected.as_deref(),
        };
        let headers = self.headers(ask.target, ask.grant, Some(ask.call), session.as_ref());
        let request = self.request(Method::POST, ask.target, headers, body.clone());
        let response = self.send(ask.target, request, out).await?;
        let status = response.status().as_u16();
        if status == 404 && session.is_some() {
            self.sessions.gone(ask, session.as_ref()).await;
        }
        if is_stream(&response) {
            return stream(response, &asked, out).await;
        }
        let bytes = collect(response).await?;
        out.done = Instant::now();
        out.bytes.1 += bytes.len() as u64;
        Ok(judge::reply(status, &bytes, &asked))
    }

    /// A request for a target, in the form that the connection's HTTP version wants.
    pub fn request(
        &self,
        method: Method,
        target: usize,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        if let Some(endpoint) = self.plan.endpoints.get(target) {
            if self.plan.connector.http2 {
                *request.uri_mut() = endpoint.uri.clone();
                *request.version_mut() = http::Version::HTTP_2;
            } else {
                *request.uri_mut() = endpoint.path.clone();
                headers.insert(HOST, endpoint.host.clone());
            }
        }
        *request.headers_mut() = headers;
        request
    }

    /// The headers of a request.
    pub fn headers(
        &self,
        _target: usize,
        grant: usize,
        call: Option<&Call>,
        session: Option<&HeaderValue>,
    ) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(10);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = "application/json, text/event-stream";
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(grant) = self.plan.grants.get(grant) {
            headers.insert(AUTHORIZATION, grant.authorization.clone());
        }
        let protocol = &self.plan.protocol;
        if let (Some(call), Protocol::Modern) = (call, protocol) {
            if let Ok(method) = HeaderValue::from_str(&call.method) {
                headers.insert("mcp-method", method);
            }
            if let Some(name) = call.tool.as_deref().map(mcp::encode_header)
                && let Ok(name) = HeaderValue::from_str(&name)
            {
                headers.insert("mcp-name", name);
            }
        }
        // `initialize` negotiates the version in its body.
        if (session.is_some() || call.is_some())
            && let Ok(version) = HeaderValue::from_str(protocol.version())
        {
            headers.insert("mcp-protocol-version", version);
        }
        if let Some(session) = session {
            headers.insert("mcp-session-id", session.clone());
        }
        headers
    }

    /// Sends on a kept connection, or on a new one; a kept one that the target closed in the meantime is replaced.
    pub async fn send(
        &mut self,
        target: usize,
        request: Request<Full<Bytes>>,
        out: &mut Exchange,
    ) -> Result<Response<Incoming>, Failure> {
        let plan = self.plan.clone();
        let endpoint = plan.endpoints.get(target).ok_or_else(no_target)?;
        if plan.connector.http2 && !plan.churn {
            let mut connection = self.shared_connection(endpoint, target, out).await?;
            return connection.send(request).await;
        }
        let own = self.own.get_mut(target).ok_or_else(no_target)?;
        if own.as_ref().is_none_or(Connection::is_closed) {
            *own = None;
            out.connects += 1;
            *own = Some(plan.connector.connect(endpoint).await?);
        }
        let connection = own.as_mut().ok_or_else(no_target)?;
        connection.send(request).await
    }

    async fn shared_connection(
        &self,
        endpoint: &Endpoint,
        target: usize,
        out: &mut Exchange,
    ) -> Result<Connection, Failure> {
        let slots = self.shared.get(target).ok_or_else(no_target)?;
        let slot = slots.get(self.lane % slots.len().max(1));
        let mut slot = slot.ok_or_else(no_target)?.lock().await;
        if slot.as_ref().is_none_or(Connection::is_closed) {
            out.connects += 1;
            *slot = Some(self.plan.connector.connect(endpoint).await?);
        }
        match slot.as_ref() {
            Some(Connection::Http2(sender)) => Ok(Connection::Http2(sender.clone())),
            _ => Err(no_target()),
        }
    }
}

/// Cannot be: targets are counted before anything is sent.
fn no_target() -> Failure {
    Failure {
        code: "client",
        text: "there is no such target".into(),
    }
}

/// Whether a reply is a stream of events.
pub fn is_stream(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    response.status().as_u16() == 200
        && kind.is_some_and(|k| k.as_bytes().starts_with(b"text/event-stream"))
}

/// A whole body; mostly it is one frame, which is not copied.
///
/// # Errors
/// The connection failed, or the reply is larger than [`REPLY_BYTES_MAX`].
pub async fn collect(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let mut body = response.into_body();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::hyper(&e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() && all.is_empty() {
            first = data;
            if body.is_end_stream() {
                break;
            }
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
        if all.len() > REPLY_BYTES_MAX {
            return Err(too_long());
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_long() -> Failure {
    Failure {
        code: "too-long",
        text: format!("the reply is longer than {REPLY_BYTES_MAX} bytes"),
    }
}

/// Reads a stream to its end; the response is timed when it comes, not when the stream ends.
async fn stream(
    response: Response<Incoming>,
    asked: &Asked<'_>,
    out: &mut Exchange,
) -> Result<Judged, Failure> {
    let mut splitter = sse::Splitter::new(REPLY_BYTES_MAX);
    let mut body = response.into_body();
    let mut judged = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            // The response came whole: how the stream ended is no longer this request's matter.
            Err(_) if judged.is_some() => break,
            Err(error) => return Err(Failure::hyper(&error)),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        out.bytes.1 += data.len() as u64;
        let now = Instant::now();
        let pushed = splitter.push(&data, |event| {
            let Some(data) = event.data.filter(|d| !d.is_empty()) else {
                return;
            };
            out.first_event.get_or_insert(now);
            match scan::read(&data, &Bounds::default(), From::Server) {
                Ok(Body::One(message)) => match message.kind {
                    Kind::Notification | Kind::Request => {
                        out.progress += u64::from(message.method == "notifications/progress");
                    }
                    Kind::Result | Kind::Error(_) if judged.is_none() => {
                        judged = Some(judge::message(&message, asked));
                        out.done = now;
                    }
                    _ => {
                        let text = String::from_utf8_lossy(&data);
                        judged = Some(Judged::new(Class::WrongBody, "two responses", &text));
                    }
                },
                _ => {
                    let text = String::from_utf8_lossy(&data);
                    judged = Some(Judged::new(Class::WrongBody, "unreadable event", &text));
                    out.done = now;
                }
            }
        });
        if pushed.is_err() {
            return Err(too_long());
        }
    }
    Ok(judged.unwrap_or_else(|| {
        out.done = Instant::now();
        Judged::new(Class::WrongBody, "stream without a response", "")
    }))
}
