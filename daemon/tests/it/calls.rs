//! Calls: denials in the specified words, limits to the exact call, refunds, two grants that do not touch each other.

use crate::harness::*;
use serde_json::{Value, json};

fn limited(max: u64, refund: &[&str]) -> Value {
    json!({ "version": "1", "default": "deny", "hide": ["delete_account"], "tools": {
        "echo": { "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant", "on_deny": "Enough for today" }] },
        "reject": { "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant" }] },
        "fail": { "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant", "refund_on": refund }] },
        "http_status": { "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant" }] },
        "slow": { "limits": [{ "max_in_flight": 1, "scope": "grant", "on_deny": "One at a time" }] },
        "create_charge": {
            "require": [{ "conditions": [{ "path": "args.currency", "op": "in", "value": ["usd", "eur"] }], "on_deny": "USD or EUR only" }],
            "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 50000 }], "on_deny": "Over $500" }],
            "limits": [{ "counter": "spend", "window": "month", "max": 60000, "scope": "grant", "increment_from": "args.amount" }] }
    } })
}

#[test]
fn a_limit_admits_exactly_max_calls_for_each_grant() {
    let (upstream, a, b) = (upstream(), new_token(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(5, &[])),
        &[("a", &a, "p"), ("b", &b, "p")],
        "",
    );
    let (alice, bob) = (gate.client("s", &a), gate.client("s", &b));
    let admitted = (0..9)
        .filter(|_| alice.call("echo", json!({})).denial().is_none())
        .count();
    assert_eq!(admitted, 5);
    let denied = alice.call("echo", json!({}));
    assert_eq!(denied.status, 200);
    let retry: u64 = denied.header("retry-after").unwrap().parse().unwrap();
    let message = denied.message();
    assert_eq!(message["id"], 1);
    assert_eq!(message["result"]["isError"], true);
    assert_eq!(message["result"]["resultType"], "complete");
    let text = message["result"]["content"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("[POLICY DENIED] Enough for today. Try again in "),
        "{text}"
    );
    let detail = &message["result"]["_meta"]["dev.tollgate/denial"];
    assert_eq!(detail["code"], "limit");
    assert_eq!(detail["rule"], "/tools/echo/limits/c");
    assert_eq!(
        (detail["max"].as_u64(), detail["remaining"].as_u64()),
        (Some(5), Some(0))
    );
    assert!(detail["retryAfterMs"].as_u64().unwrap() <= retry * 1000);
    assert_eq!(detail["requestId"].as_str().unwrap().len(), 32);
    assert_eq!(
        (0..6)
            .filter(|_| bob.call("echo", json!({})).denial().is_none())
            .count(),
        5
    );
    assert_eq!(upstream.recorder().count("echo"), 10);
}

#[test]
fn eight_clients_at_once_get_exactly_max_between_them() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(100, &[])),
        &[("g", &token, "p")],
        "",
    );
    let client = gate.client("s", &token);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| drop(client.call("echo", json!({})))));
        }
    });
    assert_eq!(upstream.recorder().count("echo"), 100);
}

#[test]
fn a_failure_of_any_length_is_refunded_as_it_passes() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(2, &["tool_error"])),
        &[("g", &token, "p")],
        "",
    );
    let client = gate.client("s", &token);
    // With escapes in it, and as long as many reads of a socket.
    let long = "it \"failed\"\n世界\u{1f600} ".repeat(12_000);
    for _ in 0..4 {
        let reply = client.call("fail", json!({ "message": long }));
        assert_eq!(reply.message()["result"]["isError"], true);
        assert_eq!(reply.message()["result"]["content"][0]["text"], long);
    }
    // What did not fail stays charged.
    for _ in 0..2 {
        let reply = client.call("echo", json!({ "text": long }));
        assert_eq!(reply.denial(), None);
        assert_ne!(reply.message()["result"]["isError"], true);
    }
    assert_eq!(
        client.call("echo", json!({})).denial().as_deref(),
        Some("limit")
    );
}

#[test]
fn rejections_are_refunded_and_doubts_are_not() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(3, &["tool_error"])),
        &[("g", &token, "p")],
        "",
    );
    let client = gate.client("s", &token);
    // Each tool has a counter of its own.
    for _ in 0..3 {
        assert_eq!(
            client.call("reject", json!({})).message()["error"]["code"],
            -32602
        );
        assert_eq!(
            client.call("fail", json!({})).message()["result"]["isError"],
            true
        );
    }
    assert_eq!(
        client.call("reject", json!({})).denial(),
        None,
        "a rejection stayed charged"
    );
    for _ in 0..3 {
        assert_eq!(
            client.call("http_status", json!({ "status": 500 })).status,
            500
        );
    }
    assert_eq!(
        client
            .call("http_status", json!({ "status": 500 }))
            .denial()
            .as_deref(),
        Some("limit")
    );
    let lines = gate.audit(11, |line| line["tool"].is_string());
    let outcome = |tool: &str| {
        let mut all: Vec<_> = lines
            .iter()
            .filter(|line| line["tool"] == tool)
            .flat_map(|line| line["limits"].as_array().cloned().unwrap_or_default())
            .map(|limit| limit.to_string())
            .collect();
        all.dedup();
        all.join(" ")
    };
    assert!(
        outcome("reject").contains("refunded"),
        "{}",
        outcome("reject")
    );
    assert!(outcome("fail").contains("refunded"), "{}", outcome("fail"));
    assert!(
        outcome("http_status").contains("charged"),
        "{}",
        outcome("http_status")
    );
}

