//! Lists, streams, clocks and refunds where an agent, or a careless server, leaves the beaten track.

use crate::harness::*;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A server that answers every request with what a function makes of its head and body; each on a connection of its own.
struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(answer: impl Fn(&str, &Value, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (heads.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { address, heads }
    }

    fn gate(&self, token: &Token, policy: &Value, more: &str) -> Gate {
        let servers = format!("servers:\n  s:\n    url: http://{}/mcp\n", self.address);
        let sections = sections(&inline("p", policy), &[("g", token, "p")]);
        Gate::start(&format!("{servers}{sections}{more}"))
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    answer: &dyn Fn(&str, &Value, &mut TcpStream),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    seen.lock().unwrap().push(head.clone());
    let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
    answer(&head, &message, &mut stream);
}

fn reply(stream: &mut TcpStream, status: &str, kind: &str, body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
}

fn list(id: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "tools": [
        { "name": "echo", "inputSchema": {} }, { "name": "delete_account", "inputSchema": {} } ] } })
    .to_string()
}

fn hiding() -> Value {
    json!({ "version": "1", "default": "allow", "hide": ["delete_account"], "tools": {} })
}

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"x","version":"1"}}}"#;

#[test]
fn a_list_is_filtered_or_refused_under_every_status_type_and_event_name() {
    type Shape = (&'static str, &'static str, fn(&str) -> String);
    let shapes: [Shape; 9] = [
        ("201 Created", "application/json", str::to_owned),
        ("200 OK", "text/html", str::to_owned),
        ("200 OK", "text/plain", |list| format!("data: {list}\n\n")),
        ("400 Bad Request", "application/json", str::to_owned),
        ("500 Oops", "text/event-stream", |list| {
            format!("data: {list}\n\n")
        }),
        ("200 OK", "text/event-stream", |list| {
            format!("event: tools\ndata: {list}\n\n")
        }),
        ("200 OK", "text/event-stream", |list| {
            format!("data: {list}\n")
        }),
        ("200 OK", "text/event-stream", |list| {
            format!(": c\r\rdata: {list}\r\r")
        }),
        ("200 OK", "application/json", |list| format!("[{list}]")),
    ];
    for (status, kind, shape) in shapes {
        let server = Scripted::start(move |_, message, stream| {
            reply(stream, status, kind, shape(&list(&message["id"])));
        });
        let token = new_token();
        let gate = server.gate(&token, &hiding(), "");
        let seen = gate
            .client("s", &token)
            .modern("tools/list", json!({}))
            .text();
        assert!(
            !seen.contains("delete_account"),
            "{status} {kind} {}: {seen}",
            shape("…")
        );
    }
}

#[test]
fn a_servers_own_error_to_a_list_passes() {
    let server = Scripted::start(|_, message, stream| {
        let error = json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32001, "message": "not now" } });
        reply(stream, "503 Busy", "application/json", error.to_string());
    });
    let token = new_token();
    let gate = server.gate(&token, &hiding(), "");
    let answer = gate.client("s", &token).modern("tools/list", json!({}));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.message()["error"]["code"], -32001);
}

