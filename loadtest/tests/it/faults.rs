//! Its faults are what they are called.

use crate::client::*;
use loadtest::upstream::{Fault, Options};
use serde_json::{Value, json};
use std::{
    io::Read as _,
    time::{Duration, Instant},
};

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
            .set_read_timeout(Some(Duration::from_millis(500)))
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
