//! Upstreams that hang, die, flood, lie or redirect: the client always gets an answer or a broken connection, in time.

use crate::harness::*;
use loadtest::upstream::{Fault, Options, Upstream};
use serde_json::json;
use std::{
    io::{BufReader, Write},
    time::Instant,
};

const BOUNDS: &str = "bounds:\n  upstream_timeout: 2s\n  reply_bytes: 1MiB\n";

fn policy() -> String {
    inline(
        "p",
        &json!({ "version": "1", "default": "allow", "tools": {
        "echo": { "limits": [{ "counter": "c", "window": "day", "max": 1000, "scope": "grant" }] } } }),
    )
}

#[test]
fn every_way_to_break_the_protocol_ends_in_time_and_the_gateway_lives() {
    use Fault::{
        BigHeader, Bom, Die, DieMidBody, DieMidHead, DieMidStream, EndWithoutResponse, Flood,
        FloodEvents, FloodLine, Hang, HangMidBody, HangMidStream, LengthAndChunked, LongLength,
        ManyHeaders, NoContentType, Redirect, Reset, ServerError, ShortLength, TrailingComma,
        TwoLengths, Unauthorized,
    };
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], BOUNDS);
    let client = gate.client("s", &token);
    for fault in [
        Hang,
        HangMidBody,
        HangMidStream,
        Die,
        DieMidHead,
        DieMidBody,
        DieMidStream,
        EndWithoutResponse,
        Reset,
        Flood,
        FloodEvents,
        FloodLine,
        LongLength,
        ShortLength,
        TwoLengths,
        LengthAndChunked,
        BigHeader,
        ManyHeaders,
        Redirect,
        Unauthorized,
        ServerError,
        TrailingComma,
        Bom,
        NoContentType,
    ] {
        upstream.fault("tools/call", Some(fault));
        let body = Client::modern_body(
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "x" } }),
        )
        .to_string();
        let headers = [
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "echo"),
        ];
        let began = Instant::now();
        let mut stream = open(gate.address);
        stream
            .write_all(&client.bytes("POST", &headers, body.as_bytes()))
            .unwrap();
        let reply = read_reply(&mut BufReader::new(stream));
        let took = began.elapsed();
        assert!(took.as_secs() < 10, "{fault:?} took {took:?}");
        if let Some(reply) = &reply {
            assert!(!(300..400).contains(&reply.status), "{fault:?}: {reply:?}");
            assert!(
                reply.status != 401 && reply.header("www-authenticate").is_none(),
                "{fault:?}: {reply:?}"
            );
        }
        upstream.fault("tools/call", None);
        let healthy = client.call("echo", json!({ "text": "still here" }));
        assert_eq!(healthy.status, 200, "after {fault:?}: {}", healthy.text());
        assert!(
            healthy.text().contains("still here"),
            "after {fault:?}: {}",
            healthy.text()
        );
    }
    let served = upstream.recorder().requests();
    assert!(
        served.iter().all(|request| request.path == "/mcp"),
        "a redirect was followed"
    );
}

#[test]
fn cookies_and_hop_by_hop_headers_of_a_server_do_not_reach_the_client() {
    let (upstream, token) = (upstream(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], BOUNDS);
    upstream.fault("tools/call", Some(Fault::Cookies));
    let reply = gate.client("s", &token).call("echo", json!({}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    for name in [
        "set-cookie",
        "www-authenticate",
        "server",
        "keep-alive",
        "upgrade",
        "proxy-authenticate",
    ] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[test]
fn an_upstream_that_resets_on_accept_costs_no_quota() {
    let token = new_token();
    let upstream = Upstream::start(Options {
        reset_on_accept: true,
        ..Options::default()
    })
    .unwrap();
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], BOUNDS);
    let reply = gate.client("s", &token).call("echo", json!({}));
    assert_eq!(reply.status, 502, "{}", reply.text());
}
