//! Stage 3: may this caller do this, now? The only place that makes an [`Admitted`].

use super::{
    Asked, Gate,
    error::{Answer, RPC_GATEWAY},
    headers,
    identify::{self, Caller},
    inflight::Places,
    judge::{judge_call, judge_method, take_places, turned_away},
    record::Recorder,
    relay::{Plan, What},
    session::{self, Opening, Session},
};
use crate::{
    metrics::Stage,
    upstream::{Expects, Request},
    view::{Origin, Server, Transport, View},
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use proto::{
    limit::Outcome,
    mcp::{self, Era},
    policy::Code,
    scan::{Envelope, From, Kind, Refusal, splice},
    time::Now,
};
use std::sync::Arc;

/// Why a grant from the log is refused while the cluster is silent.
const STALE: &str = "This node has not heard from its cluster lately whether this grant still holds; no limit was reached";

/// Proof that a request was judged and may go upstream. Only this module can make one; only it can be forwarded. Boxed,
/// as [`Recorder`] is.
#[derive(Debug)]
pub struct Admitted {
    pub(super) request: Request,
    pub(super) server: Arc<Server>,
    pub(super) session: Option<Arc<Session>>,
    pub(super) opening: Option<Opening>,
    pub(super) places: Places,
    pub(super) plan: Plan,
    _judged: Judged,
}

#[derive(Debug)]
struct Judged;

/// One message of a body, with what came around it.
pub struct Message<'a> {
    /// What the scanner read.
    pub envelope: &'a Envelope<'a>,
    /// The very bytes that were read.
    pub bytes: Bytes,
    /// Position in a batch.
    pub batch_index: Option<u32>,
}

impl<'a> Message<'a> {
    /// A message that is a whole body.
    pub fn alone(envelope: &'a Envelope<'a>, bytes: Bytes) -> Self {
        Self {
            envelope,
            bytes,
            batch_index: None,
        }
    }
}

/// Judges one message. On `Ok` its charges are taken and ride in the recorder.
pub async fn decide(
    gate: &Arc<Gate>,
    asked: &Asked,
    message: Message<'_>,
    recorder: &mut Recorder,
) -> Result<Box<Admitted>, Answer> {
    recorder.message(message.envelope, message.batch_index);
    let decided = judge(gate, asked, message, recorder).await;
    let took_ns = recorder.decided().saturating_sub(asked.read_ns);
    gate.metrics.stage(Stage::Decide, took_ns);
    decided
}

