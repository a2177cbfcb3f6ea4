//! Voters as processes of their own, so that one can be killed.

use cluster::{
    handle::{self, Handle, Settings},
    join::{Token, Wish},
    setup,
};
use proto::command::{NodeId, Role};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// The first word of a voter's command line.
pub const VOTER: &str = "voter";

/// Three voters.
pub struct Fleet {
    dir: TempDir,
    voters: Vec<Voter>,
    clients: usize,
}

struct Voter {
    dir: PathBuf,
    listen: SocketAddr,
    node: NodeId,
    process: Option<(Child, ChildStdin)>,
}

fn clock() -> handle::Clock {
    Arc::new(daemon::clock::now)
}

impl Fleet {
    /// A cluster of this many voters, 1 or 3; the first lets the others in.
    pub async fn form(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut fleet = Self {
            dir,
            voters: Vec::new(),
            clients: 0,
        };
        for index in 0..count {
            let voter = Voter {
                dir: fleet.dir.path().join(format!("v{index}")),
                listen: free(),
                node: NodeId(0),
                process: None,
            };
            let address = voter.listen.to_string();
            let name = format!("v{index}");
            let identity = match fleet.voters.first() {
                None => {
                    setup::init(&voter.dir, &name, &address, daemon::clock::now()).expect("init")
                }
                Some(_) => {
                    let wish = Wish {
                        name,
                        address,
                        role: Role::Voter,
                    };
                    let (token, peer) = fleet.token(Role::Voter);
                    setup::join(&voter.dir, &[peer], &token, &wish)
                        .await
                        .expect("join")
                }
            };
            fleet.voters.push(Voter {
                node: identity.node,
                ..voter
            });
            fleet.start(index).await;
        }
        fleet
    }

    /// Asks the first voter for a token.
    fn token(&mut self, role: Role) -> (Token, String) {
        let first = &mut self.voters[0];
        let (child, input) = first.process.as_mut().expect("invariant: it was started");
        let word = if role == Role::Voter {
            "voter"
        } else {
            "client"
        };
        writeln!(input, "{word}").expect("the voter reads");
        let mut line = String::new();
        // One byte at a time: nothing of the next line is read ahead.
        let output = child.stdout.as_mut().expect("invariant: it is a pipe");
        while !line.ends_with('\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).expect("the voter answers");
            line.push(byte[0] as char);
        }
        (
            Token::parse(line.trim()).expect("a token"),
            first.listen.to_string(),
        )
    }

    /// A node in this process.
    pub async fn client(&mut self, role: Role) -> Handle {
        let (token, peer) = self.token(role);
        self.clients += 1;
        let name = format!("c{}", self.clients);
        let dir = self.dir.path().join(&name);
        let wish = Wish {
            name,
            address: String::new(),
            role,
        };
        setup::join(&dir, &[peer], &token, &wish)
            .await
            .expect("join");
        let handle = handle::open(Settings {
            bootstrap: false,
            ..Settings::alone(dir, clock())
        })
        .expect("open");
        handle
            .wait_for_session(Duration::from_secs(20))
            .await
            .expect("a session");
        handle
    }

    /// Starts a voter and waits until it has a session, so until there is a leader.
    pub async fn start(&mut self, index: usize) {
        let voter = &mut self.voters[index];
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg(VOTER)
            .arg(&voter.dir)
            .arg(voter.listen.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a voter");
        let input = child.stdin.take().expect("invariant: it is a pipe");
        let mut ready = [0; 6];
        let output = child.stdout.as_mut().expect("invariant: it is a pipe");
        output.read_exact(&mut ready).expect("the voter is ready");
        voter.process = Some((child, input));
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some((mut child, _)) = self.voters[index].process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where a node stands among the voters.
    pub fn position(&self, node: NodeId) -> usize {
        self.voters
            .iter()
            .position(|voter| voter.node == node)
            .expect("invariant: a voter leads")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for index in 0..self.voters.len() {
            self.kill(index);
        }
    }
}

/// A UDP port that nobody has at the moment.
fn free() -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
    socket.local_addr().expect("its address")
}

/// The process of a voter: opens it, then makes a token for each line of its input; ends with its input.
pub fn voter(words: &[String]) {
    let [dir, listen] = words else {
        panic!("a directory and an address")
    };
    let settings = Settings {
        listen: Some(listen.parse().expect("an address")),
        bootstrap: false,
        ..Settings::alone(Path::new(dir).to_owned(), clock())
    };
    let handle = handle::open(settings).expect("open");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(handle.wait_for_session(Duration::from_secs(30)))
        .expect("a leader");
    let mut output = std::io::stdout();
    writeln!(output, "ready")
        .and_then(|()| output.flush())
        .expect("the parent reads");
    for line in BufReader::new(std::io::stdin())
        .lines()
        .map_while(Result::ok)
    {
        let role = if line == "voter" {
            Role::Voter
        } else {
            Role::Client
        };
        let made = runtime.block_on(handle.token(role, Duration::from_secs(60)));
        let token = made
            .expect("the ledger takes it")
            .expect("invariant: it has the authority");
        writeln!(output, "{}", token.reveal())
            .and_then(|()| output.flush())
            .expect("the parent reads");
    }
    runtime.block_on(handle.shutdown());
}
