//! Bounds on how many, each at its edge: what fits passes, one more is told so, and what ends makes room.

use crate::{harness::*, smuggling::loadtest_binary};
use loadtest::upstream::{Options, Reply as ReplyForm, Upstream};
use serde_json::json;
use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

pub fn allow() -> String {
    inline(
        "p",
        &json!({ "version": "1", "default": "allow", "tools": {} }),
    )
}

/// A policy that lets everything be called but hides one tool, so that lists must be held and filtered.
fn hides_one() -> String {
    let policy =
        json!({ "version": "1", "default": "allow", "hide": ["delete_account"], "tools": {} });
    inline("p", &policy)
}

/// Two servers, `s` and `t`, and grants for both.
pub fn two(s: &str, t: &str, grants: &[(&str, &Token)], more: &str) -> String {
    let mut config = format!(
        "servers:\n  s: {s}\n  t: {t}\npolicies:\n{}grants:\n",
        allow()
    );
    for (id, token) in grants {
        config.push_str(&format!(
            "  - {{ id: {id}, token_sha256: {}, servers: {{ s: p, t: p }} }}\n",
            token.sha256
        ));
    }
    config + more
}

fn stdio(more: &str) -> String {
    format!(
        "{{ command: {}, args: [upstream, --stdio]{more} }}",
        loadtest_binary().display()
    )
}

/// Runs `check` while these clients have a slow call each in flight.
fn while_busy(upstream: &loadtest::upstream::Running, busy: &[&Client], check: impl FnOnce()) {
    std::thread::scope(|scope| {
        let before = upstream.recorder().requests().len();
        let calls: Vec<_> = busy
            .iter()
            .map(|client| scope.spawn(|| client.call("slow", json!({ "ms": 1500 }))))
            .collect();
        eventually("all are on their way", || {
            upstream.recorder().requests().len() == before + busy.len()
        });
        check();
        for call in calls {
            assert_eq!(call.join().unwrap().denial(), None);
        }
    });
}

fn is_overloaded(reply: &Reply) -> bool {
    reply.denial().as_deref() == Some("overloaded") && reply.header("retry-after").is_some()
}

#[test]
fn calls_in_flight_are_bounded_in_all_and_on_a_server_that_may_set_its_own() {
    let (upstream, a, b) = (upstream(), new_token(), new_token());
    let url = upstream.url();
    let grants = [("a", &a), ("b", &b)];
    let open = |s: &str, more: &str| {
        let gate = Gate::start(&two(s, &format!("{{ url: {url} }}"), &grants, more));
        let clients = [("s", &a), ("s", &b), ("t", &a), ("t", &b)];
        let clients = clients.map(|(server, token)| gate.client(server, token));
        (gate, clients)
    };
    let plain = format!("{{ url: {url} }}");
    let (_gate, [sa, sb, ta, tb]) = open(&plain, "bounds:\n  calls: 2\n");
    while_busy(&upstream, &[&sa, &tb], || {
        assert!(
            [&sa, &sb, &ta, &tb]
                .iter()
                .all(|c| is_overloaded(&c.call("echo", json!({}))))
        );
        assert_eq!(sb.modern("tools/list", json!({})).status, 503);
    });
    assert_eq!(sb.call("echo", json!({})).denial(), None);

    let own = format!("{{ url: {url}, calls: 2 }}");
    let (_gate, [sa, sb, ta, tb]) = open(&own, "bounds:\n  calls_server: 1\n");
    while_busy(&upstream, &[&sa, &sb, &ta], || {
        assert!(
            is_overloaded(&sb.call("echo", json!({}))),
            "its own two are taken"
        );
        assert!(
            is_overloaded(&tb.call("echo", json!({}))),
            "calls_server is taken"
        );
    });
    assert_eq!(tb.call("echo", json!({})).denial(), None);
    assert_eq!(upstream.recorder().count("echo"), 2);
}

