//! The same server as a child process.

use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
};

struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-loadtest"))
            .args(["upstream", "--stdio"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }
    fn send(&mut self, message: Value) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}").unwrap();
    }
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }
    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }
    fn call(&mut self, id: u32, tool: &str, arguments: Value) {
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": id}});
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_child_answers_out_of_order_records_to_its_file_and_ends_with_its_input() {
    let dir = std::env::temp_dir().join(format!("tollgate-stdio-{}", std::process::id()));
    let _ = std::fs::remove_file(&dir);
    let mut server = Server::start(&["--record-file", dir.to_str().unwrap()]);
    server.send(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-03-26"}}));
    assert_eq!(server.json()["result"]["protocolVersion"], "2025-03-26");
    server.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    server.call(1, "slow", json!({"ms": 60_000}));
    server.call(2, "progress", json!({"steps": 1, "call_id": "c-2"}));
    assert_eq!(server.json()["params"]["progressToken"], 2);
    assert_eq!(server.json()["id"], 2);
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    server.send(cancel);
    server.call(3, "reject", json!({}));
    assert_eq!(server.json()["error"]["code"], -32602);
    drop(server.child.stdin.take());
    assert!(server.child.wait().unwrap().success());
    let record = std::fs::read_to_string(&dir).unwrap();
    let ended: Vec<(String, String)> = record
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|call| (call["tool"].to_string(), call["outcome"].to_string()))
        .collect();
    let expected = [
        ("progress", "done"),
        ("slow", "cancelled"),
        ("reject", "rejected"),
    ];
    assert_eq!(
        ended,
        expected.map(|(tool, outcome)| (format!("\"{tool}\""), format!("\"{outcome}\"")))
    );
    std::fs::remove_file(&dir).unwrap();
}

#[test]
fn a_child_misbehaves_on_request() {
    let mut server = Server::start(&["--fault", "ping=die-mid-body"]);
    server.call(1, "misbehave", json!({"fault": "noise"}));
    let lines: Vec<String> = (0..5).map(|_| server.line()).collect();
    assert_eq!(lines[0], "Loading the model: 12%\n");
    assert!(
        lines[4].starts_with(r#"{"jsonrpc":"2.0","id":1,"#),
        "{lines:?}"
    );
    server.call(2, "misbehave", json!({"fault": "duplicate-result"}));
    assert_eq!(server.line().matches(r#""result":"#).count(), 2);
    server.send(json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}));
    let mut rest = String::new();
    server.lines.read_to_string(&mut rest).unwrap();
    assert!(!rest.is_empty() && !rest.ends_with('\n'), "{rest}");
    assert_eq!(server.child.wait().unwrap().code(), Some(3));

    let mut server = Server::start(&[]);
    server.call(1, "misbehave", json!({"fault": "flood-line"}));
    let mut bytes = vec![0; 1 << 20];
    server.lines.read_exact(&mut bytes).unwrap();
    assert!(!bytes.contains(&b'\n'));
}
