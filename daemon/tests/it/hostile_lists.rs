//! Whatever a server does to the reply of `tools/list`, no client learns the name of a hidden tool.

use crate::{harness::*, smuggling::loadtest_binary};
use clap::ValueEnum as _;
use loadtest::upstream::{Encoding, Fault, Options, Reply as Form, Upstream};
use serde_json::json;
use std::{
    io::{BufReader, Read as _, Write as _},
    time::Instant,
};

/// Hidden, and first on the list of a server that has only these two.
const HIDDEN: &str = "delete_account";
const TOOLS: [&str; 2] = [HIDDEN, "echo"];

fn policy() -> String {
    let policy = json!({ "version": "1", "default": "allow", "hide": [HIDDEN] });
    inline("p", &policy)
}

fn bounds() -> &'static str {
    "bounds:\n  upstream_timeout: 500ms\n  reply_bytes: 1MiB\n  sessions_new_minute: 1000\n"
}

/// Everything that comes until the connection ends.
fn everything(client: &Client, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut stream = open(client.address);
    let headers = [headers, &[("Connection", "close")]].concat();
    let _ = stream.write_all(&client.bytes("POST", &headers, body));
    let mut bytes = Vec::new();
    // A flood that is passed on as it comes must end with the call's time.
    let _ = BufReader::new(stream)
        .take(64 << 20)
        .read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn name(fault: Fault) -> String {
    fault
        .to_possible_value()
        .map(|v| v.get_name().to_owned())
        .unwrap_or_default()
}

fn every_fault_over_http(reply: Form, encoding: Encoding) {
    let upstream = Upstream::start(Options {
        reply,
        encoding,
        tools: TOOLS.map(String::from).to_vec(),
        ..Options::default()
    })
    .unwrap();
    let token = new_token();
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], bounds());
    let mut session = gate.client("s", &token);
    session.initialize("2025-11-25");
    let modern = gate.client("s", &token);
    let modern_headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/list"),
    ];
    let modern_body = Client::modern_body("tools/list", json!({})).to_string();
    let legacy_body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for fault in Fault::value_variants() {
        upstream.fault("tools/list", Some(*fault));
        for (client, headers, body) in [
            (&modern, &modern_headers[..], modern_body.as_str()),
            (&session, &[][..], legacy_body),
        ] {
            let began = Instant::now();
            let seen = everything(client, headers, body.as_bytes());
            let took = began.elapsed();
            assert!(took.as_secs() < 10, "{fault:?} took {took:?}");
            assert!(!seen.contains(HIDDEN), "{fault:?}: {seen}");
        }
        upstream.fault("tools/list", None);
        let mut healthy = String::new();
        eventually("the server is judged again", || {
            healthy = modern.modern("tools/list", json!({})).text();
            healthy.contains("\"echo\"")
        });
        assert!(!healthy.contains(HIDDEN), "after {fault:?}: {healthy}");
    }
}

#[test]
fn no_fault_in_a_json_list_shows_a_hidden_tool() {
    every_fault_over_http(Form::Json, Encoding::Identity);
}

#[test]
fn no_fault_in_a_list_of_events_shows_a_hidden_tool() {
    every_fault_over_http(Form::Sse, Encoding::Identity);
}

#[test]
fn no_fault_in_a_list_over_stdio_shows_a_hidden_tool() {
    let token = new_token();
    let binary = loadtest_binary();
    let mut servers = serde_json::Map::new();
    let mut bindings = serde_json::Map::new();
    for fault in Fault::value_variants() {
        let fault = name(*fault);
        let args = [
            "upstream",
            "--stdio",
            "--tools",
            &TOOLS.join(","),
            "--fault",
            &format!("tools/list={fault}"),
        ];
        servers.insert(fault.clone(), json!({ "command": binary, "args": args }));
        bindings.insert(fault, json!("p"));
    }
    let grant = json!({ "id": "g", "token_sha256": token.sha256, "servers": bindings });
    let servers = json!(servers);
    let gate = Gate::start(&format!(
        "servers: {servers}\npolicies:\n{}grants: [{grant}]\n{}",
        policy(),
        bounds()
    ));
    for fault in Fault::value_variants() {
        let mut client = gate.client(&name(*fault), &token);
        client.initialize("2025-11-25");
        let began = Instant::now();
        let seen = everything(
            &client,
            &[],
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        );
        assert!(began.elapsed().as_secs() < 10, "{fault:?}");
        assert!(!seen.contains(HIDDEN), "{fault:?}: {seen}");
        client.request("DELETE", &[], b"");
    }
}
