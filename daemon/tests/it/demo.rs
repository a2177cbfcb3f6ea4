//! `tollgate demo` does what it prints.

use crate::{
    harness::{Client, PATIENCE, eventually},
    peers,
};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

struct Demo {
    child: Child,
    /// What it printed.
    text: String,
}

impl Demo {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(more: &[&OsStr]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["demo", "--port", "0"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            for line in stdout.lines().map_while(Result::ok) {
                text.push_str(&line);
                text.push('\n');
                if line.starts_with("What is used up") {
                    let _ = sender.send(std::mem::take(&mut text));
                }
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(text) => Self { child, text },
            Err(_) => {
                let _ = child.kill();
                panic!("the demo did not start");
            }
        }
    }

    /// The block that follows this heading's line.
    fn block(&self, heading: &str) -> &str {
        let after = self
            .text
            .split(heading)
            .nth(1)
            .unwrap_or_else(|| panic!("{heading}: {}", self.text));
        after.split("\n\n").nth(1).unwrap().trim()
    }

    fn token(&self, grant: &str) -> String {
        let line = self
            .text
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{grant}  ")))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn interrupt(&mut self) {
        // Not after the end was seen: the number may be another's by then.
        if let (Ok(None), Some(pid)) = (
            self.child.try_wait(),
            rustix::process::Pid::from_raw(self.child.id() as i32),
        ) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
    }

    fn client(&self, endpoint: &str, grant: &str) -> Client {
        let at = self
            .text
            .split("http://")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        Client {
            address: at.parse().unwrap(),
            path: format!("/mcp/{endpoint}"),
            token: self.token(grant),
            session: None,
        }
    }
}

impl Drop for Demo {
    /// As Ctrl-C does, so that its files go too.
    fn drop(&mut self) {
        self.interrupt();
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a calendar minute has at least 15 s to go.
fn fresh_minute() {
    eventually("a fresh minute", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() % 60 < 45
    });
}

#[test]
fn the_curl_line_works_as_pasted_and_so_does_the_one_that_shows_a_rule() {
    if Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return peers::skipped("no curl");
    }
    let demo = Demo::start();
    let paste = |block: &str| -> Value {
        let output = Command::new("sh").arg("-c").arg(block).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {block}\n{output:?}"))
    };
    let made = paste(demo.block("Call a tool"));
    assert!(
        made["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("https://images.example/"),
        "{made}"
    );
    let refused = paste(demo.block("See a rule"));
    assert_eq!(
        refused["result"]["_meta"]["dev.tollgate/denial"]["code"], "rule",
        "{refused}"
    );
}

#[test]
fn the_grants_file_holds_the_tokens_that_were_printed_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grants");
    // What an earlier demo left behind, readable by others.
    std::fs::write(&file, "agent-a old\n").unwrap();
    let demo = Demo::start_with(&[OsStr::new("--grants-file"), file.as_os_str()]);
    let (a, b) = (demo.token("agent-a"), demo.token("agent-b"));
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written, format!("agent-a {a}\nagent-b {b}\n"));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn the_31st_image_within_a_minute_is_denied_in_the_published_words() {
    let demo = Demo::start();
    let client = demo.client("images", "agent-a");
    fresh_minute();
    for n in 1..=30 {
        let reply = client.call("generate_image", json!({ "prompt": n.to_string() }));
        assert_eq!(reply.denial(), None, "{n}: {}", reply.text());
    }
    let reply = client.call("generate_image", json!({ "prompt": "one more" }));
    assert_eq!(reply.status, 200);
    assert!(reply.header("retry-after").is_some());
    let result = &reply.message()["result"];
    let denial = &result["_meta"]["dev.tollgate/denial"];
    assert_eq!(
        (&denial["code"], &denial["max"], &denial["remaining"]),
        (&json!("limit"), &json!(30), &json!(0))
    );
    assert!(denial["retryAfterMs"].as_u64().unwrap() <= 60_000);
    assert_eq!(result["isError"], true);
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("[POLICY DENIED] ") && text.ends_with(" s."),
        "{text}"
    );
    // The other grant is not touched.
    assert_eq!(
        demo.client("images", "agent-b")
            .call("generate_image", json!({ "prompt": "b" }))
            .denial(),
        None
    );
}

#[test]
fn every_endpoint_lists_what_its_policy_leaves() {
    let demo = Demo::start();
    let listed = |endpoint: &str| -> Vec<String> {
        let reply = demo
            .client(endpoint, "agent-a")
            .modern("tools/list", json!({}));
        let tools = reply.message()["result"]["tools"].clone();
        let tools = tools
            .as_array()
            .unwrap_or_else(|| panic!("{endpoint}: {}", reply.text()));
        tools
            .iter()
            .filter_map(|tool| tool["name"].as_str().map(str::to_owned))
            .collect()
    };
    assert!(listed("images").contains(&"generate_image".to_owned()));
    assert!(listed("flux").contains(&"flux_generate_image".to_owned()));
    assert!(listed("flux-edit").contains(&"flux_edit_image".to_owned()));
    assert_eq!(listed("img2img"), ["img2img"]);
    assert_eq!(listed("inpaint"), ["inpaint"]);
    assert!(listed("payments").contains(&"create_charge".to_owned()));
    assert!(!listed("payments").contains(&"delete_account".to_owned()));
}

#[test]
fn the_client_configuration_works_in_an_official_client() {
    let demo = Demo::start();
    let config: Value =
        serde_json::from_str(demo.block("For an MCP client's configuration")).unwrap();
    let server = &config["mcpServers"]["images"];
    let token = server["headers"]["Authorization"]
        .as_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let steps =
        json!([{ "list": true }, { "call": "generate_image", "arguments": { "prompt": "x" } }]);
    let client = peers::Client::TypeScript;
    let Some(answers) = client.run(server["url"].as_str().unwrap(), token, &steps) else {
        return;
    };
    assert!(
        answers[0]["tools"]
            .as_array()
            .unwrap()
            .contains(&json!("generate_image")),
        "{answers:?}"
    );
    assert!(
        answers[1]["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("https://"),
        "{answers:?}"
    );
}

#[test]
fn ctrl_c_ends_the_demo_and_removes_its_files() {
    let mut demo = Demo::start();
    let audit = demo
        .text
        .lines()
        .find_map(|line| line.strip_prefix("Every request leaves a line in "))
        .unwrap();
    let dir = Path::new(audit).parent().unwrap().to_owned();
    eventually("the admin socket", || dir.join("admin.sock").exists());
    demo.interrupt();
    let mut status = None;
    eventually("the demo ends", || {
        status = demo.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    assert!(!dir.exists());
}
