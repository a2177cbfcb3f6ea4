//! Its record is exact, and its faults are what they are called.

use loadtest::upstream::{Encoding, Eras, Fault, Options, Outcome, Reply, Running, Upstream};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

const ACCEPT: &str = "application/json, text/event-stream";

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    fn json(&self) -> Value {
        let text = self.text();
        let data = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .next_back();
        serde_json::from_str(data.unwrap_or(&text)).unwrap()
    }
    fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|l| l.to_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }
}

fn open(
    server: &Running,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let headers: String = headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}\r\n"))
        .collect();
    let head =
        format!("{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

fn send(server: &Running, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut bytes = Vec::new();
    // A reset in the middle is one of the faults.
    let _ = open(server, verb, path, headers, body).read_to_end(&mut bytes);
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let mut body = bytes.get(end + 4..).unwrap_or_default().to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = dechunk(&body);
    }
    Answer { status, head, body }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    out
}

fn modern(method: &str, mut params: Value) -> (Vec<(&'static str, String)>, String) {
    let name = params.get("name").or(params.get("uri")).cloned();
    let meta = params
        .as_object_mut()
        .unwrap()
        .entry("_meta")
        .or_insert(json!({}));
    meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", ACCEPT.to_owned()),
        ("mcp-protocol-version", "2026-07-28".to_owned()),
        ("mcp-method", method.to_owned()),
    ];
    if let Some(name) = name {
        headers.push(("mcp-name", name.as_str().unwrap().to_owned()));
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    (headers, body.to_string())
}

fn ask(server: &Running, method: &str, params: Value) -> Answer {
    let (headers, body) = modern(method, params);
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    send(server, "POST", "/mcp", &headers, &body)
}

fn call(server: &Running, tool: &str, arguments: Value) -> Answer {
    ask(
        server,
        "tools/call",
        json!({"name": tool, "arguments": arguments}),
    )
}

fn legacy(server: &Running, session: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![("content-type", "application/json"), ("accept", ACCEPT)];
    headers.extend(session.map(|s| ("mcp-session-id", s)));
    send(server, "POST", "/mcp", &headers, body)
}

fn initialize(server: &Running) -> String {
    let answer = legacy(
        server,
        None,
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#,
    );
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-06-18");
    answer.header("mcp-session-id").unwrap().to_owned()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(options: Options) -> Running {
    Upstream::start(options).unwrap()
}

#[test]
fn the_record_says_what_was_executed_and_what_was_not() {
    let server = start(Options::default());
    let charge = json!({"amount": 5, "currency": "usd", "call_id": "c-1"});
    assert_eq!(call(&server, "create_charge", charge.clone()).status, 200);
    assert_eq!(
        call(&server, "reject", json!({})).json()["error"]["code"],
        -32602
    );
    assert_eq!(
        call(&server, "http_status", json!({"status": 429})).status,
        429
    );
    assert_eq!(
        call(&server, "fail", json!({})).json()["result"]["isError"],
        true
    );
    assert_eq!(
        call(&server, "no_such_tool", json!({})).json()["error"]["code"],
        -32602
    );

    let calls = server.recorder().calls();
    let outcomes: Vec<Outcome> = calls.iter().map(|c| c.outcome).collect();
    use Outcome::{Done, Failed, Rejected};
    assert_eq!(outcomes, [Done, Rejected, Rejected, Failed, Rejected]);
    assert_eq!(calls[0].arguments, charge);
    assert_eq!(calls[0].call_id.as_deref(), Some("c-1"));
    assert!(calls[0].headers.contains(&"mcp-name".to_owned()));
    assert_eq!(server.recorder().count("create_charge"), 1);
    assert_eq!(server.recorder().count("reject"), 0);
    assert_eq!(
        server.recorder().requests()[0].header("mcp-name"),
        Some("create_charge")
    );

    let record = send(&server, "GET", "/record", &[], "").json();
    assert_eq!(record["total"], 5);
    assert_eq!(record["executed"], 2);
    assert_eq!(record["calls"][0]["tool"], "create_charge");
    assert_eq!(send(&server, "DELETE", "/record", &[], "").status, 204);
    assert!(server.recorder().calls().is_empty());
}

#[test]
fn the_last_duplicate_wins_as_in_javascript() {
    let server = start(Options {
        check_headers: false,
        ..Options::default()
    });
    let (headers, body) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let body = body.replace(
        r#""name":"echo""#,
        r#""name":"echo","name":"delete_account""#,
    );
    send(&server, "POST", "/mcp", &headers, &body);
    assert_eq!(server.recorder().count("delete_account"), 1);
    assert_eq!(server.recorder().count("echo"), 0);
}

#[test]
fn modern_requests_are_checked_as_the_specification_says() {
    let server = start(Options::default());
    let (headers, body) = modern("tools/call", json!({"name": "echo"}));
    let with = |name: &str, value: &str| -> Vec<(&str, String)> {
        let mut headers = headers.clone();
        headers.retain(|(n, _)| *n != name);
        if !value.is_empty() {
            let name = headers
                .iter()
                .map(|h| h.0)
                .find(|n| *n == name)
                .unwrap_or("mcp-name");
            headers.push((name, value.to_owned()));
        }
        headers
    };
    for headers in [
        with("mcp-name", "x"),
        with("mcp-name", ""),
        with("mcp-method", ""),
        with("mcp-protocol-version", ""),
    ] {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = send(&server, "POST", "/mcp", &headers, &body);
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &json!(-32020))
        );
    }
    let old = body.replace("2026-07-28", "2030-01-01");
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = send(&server, "POST", "/mcp", &headers, &old).json();
    assert_eq!(
        answer["error"]["data"],
        json!({"supported": ["2026-07-28"], "requested": "2030-01-01"})
    );
    assert_eq!(ask(&server, "no/such", json!({})).status, 404);
    assert_eq!(legacy(&server, None, "{").json()["error"]["code"], -32700);
    assert_eq!(
        send(
            &server,
            "POST",
            "/mcp",
            &[("accept", "application/json")],
            &body
        )
        .status,
        406
    );
    assert_eq!(server.recorder().total(), 0);
    let discovered = ask(&server, "server/discover", json!({})).json();
    assert_eq!(discovered["result"]["supportedVersions"][0], "2026-07-28");
}

