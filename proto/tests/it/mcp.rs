//! Eras and headers as data: each row is a message, its headers and what becomes of it.

use proto::mcp::{self, Era, Headers, Violation};
use proto::scan::{Body, Bounds, From, jsonrpc::read};

const CAPABLE: &str = r#""io.modelcontextprotocol/clientCapabilities":{}"#;

/// Judges a message with the headers `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name`.
fn judge(body: &str, headers: [Option<&str>; 3], session: Option<&str>) -> Result<Era, Violation> {
    let Ok(Body::One(message)) = read(body.as_bytes(), &Bounds::default(), From::Client) else {
        panic!("{body}");
    };
    let [protocol_version, method, name] = headers;
    let headers = Headers {
        protocol_version,
        method,
        name,
    };
    mcp::judge(&message, &headers, session)
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

fn modern(method: &str, params: &str, version: &str) -> String {
    let meta =
        format!(r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}",{CAPABLE}}}"#);
    request(
        method,
        &[params, &meta]
            .iter()
            .filter(|p| !p.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(","),
    )
}

fn notification(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
}

const V: Option<&str> = Some("2026-07-28");

#[test]
fn modern_requests_say_the_same_in_body_and_headers() {
    let call = |name: &str| modern("tools/call", &format!(r#""name":"{name}""#), "2026-07-28");
    let m = Some("tools/call");
    let no_capabilities = request(
        "tools/list",
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
    );
    let read = modern("resources/read", r#""uri":"file:///a""#, "2026-07-28");
    let task = modern("tasks/get", r#""taskId":"t1""#, "2026-07-28");
    let list = modern("tools/list", "", "2026-07-28");
    let old = modern("tools/list", "", "1900-01-01");
    let not_ours = modern("tools/list", "", "2025-11-25");
    for (name, body, headers, code) in [
        ("all agree", call("draw"), [V, m, Some("draw")], None),
        (
            "name in base64",
            call("绘"),
            [V, m, Some("=?base64?57uY?=")],
            None,
        ),
        (
            "name decoded in the body",
            call(r"dr\u0061w"),
            [V, m, Some("draw")],
            None,
        ),
        (
            "no version header",
            call("draw"),
            [None, m, Some("draw")],
            Some(-32020),
        ),
        (
            "another version header",
            call("draw"),
            [Some("2025-11-25"), m, Some("draw")],
            Some(-32020),
        ),
        (
            "no method header",
            call("draw"),
            [V, None, Some("draw")],
            Some(-32020),
        ),
        (
            "another method header",
            call("draw"),
            [V, Some("tools/list"), Some("draw")],
            Some(-32020),
        ),
        (
            "method header in another case",
            call("draw"),
            [V, Some("Tools/Call"), Some("draw")],
            Some(-32020),
        ),
        ("no name header", call("draw"), [V, m, None], Some(-32020)),
        (
            "another name header",
            call("draw"),
            [V, m, Some("allowed")],
            Some(-32020),
        ),
        (
            "malformed name header",
            call("draw"),
            [V, m, Some("=?base64?ZHJhdw?=")],
            Some(-32020),
        ),
        (
            "name header not decoded",
            call("=?base64?ZHJhdw==?="),
            [V, m, Some("=?base64?ZHJhdw==?=")],
            Some(-32020),
        ),
        (
            "resource by uri",
            read.clone(),
            [V, Some("resources/read"), Some("file:///a")],
            None,
        ),
        (
            "another uri",
            read.clone(),
            [V, Some("resources/read"), Some("file:///b")],
            Some(-32020),
        ),
        (
            "no uri header",
            read,
            [V, Some("resources/read"), None],
            Some(-32020),
        ),
        (
            "task by id",
            task.clone(),
            [V, Some("tasks/get"), Some("t1")],
            None,
        ),
        (
            "another task",
            task,
            [V, Some("tasks/get"), Some("t2")],
            Some(-32020),
        ),
        (
            "list needs no name",
            list.clone(),
            [V, Some("tools/list"), None],
            None,
        ),
        (
            "list with a name of nothing",
            list,
            [V, Some("tools/list"), Some("draw")],
            Some(-32020),
        ),
        (
            "unknown version",
            old,
            [Some("1900-01-01"), Some("tools/list"), None],
            Some(-32022),
        ),
        (
            "legacy version in _meta",
            not_ours,
            [Some("2025-11-25"), Some("tools/list"), None],
            Some(-32022),
        ),
        (
            "no capabilities",
            no_capabilities,
            [V, Some("tools/list"), None],
            Some(-32602),
        ),
        (
            "version in the header only",
            request("tools/list", ""),
            [V, Some("tools/list"), None],
            Some(-32602),
        ),
        (
            "capabilities only",
            request("tools/list", &format!(r#""_meta":{{{CAPABLE}}}"#)),
            [V, Some("tools/list"), None],
            Some(-32602),
        ),
        (
            "notification",
            notification("notifications/cancelled"),
            [V, None, None],
            None,
        ),
        (
            "notification with a lying method",
            notification("notifications/cancelled"),
            [V, Some("ping"), None],
            Some(-32020),
        ),
        (
            "response of a client",
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(),
            [V, None, None],
            Some(-32600),
        ),
        (
            "discover",
            modern("server/discover", "", "2026-07-28"),
            [V, Some("server/discover"), None],
            None,
        ),
    ] {
        let judged = judge(&body, headers, None);
        match code {
            None => assert_eq!(judged, Ok(Era::Modern), "{name}"),
            Some(code) => {
                let violation = judged.expect_err(name);
                assert_eq!((violation.status, violation.code), (400, code), "{name}");
            }
        }
    }
}

#[test]
fn an_unsupported_version_is_told_what_is_supported() {
    let body = modern("tools/list", "", "1900-01-01");
    let violation = judge(&body, [Some("1900-01-01"), Some("tools/list"), None], None).unwrap_err();
    let error = mcp::error(
        Some(b"1"),
        violation.code,
        &violation.message,
        violation.data.as_deref(),
    );
    let error: serde_json::Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(error["error"]["data"]["requested"], "1900-01-01");
    assert_eq!(error["error"]["data"]["supported"][0], "2026-07-28");
}

#[test]
fn legacy_messages_may_leave_headers_out_but_not_lie() {
    let call = request("tools/call", r#""name":"draw""#);
    let list = request("tools/list", "");
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned();
    let initialize = request("initialize", r#""protocolVersion":"2026-07-28""#);
    for (name, body, headers, session, legacy) in [
        ("no headers", call.clone(), [None; 3], None, true),
        (
            "negotiated version",
            call.clone(),
            [Some("2025-11-25"), None, None],
            Some("2025-11-25"),
            true,
        ),
        (
            "another known version",
            call.clone(),
            [Some("2025-06-18"), None, None],
            Some("2025-11-25"),
            true,
        ),
        (
            "an old version that was negotiated",
            call.clone(),
            [Some("2024-11-05"), None, None],
            Some("2024-11-05"),
            true,
        ),
        (
            "an old version that was not",
            call.clone(),
            [Some("2024-11-05"), None, None],
            Some("2025-11-25"),
            false,
        ),
        (
            "unknown version",
            call.clone(),
            [Some("2025-13-01"), None, None],
            None,
            false,
        ),
        (
            "empty version",
            call.clone(),
            [Some(""), None, None],
            None,
            false,
        ),
        (
            "modern version without _meta",
            call.clone(),
            [V, None, None],
            Some("2025-11-25"),
            false,
        ),
        (
            "true name",
            call.clone(),
            [None, Some("tools/call"), Some("draw")],
            None,
            true,
        ),
        (
            "lying name",
            call.clone(),
            [None, None, Some("allowed")],
            None,
            false,
        ),
        (
            "lying method",
            call,
            [None, Some("tools/list"), None],
            None,
            false,
        ),
        (
            "name of nothing",
            list,
            [None, None, Some("allowed")],
            None,
            false,
        ),
        ("initialize", initialize.clone(), [None; 3], None, true),
        (
            "initialize with a modern header",
            initialize.clone(),
            [V, None, None],
            None,
            true,
        ),
        (
            "initialize with a lying method",
            initialize,
            [None, Some("ping"), None],
            None,
            false,
        ),
        (
            "response",
            result.clone(),
            [None; 3],
            Some("2025-11-25"),
            true,
        ),
        (
            "response with a method header",
            result,
            [None, Some("ping"), None],
            None,
            false,
        ),
        (
            "notification",
            notification("notifications/initialized"),
            [None; 3],
            None,
            true,
        ),
        (
            "request sent as a notification",
            notification("tools/list"),
            [None; 3],
            None,
            false,
        ),
        (
            "notification sent as a request",
            request("notifications/initialized", ""),
            [None; 3],
            None,
            false,
        ),
        (
            "unknown method either way",
            notification("vendor/thing"),
            [None; 3],
            None,
            true,
        ),
    ] {
        let judged = judge(&body, headers, session);
        if legacy {
            assert_eq!(judged, Ok(Era::Legacy), "{name}");
        } else {
            let violation = judged.expect_err(name);
            assert_eq!(violation.status, 400, "{name}");
            // Codes that only modern servers send would make a client take a legacy server for one.
            assert!(!(-32099..=-32020).contains(&violation.code), "{name}");
        }
    }
}

#[test]
fn an_error_is_json_whatever_its_message() {
    for message in ["plain", "a \"quote\"\\ and\nbreak", "世"] {
        let bytes = mcp::error(None, -32600, message, None);
        let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read["error"]["message"], message);
        assert!(read["id"].is_null() && read["error"].get("data").is_none());
        assert!(proto::scan::read(&bytes, &Bounds::default(), From::Server).is_ok());
    }
}
