//! Hot reload: all or nothing, however the file is replaced, with counters kept and streams told.

use crate::harness::*;
use serde_json::{Value, json};
use std::io::{BufReader, Write};

fn policy(max: u64, tools: &[&str]) -> Value {
    let mut entries = serde_json::Map::new();
    entries.insert(
        "echo".into(),
        json!({ "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant" }] }),
    );
    tools
        .iter()
        .for_each(|tool| drop(entries.insert((*tool).into(), json!({}))));
    json!({ "version": "1", "default": "deny", "tools": entries })
}

fn config(upstream: &str, token: &Token, policies: &str) -> String {
    format!(
        "servers:\n  s: {{ url: \"{upstream}\" }}\nreload_interval: 200ms\n{}",
        sections(policies, &[("g", token, "p")])
    )
}

#[test]
fn a_changed_limit_takes_effect_with_its_counter_kept() {
    let (upstream, token) = (upstream(), new_token());
    let inlined = |max| config(&upstream.url(), &token, &inline("p", &policy(max, &[])));
    let gate = Gate::start(&inlined(2));
    let client = gate.client("s", &token);
    let admitted = || client.call("echo", json!({})).denial().is_none();
    assert_eq!((admitted(), admitted(), admitted()), (true, true, false));
    gate.rewrite(&inlined(4));
    eventually("the new max is in force", admitted);
    assert_eq!((admitted(), admitted()), (true, false));
    gate.rewrite(&inlined(1));
    eventually("the lower max is in force", || {
        gate.metrics().contains("tollgate_view_revision 3")
    });
    assert!(!admitted());
    assert_eq!(upstream.recorder().count("echo"), 4);
}

#[test]
fn an_invalid_file_keeps_the_old_view_says_why_and_shows_in_a_metric() {
    let (upstream, token) = (upstream(), new_token());
    let good = config(&upstream.url(), &token, &inline("p", &policy(9, &[])));
    let gate = Gate::start(&good);
    gate.rewrite(&good.replace("grants:", "grunts:"));
    eventually("the log says why", || gate.log().contains("grunts"));
    assert!(
        gate.metrics()
            .contains("tollgate_config_last_reload_success 0"),
        "{}",
        gate.metrics()
    );
    assert_eq!(
        gate.client("s", &token).call("echo", json!({})).denial(),
        None
    );
    gate.rewrite(&good);
    eventually("it recovers", || {
        gate.metrics()
            .contains("tollgate_config_last_reload_success 1")
    });
}

#[test]
fn a_policy_file_behind_a_swapped_link_is_noticed() {
    let (upstream, token) = (upstream(), new_token());
    let dir = tempfile::tempdir().unwrap();
    // As a ConfigMap is mounted: policy.json -> ..data/policy.json, ..data -> a directory that is swapped.
    let version = |name: &str, tools: &[&str]| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(
            dir.path().join(name).join("policy.json"),
            policy(9, tools).to_string(),
        )
        .unwrap();
    };
    version("v1", &[]);
    version("v2", &["img2img"]);
    std::os::unix::fs::symlink("v1", dir.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/policy.json", dir.path().join("policy.json")).unwrap();
    let file = format!(
        "  p:\n    file: {}\n",
        dir.path().join("policy.json").display()
    );
    let gate = Gate::start(&config(&upstream.url(), &token, &file));
    let client = gate.client("s", &token);
    assert_eq!(
        client.call("img2img", json!({})).denial().as_deref(),
        Some("default")
    );
    std::os::unix::fs::symlink("v2", dir.path().join("..data_tmp")).unwrap();
    std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    eventually("the new policy is in force", || {
        client.call("img2img", json!({})).denial().is_none()
    });
}

#[test]
fn sighup_reloads_and_a_revoked_grant_ends_its_session_and_stream() {
    let (upstream, token) = (upstream(), new_token());
    let text =
        config(&upstream.url(), &token, &inline("p", &policy(9, &[]))).replace("200ms", "1h");
    let gate = Gate::start(&text);
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let mut stream = open(gate.address);
    stream
        .write_all(&client.bytes("GET", &[("Accept", "text/event-stream")], b""))
        .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    gate.rewrite(&text.replace("- id: g", "- id: g\n    revoked: true"));
    gate.signal(rustix::process::Signal::HUP);
    while let Some(chunk) = read_chunk(&mut reader) {
        assert!(
            chunk.starts_with(b":"),
            "{}",
            String::from_utf8_lossy(&chunk)
        );
    }
    eventually("the grant is refused", || {
        client.legacy_call("echo", json!({})).status == 401
    });
}

#[test]
fn a_stream_hears_of_a_changed_list_and_is_judged_by_the_new_view() {
    let (upstream, token) = (upstream(), new_token());
    let text = |tools: &[&str]| config(&upstream.url(), &token, &inline("p", &policy(9, tools)));
    let gate = Gate::start(&text(&[]));
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let mut stream = open(gate.address);
    stream
        .write_all(&client.bytes("GET", &[("Accept", "text/event-stream")], b""))
        .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    let listen = Client::modern_body(
        "subscriptions/listen",
        json!({ "notifications": { "toolsListChanged": true } }),
    );
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "subscriptions/listen"),
    ];
    let mut modern = open(gate.address);
    modern
        .write_all(
            &gate
                .client("s", &token)
                .bytes("POST", &headers, listen.to_string().as_bytes()),
        )
        .unwrap();
    let mut modern = BufReader::new(modern);
    assert_eq!(read_head(&mut modern).unwrap().status, 200);
    gate.rewrite(&text(&["img2img"]));
    let hears = |reader: &mut BufReader<std::net::TcpStream>| loop {
        let chunk = String::from_utf8(read_chunk(reader).expect("the stream stands")).unwrap();
        if chunk.contains("notifications/tools/list_changed") {
            return chunk;
        }
    };
    hears(&mut reader);
    assert!(hears(&mut modern).contains(r#""io.modelcontextprotocol/subscriptionId":1"#));
    assert_eq!(client.legacy_call("img2img", json!({})).denial(), None);
}

#[test]
fn a_server_that_moved_ends_the_sessions_with_its_former_place_and_another_timeout_does_not() {
    let (old, new, token) = (upstream(), upstream(), new_token());
    let policies = inline("p", &policy(10_000, &[]));
    let text = |url: &str| config(url, &token, &policies);
    let gate = Gate::start(&text(&old.url()));
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let slower = text(&old.url()).replace("\" }", "\", timeout: 77s }");
    assert_ne!(slower, text(&old.url()));
    gate.rewrite(&slower);
    eventually("the timeout is in force", || {
        gate.metrics().contains("tollgate_view_revision 2")
    });
    assert_eq!(client.legacy_call("echo", json!({})).status, 200);
    gate.rewrite(&text(&new.url()));
    eventually("the session is over", || {
        client.legacy_call("echo", json!({})).status == 404
    });
    assert_eq!(client.initialize("2025-11-25").status, 200);
    assert_eq!(client.legacy_call("echo", json!({})).status, 200);
    assert_eq!(new.recorder().count("echo"), 1);
}
