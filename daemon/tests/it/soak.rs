//! Everything at once for some seconds; afterwards nothing is left over and every request is accounted for.

use crate::harness::*;
use serde_json::json;
use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

const FOR: Duration = Duration::from_secs(6);

#[test]
fn calls_sessions_aborts_and_reloads_at_once_leave_nothing_behind() {
    let (upstream, token) = (upstream(), new_token());
    let config = |max: u64, noise: u64| {
        let limits = json!([{ "counter": "c", "window": "week", "max": max, "scope": "grant" }]);
        let policy = json!({ "version": "1", "default": "allow", "hide": [format!("noise{noise}")],
            "tools": { "create_charge": { "limits": limits } } });
        format!(
            "servers:\n  s: {{ url: {} }}\nreload_interval: 100ms\nbounds: {{ sessions_new_minute: 65536 }}\n{}",
            upstream.url(),
            sections(&inline("p", &policy), &[("g", &token, "p")])
        )
    };
    let gate = Gate::start(&config(40, 0));
    let client = gate.client("s", &token);
    client.call("echo", json!({}));
    let fds = || {
        std::fs::read_dir(format!("/proc/{}/fd", gate.pid()))
            .unwrap()
            .count()
    };
    let before = fds();
    let (sent, aborted) = (AtomicUsize::new(1), AtomicUsize::new(0));
    let until = Instant::now() + FOR;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < until {
                let charged =
                    client.call("create_charge", json!({ "amount": 1, "currency": "eur" }));
                assert_eq!(charged.status, 200, "{}", charged.text());
                assert_eq!(client.modern("tools/list", json!({})).status, 200);
                sent.fetch_add(2, Relaxed);
            }
        });
        scope.spawn(|| {
            while Instant::now() < until {
                let mut session = gate.client("s", &token);
                assert_eq!(session.initialize("2025-11-25").status, 200);
                assert_eq!(session.legacy_call("echo", json!({})).status, 200);
                let charged =
                    session.legacy_call("create_charge", json!({ "amount": 1, "currency": "eur" }));
                assert_eq!(charged.status, 200);
                assert_eq!(session.request("DELETE", &[], b"").status, 204);
                sent.fetch_add(5, Relaxed);
            }
        });
        scope.spawn(|| {
            let params = json!({ "name": "progress", "arguments": { "steps": 100, "ms": 50 }, "_meta": { "progressToken": 1 } });
            let headers = [
                ("MCP-Protocol-Version", "2026-07-28"),
                ("Mcp-Method", "tools/call"),
                ("Mcp-Name", "progress"),
            ];
            let body = Client::modern_body("tools/call", params).to_string();
            let whole = client.bytes("POST", &headers, body.as_bytes());
            let mut n = 0;
            while Instant::now() < until {
                // Left before the body is whole, before the reply's head, in the middle of the reply.
                let mut stream = open(gate.address);
                let cut = if n % 3 == 0 { whole.len() - 9 } else { whole.len() };
                stream.write_all(&whole[..cut]).unwrap();
                if n % 3 == 2 {
                    read_head(&mut std::io::BufReader::new(&stream)).unwrap();
                }
                // Whoever leaves before the head is read was never identified.
                std::thread::sleep(Duration::from_millis(if n % 3 == 2 { 0 } else { 150 }));
                n += 1;
            }
            aborted.store(n, Relaxed);
        });
        scope.spawn(|| {
            for n in 1.. {
                if Instant::now() >= until {
                    break;
                }
                gate.rewrite(&config(40 - n % 2, n));
                std::thread::sleep(Duration::from_millis(150));
            }
        });
    });
    let wanted = sent.load(Relaxed) + aborted.load(Relaxed);
    eventually("nothing is in flight or open", || {
        let text = gate.metrics();
        text.contains("tollgate_in_flight{server=\"s\"} 0\n")
            && text.contains("tollgate_sessions 0\n")
    });
    let lines = gate.audit(wanted, |line| line["grant"] == "g");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        gate.audit(0, |line| line["grant"] == "g").len(),
        wanted,
        "one line a request"
    );
    let ids: std::collections::HashSet<_> = lines
        .iter()
        .map(|line| line["request"].to_string())
        .collect();
    assert_eq!(ids.len(), wanted);
    let charged = lines
        .iter()
        .filter(|line| line["limits"][0]["settled"] == "charged")
        .count();
    let executed = upstream.recorder().count("create_charge");
    assert!(
        executed <= 40 && charged == executed,
        "{executed} executed, {charged} charged"
    );
    assert!(
        gate.metrics()
            .contains("tollgate_config_last_reload_success 1")
    );
    // Kept connections to the server go after 20 s; all that they are bounded by is the number of callers at once.
    eventually("descriptors are given back", || fds() <= before + 16);
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let rss_kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(rss_kib < 300 << 10, "{rss_kib} KiB resident");
    assert!(!gate.log().contains("panicked"), "{}", gate.log());
}
