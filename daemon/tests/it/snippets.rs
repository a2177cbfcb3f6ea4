//! The five published snippets, as shipped, enforced to the exact call; and an Intercept document beside them.

use crate::harness::*;
use serde_json::json;
use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn shipped(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../config/policies")
        .join(name)
}

/// A minute's window must not end in the middle of the counting.
fn wait_for_a_fresh_minute() {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        % 60;
    if seconds > 50 {
        std::thread::sleep(Duration::from_secs(61 - seconds));
    }
}

#[test]
fn each_of_the_five_snippets_admits_30_calls_a_minute_and_not_one_more() {
    let upstream = upstream();
    let tools = [
        "flux_edit_image",
        "flux_generate_image",
        "generate_image",
        "img2img",
        "inpaint",
    ];
    let (mut policies, mut grants) = (String::new(), String::new());
    let tokens: Vec<Token> = tools.iter().map(|_| new_token()).collect();
    for (tool, token) in tools.iter().zip(&tokens) {
        let file = ["yaml", "json"].map(|kind| shipped(&format!("{tool}.{kind}")));
        let file = file.iter().find(|file| file.exists()).unwrap();
        policies.push_str(&format!("  {tool}:\n    file: {}\n", file.display()));
        grants.push_str(&format!(
            "  - {{ id: {tool}, token_sha256: \"{}\", servers: {{ s: {tool} }} }}\n",
            token.sha256
        ));
    }
    let servers = format!("servers:\n  s:\n    url: {}\n", upstream.url());
    let gate = Gate::start(&format!("{servers}policies:\n{policies}grants:\n{grants}"));
    for (tool, token) in tools.iter().zip(&tokens) {
        wait_for_a_fresh_minute();
        // The catalogue counts an agent's session, the native form a grant: a session serves both.
        let mut client = gate.client("s", token);
        client.initialize("2025-11-25");
        let arguments =
            json!({ "prompt": "a gate at dusk", "image_url": "https://example.com/a.png" });
        let denials: Vec<_> = (0..33)
            .map(|_| client.legacy_call(tool, arguments.clone()))
            .collect();
        let admitted = denials
            .iter()
            .filter(|reply| reply.denial().is_none())
            .count();
        assert_eq!(admitted, 30, "{tool}");
        assert_eq!(denials[30].denial().as_deref(), Some("limit"), "{tool}");
        let text = denials[30].message()["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            text.starts_with("[POLICY DENIED] ") && text.contains("Try again in "),
            "{text}"
        );
        assert_eq!(upstream.recorder().count(tool), 30, "{tool}");
    }
}

#[test]
fn a_session_limit_cannot_be_evaded_by_starting_over() {
    let (upstream, token) = (upstream(), new_token());
    let policy = json!({ "version": "1", "default": "deny", "tools": { "echo": { "limits": [
        { "counter": "c", "window": "day", "max": 2, "scope": "session" }] } } });
    let more = "bounds:\n  sessions_grant: 2\n";
    let gate = Gate::before(
        &upstream,
        &inline("p", &policy),
        &[("g", &token, "p")],
        more,
    );
    for _ in 0..5 {
        let mut client = gate.client("s", &token);
        client.initialize("2025-11-25");
        (0..3).for_each(|_| drop(client.legacy_call("echo", json!({}))));
        client.request("DELETE", &[], b"");
    }
    // Two sessions may be open at once, so two sessions' worth is all that five get.
    assert_eq!(upstream.recorder().count("echo"), 4);
}

#[test]
fn an_intercept_document_is_enforced_as_its_author_meant_it() {
    let (upstream, token) = (upstream(), new_token());
    let file = format!("  p:\n    file: {}\n", shipped("payments.yaml").display());
    let gate = Gate::before(&upstream, &file, &[("g", &token, "p")], "");
    let client = gate.client("s", &token);
    let charge = |amount: u64, currency: &str| {
        client.call(
            "create_charge",
            json!({ "amount": amount, "currency": currency }),
        )
    };
    assert_eq!(charge(100, "usd").denial(), None);
    assert_eq!(charge(100, "gbp").denial().as_deref(), Some("rule"));
    let over = charge(50_001, "usd");
    assert!(
        over.text().contains("Single charge cannot exceed $500.00"),
        "{}",
        over.text()
    );
    assert_eq!(
        client
            .call("delete_customer", json!({}))
            .denial()
            .as_deref(),
        Some("hidden")
    );
    let admitted = (0..25)
        .filter(|_| charge(50_000, "usd").denial().is_none())
        .count();
    assert_eq!(
        admitted, 19,
        "100 + 19 × 50,000 is all that fits in a day of 1,000,000"
    );
}
