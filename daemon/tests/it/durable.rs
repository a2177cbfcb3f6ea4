//! What was charged stays charged, however the process ended.

use crate::harness::*;
use rustix::process::Signal;
use serde_json::{Value, json};

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
