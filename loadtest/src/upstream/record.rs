//! The exact record of what a server was made to do.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::VecDeque,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
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

/// The record of a server; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    enabled: bool,
    total: AtomicU64,
    executed: AtomicU64,
    dropped: AtomicU64,
    calls: Mutex<Vec<Call>>,
    requests: Mutex<VecDeque<Request>>,
    file: Mutex<Option<File>>,
}

impl Recorder {
    pub(super) fn new(enabled: bool, file: Option<&Path>) -> std::io::Result<Self> {
        let file = file
            .map(|path| File::options().create(true).append(true).open(path))
            .transpose()?;
        Ok(Self(Arc::new(Inner {
            enabled,
            file: Mutex::new(file),
            ..Inner::default()
        })))
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

    pub(super) fn request(
        &self,
        verb: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) {
        if !self.0.enabled {
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
            arguments: call.arguments.clone(),
            id: call.id.clone(),
            call_id: call
                .arguments
                .get("call_id")
                .and_then(Value::as_str)
                .map(str::to_owned),
            era: call.era.into(),
            session: call.session.map(str::to_owned),
            headers: call.headers.iter().map(|(name, _)| name.clone()).collect(),
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
