//! The control plane on several nodes: what is put on one holds on all, and a node that is cut off refuses what it cannot
//! vouch for.

use crate::{commands::ask, harness::*};
use serde_json::{Value, json};
use std::{
    net::UdpSocket,
    process::{Command, Output},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The server `s`, the policy `q` and the grant `of-file` in every node's files.
fn files(upstream: &str, own: &Token) -> String {
    // Waiting for a grant asks with it over and over.
    format!(
        "bounds: {{ failed_tokens_minute: 100000 }}\nservers:\n  s: {{ url: {upstream} }}\npolicies:\n{}grants:\n  - id: of-file\n    token_sha256: {}\n    servers: {{ s: q }}\n",
        inline(
            "q",
            &json!({ "version": "1", "default": "allow", "tools": {} })
        ),
        own.sha256
    )
}

struct Node {
    gate: Option<Gate>,
    config: String,
    /// Not the gateway's own: it outlives it.
    state: TempDir,
}

impl Node {
    /// A node that is configured and not started.
    fn new(name: &str, role: &str, listen: Option<u16>, peers: &[u16], files: &str) -> Self {
        let state = TempDir::new().unwrap();
        let dir = state.path().display();
        let mut config = format!(
            "{files}cluster:\n  data_dir: {dir}/data\n  name: {name}\n  role: {role}\n  freshness_max: 1s\n"
        );
        if let Some(port) = listen {
            config += &format!("  listen: 127.0.0.1:{port}\n");
        }
        if !peers.is_empty() {
            let peers: Vec<_> = peers.iter().map(|p| format!("127.0.0.1:{p}")).collect();
            config += &format!(
                "  join: {{ peers: [{}], token: {{ file: {dir}/token }} }}\n",
                peers
                    .iter()
                    .map(|p| format!("\"{p}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        Self {
            gate: None,
            config,
            state,
        }
    }

    fn init(&self) {
        let file = self.state.path().join("init.yaml");
        std::fs::write(&file, &self.config).unwrap();
        let file = file.to_str().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["cluster", "init", "-c", file])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Lets it in through a node that runs, and starts it.
    fn join(&mut self, through: &Node, role: &str) {
        let token = self.state.path().join("token");
        let token = token.to_str().unwrap();
        let arguments = ["cluster", "token", "--role", role, "--out", token];
        eventually("a token is made", || {
            ask(through.gate(), &arguments).status.success()
        });
        self.start();
    }

    fn start(&mut self) {
        self.gate = Some(Gate::start(&self.config));
    }

    fn kill(&mut self) {
        let mut gate = self.gate.take().unwrap();
        gate.signal(rustix::process::Signal::KILL);
        gate.wait();
    }

    fn gate(&self) -> &Gate {
        self.gate.as_ref().unwrap()
    }

    fn call(&self, server: &str, token: &Token) -> Reply {
        self.gate().client(server, token).call("echo", json!({}))
    }
}

/// A UDP port that was free a moment ago.
fn port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn done(node: &Node, arguments: &[&str]) -> Output {
    let output = ask(node.gate(), arguments);
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    output
}

fn create(node: &Node, id: &str) -> Token {
    let server = [
        "grant", "create", "--id", id, "--server", "t=p", "--server", "s=q",
    ];
    let output = done(node, &server);
    Token {
        text: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        sha256: String::new(),
    }
}

/// Three voters and a lease client.
fn four(files: &str) -> Vec<Node> {
    let ports = [port(), port(), port()];
    let mut nodes = vec![
        Node::new("a", "voter", Some(ports[0]), &[ports[1], ports[2]], files),
        Node::new("b", "voter", Some(ports[1]), &[ports[0], ports[2]], files),
        Node::new("c", "voter", Some(ports[2]), &[ports[0], ports[1]], files),
        Node::new("d", "client", None, &ports, files),
    ];
    nodes[0].init();
    nodes[0].start();
    for (at, role) in [(1, "voter"), (2, "voter"), (3, "client")] {
        let (ready, rest) = nodes.split_at_mut(at);
        rest[0].join(&ready[0], role);
    }
    eventually("three vote", || {
        let status = ask(nodes[0].gate(), &["cluster", "status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let members = status["led"]["members"].as_array().cloned();
        let voting = |member: &Value| member["role"] == "voter" && member["learner"] == false;
        members.is_some_and(|members| members.iter().filter(|m| voting(m)).count() == 3)
    });
    nodes
}

#[test]
fn what_is_put_or_revoked_on_one_node_holds_on_all_and_a_node_that_is_cut_off_denies() {
    let (upstream, own) = (upstream(), new_token());
    let mut nodes = four(&files(&upstream.url(), &own));
    let policy = nodes[0].gate().path("p.yaml");
    std::fs::write(
        &policy,
        "version: \"1\"\ndefault: deny\ntools: { echo: {} }\n",
    )
    .unwrap();
    done(&nodes[0], &["server", "put", "t", "--url", &upstream.url()]);
    done(&nodes[0], &["policy", "put", "p", policy.to_str().unwrap()]);
    let (first, second) = (create(&nodes[0], "first"), create(&nodes[1], "second"));
    for node in &nodes {
        for (server, token) in [("t", &first), ("s", &first), ("t", &second), ("s", &own)] {
            eventually("it is served everywhere", || {
                let reply = node.call(server, token);
                reply.status == 200 && reply.denial().is_none()
            });
        }
    }
    let lease_client = told(&ask(nodes[3].gate(), &["grant", "revoke", "first"]));
    assert!(lease_client.contains("is a lease client"), "{lease_client}");

    done(&nodes[2], &["grant", "revoke", "first"]);
    assert_eq!(
        nodes[2].call("t", &first).status,
        401,
        "in force where it was asked"
    );
    let began = Instant::now();
    for node in &nodes {
        eventually("it is refused everywhere", || {
            node.call("t", &first).status == 401
        });
    }
    eprintln!("revoked on all nodes within {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(nodes[0].call("t", &second).status, 200);

    // Nobody is left to vouch for anything: grants of the log end with their freshness, those of the files do not.
    nodes[1].kill();
    nodes[2].kill();
    let began = Instant::now();
    for at in [0, 3] {
        let node = &nodes[at];
        eventually("grants of the log are refused", || {
            node.call("t", &second).denial().as_deref() == Some("unreachable")
        });
        assert_eq!(node.call("s", &own).denial(), None, "files go on");
    }
    eprintln!("refused within {:?} of the majority's end", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
    let list = nodes[0]
        .gate()
        .client("t", &second)
        .modern("tools/list", json!({}));
    assert_eq!(list.status, 503, "{}", list.text());
    let status = told(&ask(nodes[0].gate(), &["status"]));
    assert!(status.contains("TOO OLD"), "{status}");
    let written = ask(nodes[0].gate(), &["grant", "revoke", "second"]);
    assert!(!written.status.success(), "acknowledged without a majority");

    // What files revoke does not wait for the ledger, what they add does.
    let config = &nodes[0].config;
    let newcomer = new_token();
    let more = format!(
        "  - {{ id: newcomer, token_sha256: {}, servers: {{ s: q }} }}\ncluster:",
        newcomer.sha256
    );
    let config = config
        .replace("- id: of-file", "- id: of-file\n    revoked: true")
        .replacen("cluster:", &more, 1);
    nodes[0].gate().rewrite(&config);
    eventually("a file revokes without a ledger", || {
        nodes[0].call("s", &own).status == 401
    });

    nodes[1].start();
    eventually("a majority vouches again", || {
        nodes[0].call("s", &newcomer).status == 200
            && [0, 1, 3].iter().all(|at| {
                // The revocation above may or may not have been carried out.
                let reply = nodes[*at].call("t", &second);
                reply.status == 401 || (reply.status == 200 && reply.denial().is_none())
            })
    });
    let third = create(&nodes[0], "third");
    eventually("the log goes on", || {
        nodes[3].call("t", &third).denial().is_none()
    });
    for node in &nodes {
        if node.gate.is_some() {
            assert_eq!(
                node.call("t", &first).status,
                401,
                "what was acknowledged stays"
            );
        }
    }
}

#[test]
fn no_acknowledged_write_is_lost_while_voters_are_killed_one_after_the_other() {
    let (upstream, own) = (upstream(), new_token());
    let mut nodes = four(&files(&upstream.url(), &own));
    let policy = nodes[0].gate().path("p.yaml");
    std::fs::write(
        &policy,
        "version: \"1\"\ndefault: deny\ntools: { echo: {} }\n",
    )
    .unwrap();
    done(&nodes[0], &["server", "put", "t", "--url", &upstream.url()]);
    done(&nodes[0], &["policy", "put", "p", policy.to_str().unwrap()]);
    let (mut standing, mut revoked) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let (killed, asked) = (round % 3, (round + 1) % 3);
        let id = format!("g{round}");
        // Of two grants that are acknowledged one is revoked by somebody else, as its voter dies.
        standing.push((id.clone(), create(&nodes[asked], &id)));
        let doomed = create(&nodes[asked], &format!("doomed{round}"));
        nodes[killed].kill();
        let name = format!("doomed{round}");
        eventually("the others take the revocation", || {
            let output = ask(nodes[asked].gate(), &["grant", "revoke", &name]);
            output.status.success()
        });
        revoked.push(doomed);
        nodes[killed].start();
    }
    for node in &nodes {
        for (id, token) in &standing {
            eventually("what was created stands", || {
                let reply = node.call("t", token);
                reply.status == 200 && reply.denial().is_none()
            });
            let shown = told(&ask(node.gate(), &["grant", "show", id]));
            assert!(shown.contains("active"), "{shown}");
        }
        for token in &revoked {
            assert_eq!(
                node.call("t", token).status,
                401,
                "what was revoked stays so"
            );
        }
    }
}
