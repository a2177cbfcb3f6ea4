//! mcp.md §5 and policies.md §8 on the wire: whatever a careless server would execute never reaches it.

use crate::harness::*;
use loadtest::upstream::{Options, Parser, Running, Upstream};
use serde_json::json;
use std::fmt::Write as _;

/// A body that some real server takes for a call of the denied tool.
struct Row {
    name: &'static str,
    body: Vec<u8>,
    headers: &'static [(&'static str, &'static str)],
    status: u16,
}

fn row(name: &'static str, body: impl AsRef<[u8]>) -> Row {
    Row {
        name,
        body: body.as_ref().to_vec(),
        headers: &[],
        status: 400,
    }
}

fn typed(name: &'static str, status: u16, headers: &'static [(&'static str, &'static str)]) -> Row {
    Row {
        name,
        body: call("delete_account").into_bytes(),
        headers,
        status,
    }
}

fn call(tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#
    )
}

fn utf16(text: &str) -> Vec<u8> {
    [0xfe, 0xff]
        .into_iter()
        .chain(text.encode_utf16().flat_map(u16::to_be_bytes))
        .collect()
}

fn rows() -> Vec<Row> {
    let (bad, good) = (call("delete_account"), call("echo"));
    let params = |inner: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{{inner}}}}}"#)
    };
    let bom = [b"\xef\xbb\xbf", bad.as_bytes()].concat();
    let nul = [good.as_bytes(), b"\0"].concat();
    let latin = [&br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"delete_account","x":""#[..], b"\xff\"}}"].concat();
    let deep = params(&format!(
        r#""name":"echo","arguments":{{"a":{}{}}}"#,
        "[".repeat(70),
        "]".repeat(70)
    ));
    let mut many = String::new();
    (0..1_100).for_each(|i| write!(many, r#","k{i}":1"#).unwrap());
    vec![
        row(
            "duplicate name",
            params(r#""name":"echo","name":"delete_account","arguments":{}"#),
        ),
        row(
            "duplicate params",
            format!(
                r#"{},"params":{{"name":"delete_account"}}}}"#,
                &good[..good.len() - 1]
            ),
        ),
        row(
            "duplicate method",
            format!(r#"{{"method":"ping",{}"#, &bad[1..]),
        ),
        row("duplicate id", format!(r#"{{"id":1,{}"#, &good[1..])),
        row(
            "duplicate in arguments",
            params(r#""name":"echo","arguments":{"a":1,"a":2}"#),
        ),
        row(
            "duplicate in _meta",
            params(r#""name":"echo","_meta":{"a":1,"a":2}"#),
        ),
        row(
            "duplicate after unescaping",
            params(r#""name":"echo","n\u0061me":"delete_account""#),
        ),
        row(
            "escaped name key",
            params(r#""n\u0061me":"delete_account""#),
        ),
        row("escaped params key", bad.replace("params", r"par\u0061ms")),
        row(
            "Name in another case",
            params(r#""name":"echo","Name":"delete_account""#),
        ),
        row(
            "Params in another case",
            format!(
                r#"{},"Params":{{"name":"delete_account"}}}}"#,
                &good[..good.len() - 1]
            ),
        ),
        row(
            "long s folds to s",
            format!(
                r#"{},"paramſ":{{"name":"delete_account"}}}}"#,
                &good[..good.len() - 1]
            ),
        ),
        row(
            "__proto__",
            params(r#""__proto__":{"name":"delete_account"}"#),
        ),
        row("byte order mark", bom),
        row("UTF-16", utf16(&bad)),
        row("batch", format!("[{good},{bad}]")),
        row("batch of one", format!("[{bad}]")),
        row("empty batch", "[]"),
        row("trailing document", format!("{good}{bad}")),
        row("trailing NUL", nul),
        row(
            "request with a result",
            format!(r#"{},"result":{{}}}}"#, &bad[..bad.len() - 1]),
        ),
        row(
            "extra top-level key",
            format!(r#"{},"extra":1}}"#, &bad[..bad.len() - 1]),
        ),
        row("no id", bad.replace(r#""id":7,"#, "")),
        row("null id", bad.replace("7,", "null,")),
        row("float id", bad.replace("7,", "7.5,")),
        row("boolean id", bad.replace("7,", "true,")),
        row(
            "params an array",
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":["delete_account"]}"#,
        ),
        row("name not a string", params(r#""name":["delete_account"]"#)),
        row("name missing", params(r#""arguments":{}"#)),
        row(
            "NaN",
            params(r#""name":"delete_account","arguments":{"a":NaN}"#),
        ),
        row(
            "Infinity",
            params(r#""name":"delete_account","arguments":{"a":Infinity}"#),
        ),
        row(
            "lone surrogate",
            params(r#""name":"delete_account","arguments":{"a":"\ud800"}"#),
        ),
        row("invalid UTF-8", latin),
        row(
            "control character",
            bad.replace("delete_account", "delete_account\t"),
        ),
        row(
            "trailing comma",
            params(r#""name":"delete_account","arguments":{},"#),
        ),
        row("comment", format!("/* x */{bad}")),
        row("single quotes", bad.replace('"', "'")),
        row("nesting over 64", deep),
        row(
            "too many keys",
            params(&format!(r#""name":"echo","arguments":{{"z":0{many}}}"#)),
        ),
        row("jsonrpc missing", bad.replace(r#""jsonrpc":"2.0","#, "")),
        row("empty body", ""),
        typed(
            "application/json-rpc",
            415,
            &[("Content-Type", "application/json-rpc")],
        ),
        typed(
            "charset utf-16",
            415,
            &[("Content-Type", "application/json; charset=utf-16")],
        ),
        typed(
            "charset utf-7",
            415,
            &[("Content-Type", "application/json; charset=utf-7")],
        ),
        typed(
            "list of types",
            415,
            &[("Content-Type", "application/json, text/plain")],
        ),
        typed(
            "multipart",
            415,
            &[("Content-Type", "multipart/form-data; boundary=x")],
        ),
        typed("text", 415, &[("Content-Type", "text/plain")]),
        typed("encoded body", 415, &[("Content-Encoding", "gzip")]),
        typed(
            "repeated Content-Type",
            400,
            &[
                ("Content-Type", "application/json"),
                ("Content-Type", "text/plain"),
            ],
        ),
        typed(
            "repeated Mcp-Name",
            400,
            &[("Mcp-Name", "echo"), ("Mcp-Name", "delete_account")],
        ),
        typed(
            "repeated version",
            400,
            &[
                ("MCP-Protocol-Version", "2025-06-18"),
                ("MCP-Protocol-Version", "2025-03-26"),
            ],
        ),
        typed(
            "repeated Authorization",
            400,
            &[("Authorization", "Bearer tg_x")],
        ),
        typed("lying Mcp-Name", 400, &[("Mcp-Name", "echo")]),
        typed("lying Mcp-Method", 400, &[("Mcp-Method", "ping")]),
        typed(
            "invalid version",
            400,
            &[("MCP-Protocol-Version", "1999-01-01")],
        ),
    ]
}

fn policy() -> String {
    inline(
        "p",
        &json!({ "version": "1", "default": "deny", "tools": { "echo": {} } }),
    )
}

/// The recording server at its most careless: it would run every variant.
fn lax() -> Running {
    Upstream::start(Options {
        parser: Parser::Lax,
        ..Options::default()
    })
    .unwrap()
}

#[test]
fn no_variant_of_a_message_smuggles_a_denied_tool_past_http() {
    let (upstream, token) = (lax(), new_token());
    let gate = Gate::before(
        &upstream,
        &policy(),
        &[("g", &token, "p")],
        "bounds:\n  calls: 64\n",
    );
    let mut client = gate.client("s", &token);
    client.initialize("2025-11-25");
    let mut wrong = Vec::new();
    for row in rows() {
        let reply = client.request("POST", row.headers, &row.body);
        if reply.status != row.status {
            wrong.push(format!("{}: {} {}", row.name, reply.status, reply.text()));
        }
        let executed = upstream.recorder().calls();
        if !executed.is_empty() {
            wrong.push(format!("{}: executed {executed:?}", row.name));
            upstream.recorder().clear();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        client.legacy_call("echo", json!({ "text": "hi" })).status,
        200
    );
    assert_eq!(upstream.recorder().count("echo"), 1);
}

#[test]
fn no_variant_of_a_message_smuggles_a_denied_tool_past_stdio() {
    let token = new_token();
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.jsonl");
    let server = format!(
        "servers:\n  s:\n    command: {}\n    args: [upstream, --stdio, --parser, lax, --record-file, {}]\n",
        loadtest_binary().display(),
        record.display()
    );
    let gate = Gate::start(&format!(
        "{server}{}",
        sections(&policy(), &[("g", &token, "p")])
    ));
    let mut client = gate.client("s", &token);
    let opened = client.initialize("2025-11-25");
    assert_eq!(opened.status, 200, "{}", opened.text());
    let executed = || std::fs::read_to_string(&record).unwrap_or_default();
    for row in rows() {
        let reply = client.request("POST", row.headers, &row.body);
        assert_eq!(reply.status, row.status, "{}: {}", row.name, reply.text());
    }
    let echoed = client.legacy_call("echo", json!({ "text": "hi" }));
    assert_eq!(echoed.status, 200, "{}", echoed.text());
    eventually("the allowed call is recorded", || {
        executed().contains("echo")
    });
    assert!(!executed().contains("delete_account"), "{}", executed());
    assert_eq!(executed().lines().count(), 1, "{}", executed());
}

#[test]
fn a_modern_request_whose_headers_lie_is_refused_with_the_specified_codes() {
    let (upstream, token) = (lax(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], "");
    let client = gate.client("s", &token);
    let body = Client::modern_body(
        "tools/call",
        json!({ "name": "delete_account", "arguments": {} }),
    )
    .to_string();
    let version = ("MCP-Protocol-Version", "2026-07-28");
    let method = ("Mcp-Method", "tools/call");
    for (name, headers, code) in [
        (
            "no version header",
            vec![method, ("Mcp-Name", "delete_account")],
            -32020,
        ),
        (
            "another version",
            vec![
                ("MCP-Protocol-Version", "2025-11-25"),
                method,
                ("Mcp-Name", "delete_account"),
            ],
            -32020,
        ),
        (
            "no method header",
            vec![version, ("Mcp-Name", "delete_account")],
            -32020,
        ),
        (
            "another method",
            vec![
                version,
                ("Mcp-Method", "tools/list"),
                ("Mcp-Name", "delete_account"),
            ],
            -32020,
        ),
        ("no name header", vec![version, method], -32020),
        (
            "another name",
            vec![version, method, ("Mcp-Name", "echo")],
            -32020,
        ),
        (
            "another name, encoded",
            vec![version, method, ("Mcp-Name", "=?base64?ZWNobw==?=")],
            -32020,
        ),
        (
            "a malformed encoding",
            vec![version, method, ("Mcp-Name", "=?base64?***?=")],
            -32020,
        ),
    ] {
        let reply = client.request("POST", &headers, body.as_bytes());
        assert_eq!(
            (reply.status, reply.message()["error"]["code"].as_i64()),
            (400, Some(code)),
            "{name}: {}",
            reply.text()
        );
    }
    let future = body.replace("2026-07-28", "2031-01-01");
    let headers = [
        ("MCP-Protocol-Version", "2031-01-01"),
        method,
        ("Mcp-Name", "delete_account"),
    ];
    let reply = client.request("POST", &headers, future.as_bytes());
    assert_eq!(
        (reply.status, reply.message()["error"]["code"].as_i64()),
        (400, Some(-32022)),
        "{}",
        reply.text()
    );
    assert_eq!(reply.message()["error"]["data"]["requested"], "2031-01-01");
    let bare =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_account"}}"#;
    let reply = client.request(
        "POST",
        &[version, method, ("Mcp-Name", "delete_account")],
        bare.as_bytes(),
    );
    assert_eq!(
        (reply.status, reply.message()["error"]["code"].as_i64()),
        (400, Some(-32602)),
        "{}",
        reply.text()
    );
    let unknown = client.modern("tools/destroy", json!({}));
    assert_eq!(
        (unknown.status, unknown.message()["error"]["code"].as_i64()),
        (404, Some(-32601)),
        "{}",
        unknown.text()
    );
    assert!(upstream.recorder().calls().is_empty());
}

#[test]
fn framing_that_proxies_read_differently_ends_the_connection() {
    let (upstream, token) = (lax(), new_token());
    let gate = Gate::before(&upstream, &policy(), &[("g", &token, "p")], "");
    let client = gate.client("s", &token);
    let inner = call("delete_account");
    let length = inner.len().to_string();
    let headers = [
        ("MCP-Protocol-Version", "2025-11-25"),
        ("Content-Length", length.as_str()),
    ];
    let plain = String::from_utf8(client.bytes("POST", &headers, inner.as_bytes())).unwrap();
    let with = |from: &str, to: &str| plain.replacen(from, to, 1);
    let cl = format!("Content-Length: {length}");
    for (name, bytes) in [
        (
            "two lengths",
            with(&cl, &format!("{cl}\r\nContent-Length: 5")),
        ),
        ("the same length twice", with(&cl, &format!("{cl}\r\n{cl}"))),
        ("a length list", with(&cl, &format!("{cl}, 5"))),
        (
            "a signed length",
            with(&cl, &format!("Content-Length: +{length}")),
        ),
        (
            "length and chunked",
            with(&cl, &format!("{cl}\r\nTransfer-Encoding: chunked")),
        ),
        (
            "chunked twice",
            with(&cl, "Transfer-Encoding: chunked, chunked"),
        ),
        (
            "an unknown coding",
            with(&cl, "Transfer-Encoding: xchunked"),
        ),
        (
            "a space before the colon",
            with(&cl, &format!("Content-Length : {length}")),
        ),
        ("a folded line", with(&cl, &format!("X: a\r\n b\r\n{cl}"))),
        ("a NUL in a value", with(&cl, &format!("X: a\0b\r\n{cl}"))),
        ("no Host", with(&format!("Host: {}\r\n", gate.address), "")),
        (
            "a foreign Host",
            with(&format!("Host: {}", gate.address), "Host: evil.example"),
        ),
    ] {
        use std::io::Write;
        let mut stream = open(gate.address);
        let _ = stream.write_all(bytes.as_bytes());
        let reply = read_reply(&mut std::io::BufReader::new(stream));
        assert!(
            reply
                .as_ref()
                .is_none_or(|reply| (400..500).contains(&reply.status)),
            "{name}: {reply:?}"
        );
    }
    assert!(upstream.recorder().calls().is_empty());
}

/// The recording server as a program; built together with these tests.
pub fn loadtest_binary() -> std::path::PathBuf {
    let mut path = std::path::PathBuf::from(env!("CARGO_BIN_EXE_tollgate"));
    path.set_file_name("tollgate-loadtest");
    if !path.exists() {
        let built = std::process::Command::new(env!("CARGO"))
            .args([
                "build",
                "-q",
                "-p",
                "tollgate-loadtest",
                "--bin",
                "tollgate-loadtest",
            ])
            .status()
            .unwrap();
        assert!(built.success());
    }
    path
}
