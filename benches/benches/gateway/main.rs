//! The gateway in process: what a decision costs, and what a whole request costs on one kept connection.
//!
//! `decide` is token → grant → scan → policy → buckets, for a connection that the gateway remembers (no hash) and for a
//! new one, by tools in the policy. `request` is one call after the other over loopback: client, gateway and an upstream
//! of fixed bytes in one process, each with its own thread; the times of the same client on the upstream alone are
//! beside it.

mod world;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use daemon::{clock, config, limiter::Limiter, metrics::Metrics, server, view::View};
use proto::{
    grant::TokenHash,
    limit::Outcome,
    policy::{Verdict, compile::Call},
    scan::{self, Body, From},
};
use std::{
    fmt::Write as _,
    future::Future,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::sync::watch;

const CALL_BYTES: usize = 500;
const REPLY_BYTES: usize = 500;
const WARM_MAX: Duration = Duration::from_secs(20);

fn sha256(token: &[u8]) -> TokenHash {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
    let bytes = digest.as_ref().try_into();
    TokenHash(bytes.expect("invariant: SHA-256 has 32 bytes"))
}

fn written(hash: &TokenHash) -> String {
    hash.0.iter().fold("sha256:".into(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn load(folder: &std::path::Path, upstream: &str, tools: usize) -> config::Loaded {
    let hash = written(&sha256(world::TOKEN.as_bytes()));
    let text = world::configuration(folder, upstream, &hash, tools);
    config::load_text(&text, folder, 1).unwrap_or_else(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", problems.join("\n"))
    })
}

/// What decides in a gateway.
struct World {
    view: Arc<View>,
    limiter: Arc<Limiter>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(tools: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let loaded = load(folder.path(), "http://127.0.0.1:9/mcp", tools);
        let handle = server::node::open(&loaded.settings, &Metrics::new()).expect("a node");
        let limiter = Arc::new(Limiter::new(handle.clone(), 10_000, Arc::new(clock::now)));
        let view = loaded.view;
        let (ready, is_ready) = mpsc::channel();
        let (beside, of_view) = (limiter.run(), view.clone());
        let defining = limiter.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                server::node::wait_for_leader(&handle).await;
                let beside = tokio::spawn(beside);
                let policies = of_view.policies.values();
                let limits = policies.flat_map(|used| &used.policy.limits);
                let defined = defining.define(limits, clock::now()).await;
                defined.expect("the ledger hears of the limits");
                let _ = ready.send(());
                let _ = beside.await;
            });
        });
        is_ready.recv().expect("the limiter is ready");
        let world = Self {
            view,
            limiter,
            _folder: folder,
        };
        let (hash, body) = (sha256(world::TOKEN.as_bytes()), world::call(CALL_BYTES));
        let begun = Instant::now();
        // The first calls wait for a lease.
        while !(0..1_000).all(|_| world.decides(&hash, &body)) {
            assert!(begun.elapsed() < WARM_MAX, "no lease came");
            std::thread::sleep(Duration::from_millis(10));
        }
        world
    }

    /// Whether a call is admitted at once.
    fn decides(&self, token: &TokenHash, body: &[u8]) -> bool {
        let now = clock::now();
        let Some(grant) = self.view.grants.get(token) else {
            return false;
        };
        if grant.revoked || !grant.lives(now.unix_ms) {
            return false;
        }
        let Some(binding) = grant.servers.get(world::SERVER) else {
            return false;
        };
        let bounds = self.view.bounds.scan();
        let Ok(Body::One(envelope)) = scan::read(body, &bounds, From::Client) else {
            return false;
        };
        let (Some(policy), Some(tool)) = (&binding.policy, envelope.name.as_deref()) else {
            return false;
        };
        let call = Call {
            tool,
            arguments: envelope.arguments,
            grant: &grant.id,
            session: None,
            unix_ms: now.unix_ms,
        };
        let Verdict::Admit { charges, .. } = policy.evaluate(&call, self.limiter.usage()) else {
            return false;
        };
        let mut reserving = pin!(self.limiter.reserve(&charges, now));
        let mut unwoken = Context::from_waker(Waker::noop());
        match reserving.as_mut().poll(&mut unwoken) {
            Poll::Ready(Ok(tickets)) => {
                black_box(tickets.settle(Outcome::Acted, now));
                true
            }
            _ => false,
        }
    }
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    let body = world::call(CALL_BYTES);
    let known = sha256(world::TOKEN.as_bytes());
    for tools in [10, 10_000] {
        let world = World::new(tools);
        let refused = sha256(b"another");
        assert!(!world.decides(&refused, &body), "a wrong token is refused");
        group.bench_function(BenchmarkId::new("remembered", tools), |b| {
            b.iter(|| assert!(world.decides(black_box(&known), black_box(&body))))
        });
        group.bench_function(BenchmarkId::new("new_connection", tools), |b| {
            b.iter(|| {
                let token = sha256(black_box(world::TOKEN.as_bytes()));
                assert!(world.decides(&token, black_box(&body)))
            })
        });
    }
    group.finish();
}

/// Reads one request with a Content-Length, its head in one piece; `None` when the peer has left.
fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    buffer.clear();
    let mut piece = [0; 8_192];
    loop {
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        buffer.extend_from_slice(&piece[..n]);
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        if buffer.len() >= end + 4 + length {
            return Some(());
        }
    }
}

/// An upstream that answers every request with the same bytes.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (head, tail) = (
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":""#,
        r#""}],"isError":false}}"#,
    );
    let text = "A".repeat(REPLY_BYTES - head.len() - tail.len());
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {REPLY_BYTES}\r\n\r\n{head}{text}{tail}"
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = reply.clone();
            std::thread::spawn(move || {
                let (mut stream, mut buffer) = (stream, Vec::new());
                let _ = stream.set_nodelay(true);
                while read_message(&mut stream, &mut buffer).is_some() {
                    if stream.write_all(reply.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn request(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = upstream();
    let loaded = load(folder.path(), &format!("http://{upstream}/mcp"), 10);
    let server = server::Server::new(loaded, None).expect("a gateway");
    let gateway = server.addresses()[0];
    let (stop, stopped) = watch::channel(false);
    let (is_ready, ready) = mpsc::channel::<()>();
    let serving = std::thread::spawn(move || {
        let served = server.run(stopped, move || drop(is_ready));
        served.expect("the gateway ends in order");
    });
    // Dropped when it is ready.
    let _ = ready.recv();
    let bytes = world::request(&world::call(CALL_BYTES));
    let mut group = c.benchmark_group("request");
    for (name, address) in [("upstream_alone", upstream), ("gateway", gateway)] {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::new();
        let mut once = || {
            stream.write_all(&bytes).expect("it is written");
            read_message(&mut stream, &mut buffer).expect("an answer");
            assert!(
                buffer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&buffer)
            );
        };
        once();
        group.bench_function(name, |b| b.iter(&mut once));
    }
    group.finish();
    let _ = stop.send(true);
    let _ = serving.join();
}

criterion_group!(benches, decide, request);
criterion_main!(benches);
