//! Stage 5: the reply, streamed through; held whole only where a list must be filtered or a session begins.

use super::{
    Gate,
    body::{JsonBody, Out, OutKind},
    decode::Decoder,
    error::Answer,
    headers,
    identify::Caller,
    inflight::Places,
    inspect,
    record::Recorder,
    session::{Opening, Session},
    stream,
};
use crate::{
    drain::Phase,
    upstream::{self, Body},
    view::{Binding, View},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use proto::{
    grant::TokenHash,
    id::ServerName,
    limit::Outcome,
    mcp::{self, Era},
    policy::Policy,
    scan::{Envelope, Kind, Value},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// What kind of exchange a reply belongs to, as far as the relay cares.
#[derive(Debug)]
pub enum What {
    /// `initialize`: the reply opens the session.
    Initialize,
    /// `tools/list`: the reply is filtered.
    List,
    /// A session's GET stream.
    Stream,
    /// `subscriptions/listen`; whether changes of the tool list were asked for.
    Listen {
        /// `params.notifications.toolsListChanged`
        tools: bool,
    },
    /// Anything else: the reply passes.
    Other,
}

impl What {
    /// The kind of a message.
    pub fn of(envelope: &Envelope<'_>, era: Era) -> Self {
        match (envelope.method, envelope.kind) {
            ("initialize", Kind::Request) if era == Era::Legacy => Self::Initialize,
            ("tools/list", Kind::Request) => Self::List,
            ("subscriptions/listen", Kind::Request) => {
                let asked = envelope
                    .params
                    .map(Value::new)
                    .and_then(|params| params.get("notifications"));
                let tools = asked
                    .and_then(|asked| asked.get("toolsListChanged"))
                    .and_then(|v| v.as_bool());
                Self::Listen {
                    tools: tools == Some(true),
                }
            }
            _ => Self::Other,
        }
    }
}

/// What the relay needs to know of the request.
#[derive(Debug)]
pub struct Plan {
    pub(super) what: What,
    pub(super) id: Option<Bytes>,
    pub(super) era: Era,
    pub(super) token: TokenHash,
    pub(super) server: ServerName,
    pub(super) policy: Option<Arc<Policy>>,
    /// The revision of the view that judged last.
    pub(super) view: u64,
    pub(super) scan: proto::scan::Bounds,
    pub(super) reply_bytes: usize,
    pub(super) deadline: Instant,
    /// How long a client may leave a stream unread.
    pub(super) patience: Duration,
    /// The final reply has passed.
    pub(super) answered: bool,
    /// The client holds an event's id and may ask for the rest of a broken stream (L10).
    pub(super) resumable: bool,
}

/// Which tools a list may show.
pub struct Shown(Option<Arc<Policy>>);

impl Shown {
    /// Whether the tool may be seen: without a policy none.
    pub fn shows(&self, tool: &str) -> bool {
        self.0.as_ref().is_some_and(|policy| policy.lists(tool))
    }
}

impl Plan {
    /// Notes what of the view the reply will be judged by.
    pub fn new(
        what: What,
        id: Option<&[u8]>,
        era: Era,
        caller: &Caller,
        binding: &Binding,
        view: &View,
    ) -> Self {
        let long = matches!(what, What::Stream | What::Listen { .. });
        let life = if long {
            view.bounds.session_life
        } else {
            binding.server.timeout
        };
        Self {
            what,
            id: id.map(Bytes::copy_from_slice),
            era,
            token: caller.token,
            server: caller.server.clone(),
            policy: binding.policy.clone(),
            view: view.revision,
            scan: view.bounds.scan(),
            reply_bytes: view.bounds.reply_bytes,
            deadline: Instant::now() + life,
            patience: binding.server.timeout,
            answered: false,
            resumable: false,
        }
    }
    /// What may be seen of lists, where anything is removed from them. A view may have taken the policy away meanwhile.
    pub fn filter(&self) -> Option<Shown> {
        match &self.policy {
            Some(policy) => policy.filters_lists().then(|| Shown(Some(policy.clone()))),
            None => matches!(self.what, What::List | What::Stream).then_some(Shown(None)),
        }
    }
}

/// What rides with a reply to its end: dropping it settles, records and frees. Boxed, as [`Recorder`] is.
#[derive(Debug)]
pub struct Ride {
    pub(super) recorder: Box<Recorder>,
    pub(super) plan: Plan,
    pub(super) session: Option<Arc<Session>>,
    pub(super) opening: Option<Opening>,
    /// Held until the exchange ends.
    pub(super) _places: Places,
    pub(super) gate: Arc<Gate>,
}

/// Relays a reply.
pub async fn relay(reply: upstream::Response, mut ride: Box<Ride>) -> Response<Out> {
    let (parts, body) = reply.into_parts();
    let status = parts.status;
    ride.recorder.status(status.as_u16(), status.as_u16());
    if let Some(outcome) = inspect::outcome_of_status(status) {
        ride.recorder.settle(outcome);
    }
    let id = ride.plan.id.clone();
    if matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    ) {
        let message = "The server behind the gateway refused the gateway's own credentials";
        let answer = Answer::fail(
            StatusCode::BAD_GATEWAY,
            id.as_deref(),
            "upstream_credentials",
            "upstream",
            message,
        );
        return ride.answer(answer);
    }
    if let (StatusCode::NOT_FOUND, Era::Legacy, None, Some(session)) =
        (status, ride.plan.era, &ride.opening, ride.session.clone())
    {
        ride.gate.sessions.end(&session);
        let gone = upstream::Error {
            kind: upstream::ErrorKind::SessionGone,
            unsent: false,
            detail: String::new(),
        };
        return ride.answer(Answer::upstream(&gone, id.as_deref()));
    }
    let media = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let events = media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("text/event-stream");
    let inspected = if status.is_success() {
        ride.recorder.holds() || ride.plan.filter().is_some() || ride.opening.is_some()
    } else {
        // A list is a list under any status.
        matches!(ride.plan.what, What::List) && ride.plan.filter().is_some()
    };
    let decoder = match Decoder::of(&parts.headers) {
        Ok(decoder) => decoder,
        Err(_) if !inspected && !events => None,
        Err(encoding) => {
            let detail = format!("reply in an encoding that was not asked for: {encoding}");
            return ride.broken(&detail);
        }
    };
    let mut head = headers::down(&parts.headers);
    if let (Some(session), Some(_)) = (&ride.session, &ride.opening) {
        if let Some(theirs) = parts.headers.get(&headers::MCP_SESSION_ID) {
            let _ = session.upstream_id.set(theirs.clone());
        }
        if let (true, Ok(ours)) = (status.is_success(), HeaderValue::from_str(&session.id)) {
            head.insert(&headers::MCP_SESSION_ID, ours);
        }
    }
    if events && status.is_success() {
        head.remove(header::CONTENT_LENGTH);
        head.remove(header::CONTENT_ENCODING);
        head.insert(&headers::X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let (sender, receiver) = mpsc::channel(8);
        if matches!(ride.plan.what, What::Stream)
            && let Some(session) = &ride.session
        {
            session.streams.fetch_add(1, Relaxed);
        }
        tokio::task::spawn_local(stream::run(body, decoder, ride, sender));
        return respond(status, head, Out::events(receiver));
    }
    if body.is_end() {
        // Nobody would ask a body for what it announces not to have.
        if ride.opening.is_some() {
            head.remove(&headers::MCP_SESSION_ID);
        }
        return respond(status, head, Out::full(ride.finish(Bytes::new())));
    }
    let whole = inspected && (decoder.is_some() || !matches!(ride.plan.what, What::Other));
    if whole {
        return Box::pin(hold(status, head, body, decoder, ride)).await;
    }
    respond(
        status,
        head,
        OutKind::Json(JsonBody::new(body, inspected, ride)).into(),
    )
}

/// Holds a JSON reply whole, judges it, and only then lets it go.
async fn hold(
    status: StatusCode,
    mut head: HeaderMap,
    body: Body,
    decoder: Option<Decoder>,
    mut ride: Box<Ride>,
) -> Response<Out> {
    let deadline = tokio::time::Instant::from_std(ride.plan.deadline);
    let bytes = match tokio::time::timeout_at(
        deadline,
        collect(body, decoder, ride.plan.reply_bytes),
    )
    .await
    {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(detail)) => return ride.broken(&detail),
        Err(_) => {
            let timeout = upstream::Error {
                kind: upstream::ErrorKind::Timeout,
                unsent: false,
                detail: String::new(),
            };
            let id = ride.plan.id.clone();
            return ride.answer(Answer::upstream(&timeout, id.as_deref()));
        }
    };
    if bytes.is_empty() {
        if ride.opening.is_some() {
            head.remove(&headers::MCP_SESSION_ID);
        }
        return respond(status, head, Out::full(ride.finish(Bytes::new())));
    }
    let bytes = match inspect::message(&bytes, &mut ride) {
        Ok(Some(changed)) => changed,
        Ok(None) => bytes,
        Err(_) if !status.is_success() => {
            // The status says it all; what came with it may be anything.
            ride.recorder.failed("upstream_protocol", "complete");
            let message = "The reply of the server behind the gateway was refused";
            head.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            mcp::error(ride.plan.id.as_deref(), -32603, message, None).into()
        }
        Err(detail) => return ride.broken(&detail),
    };
    head.remove(header::CONTENT_LENGTH);
    head.remove(header::CONTENT_ENCODING);
    if ride.opening.is_some() {
        // The upstream refused to initialize: there is no session to name.
        head.remove(&headers::MCP_SESSION_ID);
    }
    respond(status, head, Out::full(ride.finish(bytes)))
}

async fn collect(
    mut body: Body,
    mut decoder: Option<Decoder>,
    max: usize,
) -> Result<Bytes, String> {
    let mut whole = Vec::new();
    while let Some(chunk) = std::future::poll_fn(|cx| body.poll_data(cx)).await {
        let chunk = chunk.map_err(|error| error.detail)?;
        match &mut decoder {
            Some(decoder) => decoder.push(&chunk, max - whole.len(), &mut whole)?,
            None => whole.extend_from_slice(&chunk),
        }
        if whole.len() > max {
            return Err(format!("reply over {max} bytes (bounds.reply_bytes)"));
        }
    }
    if let Some(decoder) = decoder {
        decoder.finish(&mut whole)?;
    }
    Ok(whole.into())
}

impl Ride {
    /// Ends the exchange with the gateway's own answer.
    pub(super) fn answer(mut self: Box<Self>, answer: Answer) -> Response<Out> {
        let upstream = self.recorder.upstream_status();
        self.recorder.answered(&answer);
        self.recorder.status(answer.status.as_u16(), upstream);
        answer.into_response()
    }
    /// Ends the exchange because the upstream's reply cannot be judged: fails closed.
    pub(super) fn broken(self: Box<Self>, detail: &str) -> Response<Out> {
        tracing::warn!(request = %self.recorder.request(), server = %self.plan.server, detail, "upstream's reply was refused");
        let id = self.plan.id.clone();
        let message = "The reply of the server behind the gateway was refused";
        self.answer(Answer::fail(
            StatusCode::BAD_GATEWAY,
            id.as_deref(),
            "upstream_protocol",
            "upstream",
            message,
        ))
    }
    /// The phase of a shutdown that ends this exchange: streams without an end make way first.
    pub(super) fn last_phase(&self) -> Phase {
        if matches!(self.plan.what, What::Stream | What::Listen { .. }) {
            Phase::Stopping
        } else {
            Phase::Ended
        }
    }
    fn finish(mut self: Box<Self>, bytes: Bytes) -> Bytes {
        self.recorder.settle(Outcome::Acted);
        self.recorder.sent(bytes.len());
        self.recorder.complete();
        bytes
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Out) -> Response<Out> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
