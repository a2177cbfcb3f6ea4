//! Event streams: each event goes on as soon as it is complete; the view in force judges the stream at every event.

use super::{
    body::Cut,
    decode::Decoder,
    identify, inspect,
    relay::{Ride, What},
};
use crate::{clock, drain::Drain, upstream::Body, view::Origin};
use bytes::Bytes;
use proto::{
    limit::Outcome,
    mcp::{self, Era},
    scan::sse::{self, Event},
};
use std::{future::poll_fn, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at},
};

/// A comment at least this often keeps the connection alive through load balancers.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// For the event that ends a stream, where the client may not be reading.
const LAST_WORD: Duration = Duration::from_secs(1);

type Out = Sender<Result<Bytes, Cut>>;

/// Relays an event stream to its end, whichever it is.
pub async fn run(body: Body, decoder: Option<Decoder>, mut ride: Ride, out: Out) {
    let session = ride.session.clone();
    let counted = matches!(ride.plan.what, What::Stream);
    let end = pump(body, decoder, &mut ride, &out).await;
    if let (true, Some(session)) = (counted, &session) {
        session.streams.fetch_sub(1, Relaxed);
    }
    match end {
        End::Complete => ride.recorder.complete(),
        End::Left => {}
        End::Failed(code, how, detail) => {
            tracing::info!(request = %ride.recorder.request(), server = %ride.plan.server, code, detail, "event stream ended early");
            ride.recorder.failed(code, how);
            // Who can ask for the rest gets no answer in its place.
            let answered = ride.plan.answered || (ride.plan.resumable && how == "cut");
            if let (Some(id), false) = (&ride.plan.id, answered) {
                let message = "The server behind the gateway broke off, was too slow, or sent a reply that was refused";
                let mut event = Vec::new();
                sse::write_event(
                    &mut event,
                    b"",
                    &mcp::error(Some(id), -32603, message, None),
                );
                let _ = timeout(LAST_WORD, out.send(Ok(event.into()))).await;
            }
        }
    }
    ride.recorder.settle(Outcome::Acted);
}

enum End {
    Complete,
    Left,
    Failed(&'static str, &'static str, String),
}

async fn pump(mut body: Body, mut decoder: Option<Decoder>, ride: &mut Ride, out: &Out) -> End {
    let mut splitter = sse::Splitter::new(ride.plan.reply_bytes);
    let mut views = ride.gate.views.subscribe();
    // The view may have changed since the request was judged.
    views.mark_changed();
    let mut phase = ride.gate.drain.subscribe();
    let mut ended = ride.session.as_ref().map(|session| session.ended());
    let deadline = Instant::from_std(ride.plan.deadline);
    let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let chunk = tokio::select! {
            biased;
            () = out.closed() => return End::Left,
            () = sleep_until(deadline) => return End::Failed("upstream_timeout", "timeout", "deadline passed".into()),
            _ = wait_end(&mut ended) => return End::Complete,
            () = Drain::reached(&mut phase, ride.last_phase()) => {
                if let What::Listen { .. } = ride.plan.what { let _ = timeout(LAST_WORD, send(out, ride, graceful_end(ride))).await; }
                return End::Complete;
            }
            Ok(()) = views.changed() => match judge_again(ride) {
                Again::Gone => return End::Complete,
                Again::Same => continue,
                Again::ListChanged(event) => match send(out, ride, event).await { true => continue, false => return End::Left },
            },
            _ = keep_alive.tick() => match judge_again(ride) {
                // A grant expires without a new view.
                Again::Gone => return End::Complete,
                _ => match send(out, ride, b": keep-alive\n\n".to_vec()).await { true => continue, false => return End::Left },
            },
            chunk = poll_fn(|cx| body.poll_data(cx)) => chunk,
        };
        let chunk = match chunk {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return End::Failed(error.kind.label(), "cut", error.detail),
            None => {
                // What is left in the splitter is no event (WHATWG HTML, "Server-sent events"): it goes nowhere.
                let answered = ride.plan.answered || ride.plan.resumable;
                if ride.plan.id.is_some() && !answered && ride.recorder.holds() {
                    return End::Failed(
                        "upstream_protocol",
                        "cut",
                        "the stream ended without the reply".into(),
                    );
                }
                return End::Complete;
            }
        };
        let mut decoded = Vec::new();
        let bytes = match &mut decoder {
            None => &chunk[..],
            Some(decoder) => match decoder.push(&chunk, ride.plan.reply_bytes, &mut decoded) {
                Ok(()) => &decoded[..],
                Err(detail) => return End::Failed("upstream_protocol", "cut", detail),
            },
        };
        let mut events = Vec::new();
        let whole = splitter.push(bytes, |event| events.push(event));
        for event in events {
            match judge(event, ride) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    if !send(out, ride, bytes).await {
                        return End::Left;
                    }
                }
                Err(detail) => return End::Failed("upstream_protocol", "cut", detail),
            }
        }
        if whole.is_err() {
            return End::Failed(
                "upstream_protocol",
                "cut",
                "an event over bounds.reply_bytes".into(),
            );
        }
    }
}

