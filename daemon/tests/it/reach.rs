//! The way to a server: how long it may take to get there, and which connections are kept.

use crate::{edges::two, harness::*};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A listener whose queue is full: who connects hears nothing.
fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    for _ in 0..8 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        held.push(socket);
    }
    (address, held)
}

#[test]
fn a_server_that_cannot_be_reached_is_given_up_in_time_and_its_charge_given_back() {
    let ((address, _held), token) = (black_hole(), new_token());
    let limit = json!([{ "counter": "c", "window": "day", "max": 2, "scope": "grant" }]);
    let policy = json!({ "version": "1", "default": "allow", "all_tools": { "limits": limit }, "tools": {} });
    let config = format!(
        "servers:\n  s: {{ url: \"http://{address}/mcp\" }}\n{}bounds:\n  connect_timeout: 300ms\n",
        sections(&inline("p", &policy), &[("g", &token, "p")])
    );
    let gate = Gate::start(&config);
    for _ in 0..2 {
        let began = Instant::now();
        let reply = gate.client("s", &token).call("echo", json!({}));
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }
    let lines = gate.audit(2, |line| line["code"] == "upstream_connect");
    assert!(
        lines
            .iter()
            .all(|line| line["limits"][0]["settled"] == "refunded"),
        "{lines:#?}"
    );
}

/// A server of few words: it counts its connections, and answers once as many requests as `wanted` have come.
#[derive(Default)]
struct Counting {
    connections: AtomicUsize,
    requests: AtomicUsize,
    wanted: AtomicUsize,
}

impl Counting {
    fn start() -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, server) = (listener.local_addr().unwrap(), Arc::<Self>::default());
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serving.connections.fetch_add(1, Relaxed);
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(BufReader::new(stream)));
            }
        });
        (address, server)
    }

    fn serve(&self, mut reader: BufReader<TcpStream>) -> Option<()> {
        loop {
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let id = serde_json::from_slice::<Value>(&body).ok()?["id"].clone();
            self.requests.fetch_add(1, Relaxed);
            eventually("as many have come", || {
                self.requests.load(Relaxed) >= self.wanted.load(Relaxed)
            });
            let result = json!({ "content": [], "resultType": "complete" });
            let reply = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            let reply = format!("{head}Content-Length: {}\r\n\r\n{reply}", reply.len());
            reader.get_mut().write_all(reply.as_bytes()).ok()?;
        }
    }
}

#[test]
fn idle_connections_to_a_server_are_kept_up_to_upstream_idle() {
    // Connections made for one call, two at once, two at once again.
    for (idle, wanted) in [(0, [1, 3, 5]), (1, [1, 2, 3]), (2, [1, 2, 2])] {
        let ((address, server), token) = (Counting::start(), new_token());
        let url = format!("{{ url: \"http://{address}/mcp\" }}");
        let more = format!("runtimes: 1\nbounds:\n  upstream_idle: {idle}\n");
        let gate = Gate::start(&two(&url, &url, &[("g", &token)], &more));
        let client = gate.client("s", &token);
        let together = |n: usize| {
            server.wanted.fetch_add(n, Relaxed);
            std::thread::scope(|scope| {
                let calls: Vec<_> = (0..n)
                    .map(|_| scope.spawn(|| client.call("echo", json!({}))))
                    .collect();
                calls
                    .into_iter()
                    .for_each(|call| assert_eq!(call.join().unwrap().status, 200));
            });
            server.connections.load(Relaxed)
        };
        let made = [together(1), together(2), together(2)];
        assert_eq!(made, wanted, "upstream_idle: {idle}");
    }
}
