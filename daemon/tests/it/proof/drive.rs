//! Callers: threads in the hub, each with a connection to every node, calling as fast as they are told to.

use super::{judge::arguments, net::Net};
use crate::harness::{Client, Token, read_reply};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How long a call may take before its caller turns away.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What was answered, over all callers.
#[derive(Debug, Default)]
pub struct Tally {
    pub ok: AtomicU64,
    pub limit: AtomicU64,
    pub unreachable: AtomicU64,
    pub other: AtomicU64,
    pub lost: AtomicU64,
    /// When each call that was answered began, milliseconds since 1970.
    begun_ms: Mutex<Vec<u64>>,
}

/// Who calls what, and how often.
pub struct Plan<'a> {
    /// Begins every id: unique in a test.
    pub name: &'a str,
    pub nodes: &'a [SocketAddr],
    /// Grant ids with their tokens; each caller goes round.
    pub grants: &'a [(String, Token)],
    pub callers: usize,
    /// Each caller waits this long between calls.
    pub pause: Duration,
    pub tool: &'a str,
    /// Units of one call.
    pub amount: u64,
}

impl Plan<'_> {
    /// Calls until `stop`; blocks.
    pub fn run(&self, net: &Net, stop: &AtomicBool, tally: &Tally) {
        std::thread::scope(|scope| {
            for caller in 0..self.callers {
                scope.spawn(move || {
                    net.enter_hub();
                    self.caller(caller, stop, tally);
                });
            }
        });
    }

    fn caller(&self, caller: usize, stop: &AtomicBool, tally: &Tally) {
        let mut lines: Vec<Option<BufReader<TcpStream>>> =
            self.nodes.iter().map(|_| None).collect();
        for number in 0.. {
            if stop.load(Relaxed) {
                return;
            }
            let (grant, token) = &self.grants[(caller + number) % self.grants.len()];
            let node = (caller + number / self.grants.len()) % self.nodes.len();
            let id = format!("id-{}-{caller}-{number}", self.name);
            let mut arguments = arguments(&id, grant);
            if self.amount != 1 {
                arguments["amount"] = json!(self.amount);
            }
            let bytes = self.bytes(self.nodes[node], token, &arguments);
            let begun_ms = daemon::clock::now().unix_ms;
            let counter = match exchange(&mut lines[node], self.nodes[node], &bytes) {
                Some(reply) => {
                    match reply["result"]["_meta"]["dev.tollgate/denial"]["code"].as_str() {
                        None if reply["result"].is_object() => &tally.ok,
                        Some("limit") => &tally.limit,
                        Some("unreachable") => &tally.unreachable,
                        _ => &tally.other,
                    }
                }
                None => {
                    lines[node] = None;
                    &tally.lost
                }
            };
            counter.fetch_add(1, Relaxed);
            tally.begun_ms.lock().unwrap().push(begun_ms);
            std::thread::sleep(self.pause);
        }
    }

    fn bytes(&self, node: SocketAddr, token: &Token, arguments: &Value) -> Vec<u8> {
        let client = Client {
            address: node,
            path: "/mcp/s".into(),
            token: token.text.clone(),
            session: None,
        };
        let params = json!({ "name": self.tool, "arguments": arguments });
        let body = Client::modern_body("tools/call", params).to_string();
        let headers = [
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", self.tool),
        ];
        client.bytes("POST", &headers, body.as_bytes())
    }
}

/// One request and its reply; `None`: nobody knows what became of it.
fn exchange(
    line: &mut Option<BufReader<TcpStream>>,
    node: SocketAddr,
    bytes: &[u8],
) -> Option<Value> {
    if line.is_none() {
        let stream = TcpStream::connect_timeout(&node, TIMEOUT).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(TIMEOUT)).ok()?;
        stream.set_nodelay(true).ok()?;
        *line = Some(BufReader::new(stream));
    }
    let reader = line.as_mut()?;
    reader.get_mut().write_all(bytes).ok()?;
    read_reply(reader)?.messages().pop()
}

impl Tally {
    /// The windows, but the last one that is still running, in which at least this many calls came before the last second.
    pub fn pressed(&self, window_ms: u64, calls: u64) -> Vec<u64> {
        let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
        for begun_ms in self.begun_ms.lock().unwrap().iter() {
            let early = window_ms - begun_ms % window_ms > 1_000;
            *windows.entry(begun_ms / window_ms).or_default() += u64::from(early);
        }
        windows.pop_last();
        windows
            .into_iter()
            .filter(|(_, count)| *count >= calls)
            .map(|(window, _)| window)
            .collect()
    }

    pub fn text(&self) -> String {
        let [ok, limit, unreachable, other, lost] = [
            &self.ok,
            &self.limit,
            &self.unreachable,
            &self.other,
            &self.lost,
        ]
        .map(|n| n.load(Relaxed));
        format!(
            "{ok} ok, {limit} over the limit, {unreachable} unreachable, {other} other, {lost} lost"
        )
    }
}

/// Waits until the next window of this length begins.
pub fn next_window(window_ms: u64) {
    let now = daemon::clock::now().unix_ms;
    std::thread::sleep(Duration::from_millis(window_ms - now % window_ms));
}

/// Runs `during` while the plans call; then they stop.
pub fn while_calling(net: &Net, plans: &[(&Plan<'_>, &Tally)], during: impl FnOnce()) -> Duration {
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        for (plan, tally) in plans {
            scope.spawn(|| plan.run(net, &stop, tally));
        }
        during();
        stop.store(true, Relaxed);
    });
    began.elapsed()
}
