//! The usual limiter on Redis: one script a call, `INCR` and an expiry at the first; one process, no replica, in memory.

use crate::{Effort, quantiles};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Counts, and lets the count expire with its window.
const SCRIPT: &str = "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end return n";

/// For a connection and for an answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// The two lines of RESP that this needs: a client library would bring thirty packages.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self(BufReader::new(stream)))
    }

    /// One command whose answer is an integer.
    fn ask(&mut self, words: &[&str]) -> Option<u64> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(command.as_bytes()).ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        line.strip_prefix(':')?.trim_end().parse().ok()
    }
}

/// A server of our own on loopback.
pub struct Server {
    address: SocketAddr,
    dir: TempDir,
    process: Child,
}

impl Server {
    /// `None` where Debian's redis-server is not installed.
    pub fn start() -> Option<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|socket| socket.local_addr())
            .ok()?;
        let dir = tempfile::tempdir().ok()?;
        let process = spawn(address, &dir)?;
        Some(Self {
            address,
            dir,
            process,
        })
    }

    fn connect(&self) -> Option<Connection> {
        Connection::open(self.address)
    }

    fn wait(&self) {
        while self.connect().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, and a new one at once, as a supervisor does.
    fn die(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(self.address, &self.dir).expect("it started before");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(address: SocketAddr, dir: &TempDir) -> Option<Child> {
    Command::new("redis-server")
        .args([
            "--bind",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
        ])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// One decision: the count after this call.
fn count(connection: &mut Connection, key: &str, window_ms: u64) -> Option<u64> {
    connection.ask(&["EVAL", SCRIPT, "1", key, &window_ms.to_string()])
}

/// Prints decisions a second and their times.
fn decisions(server: &Server, effort: Effort) {
    for connections in [1usize, 8, 64] {
        let (stop, began) = (AtomicBool::new(false), Instant::now());
        let all: Vec<Duration> = std::thread::scope(|scope| {
            let work: Vec<_> = (0..connections)
                .map(|index| {
                    let stop = &stop;
                    scope.spawn(move || {
                        let mut connection = server.connect().expect("the server answers");
                        let (key, mut taken) = (format!("hot{index}"), Vec::new());
                        while !stop.load(Relaxed) {
                            let began = Instant::now();
                            if count(&mut connection, &key, 60_000).is_some() {
                                taken.push(began.elapsed());
                            }
                        }
                        taken
                    })
                })
                .collect();
            std::thread::sleep(effort.each);
            stop.store(true, Relaxed);
            work.into_iter()
                .flat_map(|thread| thread.join().unwrap_or_default())
                .collect()
        });
        let rate = all.len() as f64 / began.elapsed().as_secs_f64();
        let [p50, p99, worst] = quantiles(all);
        println!(
            "{:<34} {rate:>12.0} {p50:>10.1} {p99:>10.1} {worst:>10.1}",
            format!("Redis, {connections} connections")
        );
    }
}

/// What is admitted of one window's quota when the server dies in its middle; calls during the outage are denied.
pub fn admitted_through_a_death(server: &mut Server, max: u64, window: Duration) -> u64 {
    let (admitted, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = server.address;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (admitted, stop) = (&admitted, &stop);
            scope.spawn(move || {
                let mut connection = None;
                while !stop.load(Relaxed) {
                    if connection.is_none() {
                        connection = Connection::open(address);
                    }
                    let counted = connection
                        .as_mut()
                        .and_then(|c| count(c, "death", 3_600_000));
                    match counted {
                        Some(n) if n <= max => drop(admitted.fetch_add(1, Relaxed)),
                        Some(_) => {}
                        None => connection = None,
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
        std::thread::sleep(window / 2);
        server.die();
        std::thread::sleep(window / 2);
        stop.store(true, Relaxed);
    });
    admitted.load(Relaxed)
}

/// A server whose decisions were measured and printed; `None` where Redis is not installed.
pub fn measured(effort: Effort) -> Option<Server> {
    let Some(server) = Server::start() else {
        println!("redis-server is not installed (Debian: redis-server): no comparison");
        return None;
    };
    server.wait();
    decisions(&server, effort);
    Some(server)
}
