//! A request's way, in order, one file a stage:
//!
//! ```text
//! listener → identify → scan → decide → forward → relay → record
//!  bytes      Caller    Message  Admitted   Reply    body    audit+metrics, once, on drop
//! ```

mod batch;
mod body;
mod decide;
mod decode;
mod error;
mod forward;
mod identify;
mod inflight;
mod inspect;
mod judge;
pub mod listener;
mod paced;
mod record;
mod relay;
mod scan;
mod session;
mod stream;

use crate::{
    audit::Audit,
    bounds::Bounds,
    clock,
    drain::Drain,
    limiter::Limiter,
    metrics::{Metrics, Stage},
    upstream::{stdio, streamable_http},
    view::{View, Views},
};
pub use body::Out;
use bytes::Bytes;
use decide::Message;
use error::Answer;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use identify::Caller;
use proto::{
    mcp::Era,
    scan::{Body, From},
    time::Now,
};
use record::Recorder;
pub use session::{Session, Sessions};
use std::{net::SocketAddr, rc::Rc, sync::Arc};

/// What all runtimes of the gateway share.
pub struct Gate {
    /// The view in force.
    pub views: Arc<Views>,
    /// Counters of limits.
    pub limiter: Arc<Limiter>,
    /// The audit trail.
    pub audit: Audit,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Legacy sessions.
    pub sessions: Arc<Sessions>,
    /// Child processes.
    pub stdio: Arc<stdio::Pool>,
    /// The phase of a shutdown.
    pub drain: Drain,
    /// Calls and streams in flight.
    pub inflight: inflight::InFlight,
    /// Wrong tokens by source.
    pub failed: identify::FailedTokens,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// Puts the parts together.
    pub fn new(
        views: Arc<Views>,
        limiter: Arc<Limiter>,
        audit: Audit,
        metrics: Arc<Metrics>,
        stdio: Arc<stdio::Pool>,
    ) -> Self {
        let (sessions, drain) = (Arc::default(), Drain::default());
        let (inflight, failed) = (
            inflight::InFlight::default(),
            identify::FailedTokens::default(),
        );
        Self {
            views,
            limiter,
            audit,
            metrics,
            sessions,
            stdio,
            drain,
            inflight,
            failed,
        }
    }

    /// Ends what is over: idle sessions, sessions whose grant is gone, empty counters. Called every few seconds.
    pub fn sweep(&self, now: Now) {
        let Some(view) = self.views.load() else {
            return;
        };
        let alive: std::collections::HashSet<(&str, &str)> = view
            .grants
            .values()
            .filter(|grant| !grant.revoked && grant.expires_ms.is_none_or(|at| now.unix_ms < at))
            .flat_map(|grant| grant.servers.keys().map(|server| (&*grant.id, &**server)))
            .collect();
        self.sessions.sweep(&view.bounds, now, |session| {
            let server = view.servers.get(&session.server);
            let same = session.began_with.get().is_none_or(|began| {
                server.is_some_and(|server| began.transport.same_peer(&server.transport))
            });
            same && alive.contains(&(&*session.grant, &*session.server))
        });
        self.inflight.sweep();
        self.metrics.set_sessions(self.sessions.count_open());
    }
}

/// What one runtime has for itself.
pub struct Core {
    /// What all share.
    pub gate: Arc<Gate>,
    /// This runtime's connections to HTTP upstreams.
    pub http: streamable_http::Pool,
}

impl Core {
    /// Bounds in force.
    pub fn bounds(&self) -> Bounds {
        self.gate
            .views
            .load()
            .map(|view| view.bounds.clone())
            .unwrap_or_default()
    }
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client.
    pub peer: SocketAddr,
    /// This side.
    pub local: SocketAddr,
}

/// What is known of a request beside its body, once its caller is identified.
pub(crate) struct Asked {
    caller: Caller,
    headers: HeaderMap,
    ends: Ends,
    view: Arc<View>,
    now: Now,
}

impl Asked {
    /// Begins a record, with its place in the audit's queue if there is one to be had in time.
    async fn recorder(&self, gate: &Gate, verb: &'static str) -> Recorder {
        let slot = gate.audit.slot(self.view.bounds.audit_wait).await.ok();
        Recorder::new(
            clock::request_id(),
            &self.caller,
            self.ends.peer.ip(),
            verb,
            &gate.metrics,
            slot,
            self.now,
        )
    }
}

