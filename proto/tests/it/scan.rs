//! Parser differentials as data: each row is a body that some real parser reads otherwise, and what is said to it.

use proto::scan::{Body, Bounds, Envelope, From, Kind, Reason, jsonrpc::read};
use proto::scan::{lines, sse};

mod variants;

fn one<'a>(body: &'a [u8]) -> Envelope<'a> {
    match read(body, &Bounds::default(), From::Client) {
        Ok(Body::One(message)) => message,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn every_variant_that_parsers_read_differently_is_refused_for_its_own_reason() {
    for (name, body, reason) in variants::refused() {
        match read(&body, &Bounds::default(), From::Client) {
            Err(refusal) => assert_eq!(refusal.reason, reason, "{name}"),
            Ok(read) => panic!("{name}: read as {read:?}"),
        }
    }
}

#[test]
fn what_the_specification_allows_is_read() {
    for (name, body) in variants::accepted() {
        if let Err(refusal) = read(&body, &Bounds::default(), From::Client) {
            panic!("{name}: {refusal}");
        }
    }
}

#[test]
fn a_server_may_be_newer_but_not_ambiguous() {
    for (name, body, reason) in variants::from_server() {
        let said = read(body.as_bytes(), &Bounds::default(), From::Server);
        assert_eq!(said.err().map(|r| r.reason), reason, "{name}");
    }
}

#[test]
fn every_reason_has_a_row() {
    let rows: Vec<Reason> = variants::refused().into_iter().map(|row| row.2).collect();
    for reason in Reason::ALL {
        if *reason != Reason::NotAToolList {
            assert!(rows.contains(reason), "{reason:?}");
        }
    }
}

#[test]
fn a_call_is_read_with_all_that_decides_about_it() {
    let body = br#" {"id" : "a\"b", "method":"tools/call","jsonrpc":"2.0","params":{"name":"dr\u0061w","arguments":{"x":[1]},
      "task":{},"uri":"u","_meta":{"progressToken":7,"io.modelcontextprotocol\/protocolVersion":"2026-07-28",
      "io.modelcontextprotocol/clientCapabilities":{}}}} "#;
    let m = one(body);
    assert_eq!(m.kind, Kind::Request);
    assert_eq!(m.raw, body.trim_ascii());
    assert_eq!(m.id, Some(&br#""a\"b""#[..]));
    assert_eq!(m.method, "tools/call");
    assert_eq!(
        (m.name.as_deref(), m.uri.as_deref()),
        (Some("draw"), Some("u"))
    );
    assert_eq!(m.arguments, Some(&br#"{"x":[1]}"#[..]));
    assert_eq!(m.meta_version.as_deref(), Some("2026-07-28"));
    assert!(m.task && m.meta_capabilities);
    assert_eq!(m.progress_token, Some(&b"7"[..]));
    assert!(
        m.params
            .is_some_and(|p| p.starts_with(b"{\"name\"") && p.ends_with(b"}}"))
    );
}

#[test]
fn a_refusal_knows_the_id_where_there_is_exactly_one() {
    for (body, id) in [
        (
            &br#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#[..],
            Some(&b"7"[..]),
        ),
        (
            br#"{"method":"tools/call","params":{"a":1,"a":2},"jsonrpc":"2.0","id":"x"}"#,
            Some(b"\"x\""),
        ),
        (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, None),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, None),
        (br#"{"jsonrpc":"2.0","id":7,"method":"ping""#, Some(b"7")),
        (br#"[{"jsonrpc":"1.0","id":7,"method":"ping"}]"#, None),
        (br#"{"jsonrpc":"2.0","id":7"#, None),
        (b"{\"id\":7,\"\xff\":1}", None),
    ] {
        let refusal = read(body, &Bounds::default(), From::Client).unwrap_err();
        assert_eq!(refusal.id_in(body), id, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn every_bound_holds_at_its_edge() {
    let bounds = Bounds {
        depth_max: 5,
        keys_object_max: 20,
        keys_body_max: 40,
    };
    let with = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#
        )
    };
    let keys = |from: usize, to: usize| {
        let members: Vec<String> = (from..to).map(|n| format!(r#""k{n}":{n}"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    let nested = |wide: usize| format!(r#"{{"a":{},"b":{}}}"#, keys(0, 20), keys(0, wide));
    for (name, arguments, reason) in [
        ("depth at the bound", r#"{"a":[[1]]}"#.to_owned(), None),
        (
            "depth beyond it",
            r#"{"a":[[[1]]]}"#.to_owned(),
            Some(Reason::TooDeep),
        ),
        (
            "empty but too deep",
            r#"{"a":[[{}]]}"#.to_owned(),
            Some(Reason::TooDeep),
        ),
        ("keys of an object at the bound", keys(0, 20), None),
        (
            "keys of an object beyond it",
            keys(0, 21),
            Some(Reason::TooManyKeys),
        ),
        ("keys of the body at the bound", nested(12), None),
        (
            "keys of the body beyond it",
            nested(13),
            Some(Reason::TooManyKeys),
        ),
    ] {
        let body = with(&arguments);
        let said = read(body.as_bytes(), &bounds, From::Client);
        assert_eq!(said.err().map(|r| r.reason), reason, "{name}");
    }
}

#[test]
fn the_search_for_duplicates_stays_linear_for_chosen_keys() {
    let bounds = Bounds {
        keys_object_max: usize::MAX,
        keys_body_max: usize::MAX,
        ..Bounds::default()
    };
    // Quadratic work would take minutes for this many; nothing here measures time.
    let mut body = String::from(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"#,
    );
    for n in 0..200_000 {
        body.push_str(&format!("\"{n:08}\":0,"));
    }
    let unique = format!("{body}\"x\":0}}}}}}");
    assert!(read(unique.as_bytes(), &bounds, From::Client).is_ok());
    let twice = format!("{body}\"0000010\\u0030\":0}}}}}}");
    let refusal = read(twice.as_bytes(), &bounds, From::Client).unwrap_err();
    assert_eq!(refusal.reason, Reason::DuplicateKey);
}

#[test]
fn a_configured_depth_cannot_exhaust_the_stack() {
    let bounds = Bounds {
        depth_max: usize::MAX,
        ..Bounds::default()
    };
    let deep = "[".repeat(1_000_000);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{deep}"#);
    let refusal = read(body.as_bytes(), &bounds, From::Client).unwrap_err();
    assert_eq!(refusal.reason, Reason::Truncated);
}

#[test]
fn replies_and_notifications_tell_what_they_are_about() {
    let read = |text: &'static str| match read(text.as_bytes(), &Bounds::default(), From::Server) {
        Ok(Body::One(message)) => message,
        other => panic!("{other:?}"),
    };
    let progress = read(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"a","progress":1}}"#,
    );
    assert_eq!(progress.progress_of(), Some(&b"\"a\""[..]));
    assert_eq!(progress.cancelled_request_id(), None);
    let cancelled =
        read(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":12}}"#);
    assert_eq!(cancelled.cancelled_request_id(), Some(&b"12"[..]));
    let failed = read(
        r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"protocolVersion":"2025-11-25"}}"#,
    );
    assert!(failed.is_tool_error);
    assert_eq!(failed.result_version().as_deref(), Some("2025-11-25"));
    let fine = read(r#"{"jsonrpc":"2.0","id":1,"result":{"isError":"true"}}"#);
    assert!(!fine.is_tool_error && fine.result_version().is_none());
    let initialize = read(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#,
    );
    assert_eq!(
        initialize.initialize_version().as_deref(),
        Some("2025-06-18")
    );
    let error = read(
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"x","data":{"__proto__":1}}}"#,
    );
    assert_eq!(
        (error.kind, error.id),
        (Kind::Error(-32022), Some(&b"null"[..]))
    );
}

#[test]
fn splitters_meet_the_reader() {
    let mut seen = 0;
    let mut each = |bytes: &[u8]| {
        assert!(read(bytes, &Bounds::default(), From::Server).is_ok());
        seen += 1;
    };
    let message = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let mut lines = lines::Splitter::new(1000);
    lines
        .push(format!("{message}\r\n").as_bytes(), &mut each)
        .unwrap();
    let mut events = sse::Splitter::new(1000);
    events
        .push(format!("data: {message}\n\n").as_bytes(), |event| {
            each(&event.data.unwrap())
        })
        .unwrap();
    assert_eq!(seen, 2);
}
