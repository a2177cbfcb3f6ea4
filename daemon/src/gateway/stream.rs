//! Event streams: each event goes on as soon as it is complete; the view in force judges the stream at every event.

use super::{
    body::Cut,
    decode::Decoder,
    identify, inspect,
    relay::{Ride, What},
};
use crate::{
    clock,
    drain::{Drain, Phase},
    upstream::{Body, Error},
    view::Origin,
};
use bytes::Bytes;
use proto::{
    limit::Outcome,
    mcp::{self, Era},
    scan::sse::{self, Event},
};
use smallvec::SmallVec;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{
        mpsc::{Sender, error::TrySendError},
        watch,
    },
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at},
};

/// A comment at least this often keeps the connection alive through load balancers.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// For the event that ends a stream, where the client may not be reading.
const LAST_WORD: Duration = Duration::from_secs(1);

const GONE: &str = "The grant or its access to this server ended before the answer";

/// Pieces that pass before it is asked again whether anything else was heard.
const UNHEARD_MAX: u32 = 32;

type Out = Sender<Result<Bytes, Cut>>;

/// Relays an event stream to its end, whichever it is.
pub async fn run(body: Body, decoder: Option<Decoder>, mut ride: Box<Ride>, out: Out) {
    let session = ride.session.clone();
    let counted = matches!(ride.plan.what, What::Stream);
    let end = pump(body, decoder, &mut ride, &out).await;
    if let (true, Some(session)) = (counted, &session) {
        session.streams.fetch_sub(1, Relaxed);
    }
    match end {
        End::Complete => ride.recorder.complete(),
        End::Left => {}
        End::Stopped(why) => {
            ride.recorder.cut();
            // Who can ask for the rest gets no answer in its place.
            if !ride.plan.resumable {
                last_word(&ride, &out, why).await;
            }
        }
        End::Failed(code, how, detail) => {
            tracing::info!(request = %ride.recorder.request(), server = %ride.plan.server, code, detail, "event stream ended early");
            ride.recorder.failed(code, how);
            if !(ride.plan.resumable && how == "cut") {
                let why = "The server behind the gateway broke off, was too slow, or sent a reply that was refused";
                last_word(&ride, &out, why).await;
            }
        }
    }
    ride.recorder.settle(Outcome::Acted);
}

/// The error that stands in place of the answer, when there was none yet.
async fn last_word(ride: &Ride, out: &Out, why: &str) {
    let (Some(id), false) = (&ride.plan.id, ride.plan.answered) else {
        return;
    };
    let mut event = Vec::new();
    sse::write_event(&mut event, b"", &mcp::error(Some(id), -32603, why, None));
    let _ = timeout(LAST_WORD, out.send(Ok(event.into()))).await;
}

enum End {
    Complete,
    Left,
    /// The gateway ended a call that had no answer yet, and says why.
    Stopped(&'static str),
    Failed(&'static str, &'static str, String),
}

/// What ends a wait for the upstream, or interrupts it.
enum Interrupt {
    Left,
    Deadline,
    Ended,
    Drained,
    View,
    KeepAlive,
}

/// Everything that a stream hears of beside its upstream's bytes.
struct Ears<'a> {
    out: &'a Out,
    deadline: Instant,
    ended: Option<watch::Receiver<bool>>,
    phases: watch::Receiver<Phase>,
    last_phase: Phase,
    views: watch::Receiver<u64>,
    keep_alive: Interval,
}

