//! Tokens: who is let in, and what of them travels.

use crate::harness::*;
use serde_json::json;

fn allow() -> String {
    inline(
        "all",
        &json!({ "version": "1", "default": "allow", "tools": {} }),
    )
}

#[test]
fn wrong_expired_and_revoked_tokens_are_401_and_another_servers_is_403_before_a_body_is_read() {
    let (upstream, good, old, gone, other) = (
        upstream(),
        new_token(),
        new_token(),
        new_token(),
        new_token(),
    );
    let config = format!(
        "servers:\n  s: {{ url: {url} }}\n  t: {{ url: {url} }}\npolicies:\n{}grants:\n\
         \x20 - {{ id: good, token_sha256: {}, servers: {{ s: all }} }}\n\
         \x20 - {{ id: old, token_sha256: {}, expires: 2020-01-01T00:00:00Z, servers: {{ s: all }} }}\n\
         \x20 - {{ id: gone, token_sha256: {}, revoked: true, servers: {{ s: all }} }}\n\
         \x20 - {{ id: other, token_sha256: {}, servers: {{ t: all }} }}\n",
        allow(),
        good.sha256,
        old.sha256,
        gone.sha256,
        other.sha256,
        url = upstream.url()
    );
    let gate = Gate::start(&config);
    let unknown = new_token();
    for (token, status) in [(&old, 401), (&gone, 401), (&unknown, 401), (&other, 403)] {
        // Announced and never sent: an answer can only come before the body is read.
        let reply = gate
            .client("s", token)
            .request("POST", &[("Content-Length", "1000")], b"");
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
        assert!(
            !reply
                .header("www-authenticate")
                .unwrap_or_default()
                .contains("resource_metadata")
        );
    }
    for header in ["", "Basic abc", "Bearer", "Bearer tg_short", "tg_x"] {
        let line = if header.is_empty() {
            String::new()
        } else {
            format!("Authorization: {header}\r\n")
        };
        let bytes = format!(
            "POST /mcp/s HTTP/1.1\r\nHost: {}\r\n{line}Content-Length: 0\r\n\r\n",
            gate.address
        );
        assert_eq!(send(gate.address, bytes).status, 401, "{header:?}");
    }
    let in_query = format!(
        "POST /mcp/s?token={} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        good.text
    );
    assert!(send(gate.address, in_query.replace("Host: x", "Host: localhost")).status == 401);
    assert_eq!(gate.client("s", &good).call("echo", json!({})).status, 200);
    assert_eq!(
        gate.client("none", &good).call("echo", json!({})).status,
        404
    );
    assert!(!gate.log().contains(&good.text), "a token was logged");
    assert_eq!(upstream.recorder().count("echo"), 1);
}

#[test]
fn failed_tokens_are_limited_by_source_address_and_a_good_one_elsewhere_is_not_touched() {
    let (upstream, good) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &allow(),
        &[("g", &good, "all")],
        "bounds:\n  failed_tokens_minute: 3\n",
    );
    let wrong = gate.client("s", &new_token());
    let statuses: Vec<u16> = (0..5)
        .map(|_| wrong.call("echo", json!({})).status)
        .collect();
    // A minute may end in between; then the count begins anew.
    if statuses != [401, 401, 401, 429, 429] {
        let again: Vec<u16> = (0..5)
            .map(|_| wrong.call("echo", json!({})).status)
            .collect();
        assert!(again.contains(&429), "{statuses:?} {again:?}");
    }
    assert_eq!(
        gate.client("s", &good).call("echo", json!({})).status,
        200,
        "a right token was held up"
    );
    let blocked = wrong.call("echo", json!({}));
    assert!(blocked.status == 401 || blocked.header("retry-after").is_some());
}

#[test]
fn credentials_cookies_and_hop_by_hop_headers_never_travel() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "all")], "");
    let client = gate.client("s", &token);
    let body =
        Client::modern_body("tools/call", json!({ "name": "echo", "arguments": {} })).to_string();
    let reply = client.request(
        "POST",
        &[
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "echo"),
            ("Cookie", "secret=1"),
            ("X-Api-Key", "secret"),
            ("Proxy-Authorization", "Basic secret"),
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "secret"),
            ("Mcp-Session-Id", "stale"),
            ("Last-Event-ID", "9"),
        ],
        body.as_bytes(),
    );
    assert_eq!(reply.status, 200, "{}", reply.text());
    let request = upstream.recorder().requests().pop().unwrap();
    for name in [
        "authorization",
        "cookie",
        "x-api-key",
        "proxy-authorization",
        "x-hop",
        "mcp-session-id",
        "last-event-id",
    ] {
        assert_eq!(request.header(name), None, "{name} travelled");
    }
    let accept = request.header("accept").unwrap();
    assert!(accept.contains("application/json") && accept.contains("text/event-stream"));
}

#[test]
fn a_grant_without_a_policy_is_denied_every_call() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "")], "");
    let client = gate.client("s", &token);
    assert_eq!(
        client.call("echo", json!({})).denial().as_deref(),
        Some("no_policy")
    );
    assert!(client.modern("tools/list", json!({})).message()["error"]["code"] == -32010);
    assert_eq!(client.modern("server/discover", json!({})).status, 200);
    assert!(upstream.recorder().calls().is_empty());
}

#[test]
fn a_foreign_origin_is_refused_and_a_local_one_is_not() {
    let (upstream, token) = (upstream(), new_token());
    let more = "origins: [\"https://app.example.com\"]\nhosts: [gate.example.com]\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "all")], more);
    let client = gate.client("s", &token);
    let body = Client::modern_body("server/discover", json!({})).to_string();
    for (origin, status) in [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost:3000", 200),
        ("https://app.example.com", 200),
        ("https://gate.example.com", 200),
    ] {
        let headers = [
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "server/discover"),
            ("Origin", origin),
        ];
        let reply = client.request("POST", &headers, body.as_bytes());
        assert_eq!(reply.status, status, "{origin}: {}", reply.text());
    }
}