#[test]
fn a_list_that_is_under_way_when_its_policy_is_taken_away_shows_nothing() {
    let go = Arc::new(Mutex::new(false));
    let wait = go.clone();
    let server = Scripted::start(move |_, message, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n";
        let _ = stream.write_all(head.as_bytes());
        let until = Instant::now() + PATIENCE;
        while !*wait.lock().unwrap() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = stream.write_all(format!("data: {}\n\n", list(&message["id"])).as_bytes());
    });
    let token = new_token();
    let config = |policy| {
        format!(
            "reload_interval: 200ms\nservers:\n  s:\n    url: http://{}/mcp\n{}",
            server.address,
            sections(&inline("p", &hiding()), &[("g", &token, policy)])
        )
    };
    let gate = Gate::start(&config("p"));
    let client = gate.client("s", &token);
    let body = Client::modern_body("tools/list", json!({})).to_string();
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/list"),
    ];
    let mut stream = open(gate.address);
    stream
        .write_all(&client.bytes("POST", &headers, body.as_bytes()))
        .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    gate.rewrite(&config(""));
    eventually("the new view is in force", || {
        gate.metrics().contains("tollgate_view_revision 2")
    });
    *go.lock().unwrap() = true;
    let mut seen = Vec::new();
    while let Some(chunk) = read_chunk(&mut reader) {
        seen.extend(chunk);
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(
        seen.contains(r#""tools":[]"#) && !seen.contains("echo"),
        "{seen}"
    );
}

#[test]
fn a_list_changes_by_its_tools_and_not_by_rules_or_limits() {
    let (upstream, token) = (upstream(), new_token());
    let config = |max: u64, hide: &[&str]| {
        let policy = json!({ "version": "1", "default": "allow", "hide": hide, "tools": {
            "echo": { "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant" }] } } });
        format!(
            "reload_interval: 200ms\nservers:\n  s:\n    url: {}\n{}",
            upstream.url(),
            sections(&inline("p", &policy), &[("g", &token, "p")])
        )
    };
    let gate = Gate::start(&config(1, &[]));
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let mut stream = open(gate.address);
    stream
        .write_all(&client.bytes("GET", &[("Accept", "text/event-stream")], b""))
        .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    gate.rewrite(&config(2, &[]));
    eventually("the new limit is in force", || {
        gate.metrics().contains("tollgate_view_revision 2")
    });
    gate.rewrite(&config(2, &["img2img"]));
    eventually("the new list is in force", || {
        gate.metrics().contains("tollgate_view_revision 3")
    });
    client.request("DELETE", &[], b"");
    let mut seen = Vec::new();
    while let Some(chunk) = read_chunk(&mut reader) {
        seen.extend(chunk);
    }
    let seen = String::from_utf8(seen).unwrap();
    assert_eq!(seen.matches("list_changed").count(), 1, "{seen}");
}

