//! Bounds on how long: sessions, servers that do not answer or cannot be reached, a drain, a client that left.

use crate::{edges::allow, harness::*};
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::Socket;
use std::{
    io::{BufReader, Read, Write},
    time::{Duration, Instant},
};

#[test]
fn a_session_ends_when_it_is_idle_but_not_while_a_stream_of_it_stands() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  session_idle: 1s\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let (mut idle, mut watching) = (gate.client("s", &token), gate.client("s", &token));
    assert_eq!(idle.initialize("2025-11-25").status, 200);
    assert_eq!(watching.initialize("2025-11-25").status, 200);
    let mut stream = open(gate.address);
    let get = watching.bytes("GET", &[("Accept", "text/event-stream")], b"");
    stream.write_all(&get).unwrap();
    assert_eq!(read_head(&mut BufReader::new(&stream)).unwrap().status, 200);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(idle.legacy_call("echo", json!({})).status, 404);
    assert_eq!(watching.legacy_call("echo", json!({})).status, 200);
    // Looking at the metric keeps nothing alive.
    eventually("the metric shows the one that is left", || {
        gate.metrics().contains("tollgate_sessions 1\n")
    });
    drop(stream);
    eventually("the other ends, too", || {
        gate.metrics().contains("tollgate_sessions 0\n")
    });
    assert_eq!(watching.legacy_call("echo", json!({})).status, 404);
}

#[test]
fn a_session_ends_after_its_life_however_busy_it_is() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  session_life: 2s\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let mut client = gate.client("s", &token);
    let began = Instant::now();
    assert_eq!(client.initialize("2025-11-25").status, 200);
    let mut stream = open(gate.address);
    let get = client.bytes("GET", &[("Accept", "text/event-stream")], b"");
    stream.write_all(&get).unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    eventually("it ends", || {
        client.legacy_call("echo", json!({})).status == 404
    });
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    while read_chunk(&mut reader).is_some() {}
    assert_eq!(client.initialize("2025-11-25").status, 200);
}

#[test]
fn a_call_ends_at_its_timeout_which_a_server_may_set_itself_and_stays_charged() {
    let (upstream, token) = (upstream(), new_token());
    let limit = json!([{ "counter": "c", "window": "day", "max": 9, "scope": "grant" }]);
    let policy = json!({ "version": "1", "default": "allow", "all_tools": { "limits": limit }, "tools": {} });
    let config = format!(
        "servers:\n  s: {{ url: {0} }}\n  t: {{ url: {0}, timeout: 60s }}\npolicies:\n{1}grants:\n\
         \x20 - {{ id: g, token_sha256: {2}, servers: {{ s: p, t: p }} }}\nbounds:\n  upstream_timeout: 1s\n",
        upstream.url(),
        inline("p", &policy),
        token.sha256
    );
    let gate = Gate::start(&config);
    let (client, patient) = (gate.client("s", &token), gate.client("t", &token));
    let began = Instant::now();
    let late = client.call("slow", json!({ "ms": 60_000 }));
    assert_eq!(late.status, 504, "{}", late.text());
    assert_eq!(late.message()["error"]["code"], -32603);
    // Progress keeps nobody's call alive.
    let arguments = json!({ "steps": 600, "ms": 100 });
    let params =
        json!({ "name": "progress", "arguments": arguments, "_meta": { "progressToken": 1 } });
    let late = client.modern("tools/call", params);
    assert_eq!(late.message()["error"]["code"], -32603, "{}", late.text());
    assert!(late.messages().len() > 1);
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(patient.call("slow", json!({ "ms": 1500 })).denial(), None);
    let lines = gate.audit(3, |line| line["tool"].is_string());
    let ends: Vec<_> = lines.iter().map(|line| &line["code"]).collect();
    assert_eq!(
        ends,
        [
            &json!("upstream_timeout"),
            &json!("upstream_timeout"),
            &Value::Null
        ]
    );
    let charged = |line: &Value| line["limits"][0]["settled"] == "charged";
    assert!(lines.iter().all(charged), "{lines:#?}");
}

#[test]
fn a_drain_cuts_what_outlives_it_and_writes_that_down() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  drain_delay: 0s\n  drain_timeout: 1s\n";
    let mut gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let client = gate.client("s", &token);
    let mut streams: Vec<_> = [
        ("slow", json!({ "ms": 60_000 })),
        ("progress", json!({ "steps": 600, "ms": 100 })),
    ]
    .into_iter()
    .map(|(tool, arguments)| {
        let params =
            json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": 1 } });
        let headers = [
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", tool),
        ];
        let body = Client::modern_body("tools/call", params).to_string();
        let mut stream = open(gate.address);
        stream
            .write_all(&client.bytes("POST", &headers, body.as_bytes()))
            .unwrap();
        stream
    })
    .collect();
    eventually("they are on their way", || {
        upstream.recorder().requests().len() == 2
    });
    let began = Instant::now();
    gate.signal(Signal::TERM);
    for stream in &mut streams {
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        assert!(!rest.contains("\"result\""), "{rest}");
    }
    assert_eq!(gate.wait(), Some(0));
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(15)).contains(&took),
        "{took:?}"
    );
    let lines = gate.audit(2, |line| line["tool"].is_string());
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line["end"] != "complete"),
        "{lines:#?}"
    );
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_has_its_line_too() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], "");
    let client = gate.client("s", &token);
    let head = client.bytes("POST", &[("Content-Length", "1000")], b"{");
    for reset in [false, true] {
        let stream = open(gate.address);
        (&stream).write_all(&head).unwrap();
        // The gateway has read the head once a second request cannot be on its way before it.
        std::thread::sleep(Duration::from_millis(200));
        if reset {
            let socket = Socket::from(stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    let lines = gate.audit(2, |line| line["grant"] == "g");
    assert!(lines.iter().all(|line| line["status"] != 200), "{lines:#?}");
    assert_eq!(upstream.recorder().requests().len(), 0);
}