impl<'a> Ears<'a> {
    fn new(ride: &Ride, out: &'a Out) -> Self {
        let mut views = ride.gate.views.subscribe();
        if !ride.gate.views.is_in_force(ride.plan.view) {
            // It has changed since the request was judged.
            views.mark_changed();
        }
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            out,
            deadline: Instant::from_std(ride.plan.deadline),
            ended: ride.session.as_ref().map(|session| session.ended()),
            phases: ride.gate.drain.subscribe(),
            last_phase: ride.last_phase(),
            views,
            keep_alive,
        }
    }

    async fn hear(&mut self) -> Interrupt {
        tokio::select! {
            biased;
            () = self.out.closed() => Interrupt::Left,
            () = sleep_until(self.deadline) => Interrupt::Deadline,
            _ = wait_end(&mut self.ended) => Interrupt::Ended,
            () = Drain::reached(&mut self.phases, self.last_phase) => Interrupt::Drained,
            Ok(()) = self.views.changed() => Interrupt::View,
            _ = self.keep_alive.tick() => Interrupt::KeepAlive,
        }
    }
}

async fn pump(mut body: Body, mut decoder: Option<Decoder>, ride: &mut Ride, out: &Out) -> End {
    let mut splitter = sse::Splitter::new(ride.plan.reply_bytes);
    let mut ears = Ears::new(ride, out);
    loop {
        let interrupt = {
            let mut heard = pin!(ears.hear());
            // At once and then as often as the upstream has nothing to say: what was heard does not wait for silence.
            let first = poll_fn(|cx| Poll::Ready(heard.as_mut().poll(cx))).await;
            match first {
                Poll::Ready(interrupt) => interrupt,
                Poll::Pending => {
                    match relay(&mut body, &mut decoder, &mut splitter, ride, out, heard).await {
                        Ok(interrupt) => interrupt,
                        Err(end) => return end,
                    }
                }
            }
        };
        match interrupt {
            Interrupt::Left => return End::Left,
            Interrupt::Deadline => return End::too_late(),
            Interrupt::Ended => return End::early(ride, "The session ended before the answer"),
            Interrupt::Drained => {
                if let What::Listen { .. } = ride.plan.what {
                    let _ = timeout(LAST_WORD, send(out, ride, graceful_end(ride))).await;
                }
                return End::early(ride, "The gateway stopped before the answer");
            }
            Interrupt::View => match judge_again(ride) {
                Again::Gone => return End::early(ride, GONE),
                Again::Same => {}
                Again::ListChanged(event) => {
                    if !send(out, ride, event).await {
                        return End::Left;
                    }
                }
            },
            // A grant expires without a new view.
            Interrupt::KeepAlive => match judge_again(ride) {
                Again::Gone => return End::early(ride, GONE),
                _ => {
                    if !send(out, ride, b": keep-alive\n\n".to_vec()).await {
                        return End::Left;
                    }
                }
            },
        }
    }
}

/// Passes on what comes until something else is heard. An upstream that is never silent is interrupted too.
async fn relay(
    body: &mut Body,
    decoder: &mut Option<Decoder>,
    splitter: &mut sse::Splitter,
    ride: &mut Ride,
    out: &Out,
    mut heard: Pin<&mut impl Future<Output = Interrupt>>,
) -> Result<Interrupt, End> {
    let mut unheard = 0;
    loop {
        let chunk = poll_fn(|cx| {
            if unheard < UNHEARD_MAX
                && let Poll::Ready(chunk) = body.poll_data(cx)
            {
                unheard += 1;
                return Poll::Ready(Ok(chunk));
            }
            unheard = 0;
            if let Poll::Ready(interrupt) = heard.as_mut().poll(cx) {
                return Poll::Ready(Err(interrupt));
            }
            body.poll_data(cx).map(Ok)
        })
        .await;
        match chunk {
            Ok(chunk) => pass(chunk, decoder, splitter, ride, out).await?,
            Err(interrupt) => return Ok(interrupt),
        }
    }
}

