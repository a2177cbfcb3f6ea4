//! Legacy sessions, over HTTP and stdio upstreams: mcp.md §2.

use crate::{harness::*, smuggling::loadtest_binary};
use loadtest::upstream::Running;
use serde_json::{Value, json};
use std::io::{BufReader, Write};

fn policy() -> String {
    inline(
        "p",
        &json!({ "version": "1", "default": "deny", "hide": ["delete_account"], "tools": { "echo": {}, "slow": {}, "progress": {} } }),
    )
}

/// The same gateway before the recording server over HTTP and over stdio.
fn both(token: &Token, test: impl Fn(&Gate, Client, Option<&Running>)) {
    let http = upstream();
    let gate = Gate::before(&http, &policy(), &[("g", token, "p")], "");
    test(&gate, gate.client("s", token), Some(&http));
    drop(gate);
    let server = format!(
        "servers:\n  s:\n    command: {}\n    args: [upstream, --stdio]\n",
        loadtest_binary().display()
    );
    let gate = Gate::start(&format!(
        "{server}{}",
        sections(&policy(), &[("g", token, "p")])
    ));
    test(&gate, gate.client("s", token), None);
}

#[test]
fn a_session_is_opened_used_and_ended() {
    both(&new_token(), |_, mut client, _| {
        let opened = client.initialize("2025-06-18");
        assert_eq!(opened.status, 200, "{}", opened.text());
        assert_eq!(opened.message()["result"]["protocolVersion"], "2025-06-18");
        let id = client.session.clone().unwrap();
        assert!(
            id.len() >= 32 && id.bytes().all(|b| b.is_ascii_graphic()),
            "{id}"
        );
        let listed = client.legacy("tools/list", json!({})).message();
        let names: Vec<_> = listed["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["name"].clone())
            .collect();
        assert!(
            names.contains(&json!("echo")) && !names.contains(&json!("delete_account")),
            "{names:?}"
        );
        assert_eq!(
            client.legacy_call("echo", json!({ "text": "hi" })).denial(),
            None
        );
        assert_eq!(
            client
                .legacy_call("delete_account", json!({}))
                .denial()
                .as_deref(),
            Some("hidden")
        );
        assert_eq!(client.request("DELETE", &[], b"").status, 204);
        assert_eq!(client.legacy_call("echo", json!({})).status, 404);
    });
}

#[test]
fn a_session_without_its_id_is_400_unknown_is_404_and_anothers_is_404() {
    let (upstream, a, b) = (upstream(), new_token(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("a", &a, "p"), ("b", &b, "p")], "");
    let mut alice = gate.client("s", &a);
    alice.initialize("2025-11-25");
    let bob = Client {
        session: alice.session.clone(),
        ..gate.client("s", &b)
    };
    assert_eq!(bob.legacy_call("echo", json!({})).status, 404);
    assert_eq!(bob.request("GET", &[], b"").status, 404);
    assert_eq!(bob.request("DELETE", &[], b"").status, 404);
    assert_eq!(
        gate.client("s", &a).legacy_call("echo", json!({})).status,
        400
    );
    let lost = Client {
        session: Some("guess".into()),
        ..alice.clone()
    };
    assert_eq!(lost.legacy_call("echo", json!({})).status, 404);
    assert_eq!(alice.legacy_call("echo", json!({})).status, 200);
    assert_eq!(upstream.recorder().count("echo"), 1);
}

#[test]
fn an_initialize_for_a_version_without_sessions_gets_one_with_them() {
    both(&new_token(), |_, mut client, http| {
        let opened = client.initialize("2026-07-28");
        assert_eq!(
            opened.message()["result"]["protocolVersion"],
            "2025-11-25",
            "{}",
            opened.text()
        );
        assert_eq!(client.legacy_call("echo", json!({})).status, 200);
        if let Some(http) = http {
            // A server that echoes whatever it is sent must not see what it cannot keep.
            let sent = &http.recorder().requests()[0].body;
            assert!(sent.contains(r#""protocolVersion":"2025-11-25""#), "{sent}");
        }
    });
}

#[test]
fn an_upstream_that_forgot_the_session_is_passed_on_as_404() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], "");
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    upstream.forget_sessions();
    assert_eq!(client.legacy_call("echo", json!({})).status, 404);
    assert_eq!(client.initialize("2025-11-25").status, 200);
    assert_eq!(client.legacy_call("echo", json!({})).status, 200);
}

