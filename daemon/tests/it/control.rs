//! Grants, policies and servers of the cluster's log, as an operator puts them and a client meets them.

use crate::{commands::ask, harness::*};
use serde_json::{Value, json};
use std::{
    io::{BufReader, Write as _},
    process::{Command, Output},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const POLICY: &str = "version: \"1\"\ndefault: deny\ntools: { echo: {}, slow: {} }\n";

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a command that must do what it is asked.
fn done(gate: &Gate, arguments: &[&str]) -> Output {
    let output = ask(gate, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    output
}

/// Runs a command that must be refused, and answers with what it says.
fn refused(gate: &Gate, arguments: &[&str]) -> String {
    let output = ask(gate, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", told(&output));
    told(&output)
}

/// A token that a command printed.
fn token(output: &Output) -> Token {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let text = text.trim().to_owned();
    assert!(proto::grant::is_token_shaped(text.as_bytes()), "{text:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&text));
    Token {
        text,
        sha256: String::new(),
    }
}

/// The server `s`, the policy `p` and the grant `g` in the log of a gateway without any in its files.
fn put_all(gate: &Gate, url: &str) -> Token {
    let policy = gate.path("p.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    done(gate, &["server", "put", "s", "--url", url]);
    done(gate, &["policy", "put", "p", policy.to_str().unwrap()]);
    let create = ["grant", "create", "--id", "g", "--server", "s=p"];
    token(&done(gate, &create))
}

fn rows(gate: &Gate, kind: &str) -> Vec<Value> {
    let output = done(gate, &[kind, "list", "--json"]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all["resources"].as_array().unwrap().clone()
}

#[test]
fn what_is_put_is_served_and_listed_and_outlives_a_restart() {
    let upstream = upstream();
    let state = TempDir::new().unwrap();
    let config = format!("cluster:\n  data_dir: {}\n", state.path().display());
    let mut gate = Gate::start(&config);
    let token = put_all(&gate, &upstream.url());
    assert_eq!(
        gate.client("s", &token).call("echo", json!({})).denial(),
        None
    );
    assert_eq!(upstream.recorder().count("echo"), 1);
    for kind in ["server", "policy", "grant"] {
        let rows = rows(&gate, kind);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (&rows[0]["origin"], &rows[0]["why"]),
            (&json!("log"), &json!([]))
        );
        assert!(rows[0]["by"].as_str().unwrap().starts_with("uid:"));
    }
    let shown = told(&done(&gate, &["grant", "show", "g"]));
    assert!(shown.contains("sha256:") && shown.contains('…'), "{shown}");
    assert!(told(&done(&gate, &["policy", "show", "p"])).contains("default: deny"));
    assert!(told(&done(&gate, &["status"])).contains("of the log version 3"));
    assert!(told(&done(&gate, &["status", "--view"])).contains("log"));
    let lines = gate.audit(3, |line| line["event"] == "admin");
    let actions: Vec<_> = lines
        .iter()
        .map(|line| line["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["server.put", "policy.put", "grant.put"]);
    assert!(
        lines.iter().all(|line| line["outcome"] == "done"),
        "{lines:?}"
    );

    gate.signal(rustix::process::Signal::KILL);
    gate.wait();
    drop(gate);
    let gate = Gate::start(&config);
    let client = gate.client("s", &token);
    eventually("the log is in force again", || {
        client.call("echo", json!({})).status == 200
    });
    assert_eq!(rows(&gate, "grant").len(), 1);
    assert!(!gate.log().contains(&token.text), "a token was logged");
}

#[test]
fn a_revoked_grant_is_refused_at_once_and_its_stream_ends() {
    let upstream = upstream();
    let gate = Gate::start("");
    let granted = put_all(&gate, &upstream.url());
    let mut client = gate.client("s", &granted);
    client.initialize("2025-11-25");
    assert_eq!(client.legacy_call("echo", json!({})).denial(), None);
    let mut stream = open(gate.address);
    stream
        .write_all(&client.bytes("GET", &[("Accept", "text/event-stream")], b""))
        .unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).unwrap().status, 200);
    done(&gate, &["grant", "revoke", "g"]);
    // Acknowledged means committed and in force on the node that was asked.
    assert_eq!(client.legacy_call("echo", json!({})).status, 401);
    let began = Instant::now();
    while read_chunk(&mut reader).is_some() {}
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(rows(&gate, "grant")[0]["state"], "revoked");
    assert!(refused(&gate, &["grant", "rotate", "g"]).contains("revoked"));
    assert!(refused(&gate, &["grant", "revoke", "nobody"]).contains("none of this name"));
    let create = ["grant", "create", "--id", "g", "--server", "s=p"];
    assert!(
        refused(&gate, &create).contains("version"),
        "its name is taken"
    );
    done(&gate, &["grant", "delete", "g"]);
    token(&done(&gate, &create));
    assert_eq!(client.legacy_call("echo", json!({})).status, 401);
}

#[test]
fn a_rotated_token_ends_at_once_or_after_the_overlap() {
    let upstream = upstream();
    let gate = Gate::start("");
    let first = put_all(&gate, &upstream.url());
    let may = |token: &Token| gate.client("s", token).call("echo", json!({})).status == 200;
    let second = token(&done(&gate, &["grant", "rotate", "g"]));
    assert!(!may(&first) && may(&second));
    let third = token(&done(&gate, &["grant", "rotate", "g", "--overlap", "2s"]));
    assert!(may(&third));
    assert!(may(&second), "within the overlap");
    eventually("the overlap is over", || !may(&second));
    assert!(may(&third));
}

#[test]
fn a_change_that_would_make_no_good_view_is_refused_with_what_to_do() {
    let upstream = upstream();
    let files = format!("servers:\n  mine: {{ url: {} }}\n", upstream.url());
    let gate = Gate::start(&files);
    put_all(&gate, &upstream.url());
    let file = gate.path("doc");
    let path = file.to_str().unwrap();
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    let url = upstream.url();
    let taken = refused(&gate, &["server", "put", "mine", "--url", &url]);
    assert!(
        taken.contains("in this node's files") && taken.contains("409"),
        "{taken}"
    );
    write("version: \"1\"\ndefault: perhaps\n");
    let wrong = refused(&gate, &["policy", "put", "p", path]);
    assert!(wrong.contains("log:policy/p:2:"), "{wrong}");
    write("url: https://h/\nheaders: { x-api-key: sk-123 }\n");
    let secret = refused(&gate, &["server", "put", "t", path]);
    assert!(secret.contains("keep it out of the log"), "{secret}");
    write("command: cat\n");
    let command = refused(&gate, &["server", "put", "t", path]);
    assert!(command.contains("cluster.commands_from_log"), "{command}");
    for kind in ["server", "policy"] {
        let name = if kind == "server" { "s" } else { "p" };
        let needed = refused(&gate, &[kind, "delete", name]);
        assert!(needed.contains("the grant `g`"), "{needed}");
    }
    let nowhere = ["grant", "create", "--id", "h", "--server", "nowhere=p"];
    assert!(refused(&gate, &nowhere).contains("nowhere"));
    write(POLICY);
    let old = ["policy", "put", "p", path, "--if-version", "1"];
    assert!(refused(&gate, &old).contains("its version is 2 and not 1"));
    done(&gate, &["policy", "put", "p", path, "--if-version", "2"]);
    let lines = gate.audit(1, |line| {
        line["event"] == "admin" && line["outcome"] == "refused"
    });
    assert!(lines[0]["detail"].as_str().unwrap().contains("files"));
}

#[test]
fn files_that_take_a_name_of_the_log_are_refused_and_the_old_view_stays() {
    let upstream = upstream();
    let gate = Gate::start("reload_interval: 200ms\n");
    let granted = put_all(&gate, &upstream.url());
    gate.rewrite("servers:\n  s: { url: http://127.0.0.1:1/mcp }\n");
    eventually("the reload is refused", || {
        gate.log()
            .contains("the server `s` is in the cluster's log too")
    });
    let client = gate.client("s", &granted);
    assert_eq!(client.call("echo", json!({})).status, 200);
    let taken = told(&check(&gate));
    assert!(
        taken.contains("the server `s` is in the cluster's log too"),
        "{taken}"
    );
    gate.rewrite("servers:\n  t: { url: http://127.0.0.1:1/mcp }\n");
    eventually("another name is fine", || {
        rows(&gate, "server")
            .iter()
            .any(|row| row["name"] == "t" && row["origin"] == "file")
    });
    assert_eq!(client.call("echo", json!({})).status, 200);
    assert!(told(&check(&gate)).contains("in the log; servers: 1, policies: 1, grants: 1"));
}

/// What a check of the gateway's configuration says, with the log in mind.
fn check(gate: &Gate) -> Output {
    let (config, socket) = (gate.path("tollgate.yaml"), gate.path("admin/admin.sock"));
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("check")
        .arg(config)
        .arg("--log-of")
        .arg(socket)
        .output()
        .unwrap()
}

#[test]
fn a_conflict_that_is_there_at_the_start_bars_the_logs_and_is_shown() {
    let upstream = upstream();
    let state = TempDir::new().unwrap();
    let cluster = format!("cluster:\n  data_dir: {}\n", state.path().display());
    let mut gate = Gate::start(&cluster);
    let granted = put_all(&gate, &upstream.url());
    gate.signal(rustix::process::Signal::TERM);
    gate.wait();
    drop(gate);
    let own = new_token();
    let files = format!(
        "{cluster}servers:\n  s: {{ url: {} }}\npolicies:\n{}grants:\n  - id: of-file\n    token_sha256: {}\n    servers: {{ s: q }}\n",
        upstream.url(),
        inline(
            "q",
            &json!({ "version": "1", "default": "allow", "tools": {} })
        ),
        own.sha256
    );
    let gate = Gate::start(&files);
    eventually("it is shown", || {
        told(&ask(&gate, &["status"])).contains("NOT IN FORCE here: the server `s`")
    });
    assert_eq!(gate.client("s", &own).call("echo", json!({})).status, 200);
    let reply = gate.client("s", &granted).call("echo", json!({}));
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(upstream.recorder().count("echo"), 1);
    assert!(gate.metrics().contains("tollgate_control_unresolved 2"));
}

#[test]
fn a_secret_that_a_server_of_the_log_refers_to_is_read_on_the_node_and_followed() {
    let upstream = upstream();
    let gate = Gate::start("reload_interval: 200ms\n");
    let (secret, file) = (gate.path("key"), gate.path("server.yaml"));
    std::fs::write(&secret, "one\n").unwrap();
    let policy = gate.path("p.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let text = format!(
        "url: {}\nheaders: {{ x-api-key: {{ file: {} }} }}\n",
        upstream.url(),
        secret.display()
    );
    std::fs::write(&file, text).unwrap();
    done(&gate, &["server", "put", "s", file.to_str().unwrap()]);
    done(&gate, &["policy", "put", "p", policy.to_str().unwrap()]);
    let create = ["grant", "create", "--id", "g", "--server", "s=p"];
    let client = gate.client("s", &token(&done(&gate, &create)));
    assert_eq!(client.call("echo", json!({})).status, 200);
    let shown = told(&done(&gate, &["server", "show", "s"]));
    assert!(shown.contains("key") && !shown.contains("one\n"), "{shown}");
    // Gone: the grant that needs it is refused, not served without.
    std::fs::remove_file(&secret).unwrap();
    eventually("it is refused", || {
        client.call("echo", json!({})).status == 503
    });
    std::fs::write(&secret, "two\n").unwrap();
    eventually("it is served again", || {
        client.call("echo", json!({})).status == 200
    });
}