#[test]
fn eras_can_be_left_out() {
    let old = start(Options {
        eras: Eras::Legacy,
        ..Options::default()
    });
    let answer = ask(&old, "server/discover", json!({}));
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (400, &json!(-32000))
    );
    let new = start(Options {
        eras: Eras::Modern,
        ..Options::default()
    });
    let get = send(&new, "GET", "/mcp", &[("accept", "text/event-stream")], "");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert_eq!(
        legacy(
            &new,
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#
        )
        .status,
        400
    );
}

#[test]
fn sessions_open_list_batch_and_end() {
    let server = start(Options::default());
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(legacy(&server, None, ping).status, 400);
    assert_eq!(legacy(&server, Some("nobody"), ping).status, 404);
    let session = initialize(&server);
    assert_ne!(session, initialize(&server));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(legacy(&server, Some(&session), note).status, 202);
    assert_eq!(
        legacy(&server, Some(&session), ping).json()["result"],
        json!({})
    );
    let call = |tool: &str| json!({"jsonrpc":"2.0","id":tool,"method":"tools/call","params":{"name":tool}});
    let batch = json!([call("echo"), call("delete_account")]).to_string();
    assert_eq!(
        legacy(&server, Some(&session), &batch)
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(server.recorder().count("delete_account"), 1);
    assert_eq!(
        server.recorder().calls()[0].session.as_deref(),
        Some(session.as_str())
    );
    let end = |id: &str| send(&server, "DELETE", "/mcp", &[("mcp-session-id", id)], "").status;
    assert_eq!((end(&session), end(&session)), (200, 404));
    assert_eq!(legacy(&server, Some(&session), ping).status, 404);
    assert_eq!(server.forget_sessions(), 1);
}

#[test]
fn lists_come_in_pages_compressed_or_as_events() {
    let server = start(Options {
        page_size: 5,
        tools: ["echo", "big", "slow", "fail", "ask", "reject"]
            .map(String::from)
            .to_vec(),
        ..Options::default()
    });
    let first = ask(&server, "tools/list", json!({})).json();
    assert_eq!(first["result"]["tools"].as_array().unwrap().len(), 5);
    let cursor = first["result"]["nextCursor"].clone();
    let second = ask(&server, "tools/list", json!({"cursor": cursor})).json();
    assert_eq!(second["result"]["tools"].as_array().unwrap().len(), 1);
    assert_eq!(second["result"].get("nextCursor"), None);
    assert_eq!(
        call(&server, "delete_account", json!({})).json()["error"]["code"],
        -32602
    );

    for (encoding, name) in [(Encoding::Gzip, "gzip"), (Encoding::Deflate, "deflate")] {
        for reply in [Reply::Json, Reply::Sse] {
            let server = start(Options {
                encoding,
                reply,
                ..Options::default()
            });
            let list = ask(&server, "tools/list", json!({}));
            assert_eq!(list.header("content-encoding"), Some(name));
            let mut text = String::new();
            match encoding {
                Encoding::Gzip => {
                    flate2::read::GzDecoder::new(&list.body[..]).read_to_string(&mut text)
                }
                _ => flate2::read::ZlibDecoder::new(&list.body[..]).read_to_string(&mut text),
            }
            .unwrap();
            assert_eq!(
                text.starts_with("event: message\ndata: {"),
                reply == Reply::Sse
            );
            assert!(text.contains("flux_generate_image"));
        }
    }
}

#[test]
fn progress_streams_and_a_modern_client_that_leaves_cancels() {
    let server = start(Options::default());
    let params =
        json!({"name": "progress", "arguments": {"steps": 2}, "_meta": {"progressToken": "t"}});
    let answer = ask(&server, "tools/call", params);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.text().matches("notifications/progress").count(), 2);

    for tool in ["slow", "progress"] {
        let arguments = json!({"ms": 60_000, "steps": 1});
        let (headers, body) = modern("tools/call", json!({"name": tool, "arguments": arguments}));
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let stream = open(&server, "POST", "/mcp", &headers, &body);
        let last = || server.recorder().calls().pop().map(|c| (c.tool, c.outcome));
        wait_for("it runs", || {
            last() == Some((tool.into(), Outcome::Running))
        });
        drop(stream);
        wait_for("it is cancelled", || {
            last() == Some((tool.into(), Outcome::Cancelled))
        });
    }
}