/// Judges and hands on what a piece of the stream completes: all of it at once.
async fn pass(
    chunk: Option<Result<Bytes, Error>>,
    decoder: &mut Option<Decoder>,
    splitter: &mut sse::Splitter,
    ride: &mut Ride,
    out: &Out,
) -> Result<(), End> {
    let chunk = match chunk {
        Some(Ok(chunk)) => chunk,
        Some(Err(error)) => return Err(End::Failed(error.kind.label(), "cut", error.detail)),
        None => {
            // What is left in the splitter is no event (WHATWG HTML, "Server-sent events"): it goes nowhere.
            let answered = ride.plan.answered || ride.plan.resumable;
            if ride.plan.id.is_some() && !answered && ride.recorder.holds() {
                return Err(End::broken("the stream ended without the reply".into()));
            }
            return Err(End::Complete);
        }
    };
    if std::time::Instant::now() >= ride.plan.deadline {
        return Err(End::too_late());
    }
    // The view in force judges the stream at every event.
    match judge_anew(ride) {
        Again::Gone => return Err(End::early(ride, GONE)),
        Again::Same => {}
        Again::ListChanged(event) => hand_on(out, ride, event).await?,
    }
    let mut decoded = Vec::new();
    let bytes = match decoder {
        None => &chunk[..],
        Some(decoder) => match decoder.push(&chunk, ride.plan.reply_bytes, &mut decoded) {
            Ok(()) => &decoded[..],
            Err(detail) => return Err(End::broken(detail)),
        },
    };
    let mut events = SmallVec::<[Event; 2]>::new();
    let whole = splitter.push(bytes, |event| events.push(event));
    let (mut judged, mut refused) = (Vec::new(), None);
    for event in events {
        match judge(event, ride) {
            Ok(bytes) if judged.is_empty() => judged = bytes,
            Ok(bytes) => judged.extend_from_slice(&bytes),
            Err(detail) => {
                refused = Some(detail);
                break;
            }
        }
    }
    if !judged.is_empty() {
        hand_on(out, ride, judged).await?;
    }
    match (refused, whole) {
        (Some(detail), _) => Err(End::broken(detail)),
        (None, Err(_)) => Err(End::broken("an event over bounds.reply_bytes".into())),
        (None, Ok(())) => Ok(()),
    }
}

async fn hand_on(out: &Out, ride: &mut Ride, bytes: Vec<u8>) -> Result<(), End> {
    match send(out, ride, bytes).await {
        true => Ok(()),
        false => Err(End::Left),
    }
}

impl End {
    /// The gateway's own end of a stream: only a call that waits for its answer is cut by it.
    fn early(ride: &Ride, why: &'static str) -> Self {
        let standing = matches!(ride.plan.what, What::Stream | What::Listen { .. });
        match standing || ride.plan.answered || ride.plan.id.is_none() {
            true => Self::Complete,
            false => Self::Stopped(why),
        }
    }
    fn too_late() -> Self {
        Self::Failed("upstream_timeout", "timeout", "deadline passed".into())
    }
    fn broken(detail: String) -> Self {
        Self::Failed("upstream_protocol", "cut", detail)
    }
}

async fn wait_end(ended: &mut Option<watch::Receiver<bool>>) {
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
    let bytes = match out.try_send(Ok(bytes.into())) {
        Ok(()) => {
            ride.recorder.sent(length);
            return true;
        }
        Err(TrySendError::Closed(_)) => return false,
        Err(TrySendError::Full(bytes)) => bytes,
    };
    let until = (Instant::now() + ride.plan.patience).min(Instant::from_std(ride.plan.deadline));
    // What there is room for goes out even at the deadline.
    let sent = timeout_at(until, out.send(bytes)).await;
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

/// Whether another view is in force than the one that judged last, and what it says.
fn judge_anew(ride: &mut Ride) -> Again {
    match ride.gate.views.is_in_force(ride.plan.view) {
        true => Again::Same,
        false => judge_again(ride),
    }
}

/// A new view is in force: is the stream's grant still good, and do its lists look different now?
fn judge_again(ride: &mut Ride) -> Again {
    let Some(view) = ride.gate.views.load() else {
        return Again::Same;
    };
    ride.plan.view = view.revision;
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
