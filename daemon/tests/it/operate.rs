//! What an operator's trouble looks like: an audit sink that does not take lines, files that change or are broken.

use crate::{commands::ask, edges::allow, harness::*};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

fn ready(gate: &Gate) -> u16 {
    let head = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", gate.address);
    send(gate.address, head).status
}

/// Replaces a file as an editor does: written beside, then renamed over.
pub fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

#[test]
fn a_broken_policy_file_keeps_the_old_policy_and_a_good_one_takes_over() {
    let (upstream, token) = (upstream(), new_token());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    let policy = |tool: &str| format!("version: \"1\"\ndefault: deny\ntools:\n  {tool}: {{}}\n");
    std::fs::write(&file, policy("echo")).unwrap();
    let config = format!(
        "servers:\n  s: {{ url: {} }}\nreload_interval: 200ms\n{}",
        upstream.url(),
        sections(
            &format!("  p: {{ file: {} }}\n", file.display()),
            &[("g", &token, "p")]
        )
    );
    let gate = Gate::start(&config);
    let client = gate.client("s", &token);
    let may = |tool: &str| client.call(tool, json!({ "ms": 1 })).denial().is_none();
    assert!(may("echo") && !may("slow"));
    for broken in [
        "version: \"1\"\ndefault: perhaps\n",
        "{{{",
        "",
        "\u{0}\u{1}",
    ] {
        let failed = || gate.log().matches("reload refused").count();
        let before = failed();
        replace(&file, broken);
        eventually("it is refused", || failed() > before);
        assert!(may("echo") && !may("slow"), "{broken:?}");
    }
    assert!(gate.log().contains("policy.yaml:"), "the place is told");
    replace(&file, &policy("slow"));
    eventually("the good one is in force", || may("slow"));
    assert!(!may("echo"));
}