async fn wait_end(ended: &mut Option<tokio::sync::watch::Receiver<bool>>) {
    match ended {
        Some(ended) => {
            let _ = ended.wait_for(|ended| *ended).await;
        }
        None => std::future::pending().await,
    }
}

fn judge(event: Event, ride: &mut Ride) -> Result<Vec<u8>, String> {
    if ride.plan.era == Era::Legacy && has_id(&event.raw) {
        ride.plan.resumable = true;
    }
    let Some(data) = event.data.as_ref().filter(|data| !data.is_empty()) else {
        return Ok(event.raw);
    };
    if event.event.as_deref().is_some_and(|name| name != "message") {
        // No message of MCP; but some clients read it as one, so no list may pass by this name.
        let lists = matches!(ride.plan.what, What::List | What::Stream);
        let drops = lists && ride.plan.filter().is_some();
        return Ok(if drops { Vec::new() } else { event.raw });
    }
    match inspect::message(data, ride)? {
        Some(changed) => Ok(sse::with_data(&event, &changed)),
        None => Ok(event.raw),
    }
}

fn has_id(raw: &[u8]) -> bool {
    raw.split(|byte| matches!(byte, b'\n' | b'\r'))
        .any(|line| line == b"id" || line.starts_with(b"id:"))
}

/// Hands on, unless the client is gone or has read nothing for too long.
async fn send(out: &Out, ride: &mut Ride, bytes: Vec<u8>) -> bool {
    let length = bytes.len();
    let until = (Instant::now() + ride.plan.patience).min(Instant::from_std(ride.plan.deadline));
    // What there is room for goes out even at the deadline.
    let sent = timeout_at(until, out.send(Ok(bytes.into()))).await;
    if let Ok(Ok(())) = sent {
        ride.recorder.sent(length);
        return true;
    }
    false
}

/// The result that ends a subscription in order (2026-07-28, subscriptions, "Graceful Closure").
fn graceful_end(ride: &Ride) -> Vec<u8> {
    let id = ride
        .plan
        .id
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    let meta = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
    let message =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete",{meta}}}}}"#);
    let mut event = Vec::new();
    sse::write_event(&mut event, b"", message.as_bytes());
    event
}

enum Again {
    Same,
    Gone,
    ListChanged(Vec<u8>),
}

/// A new view is in force: is the stream's grant still good, and do its lists look different now?
fn judge_again(ride: &mut Ride) -> Again {
    let Some(view) = ride.gate.views.load() else {
        return Again::Same;
    };
    let now = clock::now();
    let at_ms = ride.gate.freshness.expiry_ms(now);
    let Ok(grant) = identify::look_up(&view, &ride.plan.token, at_ms) else {
        return Again::Gone;
    };
    // A reply that was paid for is still relayed; what goes on without an end is not.
    let endless = matches!(ride.plan.what, What::Stream | What::Listen { .. });
    if endless && grant.origin == Origin::Log && !ride.gate.freshness.is_fresh(now) {
        return Again::Gone;
    }
    let Some(binding) = grant.servers.get(&ride.plan.server) else {
        return Again::Gone;
    };
    let list = |policy: &Option<std::sync::Arc<proto::policy::Policy>>| {
        policy.as_ref().map(|p| p.list_revision())
    };
    let changed = list(&ride.plan.policy) != list(&binding.policy);
    ride.plan.policy.clone_from(&binding.policy);
    let meta = match &ride.plan.what {
        What::Stream => String::new(),
        What::Listen { tools: true } => {
            let id = ride
                .plan
                .id
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            format!(r#","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#)
        }
        _ => return Again::Same,
    };
    if !changed {
        return Again::Same;
    }
    let message =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed"{meta}}}"#);
    let mut event = Vec::new();
    sse::write_event(&mut event, b"", message.as_bytes());
    Again::ListChanged(event)
}
