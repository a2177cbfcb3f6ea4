//! Every bound at its edge: one less passes, one more is told so.

use crate::harness::*;
use serde_json::json;
use std::{
    io::{BufReader, Read, Write},
    time::{Duration, Instant},
};

fn allow() -> String {
    inline(
        "p",
        &json!({ "version": "1", "default": "allow", "tools": {} }),
    )
}

#[test]
fn a_body_at_the_bound_passes_and_one_byte_more_is_413() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &allow(),
        &[("g", &token, "p")],
        "bounds:\n  body_bytes: 4096\n",
    );
    let client = gate.client("s", &token);
    let sized = |bytes: usize| {
        let empty = Client::modern_body(
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "" } }),
        )
        .to_string()
        .len();
        client.call("echo", json!({ "text": "x".repeat(bytes - empty) }))
    };
    assert_eq!(sized(4096).status, 200);
    assert_eq!(sized(4097).status, 413);
    let chunked = client.bytes("POST", &[("Transfer-Encoding", "chunked")], b"");
    let mut stream = open(gate.address);
    stream.write_all(&chunked).unwrap();
    for _ in 0..6 {
        let _ = stream.write_all(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes());
    }
    assert_eq!(read_reply(&mut BufReader::new(stream)).unwrap().status, 413);
}

#[test]
fn headers_over_the_bounds_are_431() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(
        &upstream,
        &allow(),
        &[("g", &token, "p")],
        "bounds:\n  headers: 20\n  header_bytes: 8KiB\n",
    );
    let client = gate.client("s", &token);
    let names: Vec<String> = (0..30).map(|i| format!("X-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(client.request("POST", &many, b"{}").status, 431);
    let big = "x".repeat(9_000);
    assert_eq!(
        client.request("POST", &[("X-Big", &big)], b"{}").status,
        431
    );
    assert_eq!(client.call("echo", json!({})).status, 200);
}

#[test]
fn depth_and_keys_stop_at_their_edges() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  depth: 8\n  keys_object: 16\n  keys_body: 64\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let client = gate.client("s", &token);
    // The message, params and arguments are three levels.
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(client.call("echo", json!({ "a": nested(5) })).status, 200);
    assert_eq!(client.call("echo", json!({ "a": nested(6) })).status, 400);
    let keyed = |n: usize| {
        json!(
            (0..n)
                .map(|i| (format!("k{i}"), json!(1)))
                .collect::<serde_json::Map<_, _>>()
        )
    };
    assert_eq!(client.call("echo", keyed(16)).status, 200);
    assert_eq!(client.call("echo", keyed(17)).status, 400);
    assert_eq!(
        client
            .call(
                "echo",
                json!({ "a": [keyed(16), keyed(16), keyed(16), keyed(16)] })
            )
            .status,
        400
    );
}

#[test]
fn calls_in_flight_of_a_grant_are_bounded() {
    let (upstream, token, other) = (upstream(), new_token(), new_token());
    let grants = [("g", &token, "p"), ("h", &other, "p")];
    let gate = Gate::before(&upstream, &allow(), &grants, "bounds:\n  calls_grant: 2\n");
    let client = gate.client("s", &token);
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| client.call("slow", json!({ "ms": 1500 }))))
            .collect();
        eventually("both are on their way", || {
            upstream.recorder().requests().len() == 2
        });
        let third = client.call("echo", json!({}));
        assert_eq!(
            third.denial().as_deref(),
            Some("overloaded"),
            "{}",
            third.text()
        );
        assert!(third.header("retry-after").is_some());
        assert_eq!(client.modern("tools/list", json!({})).status, 503);
        assert_eq!(
            gate.client("s", &other).call("echo", json!({})).denial(),
            None
        );
        slow.into_iter()
            .for_each(|call| assert_eq!(call.join().unwrap().denial(), None));
    });
    assert_eq!(client.call("echo", json!({})).denial(), None);
}

#[test]
fn sessions_of_a_grant_are_bounded_and_ending_one_makes_room() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  sessions_grant: 2\n  sessions_new_minute: 4\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let mut clients: Vec<Client> = (0..2).map(|_| gate.client("s", &token)).collect();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.initialize("2025-11-25").status, 200));
    let refused = gate.client("s", &token).initialize("2025-11-25");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(clients[0].request("DELETE", &[], b"").status, 204);
    assert_eq!(clients[0].initialize("2025-11-25").status, 200);
}

#[test]
fn a_slow_head_a_slow_body_and_an_idle_connection_are_ended() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  header_timeout: 1s\n  body_timeout: 1s\n  idle_timeout: 2s\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let client = gate.client("s", &token);
    let ends_within = |stream: &mut std::net::TcpStream, what: &str| {
        let began = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{what} took {:?}",
            began.elapsed()
        );
        String::from_utf8_lossy(&rest).into_owned()
    };
    let mut silent = open(gate.address);
    ends_within(&mut silent, "a silent connection");
    let mut slow = open(gate.address);
    let bytes = client.bytes("POST", &[], b"{}");
    let dripping = slow.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        let mut dripping = dripping;
        for byte in bytes.iter().take(40) {
            if dripping.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    ends_within(&mut slow, "a dripping head");
    drop(slow);
    drip.join().unwrap();
    let mut body = open(gate.address);
    body.write_all(&client.bytes("POST", &[("Content-Length", "100")], b"{"))
        .unwrap();
    assert!(ends_within(&mut body, "a slow body").contains(" 408 "));
    let mut idle = open(gate.address);
    idle.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", gate.address).as_bytes())
        .unwrap();
    let kept = Instant::now();
    assert!(ends_within(&mut idle, "an idle connection").contains(" 200 "));
    assert!(
        kept.elapsed() > Duration::from_millis(1500),
        "kept only {:?}",
        kept.elapsed()
    );
    let mut half = open(gate.address);
    half.write_all(b"POST /mcp/s HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    ends_within(&mut half, "a half-closed connection");
    assert_eq!(client.call("echo", json!({})).status, 200);
}

#[test]
fn connections_are_bounded_by_source() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  connections_source: 4\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let ping = |stream: &mut std::net::TcpStream| {
        let _ = stream.write_all(
            format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", gate.address).as_bytes(),
        );
        read_reply(&mut BufReader::new(stream)).map(|reply| reply.status)
    };
    let mut held: Vec<_> = (0..4).map(|_| open(gate.address)).collect();
    held.iter_mut()
        .for_each(|stream| assert_eq!(ping(stream), Some(200)));
    assert_eq!(ping(&mut open(gate.address)), None);
    held.pop();
    eventually("a place comes free", || {
        ping(&mut open(gate.address)) == Some(200)
    });
}
