//! What was charged stays charged, however the process ended.

use crate::harness::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs::File, io::Write, process::Command};

const MAX: u64 = 5;

fn policy() -> Value {
    json!({ "version": "1", "default": "deny", "tools": {
        "echo": { "limits": [{ "counter": "c", "window": "300d", "max": MAX, "scope": "grant" }] },
    }})
}

/// Calls until it is denied; how many were admitted.
fn drain(gate: &Gate, token: &Token) -> u64 {
    for admitted in 0..=MAX {
        let reply = gate.client("s", token).call("echo", json!({}));
        match reply.denial() {
            None => assert_eq!(reply.status, 200, "{}", reply.text()),
            Some(code) => {
                assert_eq!(code, "limit", "{}", reply.text());
                return admitted;
            }
        }
    }
    panic!("more than {MAX} calls were admitted in one window");
}

fn call(gate: &Gate, token: &Token, times: u64) {
    for _ in 0..times {
        let reply = gate.client("s", token).call("echo", json!({}));
        assert_eq!(reply.denial(), None, "{}", reply.text());
    }
}

#[test]
fn a_killed_gateway_never_admits_more_than_the_limit() {
    let (upstream, token) = (upstream(), new_token());
    let grants = [("g", &token, "p")];
    let mut gate = Gate::before(&upstream, &inline("p", &policy()), &grants, "");
    call(&gate, &token, 3);
    for _ in 0..3 {
        gate = gate.restart(Signal::KILL);
    }
    // What the killed process held is lost until the window ends: fewer, never more.
    let more = drain(&gate, &token);
    assert!(more <= MAX - 3, "{more} after 3 of {MAX}");
    gate = gate.restart(Signal::KILL);
    assert_eq!(drain(&gate, &token), 0);
    assert_eq!(upstream.recorder().requests().len() as u64, 3 + more);
}

#[test]
fn a_gateway_that_is_stopped_loses_nothing() {
    let (upstream, token) = (upstream(), new_token());
    let grants = [("g", &token, "p")];
    let quick = "bounds:\n  drain_delay: 0s\n";
    let mut gate = Gate::before(&upstream, &inline("p", &policy()), &grants, quick);
    for _ in 0..3 {
        call(&gate, &token, 1);
        gate = gate.restart(Signal::TERM);
    }
    assert_eq!(drain(&gate, &token), MAX - 3);
    gate = gate.restart(Signal::TERM);
    assert_eq!(drain(&gate, &token), 0);
}

/// Leaves no byte of the gateway's disk free.
fn fill(gate: &Gate) {
    let mut file = File::create(gate.state().join("fill")).unwrap();
    let mut size = 1 << 20;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}

/// Puts a policy that is mostly a long remark into the log.
fn put_long_policy(gate: &Gate, name: &str) -> bool {
    let path = gate.path(&format!("{name}.yaml"));
    let remark = format!("# {}\n", "x".repeat(98)).repeat(10_000);
    let policy = "version: '1'\ndefault: allow\ntools: {}\n";
    std::fs::write(&path, format!("{remark}{policy}")).unwrap();
    let put = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["policy", "put", name])
        .arg(&path)
        .arg("--socket")
        .arg(gate.path("admin/admin.sock"))
        .output()
        .unwrap();
    put.status.success()
}

#[test]
fn a_gateway_whose_disk_is_full_acknowledges_nothing_and_ends_with_74() {
    let (upstream, token) = (upstream(), new_token());
    let servers = format!("servers:\n  s:\n    url: {}\n", upstream.url());
    let policies = sections(&inline("p", &policy()), &[("g", &token, "p")]);
    let Some(mut gate) = Gate::start_on_small_disk(&format!("{servers}{policies}"), 16) else {
        return eprintln!("skipped: no disk can be mounted here");
    };
    call(&gate, &token, 1);
    assert!(put_long_policy(&gate, "fits"));
    fill(&gate);
    // Room that the log's file has already takes a few.
    let taken = (0..8).take_while(|n| put_long_policy(&gate, &format!("p{n}")));
    assert!(taken.count() < 8, "a full disk took all of them");
    assert_eq!(gate.wait(), Some(74), "{}", gate.log());
    assert!(gate.log().contains("the log cannot be"), "{}", gate.log());
    // What was in flight or had quota was charged and written down.
    assert_eq!(gate.audit(1, |line| line["tool"] == "echo").len(), 1);
}
