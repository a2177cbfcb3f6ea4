//! Stage 4: an [`Admitted`] goes to its upstream; nothing else can.

use super::{Core, Out, decide::Admitted, error::Answer, record::Recorder, relay::Ride};
use crate::{
    metrics::Stage,
    upstream::{Error, ErrorKind, Response},
    view::Transport,
};
use http::{Method, Response as HttpResponse, StatusCode};
use proto::{limit::Outcome, mcp::Era};

/// Forwards, and says what came back and what rides with it.
pub async fn forward(
    core: &Core,
    admitted: Box<Admitted>,
    mut recorder: Box<Recorder>,
) -> Result<(Response, Box<Ride>), (Answer, Box<Recorder>)> {
    let began_ns = recorder.read_ns();
    let Admitted {
        request,
        server,
        session,
        opening,
        places,
        plan,
        ..
    } = *admitted;
    let id = plan.id.clone();
    recorder.forwarding();
    let sent = async {
        let (target, session) = match (&server.transport, &session) {
            (Transport::Http(target), _) => {
                return core
                    .http
                    .send(&server.name, target, request, &core.bounds())
                    .await;
            }
            (Transport::Stdio(target), Some(session)) => (target, session),
            (Transport::Stdio(_), None) => {
                return Err(Error {
                    kind: ErrorKind::SessionGone,
                    unsent: true,
                    detail: "no session".into(),
                });
            }
        };
        if opening.is_some() {
            let process = core
                .gate
                .stdio
                .start(&server.name, target, &core.bounds())
                .await?;
            // A session that ended while its process started must not leave it behind.
            if session.process.set(process.clone()).is_err() || *session.ended().borrow() {
                process.end_in_background();
                return Err(Error {
                    kind: ErrorKind::SessionGone,
                    unsent: true,
                    detail: "ended while starting".into(),
                });
            }
        }
        let gone = || Error {
            kind: ErrorKind::SessionGone,
            unsent: true,
            detail: "no process".into(),
        };
        let process = session.process.get().ok_or_else(gone)?;
        if request.verb == Method::GET {
            process.stream()
        } else {
            process.post(request).await
        }
    };
    let sent = sent.await;
    let took_ns = recorder.replied().saturating_sub(began_ns);
    core.gate.metrics.stage(Stage::Forward, took_ns);
    match sent {
        Ok(reply) => Ok((
            reply,
            Box::new(Ride {
                recorder,
                plan,
                session,
                opening,
                _places: places,
                gate: core.gate.clone(),
            }),
        )),
        Err(error) => {
            recorder.settle(if error.unsent {
                Outcome::Unsent
            } else {
                Outcome::Acted
            });
            tracing::info!(request = %recorder.request(), server = %server.name, kind = error.kind.label(), detail = %error.detail, "upstream failed");
            if error.kind == ErrorKind::SessionGone
                && let Some(session) = &session
            {
                core.gate.sessions.end(session);
            }
            drop(opening);
            Err((Answer::upstream(&error, id.as_deref()), recorder))
        }
    }
}

/// DELETE: the session ends here whatever its upstream says of it.
pub async fn end_session(
    core: &Core,
    admitted: Box<Admitted>,
    mut recorder: Box<Recorder>,
) -> HttpResponse<Out> {
    let session = admitted.session.clone();
    let tell = session
        .as_ref()
        .is_some_and(|session| session.upstream_id.get().is_some());
    if let Some(session) = session {
        core.gate.sessions.end(&session);
    }
    if tell {
        match forward(core, admitted, recorder).await {
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