#[test]
fn a_batch_is_judged_element_by_element_in_its_one_version_and_refused_elsewhere() {
    both(&new_token(), |_, mut client, http| {
        let call = |id: u32, tool: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": {} } });
        let batch =
            json!([call(1, "echo"), call(2, "delete_account"), call(3, "echo")]).to_string();
        client.initialize("2025-11-25");
        assert_eq!(client.post(batch.as_bytes()).status, 400);
        client.initialize("2025-03-26");
        let reply = client.post(batch.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answers: Vec<Value> = reply
            .messages()
            .into_iter()
            .filter(|m| m.get("id").is_some())
            .collect();
        let ids: Vec<_> = answers.iter().map(|m| m["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, [1, 2, 3]);
        let codes: Vec<_> = answers
            .iter()
            .map(|m| m["result"]["_meta"]["dev.tollgate/denial"]["code"].as_str())
            .collect();
        assert_eq!(codes, [None, Some("hidden"), None]);
        if let Some(http) = http {
            assert_eq!(http.recorder().count("echo"), 2);
            assert_eq!(http.recorder().count("delete_account"), 0);
        }
        let notes =
            json!([{ "jsonrpc": "2.0", "method": "notifications/initialized" }]).to_string();
        assert_eq!(client.post(notes.as_bytes()).status, 202);
        let initialize =
            json!([{ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }])
                .to_string();
        let inside = client.post(initialize.as_bytes());
        assert!(
            inside.status == 400 || inside.message()["error"].is_object(),
            "{}",
            inside.text()
        );
    });
}

#[test]
fn progress_streams_as_it_comes() {
    both(&new_token(), |gate, mut client, _| {
        client.initialize("2025-11-25");
        let body = json!({ "jsonrpc": "2.0", "id": "p-1", "method": "tools/call", "params": {
            "name": "progress", "arguments": { "steps": 3, "delay_ms": 200, "ms": 200 }, "_meta": { "progressToken": "tok" } } });
        let mut stream = open(gate.address);
        stream
            .write_all(&client.bytes("POST", &[], body.to_string().as_bytes()))
            .unwrap();
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader).unwrap();
        assert_eq!(head.status, 200);
        assert!(
            head.header("content-type")
                .unwrap()
                .starts_with("text/event-stream")
        );
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        let mut seen = Vec::new();
        while let Some(chunk) = read_chunk(&mut reader) {
            seen.push(String::from_utf8_lossy(&chunk).into_owned());
        }
        let text = seen.concat();
        assert_eq!(text.matches("notifications/progress").count(), 3, "{text}");
        assert!(seen.len() >= 4, "buffered: {seen:?}");
        assert!(text.contains(r#""id":"p-1""#), "{text}");
    });
}

#[test]
fn leaving_is_not_cancelling_in_a_session() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], "");
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    assert_eq!(client.legacy_call("echo", json!({})).status, 200);
    assert_eq!(
        client
            .request("GET", &[("MCP-Protocol-Version", "2026-07-28")], b"")
            .status,
        405
    );
}

#[test]
fn a_servers_notification_reaches_the_get_stream_once() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], "");
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let mut stream = open(gate.address);
    stream
        .write_all(&client.bytes("GET", &[("Accept", "text/event-stream")], b""))
        .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    eventually("the stream stands", || upstream.push_tools_changed() > 0);
    let heard = std::iter::from_fn(|| read_chunk(&mut reader));
    let heard: Vec<String> = heard
        .take(8)
        .map(|chunk| String::from_utf8(chunk).unwrap())
        .take_while(|chunk| !chunk.contains("list_changed"))
        .collect();
    assert!(
        heard.iter().all(|chunk| chunk.starts_with(':')),
        "{heard:?}"
    );
}

#[test]
fn a_modern_request_to_a_stdio_server_is_sent_to_initialize() {
    let token = new_token();
    let server = format!(
        "servers:\n  s:\n    command: {}\n    args: [upstream, --stdio]\n",
        loadtest_binary().display()
    );
    let gate = Gate::start(&format!(
        "{server}{}",
        sections(&policy(), &[("g", &token, "p")])
    ));
    let reply = gate
        .client("s", &token)
        .modern("server/discover", json!({}));
    assert_eq!(reply.status, 400);
    assert!(!(-32099..=-32020).contains(&reply.message()["error"]["code"].as_i64().unwrap()));
}
