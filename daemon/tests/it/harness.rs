//! A real gateway before a recording server, and a client that sends exactly the bytes that a test wants.

use loadtest::upstream::{Options, Running, Upstream};
use proto::grant::token;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A grant's token with what the configuration keeps of it.
#[derive(Clone)]
pub struct Token {
    pub text: String,
    pub sha256: String,
}

pub fn new_token() -> Token {
    let text = token(&daemon::clock::random());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let sha256 = format!(
        "sha256:{}",
        digest
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    );
    Token { text, sha256 }
}

/// `tollgate serve` on a free loopback port.
pub struct Gate {
    pub address: SocketAddr,
    pub dir: TempDir,
    state: TempDir,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    /// Starts with this configuration; `listeners`, `audit` and `admin` are filled in where it does not say.
    pub fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    pub fn start_in(dir: TempDir, config: &str) -> Self {
        Self::start_with(dir, config, Stdio::null())
    }

    /// As [`Gate::start_in`], with a standard output.
    pub fn start_with(dir: TempDir, config: &str, stdout: Stdio) -> Self {
        let path = dir.path().join("tollgate.yaml");
        std::fs::write(&path, complete(dir.path(), config)).unwrap();
        Self::spawn(tollgate(), dir, state_dir(), stdout)
    }

    /// With its data on a disk of its own of so many MiB; `None`: this test may not mount one.
    pub fn start_on_small_disk(config: &str, size: u32) -> Option<Self> {
        let state = state_dir();
        let mount = format!(
            "mount -t tmpfs -o size={size}m,mode=0700 none '{}'",
            state.path().display()
        );
        let may = Command::new("unshare")
            .args(["-m", "sh", "-c", &mount])
            .status();
        if !may.is_ok_and(|status| status.success()) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tollgate.yaml");
        std::fs::write(&path, complete(dir.path(), config)).unwrap();
        let mut command = Command::new("unshare");
        let script = format!("{mount} && exec \"$0\" \"$@\"");
        command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_tollgate")]);
        Some(Self::spawn(command, dir, state, Stdio::null()))
    }

    /// The data directory as the gateway sees it, on whatever disk.
    pub fn state(&self) -> PathBuf {
        let inside = self.state.path().strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.pid())).join(inside)
    }

    /// Ends the process with this signal and starts another one with the same files.
    pub fn restart(mut self, signal: rustix::process::Signal) -> Self {
        self.signal(signal);
        self.wait();
        let fresh = |dir| std::mem::replace(dir, tempfile::tempdir().unwrap());
        let (dir, state) = (fresh(&mut self.dir), fresh(&mut self.state));
        Self::spawn(tollgate(), dir, state, Stdio::null())
    }

    fn spawn(mut command: Command, dir: TempDir, state: TempDir, stdout: Stdio) -> Self {
        let mut child = command
            .args(["serve", "--config"])
            .arg(dir.path().join("tollgate.yaml"))
            .env("STATE_DIRECTORY", state.path())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = std::sync::mpsc::channel();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(at) = line.split("listening on ").nth(1) {
                    let at = at
                        .trim_start_matches("http://")
                        .trim_start_matches("https://");
                    let _ = sender.send(at.parse().unwrap());
                }
                lines.lock().unwrap().push(line);
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(address) => Self {
                address,
                dir,
                state,
                child,
                log,
            },
            Err(_) => {
                let _ = child.kill();
                panic!(
                    "the gateway did not start:\n{}",
                    log.lock().unwrap().join("\n")
                );
            }
        }
    }

    /// Before one recording server named `s`; the grants are `(id, token, policy name)`, `policies` is YAML of that section.
    pub fn before(
        upstream: &Running,
        policies: &str,
        grants: &[(&str, &Token, &str)],
        more: &str,
    ) -> Self {
        let servers = format!("servers:\n  s:\n    url: {}\n", upstream.url());
        Self::start(&format!("{servers}{}{more}", sections(policies, grants)))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the configuration as an editor does: written beside, then renamed over.
    pub fn rewrite(&self, config: &str) {
        let beside = self.path("tollgate.yaml.new");
        std::fs::write(&beside, complete(self.dir.path(), config)).unwrap();
        std::fs::rename(beside, self.path("tollgate.yaml")).unwrap();
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the gateway did not end:\n{}", self.log());
    }

    /// The audit lines so far that `wanted` picks, once there are `count` of them.
    pub fn audit(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let path = self.path("audit.jsonl");
        let until = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let lines: Vec<Value> = lines
                .map(|line| serde_json::from_str(line).unwrap())
                .filter(&wanted)
                .collect();
            if lines.len() >= count {
                return lines;
            }
            assert!(
                Instant::now() < until,
                "wanted {count} lines of\n{text}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn metrics(&self) -> String {
        let reply = send(
            self.address,
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", self.address),
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text()
    }

    /// A client of `/mcp/<server>`.
    pub fn client(&self, server: &str, token: &Token) -> Client {
        Client {
            address: self.address,
            path: format!("/mcp/{server}"),
            token: token.text.clone(),
            session: None,
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log());
        }
    }
}

fn tollgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
}