#[test]
fn connections_are_bounded_in_all_whatever_their_source() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  connections: 3\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let from = |last: u8| {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())
            .unwrap();
        socket.connect(&gate.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let serves = |stream: &mut TcpStream| {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", gate.address);
        let _ = stream.write_all(head.as_bytes());
        read_reply(&mut BufReader::new(stream)).is_some_and(|reply| reply.status == 200)
    };
    let mut held: Vec<_> = (1..=3).map(from).collect();
    assert!(held.iter_mut().all(serves));
    assert!(!serves(&mut from(4)));
    held.pop();
    eventually("a place comes free", || serves(&mut from(5)));
}

#[test]
fn sessions_are_bounded_in_all() {
    let (upstream, a, b) = (upstream(), new_token(), new_token());
    let grants = [("a", &a, "p"), ("b", &b, "p")];
    let gate = Gate::before(&upstream, &allow(), &grants, "bounds:\n  sessions: 2\n");
    let [mut first, mut second, mut third] = [&a, &b, &b].map(|token| gate.client("s", token));
    assert_eq!(first.initialize("2025-11-25").status, 200);
    assert_eq!(second.initialize("2025-11-25").status, 200);
    let refused = third.initialize("2025-11-25");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(first.request("DELETE", &[], b"").status, 204);
    assert_eq!(third.initialize("2025-11-25").status, 200);
}

#[test]
fn new_sessions_of_a_grant_are_bounded_by_the_minute() {
    let (upstream, a, b) = (upstream(), new_token(), new_token());
    let grants = [("a", &a, "p"), ("b", &b, "p")];
    let more = "bounds:\n  sessions_new_minute: 2\n";
    let gate = Gate::before(&upstream, &allow(), &grants, more);
    let statuses = |token: &Token| {
        let mut client = gate.client("s", token);
        [(); 3].map(|()| {
            let opened = client.initialize("2025-11-25");
            if opened.status == 200 {
                client.request("DELETE", &[], b"");
            } else {
                let seconds: u64 = opened.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&seconds), "{seconds}");
            }
            opened.status
        })
    };
    // A minute may end while the first grant is at it; not while the second is, too.
    let found = [statuses(&a), statuses(&b)];
    assert!(found.contains(&[200, 200, 429]), "{found:?}");
}

#[test]
fn streams_of_a_grant_are_bounded_and_leaving_makes_room() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  streams_grant: 1\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let get = client.bytes("GET", &[("Accept", "text/event-stream")], b"");
    let listen = Client::modern_body("subscriptions/listen", json!({ "notifications": {} }));
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "subscriptions/listen"),
    ];
    let listen = client.bytes("POST", &headers, listen.to_string().as_bytes());
    let begin = |bytes: &[u8]| {
        let mut stream = open(gate.address);
        stream.write_all(bytes).unwrap();
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader).unwrap();
        (head, reader)
    };
    for (held, refused) in [(&get, &listen), (&listen, &get)] {
        let mut standing = None;
        eventually("there is room", || {
            let (head, reader) = begin(held);
            standing = Some(reader);
            head.status == 200
        });
        for bytes in [held, refused] {
            let (head, _) = begin(bytes);
            assert_eq!(head.status, 429);
            assert!(head.header("retry-after").is_some());
        }
        assert_eq!(client.legacy_call("echo", json!({})).status, 200);
    }
}

#[test]
fn processes_are_bounded_on_a_server_and_in_all() {
    let token = new_token();
    let config = two(
        &stdio(", processes_max: 2"),
        &stdio(""),
        &[("g", &token)],
        "bounds:\n  processes: 3\n  processes_server: 1\n",
    );
    let gate = Gate::start(&config);
    let opened = |server: &str| {
        let mut client = gate.client(server, &token);
        let reply = client.initialize("2025-11-25");
        if reply.status != 200 {
            assert_eq!(reply.status, 503, "{}", reply.text());
            assert!(reply.header("retry-after").is_some());
        }
        (reply.status == 200).then_some(client)
    };
    let on_t = opened("t").expect("the first of t");
    assert!(opened("t").is_none(), "processes_server is one");
    assert_eq!(on_t.request("DELETE", &[], b"").status, 204);
    let mut held = Vec::new();
    eventually("t has room again", || {
        held.extend(opened("t"));
        held.len() == 1
    });
    held.extend(opened("s"));
    held.extend(opened("s"));
    assert_eq!(held.len(), 3);
    assert!(opened("s").is_none(), "its own maximum is two");
    assert!(
        held.iter()
            .all(|client| client.legacy_call("echo", json!({})).status == 200)
    );
}

