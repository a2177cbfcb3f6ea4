//! One call after the other over loopback: client, gateway and upstream in one process, each with its own thread.

use super::{CALL_BYTES, REPLY_BYTES, SMALL, load, world};
use daemon::server;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
};
use tokio::sync::watch;

/// A gateway with everything on, before its upstream.
pub struct Gateway {
    /// Where it answers.
    pub address: SocketAddr,
    /// Where its upstream does.
    pub upstream: SocketAddr,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Gateway {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let upstream = upstream();
        let loaded = load(folder.path(), &format!("http://{upstream}/mcp"), SMALL);
        let server = server::Server::new(loaded, None).expect("a gateway");
        let address = server.addresses()[0];
        let (stop, stopped) = watch::channel(false);
        let (is_ready, ready) = mpsc::channel::<()>();
        let serving = std::thread::spawn(move || {
            let served = server.run(stopped, move || drop(is_ready));
            served.expect("the gateway ends in order");
        });
        // Dropped when it is ready.
        let _ = ready.recv();
        Self {
            address,
            upstream,
            stop,
            serving: Some(serving),
            _folder: folder,
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

/// One kept connection, and what goes over it.
pub struct Ends {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Ends {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            request: world::request(&world::call(CALL_BYTES)),
            buffer: Vec::new(),
        }
    }

    /// One call and its reply.
    pub fn call(&mut self) {
        self.stream.write_all(&self.request).expect("it is written");
        read_message(&mut self.stream, &mut self.buffer).expect("an answer");
        assert!(
            self.buffer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&self.buffer)
        );
    }
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
