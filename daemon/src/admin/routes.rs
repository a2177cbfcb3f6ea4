//! The admin API's routes.

use super::{Plane, guard, guard::Caller, limits, show};
use crate::clock;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use proto::admin::{self, Failure, Grants, LimitsQuery, Reloaded};
use serde::Serialize;
use std::time::Duration;
use tokio::{sync::oneshot, time::timeout};

/// Largest body of a request, bytes: no route reads one.
const BODY_BYTES: usize = 4 << 10;
/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(5);
/// How long a reload may take.
const RELOAD_WAIT: Duration = Duration::from_secs(30);

type Reply = Response<Full<Bytes>>;
type Failed = (StatusCode, String);

/// Answers one request.
pub(super) async fn answer<B>(request: Request<B>, plane: &Plane, caller: &Caller) -> Reply
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    if let Err((status, why)) = guard::admit(&head.headers, caller.proof) {
        return failure((status, why.to_owned()));
    }
    let body = std::pin::pin!(Limited::new(body, BODY_BYTES).collect());
    if !matches!(timeout(BODY_WAIT, body).await, Ok(Ok(_))) {
        return failure((StatusCode::PAYLOAD_TOO_LARGE, "no body is expected".into()));
    }
    tracing::debug!(by = %caller.name, method = %head.method, path = head.uri.path(), "admin: asked");
    let allowed = match head.uri.path() {
        admin::RELOAD => Method::POST,
        _ => Method::GET,
    };
    let replied = match head.uri.path() {
        path if head.method != allowed && is_route(path) => {
            let mut reply = failure((StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}")));
            if let Ok(value) = HeaderValue::from_str(allowed.as_str()) {
                reply.headers_mut().insert(header::ALLOW, value);
            }
            return reply;
        }
        admin::STATUS => Ok(json(StatusCode::OK, &show::status(plane))),
        admin::VIEW => in_force(plane, |view| {
            json(StatusCode::OK, &show::view(view, now_ms()))
        }),
        admin::GRANTS => in_force(plane, |view| {
            let grants = show::grants(view, now_ms());
            json(StatusCode::OK, &Grants { grants })
        }),
        admin::LIMITS => match LimitsQuery::parse(head.uri.query().unwrap_or_default()) {
            Ok(query) => {
                let limits = limits::shown(&plane.limiter, &query, crate::clock::now());
                Ok(json(StatusCode::OK, &limits))
            }
            Err(why) => Err((StatusCode::BAD_REQUEST, why)),
        },
        admin::RELOAD => reload(plane).await,
        admin::METRICS => Ok(text(plane.metrics.render())),
        path => Err((StatusCode::NOT_FOUND, format!("there is no {path}"))),
    };
    replied.unwrap_or_else(failure)
}

fn is_route(path: &str) -> bool {
    [
        admin::STATUS,
        admin::VIEW,
        admin::GRANTS,
        admin::LIMITS,
        admin::RELOAD,
        admin::METRICS,
    ]
    .contains(&path)
}

fn in_force(
    plane: &Plane,
    reply: impl FnOnce(&crate::view::View) -> Reply,
) -> Result<Reply, Failed> {
    match plane.views.load() {
        Some(view) => Ok(reply(&view)),
        None => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "no view is in force yet".into(),
        )),
    }
}

/// Asks the composition root, which answers one reload after the other.
async fn reload(plane: &Plane) -> Result<Reply, Failed> {
    let (reply, replied) = oneshot::channel();
    let asked = async {
        plane.reload.send(reply).await.ok()?;
        replied.await.ok()
    };
    match timeout(RELOAD_WAIT, asked).await {
        Ok(Some(Ok(revision))) => Ok(json(StatusCode::OK, &Reloaded { revision })),
        Ok(Some(Err(why))) => Err((StatusCode::UNPROCESSABLE_ENTITY, why)),
        Ok(None) => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway is stopping".into(),
        )),
        Err(_elapsed) => Err((
            StatusCode::GATEWAY_TIMEOUT,
            "the reload takes too long; see the log".into(),
        )),
    }
}

fn now_ms() -> u64 {
    clock::now().unix_ms
}

fn failure((status, error): Failed) -> Reply {
    let mut reply = json(status, &Failure { error });
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        reply
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    reply
}

fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value)
        .expect("invariant: plain structs of texts and integers are written to memory");
    reply(status, "application/json", body)
}

fn text(body: String) -> Reply {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    reply(StatusCode::OK, kind, body.into_bytes())
}

fn reply(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