/// A request for `/mcp/<server>`, from its head to its reply.
pub async fn handle(
    core: Rc<Core>,
    ends: Ends,
    server: &str,
    request: Request<Incoming>,
) -> Response<Out> {
    let (now, gate) = (clock::now(), core.gate.clone());
    let (parts, incoming) = request.into_parts();
    let (view, caller) = match identify(&gate, ends, server, &parts, now) {
        Ok(identified) => identified,
        Err(answer) => {
            gate.metrics.identify_failed(answer.code);
            gate.audit.rejected(
                answer.code,
                ends.peer.ip(),
                parts.uri.path(),
                answer.status.as_u16(),
            );
            return answer.into_response();
        }
    };
    gate.metrics.stage(Stage::Identify, since(now));
    let asked = Asked {
        caller,
        headers: parts.headers,
        ends,
        view,
        now,
    };
    let checked = scan::check_headers(&asked.headers);
    match parts.method {
        Method::POST => {
            let read = match checked.and_then(|()| scan::check_media(&asked.headers)) {
                Ok(()) => scan::body(incoming, &asked.view.bounds).await,
                Err(answer) => Err(answer),
            };
            let recorder = asked.recorder(&gate, "POST").await;
            match read {
                Ok(body) => post(core, asked, body, recorder).await,
                Err(answer) => refuse(answer, recorder),
            }
        }
        Method::GET | Method::DELETE => {
            let delete = parts.method == Method::DELETE;
            let mut recorder = asked
                .recorder(&gate, if delete { "DELETE" } else { "GET" })
                .await;
            match checked
                .and_then(|()| decide::decide_stream(&gate, &asked, parts.method, &mut recorder))
            {
                Ok(admitted) if delete => end_session(&core, admitted, recorder).await,
                Ok(admitted) => forward_and_relay(&core, admitted, recorder).await,
                Err(answer) => refuse(answer, recorder),
            }
        }
        _ => {
            let message = "This endpoint knows POST, GET and DELETE";
            let refused = Answer::refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                None,
                error::RPC_GATEWAY,
                "method",
                message,
            );
            let answer = Answer {
                allow: Some("POST, GET, DELETE"),
                ..refused
            }
            .closing();
            refuse(answer, asked.recorder(&gate, "other").await)
        }
    }
}

fn refuse(answer: Answer, mut recorder: Recorder) -> Response<Out> {
    recorder.answered(&answer);
    answer.into_response()
}

fn identify(
    gate: &Gate,
    ends: Ends,
    server: &str,
    parts: &http::request::Parts,
    now: Now,
) -> Result<(Arc<View>, Caller), Answer> {
    let view = gate.views.load().ok_or_else(decide::no_view)?;
    identify::check_head(&view.bounds, parts)?;
    identify::check_origin(&view, parts, ends.local)?;
    let caller = identify::identify(&view, server, parts, ends.peer, &gate.failed, now)?;
    Ok((view, caller))
}

/// A whole body: one message, or (2025-03-26 alone) a batch.
async fn post(core: Rc<Core>, mut asked: Asked, body: Bytes, recorder: Recorder) -> Response<Out> {
    let began = clock::now();
    // A body may have taken its time: what it asks for is asked now.
    asked.now = began;
    let read = proto::scan::read(&body, &asked.view.bounds.scan(), From::Client);
    core.gate.metrics.stage(Stage::Scan, since(began));
    match read {
        Ok(Body::One(envelope)) => {
            let message = Message {
                envelope: &envelope,
                bytes: body.clone(),
                batch_index: None,
            };
            one(&core, &asked, message, recorder).await
        }
        Ok(Body::Batch(elements)) => match batch::check(&core.gate, &asked, elements.len()) {
            Ok(()) => batch::run(core.clone(), asked, &body, elements, recorder).await,
            Err(answer) => refuse(answer, recorder),
        },
        Err(refusal) => {
            core.gate.metrics.refused(refusal.reason.label());
            let id = refusal.id.and_then(|span| body.get(span.start..span.end));
            refuse(Answer::unreadable(&refusal, id), recorder)
        }
    }
}

/// One message: decide, forward, relay.
async fn one(
    core: &Core,
    asked: &Asked,
    message: Message<'_>,
    mut recorder: Recorder,
) -> Response<Out> {
    let began = clock::now();
    recorder.message(message.envelope, message.batch_index);
    let decided = decide::decide(&core.gate, asked, message, &mut recorder).await;
    core.gate.metrics.stage(Stage::Decide, since(began));
    match decided {
        Ok(admitted) => forward_and_relay(core, admitted, recorder).await,
        Err(answer) => refuse(answer, recorder),
    }
}

async fn forward_and_relay(
    core: &Core,
    admitted: decide::Admitted,
    recorder: Recorder,
) -> Response<Out> {
    let began = clock::now();
    let forwarded = forward::forward(core, admitted, recorder).await;
    core.gate.metrics.stage(Stage::Forward, since(began));
    match forwarded {
        Ok((reply, ride)) => relay::relay(reply, ride).await,
        Err((answer, recorder)) => refuse(answer, recorder),
    }
}

/// DELETE: the session ends here whatever its upstream says of it.
async fn end_session(
    core: &Core,
    admitted: decide::Admitted,
    mut recorder: Recorder,
) -> Response<Out> {
    let session = admitted.session.clone();
    let tell = session
        .as_ref()
        .is_some_and(|session| session.upstream_id.get().is_some());
    if let Some(session) = session {
        core.gate.sessions.end(&session);
    }
    if tell {
        match forward::forward(core, admitted, recorder).await {
            Ok((reply, ride)) => {
                recorder = ride.recorder;
                recorder.status(204, reply.status().as_u16());
            }
            Err((_, returned)) => recorder = returned,
        }
    }
    let upstream = recorder.upstream_status();
    let answer = Answer::empty(StatusCode::NO_CONTENT, "session_ended");
    recorder.answered(&answer);
    recorder.status(204, upstream);
    recorder.era(Era::Legacy);
    answer.into_response()
}

fn since(began: Now) -> u64 {
    clock::now().boot_ns.saturating_sub(began.boot_ns)
}
