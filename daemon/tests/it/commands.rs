//! The commands, run as an operator runs them, against a running gateway.

use crate::{harness::*, operate::replace};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

/// Runs `tollgate` with these arguments.
fn tollgate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks the gateway's socket, once it is there; the last two arguments are filled in.
pub fn ask(gate: &Gate, arguments: &[&str]) -> Output {
    let socket = gate.path("admin/admin.sock");
    eventually("the socket is there", || socket.exists());
    let socket = socket.to_str().unwrap().to_owned();
    tollgate(&[arguments, &["--socket", &socket]].concat())
}

fn limited(max: u64) -> String {
    let limits = json!([{ "counter": "c", "window": "day", "max": max, "scope": "grant" }]);
    let policy =
        json!({ "version": "1", "default": "allow", "tools": { "echo": { "limits": limits } } });
    inline("p", &policy)
}

#[test]
fn status_and_limits_show_a_running_gateway_on_a_socket_for_its_owner_alone() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &limited(4), &[("ci", &token, "p")], "");
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    (0..3).for_each(|_| drop(client.legacy_call("echo", json!({}))));
    let status = ask(&gate, &["status", "--json"]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        (&status["ready"], &status["sessions"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(status["pid"], gate.pid());
    assert!(out(&ask(&gate, &["status"])).contains("ready"));
    assert!(out(&ask(&gate, &["status", "--view"])).contains("ci"));
    for arguments in [
        &["limits", "show"][..],
        &["limits", "show", "echo"],
        &["limits", "top", "1"],
    ] {
        let told = out(&ask(&gate, arguments));
        assert!(
            told.contains("grant ci") && told.contains("75.0 %"),
            "{arguments:?}\n{told}"
        );
    }
    assert!(out(&ask(&gate, &["limits", "show", "nowhere"])).contains("no counters"));
    let socket = std::fs::metadata(gate.path("admin/admin.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let everything =
        out(&ask(&gate, &["status", "--view", "--json"])) + &gate.log() + &gate.metrics();
    assert!(!everything.contains(&token.text), "a token is shown");
    assert!(!everything.contains(token.sha256.trim_start_matches("sha256:")));
    let nobody = tollgate(&[
        "status",
        "--socket",
        gate.path("none.sock").to_str().unwrap(),
    ]);
    assert!(!nobody.status.success());
}

#[test]
fn a_grant_that_was_just_made_works_as_printed_and_is_rotated_without_a_gap() {
    let upstream = upstream();
    let made = tollgate(&["grant", "new", "--id", "ci", "--server", "s=p"]);
    assert!(made.status.success(), "{made:?}");
    let (first, stanza) = (
        out(&made).trim().to_owned(),
        String::from_utf8(made.stderr).unwrap(),
    );
    assert!(!stanza.contains(&first), "the token stands in the stanza");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grants.yaml");
    std::fs::write(&file, &stanza).unwrap();
    let config = format!(
        "servers:\n  s: {{ url: {} }}\npolicies:\n{}grants_files: [{}]\nreload_interval: 200ms\n",
        upstream.url(),
        limited(9),
        file.display()
    );
    let gate = Gate::start(&config);
    let token = |text: &str| Token {
        text: text.to_owned(),
        sha256: String::new(),
    };
    let mut old = gate.client("s", &token(&first));
    assert_eq!(old.initialize("2025-11-25").status, 200);
    let hash = |text: &str| {
        text.rsplit("sha256:")
            .next()
            .unwrap()
            .get(..64)
            .unwrap()
            .to_owned()
    };
    let second = new_token();
    let both = format!("[sha256:{}, {}]", hash(&stanza), second.sha256);
    let grants =
        |hashes: &str| format!("- {{ id: ci, token_sha256: {hashes}, servers: {{ s: p }} }}\n");
    replace(&file, &grants(&both));
    let mut new = gate.client("s", &second);
    eventually("the new token is let in", || {
        new.call("echo", json!({})).status == 200
    });
    assert_eq!(
        old.legacy_call("echo", json!({})).status,
        200,
        "the old one still is"
    );
    // The session belongs to the grant: it goes on under the new token, and counters do, too.
    new.session.clone_from(&old.session);
    assert_eq!(new.legacy_call("echo", json!({})).status, 200);
    // An editor that deletes and writes anew.
    std::fs::remove_file(&file).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(
        new.legacy_call("echo", json!({})).status,
        200,
        "no file: the old view"
    );
    std::fs::write(&file, grants(&second.sha256)).unwrap();
    eventually("the old token is refused", || {
        old.legacy_call("echo", json!({})).status == 401
    });
    assert_eq!(new.legacy_call("echo", json!({})).status, 200);
    let told = out(&ask(&gate, &["limits", "show"]));
    assert_eq!(told.matches("grant ci").count(), 1, "{told}");
}

#[test]
fn check_tells_every_problem_with_its_place_and_what_a_policy_says_of_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let broken = write(
        "tollgate.yaml",
        "servers:\n  s: { url: \"ftp://x\" }\nbounds:\n  depth: 7\n  sesions: 3\n",
    );
    let checked = tollgate(&["check", &broken]);
    assert_eq!(checked.status.code(), Some(1));
    let told = String::from_utf8(checked.stderr).unwrap();
    for place in ["tollgate.yaml:4:", "tollgate.yaml:5:"] {
        assert!(told.contains(place), "{place} in {told}");
    }
    let served = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--config", &broken])
        .output()
        .unwrap();
    assert_eq!(
        served.status.code(),
        Some(1),
        "what check refuses does not start"
    );
    let policy = json!({ "version": "1", "default": "deny", "tools": { "create_charge": {
        "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 5 }], "on_deny": "Too much" }] } } });
    let policy = write("policy.json", &policy.to_string());
    let call = |arguments: &str| {
        let asked = [
            "check",
            &policy,
            "--call",
            "create_charge",
            "--args",
            arguments,
        ];
        out(&tollgate(&asked)).to_lowercase()
    };
    assert!(call(r#"{"amount":6}"#).contains("too much"));
    assert!(
        call(r#"{"amount":5}"#).contains("admitted"),
        "{}",
        call(r#"{"amount":5}"#)
    );
}

#[test]
fn an_imported_client_configuration_works_through_the_gateway() {
    let upstream = upstream();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".mcp.json");
    let entry =
        json!({ "type": "http", "url": upstream.url(), "headers": { "X-Api-Key": "hush" } });
    std::fs::write(
        &file,
        json!({ "mcpServers": { "images": entry } }).to_string(),
    )
    .unwrap();
    let at = dir.path().to_str().unwrap();
    let imported = tollgate(&["import", file.to_str().unwrap(), "--out", at]);
    assert!(imported.status.success(), "{imported:?}");
    let client: Value = serde_json::from_slice(&imported.stdout).unwrap();
    let entry = &client["mcpServers"]["images"];
    assert!(
        entry["url"].as_str().unwrap().ends_with("/mcp/images"),
        "{entry}"
    );
    let token = entry["headers"]["Authorization"].as_str().unwrap();
    let token = token.strip_prefix("Bearer ").unwrap().to_owned();
    let config = std::fs::read_to_string(dir.path().join("tollgate.yaml")).unwrap();
    assert!(
        !config.contains("hush") && !config.contains(&token),
        "{config}"
    );
    let gate = Gate::start_in(dir, &config);
    let images = gate.client(
        "images",
        &Token {
            text: token,
            sha256: String::new(),
        },
    );
    assert_eq!(images.call("echo", json!({})).denial(), None);
    let request = upstream.recorder().requests().pop().unwrap();
    assert_eq!(request.header("x-api-key"), Some("hush"));
}