/// Where a gateway keeps its ledger: in memory where the system has such a place, because many gateways on one busy disk
/// keep each other waiting for longer than a call may wait for quota. What a killed process wrote is there nevertheless.
fn state_dir() -> TempDir {
    let in_memory = tempfile::Builder::new()
        .prefix("tollgate-it-")
        .tempdir_in("/dev/shm");
    in_memory.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn complete(dir: &Path, config: &str) -> String {
    let mut whole = config.to_owned();
    for (key, value) in [
        (
            "listeners",
            "listeners:\n  - address: 127.0.0.1:0\n".to_owned(),
        ),
        (
            "audit",
            format!(
                "audit:\n  sink:\n    file:\n      path: {}\n",
                dir.join("audit.jsonl").display()
            ),
        ),
        (
            "admin",
            format!(
                "admin:\n  socket: {}\n",
                dir.join("admin/admin.sock").display()
            ),
        ),
    ] {
        if !config
            .lines()
            .any(|line| line.starts_with(&format!("{key}:")))
        {
            whole.push_str(&value);
        }
    }
    whole
}

/// The `policies` and `grants` sections.
pub fn sections(policies: &str, grants: &[(&str, &Token, &str)]) -> String {
    let mut yaml = format!("policies:\n{policies}\ngrants:\n");
    for (id, token, policy) in grants {
        let policy = if policy.is_empty() { "null" } else { policy };
        yaml.push_str(&format!(
            "  - id: {id}\n    token_sha256: {}\n    servers: {{ s: {policy} }}\n",
            token.sha256
        ));
    }
    yaml
}

/// A policy section entry with an inline native policy.
pub fn inline(name: &str, policy: &Value) -> String {
    format!("  {name}:\n    inline: {policy}\n")
}

/// A recording server with default options.
pub fn upstream() -> Running {
    Upstream::start(Options::default()).unwrap()
}

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The JSON-RPC messages of a JSON or SSE body.
    pub fn messages(&self) -> Vec<Value> {
        if self
            .header("content-type")
            .is_some_and(|t| t.starts_with("text/event-stream"))
        {
            let text = self.text();
            let data = text
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(str::trim);
            return data
                .filter(|d| !d.is_empty())
                .map(|d| serde_json::from_str(d).unwrap())
                .collect();
        }
        serde_json::from_slice(&self.body)
            .map(|message| vec![message])
            .unwrap_or_default()
    }
    /// The last message: of a stream, the reply.
    pub fn message(&self) -> Value {
        self.messages()
            .pop()
            .unwrap_or_else(|| panic!("no message in {} {}", self.status, self.text()))
    }
    /// The denial's code, if this is one.
    pub fn denial(&self) -> Option<String> {
        let message = self.messages().pop()?;
        message["result"]["_meta"]["dev.tollgate/denial"]["code"]
            .as_str()
            .map(str::to_owned)
    }
}

/// Sends bytes on a connection of their own and reads one reply.
pub fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let mut stream = open(address);
    // A gateway that refuses early may close while we still write: what it said counts.
    let _ = stream.write_all(bytes.as_ref());
    read_reply(&mut BufReader::new(stream)).expect("a reply")
}

pub fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads the head of a reply.
pub fn read_head(reader: &mut impl BufRead) -> Option<Reply> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Some(Reply {
        status,
        headers,
        body: Vec::new(),
    })
}

/// Reads a whole reply; `None` when the connection ends before its head.
pub fn read_reply(reader: &mut impl BufRead) -> Option<Reply> {
    let mut reply = read_head(reader)?;
    if let Some(length) = reply.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        reply.body = body;
    } else if reply.header("transfer-encoding").is_some() {
        while let Some(chunk) = read_chunk(reader) {
            reply.body.extend(chunk);
        }
    }
    Some(reply)
}

/// Reads one chunk of a chunked body; `None` at its end.
pub fn read_chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

/// A client of one endpoint.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub path: String,
    pub token: String,
    pub session: Option<String>,
}

impl Client {
    /// The request's bytes, with the headers that every client sends.
    pub fn bytes(&self, verb: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head = format!(
            "{verb} {} HTTP/1.1\r\nHost: {}\r\n",
            self.path, self.address
        );
        let mut put = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        put("Authorization", &format!("Bearer {}", self.token));
        if !given("accept") {
            put("Accept", "application/json, text/event-stream");
        }
        if verb == "POST" && !given("content-type") {
            put("Content-Type", "application/json");
        }
        if let (Some(session), false) = (&self.session, given("mcp-session-id")) {
            put("Mcp-Session-Id", session);
        }
        headers.iter().for_each(|(name, value)| put(name, value));
        if verb == "POST" && !given("content-length") && !given("transfer-encoding") {
            put("Content-Length", &body.len().to_string());
        }
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        bytes
    }

    pub fn request(&self, verb: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        send(self.address, self.bytes(verb, headers, body))
    }

    /// POSTs these bytes.
    pub fn post(&self, body: &[u8]) -> Reply {
        self.request("POST", &[], body)
    }

    /// A modern request's body.
    pub fn modern_body(method: &str, mut params: Value) -> Value {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    /// A modern request with its headers.
    pub fn modern(&self, method: &str, params: Value) -> Reply {
        let name = params["name"]
            .as_str()
            .or(params["uri"].as_str())
            .map(str::to_owned);
        let mut headers = vec![
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", method),
        ];
        if let Some(name) = &name {
            headers.push(("Mcp-Name", name));
        }
        self.request(
            "POST",
            &headers,
            Self::modern_body(method, params).to_string().as_bytes(),
        )
    }

    /// A modern `tools/call`.
    pub fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.modern(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
    }

    /// Opens a legacy session; the client keeps its id.
    pub fn initialize(&mut self, version: &str) -> Reply {
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "it", "version": "1" } });
        self.session = None;
        let reply = self.legacy("initialize", params);
        self.session = reply.header("mcp-session-id").map(str::to_owned);
        if self.session.is_some() {
            let accepted = self.post(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
            assert_eq!(accepted.status, 202, "{}", accepted.text());
        }
        reply
    }

    /// A legacy request.
    pub fn legacy(&self, method: &str, params: Value) -> Reply {
        self.post(
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
                .to_string()
                .as_bytes(),
        )
    }

    /// A legacy `tools/call`.
    pub fn legacy_call(&self, tool: &str, arguments: Value) -> Reply {
        self.legacy(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