#[test]
fn a_legacy_stream_that_can_be_resumed_ends_without_an_answer_in_the_servers_place() {
    let server = Scripted::start(|head, message, stream| match message["method"].as_str() {
        Some("initialize") => reply(stream, "200 OK", "application/json", INITIALIZED),
        Some("tools/call") => reply(
            stream,
            "200 OK",
            "text/event-stream",
            "id: 7\nretry: 10\ndata:\n\n",
        ),
        _ if head.starts_with("GET") => {
            let result = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
            reply(
                stream,
                "200 OK",
                "text/event-stream",
                format!("id: 8\ndata: {result}\n\n"),
            );
        }
        _ => reply(stream, "202 Accepted", "application/json", ""),
    });
    let policy = json!({ "version": "1", "default": "allow", "tools": {
        "echo": { "limits": [{ "counter": "c", "window": "day", "max": 9, "scope": "grant" }] } } });
    let token = new_token();
    let gate = server.gate(&token, &policy, "");
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let first = client.legacy_call("echo", json!({}));
    assert_eq!(first.text(), "id: 7\nretry: 10\ndata:\n\n");
    let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", "7")];
    let rest = client.request("GET", &headers, b"");
    assert!(rest.text().contains(r#""content":[]"#), "{}", rest.text());
    let heads = server.heads.lock().unwrap().join("");
    assert!(
        heads.to_ascii_lowercase().contains("last-event-id: 7"),
        "{heads}"
    );
    let lines = gate.audit(2, |line| {
        line["method"] == "tools/call" || line["method"] == "notifications/initialized"
    });
    assert!(
        lines.iter().all(|line| line["end"] == "complete"),
        "{lines:?}"
    );
}

#[test]
fn a_session_of_the_oldest_version_is_served_in_it() {
    let server = Scripted::start(|_, message, stream| match message["method"].as_str() {
        Some("initialize") => reply(
            stream,
            "200 OK",
            "application/json",
            INITIALIZED.replace("2025-11-25", "2024-11-05"),
        ),
        Some("tools/list") => reply(stream, "200 OK", "application/json", list(&message["id"])),
        Some(_) => reply(stream, "202 Accepted", "application/json", ""),
        None => reply(stream, "200 OK", "text/event-stream", ": c\n\n"),
    });
    let token = new_token();
    let gate = server.gate(&token, &hiding(), "");
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let version = ("MCP-Protocol-Version", "2024-11-05");
    let body = br#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let listed = client.request("POST", &[version], body);
    assert_eq!(listed.status, 200, "{}", listed.text());
    let accept = ("Accept", "text/event-stream");
    assert_eq!(client.request("GET", &[version, accept], b"").status, 200);
}

#[test]
fn a_refused_initialize_names_no_session() {
    for (status, body) in [
        ("400 Bad Request", "no"),
        ("503 Busy", ""),
        ("200 OK", ""),
        ("202 Accepted", ""),
    ] {
        let server = Scripted::start(move |_, _, stream| {
            reply(stream, status, "application/json", body);
        });
        let token = new_token();
        let gate = server.gate(&token, &hiding(), "");
        let mut client = gate.client("s", &token);
        let opened = client.initialize("2025-11-25");
        assert_eq!(opened.header("mcp-session-id"), None, "{status} {opened:?}");
    }
}

#[test]
fn a_batch_holds_no_more_of_a_reply_than_its_bound() {
    let server = Scripted::start(|_, message, stream| match message["method"].as_str() {
        Some("initialize") => reply(
            stream,
            "200 OK",
            "application/json",
            INITIALIZED.replace("2025-11-25", "2025-03-26"),
        ),
        Some("tools/call") => {
            let big = json!({ "jsonrpc": "2.0", "id": message["id"], "result": { "content": "x".repeat(3 << 20) } });
            reply(stream, "200 OK", "application/json", big.to_string());
        }
        _ => reply(stream, "202 Accepted", "application/json", ""),
    });
    let token = new_token();
    let gate = server.gate(&token, &hiding(), "bounds:\n  reply_bytes: 1MiB\n");
    let mut client = gate.client("s", &token);
    client.initialize("2025-03-26");
    let call =
        json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "echo" } });
    let answer = client.post(json!([call]).to_string().as_bytes());
    assert!(answer.body.len() < 2 << 20, "{} bytes", answer.body.len());
    assert_eq!(answer.message()["error"]["code"], -32603);
    assert_eq!(answer.message()["id"], 5);
}

#[test]
fn a_grant_that_expires_while_its_body_arrives_is_refused() {
    let (upstream, token) = (upstream(), new_token());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let expires = now.as_secs() + 4;
    let config = format!(
        "servers:\n  s:\n    url: {}\n{}",
        upstream.url(),
        sections(&inline("p", &hiding()), &[("g", &token, "p")])
    )
    .replace(
        "- id: g",
        &format!("- id: g\n    expires: {}", rfc3339(expires)),
    );
    let gate = Gate::start(&config);
    let client = gate.client("s", &token);
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "echo"),
    ];
    let body = Client::modern_body("tools/call", json!({ "name": "echo", "arguments": {} }));
    let bytes = client.bytes("POST", &headers, body.to_string().as_bytes());
    let mut stream = open(gate.address);
    let (most, last) = bytes.split_at(bytes.len() - 1);
    stream.write_all(most).unwrap();
    std::thread::sleep(Duration::from_millis(5_200));
    stream.write_all(last).unwrap();
    let answer = read_reply(&mut BufReader::new(stream)).unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(upstream.recorder().count("echo"), 0);
}

/// Seconds since 1970 as RFC 3339 (days to a date: Howard Hinnant's `civil_from_days`).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    let era = days / 146_097;
    let doe = days % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}