#[test]
fn a_dead_upstream_costs_no_quota_and_is_no_limit() {
    let token = new_token();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let servers = format!("servers:\n  s: {{ url: \"http://127.0.0.1:{port}/mcp\" }}\n");
    let gate = Gate::start(&format!(
        "{servers}{}",
        sections(&inline("p", &limited(3, &[])), &[("g", &token, "p")])
    ));
    for _ in 0..3 {
        let reply = gate.client("s", &token).call("echo", json!({}));
        assert_eq!(reply.status, 502, "{}", reply.text());
    }
}

#[test]
fn rules_hide_require_deny_and_spend() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(5, &[])),
        &[("g", &token, "p")],
        "",
    );
    let client = gate.client("s", &token);
    let denial = |tool: &str, arguments: Value| client.call(tool, arguments).denial();
    assert_eq!(
        denial("delete_account", json!({})).as_deref(),
        Some("hidden")
    );
    assert_eq!(denial("inpaint", json!({})).as_deref(), Some("default"));
    assert_eq!(
        denial("create_charge", json!({ "amount": 10, "currency": "gbp" })).as_deref(),
        Some("rule")
    );
    assert_eq!(
        denial(
            "create_charge",
            json!({ "amount": 50001, "currency": "usd" })
        )
        .as_deref(),
        Some("rule")
    );
    for bad in [
        json!(-5),
        json!("5"),
        json!(null),
        json!(0.0000001),
        json!(1e308),
    ] {
        let arguments = json!({ "amount": bad, "currency": "usd" });
        assert_eq!(
            denial("create_charge", arguments.clone()).as_deref(),
            Some("rule"),
            "{arguments}"
        );
    }
    assert_eq!(
        denial(
            "create_charge",
            json!({ "amount": 40000, "currency": "usd" })
        ),
        None
    );
    assert_eq!(
        denial(
            "create_charge",
            json!({ "amount": 20001, "currency": "usd" })
        )
        .as_deref(),
        Some("limit")
    );
    assert_eq!(
        denial(
            "create_charge",
            json!({ "amount": 20000, "currency": "eur" })
        ),
        None
    );
    assert_eq!(
        denial("create_charge", json!({ "amount": 1, "currency": "eur" })).as_deref(),
        Some("limit")
    );
    assert_eq!(upstream.recorder().count("create_charge"), 2);
}

#[test]
fn max_in_flight_frees_its_place_when_the_reply_ends() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(5, &[])),
        &[("g", &token, "p")],
        "",
    );
    let client = gate.client("s", &token);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| client.call("slow", json!({ "ms": 600 })));
        eventually("the slow call is on its way", || {
            !upstream.recorder().requests().is_empty()
        });
        let second = client.call("slow", json!({ "ms": 1 }));
        assert_eq!(
            second.denial().as_deref(),
            Some("limit"),
            "{}",
            second.text()
        );
        assert_eq!(second.header("retry-after"), None);
        assert_eq!(first.join().unwrap().denial(), None);
    });
    assert_eq!(client.call("slow", json!({ "ms": 1 })).denial(), None);
}

#[test]
fn a_modern_client_that_leaves_cancels_and_stays_charged() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &inline("p", &limited(1, &[])),
        &[("g", &token, "p")],
        "",
    );
    let client = gate.client("s", &token);
    {
        use std::io::Write;
        let body = Client::modern_body(
            "tools/call",
            json!({ "name": "slow", "arguments": { "ms": 5000 } }),
        )
        .to_string();
        let headers = [
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "slow"),
        ];
        let mut stream = open(gate.address);
        stream
            .write_all(&client.bytes("POST", &headers, body.as_bytes()))
            .unwrap();
        eventually("the call is on its way", || {
            !upstream.recorder().requests().is_empty()
        });
    }
    let line = &gate.audit(1, |line| line["tool"] == "slow")[0];
    assert_eq!(line["end"], "cancelled", "{line}");
    assert!(line["latency_us"].as_u64().unwrap() < 4_000_000, "{line}");
    assert_eq!(
        client.call("slow", json!({ "ms": 1 })).denial(),
        None,
        "the place in flight was not freed"
    );
}
