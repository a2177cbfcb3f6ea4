//! Sessions, streams, cancellation and questions.

use crate::client::*;
use loadtest::upstream::{Options, Outcome};
use serde_json::json;
use std::io::Read as _;

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
