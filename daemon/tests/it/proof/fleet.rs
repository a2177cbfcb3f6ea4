//! Real gateways, each in a namespace of its own: three voters and, behind them, lease clients.

use super::net::{Net, run};
use crate::harness::{PATIENCE, Token, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A gateway.
pub struct Node {
    index: usize,
    host: String,
    dir: PathBuf,
    pub address: SocketAddr,
    child: Option<Child>,
    /// Set before the program starts, e.g. for another wall clock.
    pub env: Vec<(String, String)>,
}

/// A cluster.
pub struct Fleet {
    pub nodes: Vec<Node>,
    pub voters: usize,
    dir: TempDir,
}

/// What every node is told beside its place: the server and the policies.
pub struct Told {
    pub upstream: String,
    /// Policies by name, native.
    pub policies: Vec<(String, Value)>,
    /// Grants: id, token, policy.
    pub grants: Vec<(String, Token, String)>,
}

impl Fleet {
    /// Forms a cluster of these voters and clients; every node is up when this returns.
    pub fn form(net: &Net, told: &Told, voters: usize, clients: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = (0..voters + clients)
            .map(|index| {
                let node = Node {
                    index,
                    host: net.host(index),
                    dir: dir.path().join(format!("n{index}")),
                    address: SocketAddr::new(net.address(index), 7420),
                    child: None,
                    env: Vec::new(),
                };
                fs::create_dir(&node.dir).unwrap();
                let role = if index < voters { "voter" } else { "client" };
                let first = format!("{}:7400", net.address(0));
                fs::write(node.config(), config(&node, told, role, &first)).unwrap();
                node
            })
            .collect();
        let mut fleet = Self { nodes, voters, dir };
        fleet.nodes[0].tollgate(&["cluster", "init"]);
        fleet.nodes[0].start();
        for index in 1..voters + clients {
            let role = if index < voters { "voter" } else { "client" };
            let token = fleet.nodes[index].dir.join("join.token");
            let token = token.to_str().unwrap();
            fleet.nodes[0].tollgate(&["cluster", "token", "--role", role, "--out", token]);
            fleet.nodes[index].start();
        }
        eventually("all nodes are members, and all voters vote", || {
            fleet.status(0).is_some_and(|status| {
                let members = status["members"].as_array().map_or(0, Vec::len);
                members == voters + clients && !status.to_string().contains(r#""learner":true"#)
            })
        });
        fleet
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub fn audits(&self) -> Vec<PathBuf> {
        self.nodes
            .iter()
            .map(|node| node.dir.join("audit.jsonl"))
            .collect()
    }

    /// What a node says of the cluster.
    pub fn cluster(&self, index: usize) -> Option<Value> {
        let output = self.nodes[index]
            .command(&["cluster", "status", "--json"])
            .output()
            .ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What its leader says of the cluster.
    pub fn status(&self, index: usize) -> Option<Value> {
        Some(self.cluster(index)?["led"].clone()).filter(Value::is_object)
    }

    /// The voter that leads, as the first voter that answers says.
    pub fn leader(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let running = (0..self.voters).filter(|index| self.nodes[*index].child.is_some());
            let found = running
                .filter_map(|index| self.status(index))
                .find_map(|led| {
                    let leads = led["members"]
                        .as_array()?
                        .iter()
                        .find(|member| member["leader"] == true)?;
                    self.nodes
                        .iter()
                        .position(|node| leads["name"] == node.name())
                });
            match found {
                Some(index) => return index,
                None => assert!(Instant::now() < until, "no leader"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends every process in good order, so that audit trails are whole.
    pub fn end(mut self) -> (TempDir, Vec<PathBuf>) {
        let audits = self.audits();
        // Clients first: they return what they hold.
        for index in (0..self.nodes.len()).rev() {
            self.nodes[index].terminate();
        }
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (dir, audits)
    }
}

impl Node {
    pub fn name(&self) -> String {
        format!("n{}", self.index)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn config(&self) -> PathBuf {
        self.dir.join("tollgate.yaml")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host, env!("CARGO_BIN_EXE_tollgate")]);
        command.args(words).arg("--config").arg(self.config());
        command
    }

    /// A command line of this node's that must succeed.
    pub fn tollgate(&self, words: &[&str]) -> String {
        let config = self.config();
        let tail = ["--config", config.to_str().unwrap()];
        let program = ["netns", "exec", &self.host, env!("CARGO_BIN_EXE_tollgate")];
        run("ip", &[&program, words, &tail].concat(), "")
    }

    /// Starts the gateway and waits until it serves.
    pub fn start(&mut self) {
        self.launch();
        let until = Instant::now() + PATIENCE;
        while !self.said("listening on ") {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && Instant::now() < until,
                "{}: {ended:?}\n{}",
                self.name(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the gateway and does not wait.
    pub fn launch(&mut self) {
        let log = File::create(self.dir.join("log")).unwrap();
        let child = self
            .command(&["serve"])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn said(&self, what: &str) -> bool {
        self.log().contains(what)
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    /// As a power cut: nothing is returned, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        let child = self.child.as_mut()?;
        child.try_wait().unwrap().map(|status| status.code())
    }

    /// SIGTERM, and the wait for a good end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while let Some(child) = &mut self.child {
            if child.try_wait().unwrap().is_some() {
                self.child = None;
                return;
            }
            assert!(
                Instant::now() < until,
                "{} did not end:\n{}",
                self.name(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of {}\n{}", self.name(), self.log());
        }
        self.kill();
    }
}

fn config(node: &Node, told: &Told, role: &str, first: &str) -> String {
    let ip = node.address.ip();
    let mut cluster = json!({
        "data_dir": node.dir.join("data"), "name": node.name(), "role": role,
    });
    if role == "voter" {
        cluster["listen"] = json!(format!("{ip}:7400"));
    }
    if node.index > 0 {
        let token = node.dir.join("join.token");
        cluster["join"] = json!({ "peers": [first], "token": { "file": token } });
    }
    let policies: serde_json::Map<String, Value> = told
        .policies
        .iter()
        .map(|(name, policy)| (name.clone(), json!({ "inline": policy })))
        .collect();
    let grants: Vec<Value> = told
        .grants
        .iter()
        .map(|(id, token, policy)| json!({ "id": id, "token_sha256": token.sha256, "servers": { "s": policy } }))
        .collect();
    json!({
        "listeners": [{ "address": node.address.to_string(), "insecure": true }],
        "servers": { "s": { "url": told.upstream } },
        "policies": policies,
        "grants": grants,
        "audit": { "sink": { "file": { "path": node.dir.join("audit.jsonl"), "rotate_bytes": "1GiB" } } },
        "admin": { "socket": node.dir.join("admin/admin.sock") },
        "cluster": cluster,
        "bounds": { "drain_delay": "0s", "drain_timeout": "5s" },
    })
    .to_string()
}
