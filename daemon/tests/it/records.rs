//! The audit trail: one line a request, keys and never values, and rejections that cannot drown it.

use crate::harness::*;
use serde_json::json;

#[test]
fn every_identified_request_has_one_line_and_no_secret_is_in_it() {
    let (upstream, token) = (upstream(), new_token());
    let policy = json!({ "version": "1", "default": "deny", "tools": { "echo": { "limits": [
        { "counter": "c", "window": "day", "max": 2, "scope": "grant" }] } } });
    let gate = Gate::before(&upstream, &inline("p", &policy), &[("g", &token, "p")], "");
    let mut client = gate.client("s", &token);
    client.call("echo", json!({ "text": "very private", "card": "4111" }));
    client.call("echo", json!({}));
    client.call("echo", json!({}));
    client.call("unlisted", json!({}));
    client.post(b"{]");
    client.modern("tools/list", json!({}));
    client.initialize("2025-11-25");
    client.legacy_call(&"t".repeat(500), json!({}));
    client.request("DELETE", &[], b"");
    let lines = gate.audit(10, |line| line["grant"] == "g");
    assert_eq!(lines.len(), 10, "{lines:#?}");
    let first = &lines[0];
    for (key, value) in [
        ("server", json!("s")),
        ("method", json!("tools/call")),
        ("tool", json!("echo")),
        ("decision", json!("allow")),
        ("status", json!(200)),
        ("end", json!("complete")),
    ] {
        assert_eq!(first[key], value, "{key}: {first}");
    }
    let text = lines.iter().map(ToString::to_string).collect::<String>();
    assert!(
        text.contains("card") && text.contains("text"),
        "argument keys are recorded: {text}"
    );
    assert!(
        !text.contains("very private") && !text.contains("4111") && !text.contains(&token.text),
        "{text}"
    );
    assert!(
        !text.contains(&client.session.clone().unwrap()),
        "a session id is half a credential"
    );
    assert!(!text.contains(&"t".repeat(200)), "a tool's name is bounded");
    let codes: Vec<_> = lines
        .iter()
        .filter_map(|line| line["code"].as_str())
        .collect();
    assert!(
        codes.contains(&"limit") && codes.contains(&"default"),
        "{codes:?}"
    );
    for line in lines.iter().filter(|line| line["method"] == "tools/call") {
        assert!(
            line["decide_us"].as_u64() > Some(0),
            "denied or not: {line}"
        );
    }
    let ids: std::collections::HashSet<_> = lines
        .iter()
        .map(|line| line["request"].to_string())
        .collect();
    assert_eq!(ids.len(), 10);
}

#[test]
fn rejections_are_sampled_and_the_rest_counted() {
    let (upstream, token) = (upstream(), new_token());
    let policy = json!({ "version": "1", "default": "allow", "tools": {} });
    let more = "bounds:\n  failed_tokens_minute: 1000\n";
    let gate = Gate::before(
        &upstream,
        &inline("p", &policy),
        &[("g", &token, "p")],
        more,
    );
    let wrong = gate.client("s", &new_token());
    (0..60).for_each(|_| assert_eq!(wrong.call("echo", json!({})).status, 401));
    assert_eq!(gate.client("s", &token).call("echo", json!({})).status, 200);
    eventually("all 60 are accounted for", || {
        let lines = gate.audit(1, |line| line["grant"].is_null());
        let suppressed: u64 = lines
            .iter()
            .filter_map(|line| line["suppressed"].as_u64())
            .sum();
        let written = lines
            .iter()
            .filter(|line| line["suppressed"].is_null())
            .count() as u64;
        suppressed + written == 60 && suppressed > 0
    });
}

#[test]
fn metrics_count_what_happened_with_labels_of_the_configuration_alone() {
    let (upstream, token) = (upstream(), new_token());
    let policy = json!({ "version": "1", "default": "deny", "tools": { "echo": {} } });
    let gate = Gate::before(&upstream, &inline("p", &policy), &[("g", &token, "p")], "");
    let client = gate.client("s", &token);
    (0..3).for_each(|_| drop(client.call("echo", json!({}))));
    client.call("sneaky_label", json!({}));
    gate.client("nowhere", &token).call("echo", json!({}));
    eventually("the counts stand", || {
        let text = gate.metrics();
        let count = |wanted: &[&str]| {
            text.lines().any(|line| {
                line.starts_with("tollgate_requests_total{")
                    && wanted.iter().all(|w| line.contains(w))
            })
        };
        count(&[r#"server="s""#, r#"decision="allow""#, " 3"])
            && count(&[r#"decision="deny""#, r#"code="default""#, " 1"])
    });
    assert!(!gate.metrics().contains("sneaky_label") && !gate.metrics().contains("nowhere"));
}