#[test]
fn a_legacy_client_that_leaves_does_not_cancel_but_a_notification_does() {
    let server = start(Options::default());
    let session = initialize(&server);
    let slow = |id: u32, ms: u32| {
        let body = json!({"jsonrpc":"2.0","id":id,"method":"tools/call","params":{"name":"slow","arguments":{"ms":ms}}});
        let headers = [("accept", ACCEPT), ("mcp-session-id", session.as_str())];
        open(&server, "POST", "/mcp", &headers, &body.to_string())
    };
    let outcome = |n: usize| server.recorder().calls().get(n).map(|c| c.outcome);
    let stream = slow(1, 200);
    wait_for("it runs", || outcome(0) == Some(Outcome::Running));
    drop(stream);
    wait_for("it is done", || outcome(0) == Some(Outcome::Done));
    let _stream = slow(2, 60_000);
    wait_for("it runs", || outcome(1) == Some(Outcome::Running));
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    assert_eq!(legacy(&server, Some(&session), cancel).status, 202);
    wait_for("it is cancelled", || outcome(1) == Some(Outcome::Cancelled));
}

#[test]
fn questions_reach_the_client_and_its_answer_the_tool() {
    let server = start(Options::default());
    let session = initialize(&server);
    let body = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"ask"}}"#;
    let headers = [("accept", ACCEPT), ("mcp-session-id", session.as_str())];
    let mut stream = open(&server, "POST", "/mcp", &headers, body);
    let mut seen = String::new();
    while !seen.contains("elicitation/create") {
        let mut bytes = [0; 1024];
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
    }
    let id = seen
        .split(r#""id":""#)
        .nth(1)
        .and_then(|s| s.split('"').next())
        .unwrap();
    let reply = format!(r#"{{"jsonrpc":"2.0","id":"{id}","result":{{"action":"accept"}}}}"#);
    assert_eq!(legacy(&server, Some(&session), &reply).status, 202);
    stream.read_to_string(&mut seen).unwrap();
    assert!(seen.contains("answered {"), "{seen}");

    let first = call(&server, "ask", json!({})).json();
    assert_eq!(first["result"]["resultType"], "input_required");
    let again = json!({"name": "ask", "inputResponses": {"answer": {"action": "accept"}}});
    assert_eq!(
        ask(&server, "tools/call", again).json()["result"]["resultType"],
        "complete"
    );
}

#[test]
fn changes_reach_get_streams_and_listen_streams_that_asked() {
    let server = start(Options::default());
    let session = initialize(&server);
    let accept = ("accept", "text/event-stream");
    let mut get = open(
        &server,
        "GET",
        "/mcp",
        &[accept, ("mcp-session-id", &session)],
        "",
    );
    let (headers, body) = modern(
        "subscriptions/listen",
        json!({"notifications": {"toolsListChanged": true}}),
    );
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let mut listen = open(&server, "POST", "/mcp", &headers, &body);
    let mut sent = 0;
    wait_for("both are told", || {
        sent = server.push_tools_changed();
        sent == 2
    });
    assert_eq!(server.end_listens(), 1);
    let mut seen = String::new();
    listen.read_to_string(&mut seen).unwrap();
    let acknowledged = seen.find("subscriptions/acknowledged").unwrap();
    let changed = seen.find("tools/list_changed").unwrap();
    let ended = seen.find(r#""resultType":"complete""#).unwrap();
    assert!(acknowledged < changed && changed < ended, "{seen}");
    drop(server);
    let mut seen = String::new();
    let _ = get.read_to_string(&mut seen);
    assert!(seen.contains("tools/list_changed"), "{seen}");
}

#[test]
fn faults_are_what_they_are_called() {
    type Check = fn(&Answer) -> bool;
    let cases: &[(Fault, Check)] = &[
        (Fault::Die, |a| a.head.is_empty()),
        (Fault::DieMidHead, |a| a.head.ends_with("content-ty")),
        (Fault::DieMidBody, |a| {
            a.body.len() < a.header("content-length").unwrap().parse().unwrap()
        }),
        (Fault::LongLength, |a| {
            a.body.len() < a.header("content-length").unwrap().parse().unwrap()
        }),
        (Fault::ShortLength, |a| {
            a.body.len() > a.header("content-length").unwrap().parse().unwrap()
        }),
        (Fault::TwoLengths, |a| {
            a.head.matches("content-length").count() == 2
        }),
        (Fault::LengthAndChunked, |a| {
            a.head.contains("content-length: 5\r\ntransfer-encoding")
        }),
        (Fault::BigHeader, |a| a.head.len() > 1 << 20),
        (Fault::ManyHeaders, |a| a.head.lines().count() > 1_000),
        (Fault::Redirect, |a| {
            a.status == 307 && a.header("location") == Some("/mcp/elsewhere")
        }),
        (Fault::Unauthorized, |a| {
            a.status == 401 && a.header("www-authenticate").is_some()
        }),
        (Fault::SessionGone, |a| a.status == 404),
        (Fault::ServerError, |a| a.status == 500),
        (Fault::Cookies, |a| a.header("set-cookie").is_some()),
        (Fault::Html, |a| {
            a.header("content-type") == Some("text/html")
        }),
        (Fault::NoContentType, |a| a.header("content-type").is_none()),
        (Fault::Empty, |a| a.status == 200 && a.body.is_empty()),
        (Fault::BadGzip, |a| {
            a.header("content-encoding") == Some("gzip") && a.body[0] == b'{'
        }),
        (Fault::UnknownEncoding, |a| {
            a.header("content-encoding") == Some("x-unknown")
        }),
        (Fault::Bom, |a| a.text().starts_with('\u{feff}')),
        (Fault::InvalidUtf8, |a| {
            std::str::from_utf8(&a.body).is_err()
        }),
        (Fault::Nan, |a| a.text().contains("NaN")),
        (Fault::TrailingComma, |a| a.text().ends_with(",}")),
        (Fault::Deep, |a| a.text().starts_with("[[[[")),
        (Fault::LoneSurrogate, |a| a.text().contains(r"\ud800")),
        (Fault::DuplicateResult, |a| {
            a.text().matches(r#""result":"#).count() == 2
        }),
        (Fault::DuplicateKeys, |a| {
            a.text().matches(r#""content":["#).count() == 2
        }),
        (Fault::ResultAndError, |a| {
            a.json()["error"]["code"] == -32603 && a.json()["result"] != Value::Null
        }),
        (Fault::Neither, |a| a.json().get("result").is_none()),
        (Fault::WrongId, |a| a.json()["id"] == 987_654_321),
        (Fault::NoId, |a| a.json().get("id").is_none()),
        (Fault::RetypedId, |a| a.json()["id"] == "1"),
        (Fault::Noise, |a| a.text().contains("unheard-of")),
        (Fault::EndWithoutResponse, |a| {
            a.status == 200 && !a.text().contains("result")
        }),
    ];
    let server = start(Options::default());
    for (n, (fault, holds)) in cases.iter().enumerate() {
        use clap::ValueEnum as _;
        let name = fault.to_possible_value().unwrap();
        let answer = call(&server, "misbehave", json!({"fault": name.get_name()}));
        assert!(
            holds(&answer),
            "{fault:?}: {} {}",
            answer.head,
            answer.text()
        );
        assert_eq!(server.recorder().count("misbehave"), n + 1);
    }
    server.fault("tools/list", Some(Fault::DuplicateNames));
    assert!(
        ask(&server, "tools/list", json!({}))
            .text()
            .contains(r#""name":"harmless","name":""#)
    );
    server.fault("tools/list", Some(Fault::EscapedKeys));
    assert!(
        ask(&server, "tools/list", json!({}))
            .text()
            .contains(r#""n\u0061me""#)
    );
    server.fault("tools/list", None);
    assert_eq!(ask(&server, "tools/list", json!({})).status, 200);
}

#[test]
fn endless_and_silent_replies_end_with_the_server() {
    let server = start(Options::default());
    for fault in [
        "hang",
        "hang-mid-body",
        "hang-mid-stream",
        "flood",
        "flood-events",
        "flood-line",
    ] {
        let (headers, body) = modern(
            "tools/call",
            json!({"name": "misbehave", "arguments": {"fault": fault}}),
        );
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut stream = open(&server, "POST", "/mcp", &headers, &body);
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut seen = 0;
        let mut bytes = vec![0; 64 << 10];
        while seen < 1 << 20 {
            match stream.read(&mut bytes) {
                Ok(n @ 1..) => seen += n,
                _ => break,
            }
        }
        assert_eq!(
            seen >= 1 << 20,
            fault.starts_with("flood"),
            "{fault}: {seen}"
        );
    }
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn connections_can_be_reset_on_arrival() {
    let server = start(Options {
        reset_on_accept: true,
        ..Options::default()
    });
    assert!(call(&server, "echo", json!({})).head.is_empty());
    assert_eq!(server.recorder().total(), 0);
}
