//! The guarantee, on real processes in network namespaces: executed − refunded ≤ max, exactly, whatever is done to them.

mod drive;
mod exact;
mod fleet;
mod judge;
mod many;
mod net;
mod storms;

use crate::harness::{Token, new_token};
use drive::{Plan, Tally};
use fleet::{Fleet, Told};
use loadtest::upstream::{Options, Running, Upstream};
use net::Net;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Why these tests cannot run here, told; on a machine that must run them it is a failure.
pub fn skipped() -> bool {
    let Some(why) = net::obstacle() else {
        return false;
    };
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    true
}

/// A policy with one limit on `echo` in windows of this length.
pub fn limited(max: u64, window: &str) -> Value {
    json!({ "version": "1", "default": "allow", "tools": { "echo": {
        "limits": [{ "counter": "calls", "window": window, "max": max, "scope": "grant" }] } } })
}

/// A recording server in the hub.
pub fn record(net: &Net) -> Running {
    let listen = SocketAddr::new(Net::hub_address(), 0);
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            net.enter_hub();
            Upstream::start(Options {
                listen,
                ..Options::default()
            })
            .unwrap()
        });
        started.join().unwrap()
    })
}

/// Grants with tokens: `name-0`, `name-1` …
pub fn grants(name: &str, count: usize) -> Vec<(String, Token)> {
    (0..count)
        .map(|index| (format!("{name}-{index}"), new_token()))
        .collect()
}
