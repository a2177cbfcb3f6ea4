//! The admin API's routes.

use super::{Plane, cluster, control, guard, guard::Caller, limits, show};
use crate::{clock, control::Ask};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use proto::admin::{self, Failure, Grants, LimitsQuery, Reloaded};
use serde::Serialize;
use std::time::Duration;
use tokio::{sync::oneshot, time::timeout};

/// Largest body of a request, bytes, unless its route takes a larger one.
const BODY_BYTES: usize = 4 << 10;
/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(5);
/// How long a reload may take.
const RELOAD_WAIT: Duration = Duration::from_secs(30);

pub(super) type Reply = Response<Full<Bytes>>;
pub(super) type Failed = (StatusCode, String);

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
    let path = head.uri.path();
    let most = control::body_bytes_max(path).unwrap_or(BODY_BYTES);
    let body = std::pin::pin!(Limited::new(body, most).collect());
    let body = match timeout(BODY_WAIT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => {
            let why = format!("a body has at most {most} bytes here and comes at once");
            return failure((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
    };
    tracing::debug!(by = %caller.name, method = %head.method, path, "admin: asked");
    let Some(method) = method(path) else {
        return failure((StatusCode::NOT_FOUND, format!("there is no {path}")));
    };
    if head.method != method {
        let mut reply = failure((StatusCode::METHOD_NOT_ALLOWED, format!("use {method}")));
        if let Ok(value) = HeaderValue::from_str(method.as_str()) {
            reply.headers_mut().insert(header::ALLOW, value);
        }
        return reply;
    }
    let replied = match path {
        admin::STATUS => Ok(json(&show::status(plane))),
        admin::VIEW => in_force(plane, |view| json(&show::view(view, now_ms()))),
        admin::GRANTS => in_force(plane, |view| {
            let grants = show::grants(view, now_ms());
            json(&Grants { grants })
        }),
        admin::LIMITS => limits(plane, head.uri.query().unwrap_or_default()).await,
        admin::RELOAD => reload(plane).await,
        admin::METRICS => Ok(text(plane.metrics.render())),
        path if control::method(path).is_some() => {
            let query = head.uri.query().unwrap_or_default();
            control::answer(plane, caller, path, query, &body).await
        }
        _ => cluster::answer(plane, caller, path, &body).await,
    };
    replied.unwrap_or_else(failure)
}

/// The method of a route; `None`: there is no such route.
fn method(path: &str) -> Option<Method> {
    match path {
        admin::STATUS | admin::VIEW | admin::GRANTS | admin::LIMITS | admin::METRICS => {
            Some(Method::GET)
        }
        admin::RELOAD => Some(Method::POST),
        _ => control::method(path).or_else(|| cluster::method(path)),
    }
}

async fn limits(plane: &Plane, query: &str) -> Result<Reply, Failed> {
    let query = LimitsQuery::parse(query).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let (view, now) = (plane.views.load(), clock::now());
    let nodes = cluster::nodes(plane).await;
    let from = limits::Sources {
        limiter: &plane.limiter,
        handle: &plane.cluster,
        view: view.as_deref(),
        nodes: &nodes,
    };
    Ok(json(&limits::shown(&from, &query, now).await))
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

/// Asks the keeper, which answers one reload after the other.
async fn reload(plane: &Plane) -> Result<Reply, Failed> {
    let (answer, replied) = oneshot::channel();
    let reload = Ask::Reload {
        cause: "admin",
        answer,
    };
    let asked = async {
        plane.keeper.send(reload).await.ok()?;
        replied.await.ok()
    };
    match timeout(RELOAD_WAIT, asked).await {
        Ok(Some(Ok(revision))) => Ok(json(&Reloaded { revision })),
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
    let mut reply = json(&Failure { error });
    *reply.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        reply
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    reply
}

pub(super) fn json(value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value)
        .expect("invariant: plain structs of texts and integers are written to memory");
    reply("application/json", body)
}

fn text(body: String) -> Reply {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    reply(kind, body.into_bytes())
}

fn reply(kind: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
