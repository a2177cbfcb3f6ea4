//! A client that sends what a test wants and reads whatever comes.

use loadtest::upstream::{Options, Running, Upstream};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

pub const ACCEPT: &str = "application/json, text/event-stream";

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> Value {
        let text = self.text();
        let data = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .next_back();
        serde_json::from_str(data.unwrap_or(&text)).unwrap()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|l| l.to_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }
}

pub fn open(
    server: &Running,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let headers: String = headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}\r\n"))
        .collect();
    let head =
        format!("{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

pub fn send(
    server: &Running,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut bytes = Vec::new();
    // A reset in the middle is one of the faults.
    let _ = open(server, verb, path, headers, body).read_to_end(&mut bytes);
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let mut body = bytes.get(end + 4..).unwrap_or_default().to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = dechunk(&body);
    }
    Answer { status, head, body }
}

pub fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    out
}

pub fn modern(method: &str, mut params: Value) -> (Vec<(&'static str, String)>, String) {
    let name = params.get("name").or(params.get("uri")).cloned();
    let meta = params
        .as_object_mut()
        .unwrap()
        .entry("_meta")
        .or_insert(json!({}));
    meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", ACCEPT.to_owned()),
        ("mcp-protocol-version", "2026-07-28".to_owned()),
        ("mcp-method", method.to_owned()),
    ];
    if let Some(name) = name {
        headers.push(("mcp-name", name.as_str().unwrap().to_owned()));
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    (headers, body.to_string())
}

pub fn ask(server: &Running, method: &str, params: Value) -> Answer {
    let (headers, body) = modern(method, params);
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    send(server, "POST", "/mcp", &headers, &body)
}

pub fn call(server: &Running, tool: &str, arguments: Value) -> Answer {
    ask(
        server,
        "tools/call",
        json!({"name": tool, "arguments": arguments}),
    )
}

pub fn legacy(server: &Running, session: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![("content-type", "application/json"), ("accept", ACCEPT)];
    headers.extend(session.map(|s| ("mcp-session-id", s)));
    send(server, "POST", "/mcp", &headers, body)
}

pub fn initialize(server: &Running) -> String {
    let answer = legacy(
        server,
        None,
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#,
    );
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-06-18");
    answer.header("mcp-session-id").unwrap().to_owned()
}

pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn start(options: Options) -> Running {
    Upstream::start(options).unwrap()
}
