//! Sessions of the eras that have them: opened when first needed, kept, replaced, deleted at the end.

use super::exchange::{Ask, Exchange, Peer, collect, is_stream};
use crate::{
    plan::{Plan, call::Protocol},
    target::Failure,
};
use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use proto::scan::sse;
use std::cell::Cell;

/// The sessions of a thread: `[target][grant][n]`.
#[derive(Debug)]
pub struct Sessions {
    slots: Vec<Vec<Vec<tokio::sync::Mutex<Slot>>>>,
    turn: Cell<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    state: State,
    calls: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum State {
    #[default]
    None,
    /// The server gave it no id.
    Without,
    Open(HeaderValue),
}

impl Sessions {
    /// Room for as many as the plan wants; none is opened yet.
    pub fn new(plan: &Plan) -> Self {
        let slots = || {
            (0..plan.sessions.max(1))
                .map(|_| tokio::sync::Mutex::default())
                .collect()
        };
        let grants = || (0..plan.grants.len().max(1)).map(|_| slots()).collect();
        Self {
            slots: plan.endpoints.iter().map(|_| grants()).collect(),
            turn: Cell::new(0),
        }
    }

    fn of(&self, ask: &Ask<'_>) -> &[tokio::sync::Mutex<Slot>] {
        let grants = self.slots.get(ask.target);
        let of = grants.and_then(|grants| grants.get(ask.grant));
        of.map_or(&[], Vec::as_slice)
    }

    /// The session that this call belongs to, opened if need be; `None` where the server has none.
    pub(super) async fn for_call(
        &self,
        peer: &mut Peer,
        ask: &Ask<'_>,
        out: &mut Exchange,
    ) -> Result<Option<HeaderValue>, Failure> {
        let slots = self.of(ask);
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let Some(slot) = slots.get(turn % slots.len().max(1)) else {
            return Ok(None);
        };
        let mut slot = slot.lock().await;
        let most = peer.plan.session_calls;
        if most > 0
            && slot.calls >= most
            && let State::Open(id) = std::mem::take(&mut slot.state)
        {
            end(peer, ask.target, ask.grant, &id, out).await;
        }
        if slot.state == State::None {
            slot.calls = 0;
            slot.state = open(peer, ask, out).await?;
            out.opened += 1;
        }
        slot.calls += 1;
        Ok(match &slot.state {
            State::Open(id) => Some(id.clone()),
            _ => None,
        })
    }

    /// The server does not know this session any more: the next call opens another.
    pub(super) async fn gone(&self, ask: &Ask<'_>, id: Option<&HeaderValue>) {
        for slot in self.of(ask) {
            let mut slot = slot.lock().await;
            if matches!(&slot.state, State::Open(open) if Some(open) == id) {
                slot.state = State::None;
            }
        }
    }

    /// Deletes every session.
    pub async fn end_all(&self, peer: &mut Peer, out: &mut Exchange) {
        for (target, grants) in self.slots.iter().enumerate() {
            for (grant, slots) in grants.iter().enumerate() {
                for slot in slots {
                    let state = std::mem::take(&mut slot.lock().await.state);
                    if let State::Open(id) = state {
                        end(peer, target, grant, &id, out).await;
                    }
                }
            }
        }
    }
}

async fn open(peer: &mut Peer, ask: &Ask<'_>, out: &mut Exchange) -> Result<State, Failure> {
    let Protocol::Legacy(version) = peer.plan.protocol.clone() else {
        return Ok(State::Without);
    };
    let body = initialize(&version);
    let headers = peer.headers(ask.target, ask.grant, None, None);
    let request = peer.request(Method::POST, ask.target, headers, body);
    let response = peer.send(ask.target, request, out).await?;
    let status = response.status().as_u16();
    let id = response.headers().get("mcp-session-id").cloned();
    if is_stream(&response) {
        first_event(response).await?;
    } else {
        let body = collect(response).await?;
        if status != 200 {
            let said = String::from_utf8_lossy(body.get(..300).unwrap_or(&body)).into_owned();
            return Err(Failure {
                code: "initialize",
                text: format!("initialize was answered with HTTP {status}: {said}"),
            });
        }
    }
    let headers = peer.headers(ask.target, ask.grant, None, id.as_ref());
    let note = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let request = peer.request(Method::POST, ask.target, headers, note);
    let response = peer.send(ask.target, request, out).await?;
    collect(response).await?;
    Ok(id.map_or(State::Without, State::Open))
}

/// The body of `initialize`.
pub fn initialize(version: &str) -> Bytes {
    let program = env!("CARGO_PKG_VERSION");
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"tollgate-loadtest","version":"{program}"}}}}}}"#
    ))
}

/// Reads a stream to its end and returns its first event's data.
///
/// # Errors
/// The connection failed before one came.
pub async fn first_event(
    response: http::Response<hyper::body::Incoming>,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut splitter = sse::Splitter::new(super::exchange::REPLY_BYTES_MAX);
    let mut body = response.into_body();
    let mut first = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::hyper(&e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let pushed = splitter.push(&data, |event| {
            let data = event.data.filter(|d| !d.is_empty());
            first = first.take().or(data);
        });
        if pushed.is_err() {
            break;
        }
    }
    Ok(first)
}

async fn end(peer: &mut Peer, target: usize, grant: usize, id: &HeaderValue, out: &mut Exchange) {
    let headers = peer.headers(target, grant, None, Some(id));
    let request = peer.request(Method::DELETE, target, headers, Bytes::new());
    // A server that keeps the session drops it by itself later.
    if let Ok(response) = peer.send(target, request, out).await {
        let _ = collect(response).await;
    }
}