#[test]
fn an_audit_file_that_cannot_be_written_refuses_calls_until_it_can_and_loses_no_line() {
    let (upstream, token) = (upstream(), new_token());
    let dir = tempfile::tempdir().unwrap();
    let (there, away) = (dir.path().join("audit"), dir.path().join("away"));
    std::fs::create_dir(&there).unwrap();
    let file = there.join("audit.jsonl");
    let more = format!(
        "audit:\n  sink:\n    file: {{ path: {} }}\n",
        file.display()
    );
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], &more);
    let mut client = gate.client("s", &token);
    assert_eq!(client.initialize("2025-11-25").status, 200);
    std::fs::rename(&there, &away).unwrap();
    let mut answered = 3;
    eventually("calls are refused", || {
        let reply = client.legacy_call("echo", json!({}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let refused = reply.denial().as_deref() == Some("audit");
        answered += usize::from(!refused);
        refused
    });
    let executed = upstream.recorder().count("echo");
    assert_eq!(
        client.legacy_call("echo", json!({})).denial().as_deref(),
        Some("audit")
    );
    assert_eq!(client.modern("tools/list", json!({})).status, 503);
    assert_eq!(ready(&gate), 503);
    assert_eq!(
        upstream.recorder().count("echo"),
        executed,
        "what is refused is not forwarded"
    );
    assert!(gate.metrics().contains("tollgate_audit_ready 0"));
    assert_eq!(ask(&gate, &["status"]).status.code(), Some(1));
    std::fs::rename(&away, &there).unwrap();
    eventually("it is ready again", || ready(&gate) == 200);
    assert_eq!(client.legacy_call("echo", json!({})).denial(), None);
    let lines = || {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines()
            .filter(|line| line.contains("\"grant\":\"g\""))
            .count()
    };
    eventually("every answered request is written", || lines() >= answered);
    // `initialize`, its notification, and the calls that were not refused.
    assert_eq!(lines(), answered);
}

#[test]
fn standard_output_that_nobody_reads_delays_calls_and_then_refuses_them() {
    let (upstream, token) = (upstream(), new_token());
    let (reader, writer) = std::io::pipe().unwrap();
    let config = format!(
        "servers:\n  s: {{ url: {} }}\naudit: {{ sink: stdout, queue: 4 }}\nbounds: {{ audit_wait: 50ms }}\n{}",
        upstream.url(),
        sections(&allow(), &[("g", &token, "p")])
    );
    let gate = Gate::start_with(tempfile::tempdir().unwrap(), &config, writer.into());
    let client = gate.client("s", &token);
    let long = json!({ "text": 1, "k".repeat(64): 1, "l".repeat(64): 2, "m".repeat(64): 3 });
    let mut answered = 0;
    eventually("the pipe and the queue are full", || {
        let refused = client.call("echo", long.clone()).denial();
        answered += usize::from(refused.is_none());
        (0..20).for_each(|_| {
            answered += usize::from(client.call("echo", long.clone()).denial().is_none());
        });
        refused.as_deref() == Some("audit")
    });
    assert_eq!(ready(&gate), 503);
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let mut count = |n: usize| {
        let lines = lines
            .by_ref()
            .filter(|line| line.contains("\"grant\":\"g\""));
        lines
            .take(n)
            .for_each(|line| assert!(!line.contains(&token.text)));
    };
    count(answered);
    eventually("it is ready again", || ready(&gate) == 200);
    assert_eq!(client.call("echo", json!({})).denial(), None);
    count(1);
    assert_eq!(upstream.recorder().count("echo"), answered + 1);
}

#[test]
fn sighup_begins_a_new_audit_file_where_the_old_one_was_moved_away() {
    let (upstream, token) = (upstream(), new_token());
    let more = "reload_interval: 1h\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let client = gate.client("s", &token);
    client.call("echo", json!({ "before": 1 }));
    gate.audit(1, |line| line["tool"] == "echo");
    std::fs::rename(gate.path("audit.jsonl"), gate.path("moved.jsonl")).unwrap();
    gate.signal(Signal::HUP);
    eventually("it is heard", || {
        gate.metrics().contains("tollgate_view_revision 2")
    });
    client.call("slow", json!({ "ms": 1 }));
    let lines = gate.audit(1, |line| line["tool"].is_string());
    assert_eq!((lines.len(), &lines[0]["tool"]), (1, &json!("slow")));
    let mode = std::fs::metadata(gate.path("audit.jsonl"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let moved = std::fs::read_to_string(gate.path("moved.jsonl")).unwrap();
    assert_eq!(
        moved
            .lines()
            .filter(|line| line.contains("\"tool\":\"echo\""))
            .count(),
        1
    );
}

#[test]
fn audit_files_are_rotated_by_size_kept_in_number_and_hold_every_line_once() {
    let (upstream, token) = (upstream(), new_token());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.jsonl");
    let more = format!(
        "audit:\n  sink:\n    file: {{ path: {}, rotate_bytes: 64KiB, keep: 9, min_free: 0B }}\n",
        file.display()
    );
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], &more);
    let client = gate.client("s", &token);
    let names: serde_json::Map<_, _> = (10..42)
        .map(|n| (format!("{n}{}", "k".repeat(60)), json!(n)))
        .collect();
    (0..60).for_each(|_| assert_eq!(client.call("echo", json!(names)).status, 200));
    let files = || -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
        entries
            .map(|entry| std::fs::read_to_string(entry.path()).unwrap())
            .collect()
    };
    let ids = || -> Vec<String> {
        let text = files().concat();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["tool"] == "echo")
            .map(|line| line["request"].to_string())
            .collect()
    };
    eventually("every line is written", || ids().len() == 60);
    let mut unique = ids();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 60);
    let files = files();
    assert!(files.len() > 1, "{} file", files.len());
    assert!(
        files
            .iter()
            .all(|text| text.len() <= 64 << 10 && text.ends_with('\n'))
    );
}
