//! Real children: Python scripts of a few lines, each the server that its test needs.

mod life;
mod streams;

use super::*;
use crate::{
    upstream::{Expects, Request, Response},
    view::{Processes, Rlimits},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// What every script has: `out`, `note` and `reply` send; the script defines `handle(message)`.
const PRELUDE: &str = r#"
import json, os, signal, subprocess, sys, threading, time
def raw(text):
    sys.stdout.write(text); sys.stdout.flush()
def out(message):
    raw(json.dumps(message) + "\n")
def note(method, **params):
    out({"jsonrpc": "2.0", "method": method, "params": params})
def progress(token, n):
    note("notifications/progress", progressToken=token, progress=n)
def ask(id, method):
    out({"jsonrpc": "2.0", "id": id, "method": method})
def reply(message, result):
    out({"jsonrpc": "2.0", "id": message["id"], "result": {"it": result}})
seen = []
def main():
    for line in sys.stdin:
        message = json.loads(line)
        seen.append(message)
        if message.get("method") == "seen":
            reply(message, seen)
        elif message.get("method") == "echo":
            reply(message, message.get("params"))
        else:
            handle(message)
def handle(message):
    pass
"#;

fn target(script: &str) -> StdioTarget {
    StdioTarget {
        command: vec![
            "python3".into(),
            "-c".into(),
            format!("{PRELUDE}\n{script}\nmain()\n"),
        ],
        env: Vec::new(),
        dir: None,
        processes: Processes::Session,
        processes_max: 4,
        user: None,
        rlimits: Rlimits::default(),
    }
}

fn pool() -> Pool {
    Pool::new(Metrics::new())
}

fn name() -> ServerName {
    ServerName::new("s")
}

async fn start(pool: &Pool, script: &str) -> Arc<Process> {
    pool.start(&name(), &target(script), &Bounds::default())
        .await
        .unwrap()
}

/// A request that is given up after `ms`.
fn request(id: Value, method: &str, params: Value, ms: u64) -> Request {
    let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    Request {
        verb: http::Method::POST,
        body: message.to_string().into(),
        expects: Some(Expects {
            method: method.into(),
            id: id.to_string().into(),
            progress_token: params["_meta"]
                .get("progressToken")
                .map(|token| token.to_string().into()),
        }),
        headers: http::HeaderMap::new(),
        deadline: Some(Instant::now() + Duration::from_millis(ms)),
    }
}

fn notification(method: &str, params: Value) -> Request {
    let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
    Request {
        body: message.to_string().into(),
        expects: None,
        ..request(json!(0), method, json!({}), 10_000)
    }
}

async fn call(process: &Process, id: u64, method: &str) -> Result<Response, Error> {
    process
        .post(request(json!(id), method, json!({}), 10_000))
        .await
}

/// The result of a call that brings nothing but its reply (as one event where the machine is slow).
async fn result(process: &Process, id: u64, method: &str) -> Value {
    let mut response = call(process, id, method).await.unwrap();
    let message = next(&mut response).await.unwrap().unwrap();
    message["result"]["it"].clone()
}

fn is_stream(response: &Response) -> bool {
    response.headers()["content-type"] == "text/event-stream"
}

async fn chunk(response: &mut Response) -> Option<Result<Bytes, Error>> {
    std::future::poll_fn(|cx| response.body_mut().poll_data(cx)).await
}

/// The next message of a body, whole or in events.
async fn next(response: &mut Response) -> Option<Result<Value, Error>> {
    loop {
        let chunk = match chunk(response).await? {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        let text = std::str::from_utf8(&chunk).unwrap();
        if text.starts_with(':') {
            continue;
        }
        let data = text
            .strip_prefix("event: message\ndata: ")
            .and_then(|rest| rest.strip_suffix("\n\n"))
            .unwrap_or(text);
        return Some(Ok(serde_json::from_str(data).unwrap()));
    }
}

/// All messages up to the proper end.
async fn all(mut response: Response) -> Vec<Value> {
    let mut messages = Vec::new();
    while let Some(message) = next(&mut response).await {
        messages.push(message.unwrap());
    }
    messages
}

async fn within<T>(seconds: u64, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), what)
        .await
        .expect("in time")
}

/// Waits until something is so.
async fn until(mut so: impl FnMut() -> bool) {
    within(10, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Whether a process runs (a zombie does not).
fn runs(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}
