//! Several nodes, formed with the commands that the README gives, and what operators do to them.

use crate::harness::*;
use loadtest::upstream::{Options, Running, Upstream};
use serde_json::{Value, json};
use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// The token of the shipped configurations.
const TOKEN: &str = "tg_dGhpcyB0b2tlbiBpcyBrbm93biB0byBldmVyeWJvZHk";
/// How long a cluster may take to form or to mend.
const LONG: Duration = Duration::from_secs(60);
/// The ports of the shipped configurations: gateways, nodes, the server.
const PORTS: [u16; 8] = [7411, 7412, 7413, 7414, 7421, 7422, 7423, 7430];

/// A copy of what is shipped, on free ports, and a recording server before which it stands.
struct World {
    dir: TempDir,
    ports: [u16; PORTS.len()],
    upstream: Running,
    shells: Vec<(String, Shell)>,
}

/// What runs in one terminal.
struct Shell {
    child: Child,
    log: PathBuf,
}

impl Shell {
    /// Ends what was started in it with a signal.
    fn kill(&mut self, signal: rustix::process::Signal) {
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, signal);
        let _ = self.child.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.kill(rustix::process::Signal::KILL);
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {}\n{log}", self.log.display());
        }
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(Options::default()).unwrap();
        let mut ports = PORTS.map(free_port);
        ports[7] = port_of(&upstream.url());
        let world = Self {
            dir,
            ports,
            upstream,
            shells: Vec::new(),
        };
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        for folder in ["cluster", "policies"] {
            let to = world.path("config").join(folder);
            fs::create_dir_all(&to).unwrap();
            for entry in fs::read_dir(shipped.join(folder)).unwrap() {
                let entry = entry.unwrap();
                let text = fs::read_to_string(entry.path()).unwrap();
                fs::write(to.join(entry.file_name()), world.moved(&text)).unwrap();
            }
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A text with its ports replaced.
    fn moved(&self, text: &str) -> String {
        let pairs = PORTS.iter().zip(self.ports);
        pairs.fold(text.to_owned(), |text, (from, to)| {
            text.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"))
        })
    }

    fn command(&self, program: &str) -> Command {
        let bin = Path::new(TOLLGATE).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env("PATH", format!("{bin}:{path}"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a line in a terminal of its own.
    fn open(&mut self, name: &str, line: &str) {
        let log = self.path(&format!("{name}.log"));
        let sink = || {
            fs::File::options()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap()
        };
        let child = self
            .command("sh")
            .args(["-c", line])
            .stdout(sink())
            .stderr(sink())
            .process_group(0)
            .spawn()
            .unwrap();
        self.shells.push((name.to_owned(), Shell { child, log }));
    }

    fn shell(&mut self, name: &str) -> &mut Shell {
        let shell = self.shells.iter_mut().find(|(known, _)| known == name);
        &mut shell.unwrap().1
    }

    /// `kill -9` of whatever runs in the terminal.
    fn kill(&mut self, name: &str) {
        self.shell(name).kill(rustix::process::Signal::KILL);
        self.shells.retain(|(known, _)| known != name);
    }

    /// Ends it in order.
    fn stop(&mut self, name: &str) {
        self.shell(name).kill(rustix::process::Signal::TERM);
        self.shells.retain(|(known, _)| known != name);
    }

    fn tollgate(&self, arguments: &[&str]) -> Output {
        self.command(TOLLGATE).args(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.tollgate(arguments);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}{why}");
        told
    }

    /// What `tollgate cluster status --json` says, asked of this node; `None` where none answers.
    fn status(&self, node: &str) -> Option<Value> {
        let config = format!("config/cluster/{node}.yaml");
        let output = self.tollgate(&["cluster", "status", "--json", "-c", &config]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["led"].is_object().then_some(status)
    }

    /// Names of the voters that vote and are heard, as this node's leader sees it.
    fn voters(&self, node: &str) -> Vec<String> {
        let Some(status) = self.status(node) else {
            return Vec::new();
        };
        let members = status["led"]["members"].as_array().unwrap().clone();
        let votes = |m: &Value| {
            m["role"] == "voter"
                && m["learner"] == false
                && m["leaving"] == false
                && (m["reachable"] == true || m["leader"] == true)
        };
        let voting = members.iter().filter(|m| votes(m));
        voting
            .map(|m| m["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn wait_for_voters(&self, node: &str, voters: &[&str]) {
        within(LONG, &format!("{node} sees voters {voters:?}"), || {
            self.voters(node) == voters
        });
    }

    fn wait_until_ready(&self, node: usize) {
        let address = self.gateway(node);
        within(LONG, &format!("{address} is ready"), || {
            std::net::TcpStream::connect(address).is_ok() && {
                let ask =
                    format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                send(address, ask).status == 200
            }
        });
    }

    fn gateway(&self, node: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[node]))
    }

    /// One call through a node; the code of its denial.
    fn call(&self, node: usize) -> Option<String> {
        let client = Client {
            address: self.gateway(node),
            path: "/mcp/images".into(),
            token: TOKEN.into(),
            session: None,
        };
        client.call("img2img", json!({ "prompt": "fog" })).denial()
    }

    fn executed(&self) -> usize {
        self.upstream.recorder().count("img2img")
    }

    /// Opens the README's terminals: `a`, `b`, `c`, each when the one before serves.
    fn form(&mut self) {
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            let line = terminal(name);
            self.open(name, &line);
            self.wait_until_ready(i);
        }
        self.wait_for_voters("a", &["a", "b", "c"]);
    }
}

/// A port that nobody has, for TCP and UDP.
fn free_port(_: u16) -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn port_of(url: &str) -> u16 {
    let uri: http::Uri = url.parse().unwrap();
    uri.port_u16().unwrap()
}

fn within(patience: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !check() {
        assert!(Instant::now() < until, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The README's line that serves with this node's configuration, exactly as it is written there.
fn terminal(name: &str) -> String {
    let readme = include_str!("../../../README.md");
    let end = format!("tollgate serve -c config/cluster/{name}.yaml");
    let line = readme.lines().find(|line| line.ends_with(&end));
    line.unwrap_or_else(|| panic!("the README has no line for {name}"))
        .to_owned()
}

/// Enough of a minute's window must be left for what is about to be counted.
fn wait_for_a_fresh_minute(needed_s: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seconds = now.as_secs() % 60;
    if seconds + needed_s > 60 {
        std::thread::sleep(Duration::from_secs(61 - seconds));
    }
}

#[test]
fn the_readmes_commands_form_a_cluster_whose_nodes_admit_30_calls_a_minute_together() {
    let mut world = World::new();
    world.form();
    world.open("client", &terminal("client"));
    world.wait_until_ready(3);
    wait_for_a_fresh_minute(30);
    let denials: Vec<_> = (0..100).filter_map(|n| world.call(n % 4)).collect();
    assert_eq!(world.executed(), 30);
    assert!(denials.iter().all(|code| code == "limit"), "{denials:?}");
    let shown = world.done(&[
        "limits",
        "show",
        "--json",
        "-c",
        "config/cluster/client.yaml",
    ]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let counter = &shown["counters"][0];
    assert_eq!(shown["ledger"], true, "{shown}");
    assert_eq!(
        (&counter["used"], &counter["max"]),
        (&json!("30"), &json!("30")),
        "{shown}"
    );
    assert_eq!(counter["scope_value"], "agent");
    assert!(!counter["holders"].as_array().unwrap().is_empty());
    let status = world.status("b").unwrap();
    let members = status["led"]["members"].as_array().unwrap();
    let names: Vec<_> = members
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b", "c", "client"], "voters first");
}

#[test]
fn a_killed_voter_is_replaced_and_no_quota_is_reborn() {
    let mut world = World::new();
    world.form();
    wait_for_a_fresh_minute(40);
    (0..20).for_each(|n| drop(world.call(n % 3)));
    world.kill("c");
    // The two that are left have a leader, and their own leases.
    within(LONG, "a and b agree without c", || {
        let voters = world.voters("b");
        voters == ["a", "b"]
    });
    (0..60).for_each(|n| drop(world.call(n % 2)));
    assert!(world.executed() <= 30, "{}", world.executed());
    let told = world.tollgate(&["cluster", "status", "-c", "config/cluster/a.yaml"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("tollgate cluster remove c"), "{told}");

    world.done(&["cluster", "remove", "c", "-c", "config/cluster/a.yaml"]);
    fs::remove_dir_all(world.path("target/cluster/c")).unwrap();
    world.open("c", &terminal("c"));
    world.wait_for_voters("a", &["a", "b", "c"]);
    let status = world.status("c").unwrap();
    let members = status["led"]["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{status}");
    (0..30).for_each(|_| drop(world.call(2)));
    assert!(
        world.executed() <= 30 || elapsed_into_minute() < 40,
        "{}",
        world.executed()
    );
}

fn elapsed_into_minute() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        % 60
}

#[test]
fn a_copy_of_the_state_becomes_a_new_cluster_and_so_does_what_one_voter_has_left() {
    let mut world = World::new();
    world.form();
    let old = world.status("a").unwrap()["cluster"].clone();
    let copy = world.path("copy.snapshot").display().to_string();
    let made = world.done(&["cluster", "snapshot", &copy, "-c", "config/cluster/b.yaml"]);
    assert!(made.contains(&copy), "{made}");
    let again = world.tollgate(&["cluster", "snapshot", &copy, "-c", "config/cluster/b.yaml"]);
    assert!(!again.status.success(), "a copy never replaces a file");
    for name in ["b", "c"] {
        world.kill(name);
    }
    world.stop("a");
    let unsure = world.tollgate(&["cluster", "recover", "-c", "config/cluster/a.yaml"]);
    assert!(String::from_utf8_lossy(&unsure.stderr).contains("--force"));
    world.done(&[
        "cluster",
        "recover",
        "--force",
        "-c",
        "config/cluster/a.yaml",
    ]);
    world.open("a", "tollgate serve -c config/cluster/a.yaml");
    world.wait_for_voters("a", &["a"]);
    let recovered = world.status("a").unwrap()["cluster"].clone();
    assert_ne!(recovered, old);
    world.stop("a");

    fs::remove_dir_all(world.path("target/cluster/a")).unwrap();
    world.done(&["cluster", "restore", &copy, "-c", "config/cluster/a.yaml"]);
    world.open("a", "tollgate serve -c config/cluster/a.yaml");
    world.wait_for_voters("a", &["a"]);
    let restored = world.status("a").unwrap()["cluster"].clone();
    assert!(restored != old && restored != recovered, "{restored}");
}