#[test]
fn processes_of_all_servers_together_are_bounded() {
    let token = new_token();
    let more = "bounds:\n  processes: 1\n";
    let gate = Gate::start(&two(&stdio(""), &stdio(""), &[("g", &token)], more));
    let mut first = gate.client("s", &token);
    assert_eq!(first.initialize("2025-11-25").status, 200);
    let mut second = gate.client("t", &token);
    assert_eq!(second.initialize("2025-11-25").status, 503);
    assert_eq!(first.request("DELETE", &[], b"").status, 204);
    eventually("there is room again", || {
        second.initialize("2025-11-25").status == 200
    });
    eventually("its metric says so", || {
        gate.metrics()
            .contains("tollgate_processes{server=\"t\"} 1")
    });
}

#[test]
fn a_batch_at_the_bound_passes_and_one_message_more_is_refused() {
    let (upstream, token) = (upstream(), new_token());
    let more = "bounds:\n  batch: 3\n";
    let gate = Gate::before(&upstream, &allow(), &[("g", &token, "p")], more);
    let mut client = gate.client("s", &token);
    client.initialize("2025-03-26");
    let batch = |n: u64| {
        let call = |id| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "echo", "arguments": {} } });
        client.post(
            json!((0..n).map(call).collect::<Vec<_>>())
                .to_string()
                .as_bytes(),
        )
    };
    assert_eq!(batch(3).messages().len(), 3);
    let refused = batch(4);
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(upstream.recorder().count("echo"), 3);
}

#[test]
fn a_filtered_list_may_be_as_long_as_reply_bytes() {
    let (upstream, token) = (upstream(), new_token());
    let open = |bytes: usize| {
        let more = format!("bounds:\n  reply_bytes: {bytes}\n");
        Gate::before(&upstream, &hides_one(), &[("g", &token, "p")], &more)
    };
    // What the server itself answers to the very request that the gateway will forward.
    let direct = Client {
        address: upstream.addr(),
        path: "/mcp".into(),
        token: String::new(),
        session: None,
    };
    let bytes = direct.modern("tools/list", json!({})).body.len();
    let at = open(bytes)
        .client("s", &token)
        .modern("tools/list", json!({}));
    assert_eq!(at.status, 200, "{}", at.text());
    assert!(!at.text().contains("delete_account"));
    let gate = open(bytes - 1);
    let over = gate.client("s", &token).modern("tools/list", json!({}));
    assert_eq!(over.status, 502, "{}", over.text());
    assert_eq!(over.message()["error"]["code"], -32603);
    // What need not be held passes at any length.
    let big = gate
        .client("s", &token)
        .call("big", json!({ "bytes": 4 * bytes }));
    assert!(big.status == 200 && big.body.len() > 4 * bytes);
}

#[test]
fn an_event_and_a_line_of_a_child_may_be_as_long_as_reply_bytes() {
    let options = Options {
        reply: ReplyForm::Sse,
        ..Options::default()
    };
    let (upstream, token) = (Upstream::start(options).unwrap(), new_token());
    let s = format!("{{ url: {} }}", upstream.url());
    let more = "bounds:\n  reply_bytes: 64KiB\n";
    let gate = Gate::start(&two(&s, &stdio(""), &[("g", &token)], more));
    for server in ["s", "t"] {
        let mut client = gate.client(server, &token);
        client.initialize("2025-11-25");
        let big = |bytes: usize| {
            client
                .legacy_call("big", json!({ "bytes": bytes }))
                .message()
        };
        assert!(big((64 << 10) - 512)["result"].is_object(), "{server}");
        let began = Instant::now();
        let over = big((64 << 10) + 1);
        assert!(
            began.elapsed() < PATIENCE,
            "{server}: {:?}",
            began.elapsed()
        );
        assert_eq!(over["error"]["code"], -32603, "{server}: {over}");
        assert!(big(16)["result"].is_object(), "{server} goes on");
    }
}
