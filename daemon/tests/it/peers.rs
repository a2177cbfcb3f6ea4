//! Real MCP servers and clients: installed once into `target/peers`, driven as child processes.
//!
//! Where Node or Python is missing a test says `SKIPPED` and passes, unless `CI` is set: there it fails.

use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// Longest time for one installation, a registry's slowest day included.
const INSTALL_MAX: Duration = Duration::from_secs(600);
/// Longest time for one client's run.
const CLIENT_MAX: Duration = Duration::from_secs(90);

/// A set of packages that is installed together.
#[derive(Clone, Copy)]
enum Set {
    Node,
    Python,
    PythonModern,
}

impl Set {
    /// The manifest in `tests/peers`, the folder in `target/peers`.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Set::Node => ("package.json", "node"),
            Set::Python => ("requirements.txt", "python"),
            Set::PythonModern => ("requirements-modern.txt", "python-modern"),
        }
    }

    /// Whether what runs these packages is there at all.
    fn usable(self) -> Result<(), String> {
        match self {
            Set::Node => finish(Command::new("node").arg("--version")),
            Set::Python | Set::PythonModern => finish(Command::new("python3").arg("--version")),
        }
    }

    fn install(self, dir: &Path, manifest: &Path) -> Result<(), String> {
        match self {
            Set::Node => {
                fs::create_dir_all(dir).map_err(|e| e.to_string())?;
                fs::copy(manifest, dir.join("package.json")).map_err(|e| e.to_string())?;
                let npm = [
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--no-package-lock",
                    "--loglevel=error",
                ];
                finish(Command::new("npm").args(npm).arg("--prefix").arg(dir))
            }
            Set::Python | Set::PythonModern => {
                finish(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
                let pip = ["install", "--quiet", "--disable-pip-version-check", "-r"];
                finish(Command::new(dir.join("bin/pip")).args(pip).arg(manifest))
            }
        }
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// The folder of an installed set; `None` when the test cannot run here, which was said then.
fn installed(set: Set) -> Option<PathBuf> {
    match install_once(set) {
        Ok(dir) => Some(dir),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

/// Says that this test cannot run here; where `CI` is set, fails it.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not through `eprintln!`: the test harness would keep it to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

fn install_once(set: Set) -> Result<PathBuf, String> {
    set.usable()?;
    let (manifest, folder) = set.names();
    let manifest = sources().join(manifest);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../peers");
    let dir = root.join(folder);
    let stamp = root.join(format!("{folder}.installed"));
    fs::create_dir_all(&root).map_err(|e| e.to_string())?;
    // Other tests, in this process and in others, wait here.
    let lock = File::create(root.join(format!("{folder}.lock"))).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let wanted = fs::read(&manifest).map_err(|e| e.to_string())?;
    if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        let _ = fs::remove_dir_all(&dir);
        set.install(&dir, &manifest)?;
        fs::write(&stamp, wanted).map_err(|e| e.to_string())?;
    }
    dir.canonicalize().map_err(|e| e.to_string())
}

/// Runs a command to its end.
fn finish(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{shown}: {e}"))?;
    let (ok, _, stderr) = output(child, INSTALL_MAX);
    if ok {
        Ok(())
    } else {
        Err(format!("{shown}: {stderr}"))
    }
}

/// Waits for the end, at most this long, then kills: success, standard output, standard error.
fn output(mut child: Child, most: Duration) -> (bool, String, String) {
    fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        receiver
    }
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let until = Instant::now() + most;
    let ok = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break false;
            }
        }
    };
    // A grandchild may hold the pipes open.
    let text = |pipe: mpsc::Receiver<String>| {
        pipe.recv_timeout(Duration::from_secs(5))
            .unwrap_or_default()
    };
    (ok, text(stdout), text(stderr))
}

/// An official client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// npm `@modelcontextprotocol/sdk` (v1): sessions.
    TypeScript,
    /// npm `@modelcontextprotocol/client` (v2), held to 2026-07-28.
    TypeScriptModern,
    /// PyPI `mcp` 1.x: sessions.
    Python,
    /// PyPI `mcp` 2.x, held to 2026-07-28.
    PythonModern,
}

impl Client {
    pub const ALL: [Client; 4] = [
        Client::TypeScript,
        Client::TypeScriptModern,
        Client::Python,
        Client::PythonModern,
    ];
    pub const LEGACY: [Client; 2] = [Client::TypeScript, Client::Python];

    /// Connects to an endpoint with a token, takes the steps of `tests/peers/client.mjs` and returns an answer for each;
    /// `None` when the client cannot be had here.
    pub fn run(self, url: &str, token: &str, steps: &Value) -> Option<Vec<Value>> {
        let mut command = match self {
            Client::TypeScript | Client::TypeScriptModern => {
                let node = installed(Set::Node)?;
                let era = if self == Client::TypeScript {
                    "legacy"
                } else {
                    "modern"
                };
                let mut command = Command::new("node");
                command
                    .arg(sources().join("client.mjs"))
                    .arg(era)
                    .env("PEERS_NODE", node);
                command
            }
            Client::Python => {
                let mut command = Command::new(installed(Set::Python)?.join("bin/python"));
                command.arg(sources().join("client.py"));
                command
            }
            Client::PythonModern => {
                let mut command = Command::new(installed(Set::PythonModern)?.join("bin/python"));
                command.arg(sources().join("client_modern.py"));
                command
            }
        };
        let mut child = command
            .args([url, token])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(steps.to_string().as_bytes()).unwrap();
        drop(stdin);
        let (ok, stdout, stderr) = output(child, CLIENT_MAX);
        assert!(ok, "{self:?} failed:\n{stdout}\n{stderr}");
        Some(
            stdout
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        )
    }
}

/// The command line of npm `@modelcontextprotocol/server-everything`, without its transport.
pub fn everything() -> Option<Vec<String>> {
    let script = installed(Set::Node)?
        .join("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    Some(vec!["node".into(), script.to_str().unwrap().into()])
}

/// The program of PyPI `mcp-flux-pro`.
pub fn flux_pro() -> Option<String> {
    let program = installed(Set::Python)?.join("bin/mcp-flux-pro");
    Some(program.to_str().unwrap().into())
}

/// `server-everything` over streamable HTTP, until dropped.
pub struct EverythingHttp {
    child: Child,
    port: u16,
}

impl EverythingHttp {
    pub fn start() -> Option<Self> {
        let command = everything()?;
        // It takes no port 0: one that was free a moment ago must do.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap()
            .port();
        let child = Command::new(&command[0])
            .args(&command[1..])
            .arg("streamableHttp")
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "server-everything did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }
}

impl Drop for EverythingHttp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
