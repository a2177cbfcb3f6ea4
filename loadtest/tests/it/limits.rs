//! `limits`, against a gateway of a few lines that keeps its limit, or does not.

use crate::client::start;
use loadtest::{
    result::{Document, Limits, Verdict},
    upstream::{Options, Running},
};
use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

const WINDOW_MS: u128 = 2_000;

/// Admits this many calls of a token in each window.
type Admits = Arc<dyn Fn(u128) -> u64 + Send + Sync>;

/// What was admitted, by token and window.
type Counts = Arc<Mutex<HashMap<(String, u128), u64>>>;

/// Several nodes that share one count, in front of a server.
fn gateway(server: &Running, nodes: usize, admits: Admits) -> Vec<String> {
    let counts = Counts::default();
    let upstream = server.addr();
    let node = |_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let (counts, admits) = (counts.clone(), admits.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (counts, admits) = (counts.clone(), admits.clone());
                std::thread::spawn(move || serve(stream.unwrap(), upstream, &counts, &admits));
            }
        });
        url
    };
    (0..nodes).map(node).collect()
}

fn serve(mut client: TcpStream, upstream: SocketAddr, counts: &Counts, admits: &Admits) {
    let mut inner = TcpStream::connect(upstream).unwrap();
    inner.set_nodelay(true).unwrap();
    client.set_nodelay(true).unwrap();
    while let Some(message) = message(&mut client) {
        let text = String::from_utf8_lossy(&message).into_owned();
        let token = text
            .split("Bearer ")
            .nth(1)
            .and_then(|t| t.split('\r').next());
        let token = token.unwrap_or_default().to_owned();
        if text.contains(r#""method":"tools/call""#) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let window = now.as_millis() / WINDOW_MS;
            let mut counts = counts.lock().unwrap();
            let count = counts.entry((token, window)).or_default();
            if *count >= admits(window) {
                let id = text
                    .split(r#""id":"#)
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .next()
                    .unwrap();
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"no"}}],"isError":true,"_meta":{{"dev.tollgate/denial":{{"code":"limit"}}}}}}}}"#
                );
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
                if write!(client, "{head}: {}\r\n\r\n{body}", body.len()).is_err() {
                    return;
                }
                continue;
            }
            *count += 1;
        }
        inner.write_all(&message).unwrap();
        let Some(reply) = self::message(&mut inner) else {
            return;
        };
        if client.write_all(&reply).is_err() {
            return;
        }
    }
}

/// One HTTP/1.1 message with the length that it announces.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length = text.split("content-length: ").nth(1);
            let length = length.and_then(|t| t.split("\r\n").next()?.parse().ok());
            if bytes.len() >= head + 4 + length.unwrap_or(0) {
                return Some(bytes);
            }
        }
        match stream.read(&mut chunk) {
            Ok(n @ 1..) => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

fn limits(urls: &[String], more: &[&str]) -> (Option<i32>, Limits, String) {
    let dir = tempfile::tempdir().unwrap();
    let grants = dir.path().join("grants");
    std::fs::write(&grants, "agent-a one\nagent-b two\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate-loadtest"))
        .arg("limits")
        .args(urls)
        .args(["--tool", "generate_image", "--args", r#"{"prompt":"x"}"#])
        .args(["--max", "20", "--window", "2s", "--out", "-", "--grants"])
        .arg(&grants)
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document = Document::from_json(&text).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.code(), document.limits.unwrap(), said)
}

#[test]
fn a_limit_that_holds_is_exact_in_every_view_and_the_wait_is_shown() {
    let server = start(Options::default());
    let urls = gateway(&server, 3, Arc::new(|_| 20));
    let record = format!("http://{}/record", server.addr());
    let (code, limits, said) = limits(&urls, &["--windows", "2", "--record", &record]);
    assert_eq!(
        (code, limits.verdict),
        (Some(0), Verdict::Exact),
        "{limits:?}"
    );
    assert_eq!(limits.keys.len(), 2);
    for window in limits.keys.iter().flat_map(|k| &k.windows) {
        assert_eq!((window.admitted, window.admitted_upstream), (20, Some(20)));
        assert!(window.sent >= 40 && window.sent == window.admitted + window.refused);
    }
    assert!((500..800).contains(&limits.guard_ms), "{}", limits.guard_ms);
    assert!(limits.sentence.starts_with("EXACT"), "{}", limits.sentence);
    assert!(said.contains("when a whole window begins"), "{said}");
    // Four windows in all, and nothing was sent outside them.
    assert_eq!(server.recorder().count("generate_image"), 80);
}

#[test]
fn one_call_too_many_is_over() {
    let server = start(Options::default());
    let urls = gateway(&server, 2, Arc::new(|_| 21));
    let (code, limits, _) = limits(&urls, &["--windows", "1"]);
    assert_eq!(
        (code, limits.verdict),
        (Some(1), Verdict::Over),
        "{limits:?}"
    );
    assert_eq!(limits.keys[0].windows[0].admitted, 21);
}

#[test]
fn one_call_too_few_is_short() {
    let server = start(Options::default());
    let urls = gateway(&server, 2, Arc::new(|_| 19));
    let (code, limits, _) = limits(&urls, &["--windows", "1"]);
    assert_eq!(
        (code, limits.verdict),
        (Some(3), Verdict::Short),
        "{limits:?}"
    );
}

#[test]
fn a_limit_that_does_not_exist_is_not_called_exact() {
    let server = start(Options::default());
    let (code, limits, _) = limits(&[server.url()], &["--windows", "1", "--overdrive", "1"]);
    assert_eq!(
        (code, limits.verdict),
        (Some(1), Verdict::Over),
        "{limits:?}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_with_advice() {
    let server = start(Options::default());
    for (more, part) in [
        (&["--window", "1s"][..], "too short"),
        (
            &["--tool", "generate_imag"],
            "Did you mean `generate_image`?",
        ),
        (
            &["--record", "http://127.0.0.1:1/record"],
            "tollgate-loadtest upstream",
        ),
        (&["--audit", "/no/such.jsonl"], "audit.sink.file.path"),
        (&["--overdrive", "0.5"], "at least 1"),
    ] {
        let mut arguments = vec!["limits", "--max", "20"];
        let url = server.url();
        arguments.push(&url);
        if !more.contains(&"--tool") {
            arguments.extend(["--tool", "generate_image"]);
        }
        if !more.contains(&"--window") {
            arguments.extend(["--window", "2s"]);
        }
        arguments.extend(more);
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate-loadtest"))
            .args(&arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
