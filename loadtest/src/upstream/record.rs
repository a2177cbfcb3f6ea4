//! The exact record of what a server was made to do.

use super::Options;
use crate::histogram::{Histogram, recorder};
use hdrhistogram::Histogram as Hdr;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::VecDeque,
    fs::File,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Most calls kept; further ones are counted in `dropped`.
const CALLS_MAX: usize = 1 << 20;
/// Most requests kept; the oldest give way.
const REQUESTS_MAX: usize = 16_384;
/// Most bytes of a request's body kept.
const BODY_MAX: usize = 64 << 10;

/// One `tools/call` that reached the server.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Call {
    /// Counts up from 0 in order of arrival.
    pub seq: u64,
    /// When it arrived, milliseconds since 1970.
    pub at_ms: u64,
    /// The tool.
    pub tool: String,
    /// Its arguments as the server understood them.
    pub arguments: Value,
    /// The JSON-RPC id.
    pub id: Value,
    /// `arguments.call_id`, by which a test joins this record with an audit.
    pub call_id: Option<String>,
    /// `modern` or `legacy`.
    pub era: String,
    /// The session, if there is one.
    pub session: Option<String>,
    /// Lower-case names of the HTTP headers that came with it, in order.
    pub headers: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It still runs.
    Running,
    /// It was executed.
    Done,
    /// It was executed and the tool said that it failed.
    Failed,
    /// It was cancelled while it ran (its stream was closed, or a notification said so).
    Cancelled,
    /// It was refused and had no effect.
    Rejected,
}

/// One HTTP request (or one line of stdio) as it arrived.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Request {
    /// POST, GET, DELETE, or LINE.
    pub verb: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, lossily as text, cut at 64 KiB.
    pub body: String,
}

impl Request {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str())
    }
}

type Times = Mutex<Option<Hdr<u64>>>;

fn note(times: &Times, time: Duration) {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    lock(times)
        .get_or_insert_with(recorder)
        .saturating_record(ns);
}

fn told(times: &Times) -> Histogram {
    lock(times)
        .as_ref()
        .map(Histogram::from)
        .unwrap_or_default()
}

/// The record of a server; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    enabled: bool,
    details: bool,
    has_file: bool,
    latency: Times,
    late: Times,
    total: AtomicU64,
    executed: AtomicU64,
    dropped: AtomicU64,
    calls: Mutex<Vec<Call>>,
    requests: Mutex<VecDeque<Request>>,
    file: Mutex<Option<File>>,
}

impl Recorder {
    pub(super) fn new(options: &Options) -> std::io::Result<Self> {
        let open = |path: &PathBuf| File::options().create(true).append(true).open(path);
        let file = options.record_file.as_ref().map(open).transpose()?;
        Ok(Self(Arc::new(Inner {
            enabled: options.record,
            details: options.record_details,
            has_file: file.is_some(),
            file: Mutex::new(file),
            ..Inner::default()
        })))
    }

    /// Notes how long a call took, from its head to its reply being handed over to be written.
    pub(super) fn took(&self, time: Duration) {
        note(&self.0.latency, time);
    }

    /// Notes how much later than it was due this side woke: its readiness to read requests is as late.
    pub(super) fn late(&self, time: Duration) {
        note(&self.0.late, time);
    }

    /// How long calls took by this side's clock, from their head to their reply being handed over to be written.
    pub fn latency(&self) -> Histogram {
        told(&self.0.latency)
    }

