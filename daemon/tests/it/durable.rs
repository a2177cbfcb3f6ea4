//! What was charged stays charged, however the process ended.

use crate::{harness::*, smuggling::loadtest_binary};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

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

/// Files under this directory that a process has open.
fn open_under(pid: &str, dir: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
        .filter(|file| file.starts_with(dir))
        .collect()
}

fn children(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_server_on_stdio_inherits_nothing_of_the_ledger() {
    let token = new_token();
    let server = format!(
        "servers:\n  s:\n    command: {}\n    args: [upstream, --stdio]\n",
        loadtest_binary().display()
    );
    let grants = sections(&inline("p", &policy()), &[("g", &token, "p")]);
    let gate = Gate::start(&format!("{server}{grants}"));
    let mut client = gate.client("s", &token);
    assert_eq!(client.initialize("2025-11-25").status, 200);
    assert_eq!(client.legacy_call("echo", json!({})).denial(), None);
    let state = fs::canonicalize(gate.state()).unwrap();
    let own = open_under(&gate.pid().to_string(), &state);
    assert!(own.len() >= 2, "the ledger's log is open: {own:?}");
    let children = children(gate.pid());
    assert!(!children.is_empty());
    for child in children {
        assert_eq!(open_under(&child, &state), Vec::<PathBuf>::new());
    }
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