async fn judge(
    gate: &Arc<Gate>,
    asked: &Asked,
    message: Message<'_>,
    recorder: &mut Recorder,
) -> Result<Box<Admitted>, Answer> {
    let Message {
        envelope,
        ref bytes,
        batch_index,
    } = message;
    let Asked {
        caller,
        headers,
        now,
        ..
    } = asked;
    let now = *now;
    let id = envelope.id.filter(|_| envelope.kind == Kind::Request);
    let view = gate.views.load().ok_or_else(no_view)?;
    let at_ms = gate.freshness.expiry_ms(now);
    let grant = identify::look_up(&view, &caller.token, at_ms).map_err(identify::unauthorized)?;
    let binding = identify::binding(grant, &caller.server)?;
    if let Some(policy) = &binding.policy {
        recorder.policy(policy);
    }

    // Which rules does it live under?
    let named = named_session(gate, caller, headers, &view, now);
    let found = named
        .as_ref()
        .and_then(|found| found.as_ref().ok())
        .cloned();
    let version = found.as_ref().and_then(|session| session.version.get());
    let era = mcp::judge(
        envelope,
        &headers::for_rules(headers),
        version.map(|v| &**v),
    )
    .map_err(|violation| Answer::violation(&violation, id))?;
    recorder.era(era);
    let opens = era == Era::Legacy && envelope.method == "initialize";
    let session = match (era, opens) {
        (Era::Modern, _) | (_, true) => None,
        (Era::Legacy, false) => Some(require_session(named, id)?),
    };
    if let Some(session) = &session {
        recorder.session(session);
    }
    if batch_index.is_some() && (era == Era::Modern || opens) {
        let message = "initialize and 2026-07-28 requests cannot stand in a batch";
        return Err(Answer::refuse(
            StatusCode::BAD_REQUEST,
            id,
            -32600,
            "batch",
            message,
        ));
    }
    if era == Era::Modern && matches!(binding.server.transport, Transport::Stdio(_)) {
        // A 4xx without a modern error body is what sends a dual-era client to `initialize` (mcp.md §3).
        let message = "This server speaks sessions (2025-11-25 and older): send initialize";
        return Err(Answer::refuse(
            StatusCode::BAD_REQUEST,
            id,
            RPC_GATEWAY,
            "legacy_only",
            message,
        ));
    }

    // May it be said at all?
    if grant.origin == Origin::Log && !gate.freshness.is_fresh(now) {
        let code = Code::Unreachable;
        return Err(turned_away(envelope, id, era, recorder, code, STALE));
    }
    judge_method(envelope, era, version.map(|v| &**v), binding, recorder, id)?;
    if !recorder.has_slot() {
        return Err(turned_away(
            envelope,
            id,
            era,
            recorder,
            Code::Audit,
            "The call could not be recorded",
        ));
    }
    let places = take_places(gate, &view, caller, envelope, id, era, binding, recorder)?;
    if envelope.method == "tools/call" {
        judge_call(
            gate,
            caller,
            envelope,
            session.as_deref(),
            binding,
            recorder,
            era,
            now,
        )
        .await?;
        stands(gate, &view, caller, at_ms).inspect_err(|_| recorder.settle(Outcome::Unsent))?;
    }

    // It may: put together what goes upstream.
    let (session, opening) = if opens {
        let session = open_session(gate, caller, &view, id, now)?;
        let _ = session.began_with.set(binding.server.clone());
        recorder.session(&session);
        (
            Some(session.clone()),
            Some(Opening::new(gate.sessions.clone(), session)),
        )
    } else {
        (session, None)
    };
    let what = What::of(envelope, era);
    let timed = !matches!(what, What::Listen { .. });
    let body = match opens {
        true => with_a_version_that_has_sessions(envelope, bytes, &view)
            .map_err(|refusal| Answer::unreadable(&refusal, id))?,
        false => bytes.clone(),
    };
    let plan = Plan::new(what, id, era, caller, binding, &view);
    let pipes = matches!(binding.server.transport, Transport::Stdio(_));
    let request = Request {
        verb: Method::POST,
        body,
        // Replies over HTTP come on the connection of their request.
        expects: id.filter(|_| pipes).map(|id| Expects {
            method: envelope.method.to_owned(),
            id: Bytes::copy_from_slice(id),
            progress_token: envelope.progress_token.map(Bytes::copy_from_slice),
        }),
        headers: headers::up(headers, era, session.as_deref()),
        deadline: timed.then_some(plan.deadline),
    };
    Ok(Box::new(Admitted {
        request,
        server: binding.server.clone(),
        session,
        opening,
        places,
        plan,
        _judged: Judged,
    }))
}

/// Judges the opening (GET) or the end (DELETE) of a session's stream: sessions of the legacy era only.
pub fn decide_stream(
    gate: &Arc<Gate>,
    asked: &Asked,
    verb: Method,
    recorder: &mut Recorder,
) -> Result<Box<Admitted>, Answer> {
    headers::check(&asked.headers)?;
    let Asked {
        caller,
        headers,
        now,
        ..
    } = asked;
    let now = *now;
    let view = gate.views.load().ok_or_else(no_view)?;
    let at_ms = gate.freshness.expiry_ms(now);
    let grant = identify::look_up(&view, &caller.token, at_ms).map_err(identify::unauthorized)?;
    let binding = identify::binding(grant, &caller.server)?;
    let version = headers::for_rules(headers).protocol_version;
    if version.is_some_and(|version| mcp::MODERN.contains(&version)) {
        let message = "2026-07-28 has neither GET nor DELETE: POST subscriptions/listen instead";
        let answer = Answer::refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            None,
            RPC_GATEWAY,
            "method",
            message,
        );
        return Err(Answer {
            allow: Some("POST"),
            ..answer
        });
    }
    if grant.origin == Origin::Log && !gate.freshness.is_fresh(now) {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, Code::Unreachable.as_str());
        return Err(Answer::overloaded(status, None, code, 1, STALE));
    }
    let session = require_session(named_session(gate, caller, headers, &view, now), None)?;
    recorder.session(&session);
    recorder.era(Era::Legacy);
    if !recorder.has_slot() {
        let message = "The request could not be recorded";
        return Err(Answer::overloaded(
            StatusCode::SERVICE_UNAVAILABLE,
            None,
            "audit",
            1,
            message,
        ));
    }
    let negotiated = session.version.get();
    let served = |version| {
        mcp::LEGACY.contains(&version) || negotiated.is_some_and(|ours| **ours == *version)
    };
    if version.is_some_and(|version| !served(version)) {
        let message = "MCP-Protocol-Version is not a version that has sessions";
        return Err(Answer::refuse(
            StatusCode::BAD_REQUEST,
            None,
            -32600,
            "version",
            message,
        ));
    }
    let mut places = Places::new();
    if verb == Method::GET {
        let place = gate
            .inflight
            .stream(&caller.grant.id, view.bounds.streams_grant)
            .map_err(|_| {
                let message = "This grant has too many open streams (bounds.streams_grant)";
                Answer::overloaded(
                    StatusCode::TOO_MANY_REQUESTS,
                    None,
                    "streams_grant",
                    5,
                    message,
                )
            })?;
        places.push(place);
    }
    let request = Request {
        verb,
        body: Bytes::new(),
        expects: None,
        headers: headers::up(headers, Era::Legacy, Some(&session)),
        deadline: None,
    };
    let plan = Plan::new(What::Stream, None, Era::Legacy, caller, binding, &view);
    recorder.decided();
    let server = binding.server.clone();
    Ok(Box::new(Admitted {
        request,
        server,
        session: Some(session),
        opening: None,
        places,
        plan,
        _judged: Judged,
    }))
}