    /// Every call that arrived, refused ones too, in order.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0.calls).clone()
    }

    /// The calls that had, or may have had, an effect.
    pub fn executed(&self) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.outcome != Outcome::Rejected);
        calls
    }

    /// How often this tool was executed.
    pub fn count(&self, tool: &str) -> usize {
        let calls = lock(&self.0.calls);
        let ran = |call: &&Call| call.tool == tool && call.outcome != Outcome::Rejected;
        calls.iter().filter(ran).count()
    }

    /// Calls that arrived since the start, kept in the record or not.
    pub fn total(&self) -> u64 {
        self.0.total.load(Relaxed)
    }

    /// Requests as they arrived, the newest 16,384.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.0.requests).iter().cloned().collect()
    }

    /// Forgets everything but the totals.
    pub fn clear(&self) {
        lock(&self.0.calls).clear();
        lock(&self.0.requests).clear();
        *lock(&self.0.latency) = None;
        *lock(&self.0.late) = None;
    }

    /// The record as `GET /record` answers it: `{calls, requests, total, executed, dropped}`.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "calls": self.calls(),
            "requests": self.requests(),
            "total": self.total(),
            "executed": self.0.executed.load(Relaxed),
            "dropped": self.0.dropped.load(Relaxed),
        })
    }

    /// The calls alone, one JSON object a line, as `GET /record/calls` answers them.
    pub fn lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for call in &*lock(&self.0.calls) {
            // Writing to a vector cannot fail.
            let _ = serde_json::to_writer(&mut lines, call);
            lines.push(b'\n');
        }
        lines
    }

    /// Whether requests are kept.
    pub(super) fn keeps_requests(&self) -> bool {
        self.0.enabled && self.0.details
    }

    /// What `GET /record/summary` answers: `{total, executed, dropped, latency, late}`.
    pub fn summary(&self) -> Value {
        serde_json::json!({
            "total": self.total(),
            "executed": self.0.executed.load(Relaxed),
            "dropped": self.0.dropped.load(Relaxed),
            "latency": self.latency(),
            "late": told(&self.0.late),
        })
    }

    /// A call that was executed at once, as `begin` and its guard would note it.
    pub(super) fn done(
        &self,
        tool: &str,
        id: &[u8],
        arguments: &[u8],
        era: &str,
        session: Option<&str>,
    ) {
        self.0.executed.fetch_add(1, Relaxed);
        if !self.0.enabled {
            self.0.total.fetch_add(1, Relaxed);
            return;
        }
        let arguments = proto::scan::Value::new(arguments);
        let call_id = arguments.get("call_id").and_then(|v| v.as_str());
        let mut call = Call {
            seq: 0,
            at_ms: crate::drive::unix_ms(),
            tool: tool.into(),
            arguments: Value::Null,
            id: serde_json::from_slice(id).unwrap_or(Value::Null),
            call_id: call_id.map(|c| c.into_owned()),
            era: era.into(),
            session: session.map(str::to_owned),
            headers: Vec::new(),
            outcome: Outcome::Done,
        };
        let mut calls = lock(&self.0.calls);
        call.seq = self.0.total.fetch_add(1, Relaxed);
        if calls.len() < CALLS_MAX {
            calls.push(call);
        } else {
            self.0.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Whether calls can be noted by [`Self::done`] without a loss.
    pub(super) fn is_light(&self) -> bool {
        !self.keeps_requests() && !self.0.has_file
    }

    pub(super) fn request(
        &self,
        verb: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) {
        if !self.keeps_requests() {
            return;
        }
        let kept = body.get(..BODY_MAX).unwrap_or(body);
        let mut requests = lock(&self.0.requests);
        if requests.len() == REQUESTS_MAX {
            requests.pop_front();
        }
        requests.push_back(Request {
            verb: verb.into(),
            path: path.into(),
            headers: headers.to_vec(),
            body: String::from_utf8_lossy(kept).into_owned(),
        });
    }

    /// Notes that a call begins; the guard notes how it ends, being dropped counts as cancelled.
    pub(super) fn begin(&self, call: Begin<'_>) -> Guard {
        // Numbered under the lock, so that the record is sorted.
        let mut calls = lock(&self.0.calls);
        let seq = self.0.total.fetch_add(1, Relaxed);
        let mut guard = Guard {
            recorder: self.clone(),
            call: None,
            seq,
            ended: false,
        };
        if !self.0.enabled {
            return guard;
        }
        let call = Call {
            seq,
            at_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_millis() as u64),
            tool: call.tool.into(),
            arguments: if self.0.details {
                call.arguments.clone()
            } else {
                Value::Null
            },
            id: call.id.clone(),
            call_id: call
                .arguments
                .get("call_id")
                .and_then(Value::as_str)
                .map(str::to_owned),
            era: call.era.into(),
            session: call.session.map(str::to_owned),
            headers: match self.0.details {
                true => call.headers.iter().map(|(name, _)| name.clone()).collect(),
                false => Vec::new(),
            },
            outcome: Outcome::Running,
        };
        guard.call = Some(call.clone());
        if calls.len() < CALLS_MAX {
            calls.push(call);
        } else {
            self.0.dropped.fetch_add(1, Relaxed);
        }
        guard
    }

    fn end(&self, seq: u64, call: Option<Call>, outcome: Outcome) {
        if outcome != Outcome::Rejected {
            self.0.executed.fetch_add(1, Relaxed);
        }
        let Some(mut call) = call else { return };
        {
            let mut calls = lock(&self.0.calls);
            // Sequence numbers ascend, but a clear may have taken any prefix away.
            if let Ok(at) = calls.binary_search_by_key(&seq, |c| c.seq)
                && let Some(kept) = calls.get_mut(at)
            {
                kept.outcome = outcome;
            }
        }
        if let Some(file) = &mut *lock(&self.0.file) {
            call.outcome = outcome;
            if let Ok(mut line) = serde_json::to_vec(&call) {
                line.push(b'\n');
                let _ = file.write_all(&line);
            }
        }
    }
}

/// What is known of a call when it begins.
pub(super) struct Begin<'a> {
    pub(super) tool: &'a str,
    pub(super) arguments: &'a Value,
    pub(super) id: &'a Value,
    pub(super) era: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) headers: &'a [(String, String)],
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct Guard {
    recorder: Recorder,
    call: Option<Call>,
    seq: u64,
    ended: bool,
}

impl Guard {
    /// Which call this is, counted from 0.
    pub(super) fn number(&self) -> u64 {
        self.seq
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        self.ended = true;
        let call = self.call.take();
        self.recorder.end(self.seq, call, outcome);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            let call = self.call.take();
            self.recorder.end(self.seq, call, Outcome::Cancelled);
        }
    }
}

/// A panicking test thread must not hide the record from the others.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
