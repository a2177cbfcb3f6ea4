//! Its record is exact, and it answers as the specification says.

use crate::client::*;
use loadtest::upstream::{Encoding, Eras, Options, Outcome, Reply};
use serde_json::json;
use std::io::Read as _;

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
