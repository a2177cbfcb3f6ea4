//! SIGTERM: says so, finishes what is in flight, writes everything down, ends its children, exits 0.

use crate::{harness::*, smuggling::loadtest_binary};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

fn allow() -> String {
    inline(
        "p",
        &json!({ "version": "1", "default": "allow", "tools": {} }),
    )
}

fn ready(gate: &Gate) -> u16 {
    send(
        gate.address,
        format!("GET /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", gate.address),
    )
    .status
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_exits_0() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  drain_delay: 1s\n  drain_timeout: 10s\n";
    let mut gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    assert_eq!(ready(&gate), 200);
    let client = gate.client("s", &token);
    let slow = std::thread::spawn(move || client.call("slow", json!({ "ms": 2500 })));
    eventually("it is on its way", || {
        !upstream.recorder().requests().is_empty()
    });
    gate.signal(Signal::TERM);
    eventually("readiness says so", || ready(&gate) == 503);
    let late = gate.client("s", &token).call("echo", json!({}));
    assert_eq!(late.status, 200, "{}", late.text());
    assert_eq!(late.header("connection"), Some("close"));
    assert_eq!(slow.join().unwrap().denial(), None);
    assert_eq!(gate.wait(), Some(0));
    assert_eq!(gate.audit(2, |line| line["tool"].is_string()).len(), 2);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  drain_delay: 60s\n";
    let mut gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    gate.signal(Signal::TERM);
    eventually("it drains", || ready(&gate) == 503);
    let began = Instant::now();
    gate.signal(Signal::INT);
    assert_ne!(gate.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn children_end_with_the_gateway() {
    let token = new_token();
    let server = format!(
        "servers:\n  s:\n    command: {}\n    args: [upstream, --stdio]\n",
        loadtest_binary().display()
    );
    let config = format!(
        "{server}{}bounds:\n  drain_delay: 10ms\n",
        sections(&allow(), &[("g", &token, "p")])
    );
    let mut gate = Gate::start(&config);
    let mut client = gate.client("s", &token);
    assert_eq!(client.initialize("2025-11-25").status, 200);
    let children = || {
        let path = format!("/proc/{0}/task", gate.pid());
        let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
        tasks
            .flat_map(|task| {
                let text =
                    std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    };
    let started = children();
    assert_eq!(started.len(), 1, "{started:?}");
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait(), Some(0));
    eventually("the child is gone", || {
        !std::path::Path::new(&format!("/proc/{}", started[0])).exists()
    });
}
