//! One child process, which is one session of a stdio server.

use super::{
    CANCEL_GRACE, LINES, Run, STREAM_AFTER, Slot, child, message,
    pipes::{self, Line, Source},
    post::{self, Answer, Rejected},
    router::Router,
    supervise::{Phase, Supervised, supervise},
};
use crate::{
    bounds::Bounds,
    upstream::{Body, Error, ErrorKind, Request, Response},
    view::StdioTarget,
};
use bytes::Bytes;
use http::StatusCode;
use proto::scan;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// A running server process. Dropping it ends the process in the background.
///
/// Its tasks live on the runtime that started it; its methods may be called from any.
pub struct Process {
    router: Arc<Router>,
    lines: mpsc::Sender<Arc<Line>>,
    phase: watch::Receiver<Phase>,
    end: watch::Sender<bool>,
    pid: u32,
    reply_timeout: Duration,
    in_flight_max: usize,
    scan: scan::Bounds,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({}, {:?})", self.pid, *self.phase.borrow())
    }
}

impl Process {
    pub(super) fn start(
        target: &StdioTarget,
        bounds: &Bounds,
        slot: Slot,
    ) -> Result<Arc<Self>, Error> {
        let (group, pipes) = match child::start(target) {
            Ok(started) => started,
            Err(error) => {
                slot.counters().not_started.fetch_add(1, Relaxed);
                slot.settle(Run::Failed, Instant::now());
                return Err(error);
            }
        };
        let source = Source {
            server: slot.server().clone(),
            pid: group.pid(),
            counters: slot.counters().clone(),
            metrics: slot.metrics().clone(),
            secrets: target
                .env
                .iter()
                .map(|(_, value)| value)
                .filter(|value| value.len() >= SECRET_BYTES_MIN)
                .cloned()
                .collect(),
        };
        let router = Router::new(slot.counters().clone());
        let (lines, queue) = mpsc::channel(LINES);
        let (phase, phase_seen) = watch::channel(Phase::Running);
        let (end, ending) = watch::channel(false);
        let reader = tokio::spawn(pipes::read(
            pipes.stdout,
            router.clone(),
            source.clone(),
            bounds.reply_bytes,
            bounds.scan(),
        ));
        tokio::spawn(pipes::log(pipes.stderr, source.clone()));
        let writer = tokio::spawn(pipes::write(pipes.stdin, queue, bounds.body_timeout));
        // Only a weak handle: the queue must close when the process is dropped and ended.
        let keeper = tokio::spawn(keep_time(router.clone(), lines.downgrade()));
        let process = Arc::new(Self {
            router: router.clone(),
            lines,
            phase: phase_seen,
            end,
            pid: group.pid(),
            reply_timeout: bounds.upstream_timeout,
            in_flight_max: bounds.calls_server,
            scan: bounds.scan(),
        });
        source.counters.started.fetch_add(1, Relaxed);
        tracing::info!(server = %source.server, pid = source.pid, "started a server process");
        tokio::spawn(supervise(Supervised {
            group,
            router,
            source,
            slot,
            phase,
            ending,
            reader,
            writer,
            keeper,
            started: Instant::now(),
        }));
        Ok(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Writes a judged message as one line and waits for the first message that belongs to it.
    ///
    /// The reply itself, if it comes first: `application/json`. Otherwise (progress or a request of the server comes
    /// first, or nothing within 2 s): `text/event-stream` with every message as one event, closed by the reply. What
    /// awaits no reply is written and answered 202. A request whose id or progress token is that of one in flight is
    /// answered 400 and not written.
    ///
    /// Dropping the future or the body cancels nothing: the reply is dropped when it comes (L9).
    ///
    /// # Errors
    /// `SessionGone` once the process has ended; `Timeout` at the deadline (`notifications/cancelled` is written);
    /// `Protocol` when the process ends first, or its reply is refused by the scanner; `Overloaded` when `calls_server`
    /// requests are in flight. On an event stream the same errors break the body off.
    pub async fn post(&self, request: Request) -> Answer {
        let deadline = request
            .deadline
            .unwrap_or_else(|| Instant::now() + self.reply_timeout);
        let place = match tokio::time::timeout_at(deadline.into(), self.lines.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(self.gone()),
            Err(_) => {
                return Err(Error {
                    kind: ErrorKind::Timeout,
                    unsent: true,
                    detail: "the server does not read its input".into(),
                });
            }
        };
        if let Some(reason) = self.router.shut_reason() {
            return Err(post::gone(&reason));
        }
        let line = Line::new(&request.body);
        let Some(expects) = request.expects else {
            place.send(line);
            if let Some(id) = message::cancelled(&request.body, &self.scan) {
                self.router.cancelled(&id, Instant::now() + CANCEL_GRACE);
            }
            let mut response = Response::new(Body::Full(None));
            *response.status_mut() = StatusCode::ACCEPTED;
            return Ok(response);
        };
        let id = expects.id.clone();
        match self
            .router
            .register(expects, deadline, line.clone(), self.in_flight_max)
        {
            Ok((seq, answer)) => {
                place.send(line);
                self.answer(&id, seq, answer).await
            }
            Err(Rejected::Gone(reason)) => Err(post::gone(&reason)),
            Err(Rejected::Full) => Err(Error {
                kind: ErrorKind::Overloaded,
                unsent: true,
                detail: format!(
                    "{} requests are in flight in this session",
                    self.in_flight_max
                ),
            }),
            Err(Rejected::BadId) => Ok(bad_request(
                &id,
                "the id is neither a string nor an integer",
            )),
            Err(Rejected::Duplicate("id")) => Ok(bad_request(
                &id,
                "a request with this id is in flight in this session",
            )),
            Err(Rejected::Duplicate(_)) => Ok(bad_request(
                &id,
                "a request with this progress token is in flight in this session",
            )),
        }
    }

    async fn answer(&self, id: &[u8], seq: u64, mut answer: oneshot::Receiver<Answer>) -> Answer {
        if let Ok(first) = timeout(STREAM_AFTER, &mut answer).await {
            return first.unwrap_or_else(|_| Err(self.gone()));
        }
        match self.router.stream_of(id, seq) {
            Some(response) => Ok(response),
            // Answered at this very moment.
            None => answer.await.unwrap_or_else(|_| Err(self.gone())),
        }
    }

    /// The session's GET stream: what the server says that belongs to no request. A newer one takes the older one's
    /// place, which ends; nothing is delivered twice.
    ///
    /// # Errors
    /// `SessionGone` once the process has ended.
    pub fn stream(&self) -> Result<Response, Error> {
        self.router.open_get()
    }

    /// Puts a message of Tollgate's own (`notifications/tools/list_changed`) on the GET stream. False when none is
    /// open, or when its client has left no room.
    pub fn inject(&self, message: &[u8]) -> bool {
        self.router.inject(&Bytes::copy_from_slice(message))
    }

    /// Gives a request up: `notifications/cancelled` is written, and the request ends without a reply unless one comes
    /// within 5 s. `id` is its JSON text.
    pub fn cancel(&self, id: &[u8]) {
        if let Some(key) = message::Key::read(id) {
            self.router.cancelled(&key, Instant::now() + CANCEL_GRACE);
            // A full queue means a child that reads nothing, this neither.
            let _ = self
                .lines
                .try_send(Line::new(&message::cancel(id, "cancelled")));
        }
    }

    /// Whether the session is over: the child has ended, or is being ended.
    pub fn has_ended(&self) -> bool {
        *self.phase.borrow() != Phase::Running
    }

    /// Resolves when [`Process::has_ended`] is true.
    pub async fn ended(&self) {
        // An error means that the supervisor is gone, and the child with it.
        let _ = self.phase.clone().wait_for(|p| *p != Phase::Running).await;
    }

    /// Ends the process: its stdin is closed; 2 s later its group gets SIGTERM, 2 s later SIGKILL. Returns when it is
    /// gone, with everything that stayed in its process group.
    pub async fn end(&self) {
        self.end_in_background();
        let _ = self.phase.clone().wait_for(|p| *p == Phase::Gone).await;
    }

    /// [`Process::end`], without waiting for it.
    pub fn end_in_background(&self) {
        self.router.shut("the session was ended");
        self.end.send_replace(true);
    }

    fn gone(&self) -> Error {
        let reason = self.router.shut_reason();
        post::gone(reason.as_deref().unwrap_or("it takes no input"))
    }
}

/// Values shorter than this are too common to be taken out of the log, and too short to be secrets.
const SECRET_BYTES_MIN: usize = 8;

fn bad_request(id: &[u8], why: &str) -> Response {
    let body = proto::mcp::error(Some(id), -32600, why, None);
    post::json(StatusCode::BAD_REQUEST, body.into())
}

/// Ends requests at their deadlines.
async fn keep_time(router: Arc<Router>, lines: mpsc::WeakSender<Arc<Line>>) {
    loop {
        let (notices, next) = router.expire(Instant::now());
        for notice in notices {
            if let Some(lines) = lines.upgrade() {
                // A full queue means a child that reads nothing, this neither.
                let _ = lines.try_send(Line::new(&notice));
            }
        }
        let earlier = router.timer.notified();
        match next {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = earlier => {}
            },
            None => earlier.await,
        }
    }
}