/// Whether a grant still stands after its call had to wait: a view that revokes it may have come into force meanwhile.
fn stands(gate: &Gate, judged: &Arc<View>, caller: &Caller, at_ms: u64) -> Result<(), Answer> {
    let view = gate.views.load().ok_or_else(no_view)?;
    if Arc::ptr_eq(&view, judged) {
        return Ok(());
    }
    let grant = identify::look_up(&view, &caller.token, at_ms).map_err(identify::unauthorized)?;
    identify::binding(grant, &caller.server).map(|_| ())
}

/// The answer while no view is in force.
pub fn no_view() -> Answer {
    let message = "The gateway has no configuration in force yet";
    Answer::overloaded(StatusCode::SERVICE_UNAVAILABLE, None, "no_view", 1, message)
}

/// A client that names no version with sessions in `initialize` is offered the newest that has them (L4): a server that
/// echoed what it was sent would begin a session that no version knows.
fn with_a_version_that_has_sessions(
    envelope: &Envelope<'_>,
    bytes: &Bytes,
    view: &View,
) -> Result<Bytes, Refusal> {
    let asked = envelope.initialize_version();
    let known = |version: &str| mcp::VERSIONS.contains(&version) && !mcp::MODERN.contains(&version);
    if asked.as_deref().is_none_or(known) {
        return Ok(bytes.clone());
    }
    let bounds = view.bounds.scan();
    splice::with_initialize_version(envelope, mcp::LEGACY[0], &bounds, From::Client)
        .map(Bytes::from)
}

fn named_session(
    gate: &Gate,
    caller: &Caller,
    headers: &HeaderMap,
    view: &View,
    now: Now,
) -> Option<Result<Arc<Session>, ()>> {
    let id = headers
        .get(&headers::MCP_SESSION_ID)?
        .to_str()
        .unwrap_or_default();
    Some(
        gate.sessions
            .find(id, &caller.grant.id, &caller.server, &view.bounds, now)
            .ok_or(()),
    )
}

fn require_session(
    named: Option<Result<Arc<Session>, ()>>,
    id: Option<&[u8]>,
) -> Result<Arc<Session>, Answer> {
    match named {
        Some(Ok(session)) => Ok(session),
        Some(Err(())) => {
            let message = "Session not found: it has ended or is another grant's; initialize again";
            Err(Answer::refuse(
                StatusCode::NOT_FOUND,
                id,
                RPC_GATEWAY,
                "session_unknown",
                message,
            ))
        }
        None => {
            let message = "Mcp-Session-Id is missing: initialize first, or send a 2026-07-28 request with its _meta";
            Err(Answer::refuse(
                StatusCode::BAD_REQUEST,
                id,
                RPC_GATEWAY,
                "session_missing",
                message,
            ))
        }
    }
}

fn open_session(
    gate: &Gate,
    caller: &Caller,
    view: &View,
    id: Option<&[u8]>,
    now: Now,
) -> Result<Arc<Session>, Answer> {
    gate.sessions
        .open(&caller.grant.id, &caller.server, &view.bounds, now)
        .map_err(|full| {
            let (label, seconds, message) = match full {
                session::Full::All => (
                    "sessions",
                    5,
                    "The gateway has too many sessions (bounds.sessions)",
                ),
                session::Full::Grant => (
                    "sessions_grant",
                    5,
                    "This grant has too many sessions (bounds.sessions_grant)",
                ),
                session::Full::Rate(seconds) => (
                    "sessions_new_minute",
                    seconds,
                    "This grant opens sessions too fast (bounds.sessions_new_minute)",
                ),
            };
            Answer::overloaded(StatusCode::TOO_MANY_REQUESTS, id, label, seconds, message)
        })
}
