//! What is accepted means the same to another strict parser; what is refused or changed never panics.

use crate::oracle::Strict;
use proto::{
    mcp,
    scan::{
        Body, Bounds, Envelope, From, Kind, Reason, Value, jsonrpc::read, reply::Reply, splice,
        tools, value::Type,
    },
};

/// Reads bytes as a client's and as a server's message, and does with them all that the gateway does.
pub fn jsonrpc(bytes: &[u8]) {
    let bounds = Bounds::default();
    for from in [From::Client, From::Server] {
        match read(bytes, &bounds, from) {
            Ok(body) => accepted(bytes, &body, from),
            Err(refusal) => {
                assert!(refusal.at <= bytes.len());
                if let Some(id) = refusal.id_in(bytes) {
                    let error =
                        mcp::error(Some(id), refusal.reason.code(), refusal.reason.text(), None);
                    assert!(read(&error, &bounds, From::Server).is_ok());
                }
                refused(bytes, refusal.reason);
            }
        }
    }
    walk(Value::new(bytes), 0);
    filtered(bytes);
    in_pieces(bytes);
}

/// A reply in pieces says what the whole says; the first byte says how long the pieces are.
fn in_pieces(bytes: &[u8]) {
    let length = bytes.first().map_or(1, |&byte| usize::from(byte) + 1);
    let mut reply = Reply::new(&Bounds::default());
    let pushed = bytes.chunks(length).try_for_each(|piece| reply.push(piece));
    let passed = pushed.and_then(|()| reply.finish());
    match (read(bytes, &Bounds::default(), From::Server), passed) {
        (Ok(Body::One(message)), Ok(passed)) => {
            assert_eq!(passed.kind, message.kind);
            assert_eq!(passed.id.as_deref(), message.id);
            assert_eq!(passed.is_tool_error, message.is_tool_error);
            let tools = message.result_member("tools").map(|tools| tools.elements());
            let names = tools.into_iter().flatten().map(|tool| {
                let name = tool.get("name").and_then(|name| name.as_str());
                name.map(|name| name.into_owned())
            });
            let found = passed.tools.into_iter().flatten().map(|tool| tool.name);
            // Longer names are not given out.
            assert!(bytes.len() > 4_096 || names.eq(found));
        }
        (Ok(Body::One(message)), Err(refusal)) => {
            let reply = matches!(message.kind, Kind::Result | Kind::Error(_));
            assert!(!reply, "{refusal}");
        }
        (_, passed) => assert!(passed.is_err()),
    }
}

/// What is refused as no JSON is none to the other parser either.
fn refused(bytes: &[u8], reason: Reason) {
    let no_json = matches!(
        reason,
        Reason::Syntax
            | Reason::Trailing
            | Reason::Truncated
            | Reason::ControlCharacter
            | Reason::LoneSurrogate
            | Reason::Empty
    );
    if no_json {
        assert!(
            serde_json::from_slice::<Strict>(bytes).is_err(),
            "{reason:?}"
        );
    }
}

fn accepted(bytes: &[u8], body: &Body<'_>, from: From) {
    let strict: Strict = match serde_json::from_slice(bytes) {
        Ok(strict) => strict,
        // The other parser has no place for 1e400: the one thing that is forwarded and that it refuses.
        Err(e) if e.to_string().starts_with("number out of range") => return,
        Err(e) => panic!("accepted, but {e}"),
    };
    match (body, &strict) {
        (Body::One(message), Strict::Object(_)) => agrees(message, &strict, from),
        (Body::Batch(messages), Strict::List(list)) => {
            assert_eq!(messages.len(), list.len());
            for (message, strict) in messages.iter().zip(list) {
                agrees(message, strict, from);
            }
        }
        _ => panic!("one parser's batch is the other's message"),
    }
}

fn agrees(message: &Envelope<'_>, strict: &Strict, from: From) {
    let params = strict.get("params");
    let param = |key| params.and_then(|p| p.get(key));
    assert_eq!(
        strict.get("method").and_then(Strict::text).unwrap_or(""),
        message.method
    );
    if message.name.is_some() || from == From::Client {
        assert_eq!(
            param("name").and_then(Strict::text),
            message.name.as_deref()
        );
        assert_eq!(param("uri").and_then(Strict::text), message.uri.as_deref());
    }
    let version = param("_meta").and_then(|meta| meta.get(mcp::META_VERSION));
    assert_eq!(
        version.and_then(Strict::text),
        message.meta_version.as_deref()
    );
    if let Some(raw) = message.arguments {
        let arguments: Strict =
            serde_json::from_slice(raw).expect("invariant: a span of accepted bytes");
        assert_eq!(param("arguments"), Some(&arguments));
        same(Value::new(raw), &arguments);
    }
    assert_eq!(strict.get("id").is_some(), message.id.is_some());
    assert_eq!(strict.get("result").is_some(), message.kind == Kind::Result);

    let _ = (
        message.cancelled_request_id(),
        message.progress_of(),
        message.initialize_version(),
    );
    let _ = (message.result_version(), message.is_tool_error);
    if from == From::Client {
        let headers = mcp::Headers::default();
        let _ = mcp::judge(message, &headers, Some("2025-11-25"));
    }
    let bounds = Bounds::default();
    let out = splice::with_id_and_token(message, b"\"another\"", Some(b"5"), &bounds, from)
        .expect("invariant: a well-formed id fits wherever one stands");
    let again: Strict = serde_json::from_slice(&out).expect("invariant: scanned again");
    assert_eq!(again.get("params").is_some(), params.is_some());
}

/// The lazy reader sees what the other parser sees.
fn same(value: Value<'_>, strict: &Strict) {
    match strict {
        Strict::Null => assert_eq!(value.kind(), Type::Null),
        Strict::Bool(b) => assert_eq!(value.as_bool(), Some(*b)),
        Strict::Number => assert!(value.as_number().is_some()),
        Strict::Text(text) => assert_eq!(value.as_str().as_deref(), Some(&**text)),
        Strict::List(list) => {
            assert_eq!(value.elements().count(), list.len());
            for (element, strict) in value.elements().zip(list) {
                same(element, strict);
            }
        }
        Strict::Object(members) => {
            assert_eq!(value.members().count(), members.len());
            for (key, value) in value.members() {
                same(value, &members[&*key]);
            }
        }
    }
}

/// Reads every value below this one, whatever the bytes are.
fn walk(value: Value<'_>, depth: usize) {
    let _ = (
        value.kind(),
        value.as_str(),
        value.as_number(),
        value.as_bool(),
        value.get("name"),
        value.index(1),
    );
    if depth < 8 {
        value
            .members()
            .take(8)
            .for_each(|(_, inner)| walk(inner, depth + 1));
        value
            .elements()
            .take(8)
            .for_each(|inner| walk(inner, depth + 1));
    }
}

/// A filtered list holds no tool that was refused, and all of the others.
fn filtered(bytes: &[u8]) {
    let keep = |name: &str| name.len().is_multiple_of(2);
    let mut names = Vec::new();
    let outcome = tools::filter(bytes, &Bounds::default(), true, |name| {
        names.push(name.to_owned());
        keep(name)
    });
    let Ok(tools::Filtered::Spliced { bytes, removed }) = outcome else {
        return;
    };
    names.retain(|name| keep(name));
    let mut left = Vec::new();
    let again = tools::filter(&bytes, &Bounds::default(), true, |name| {
        left.push(name.to_owned());
        true
    });
    assert_eq!(again, Ok(tools::Filtered::Unchanged));
    assert_eq!(left, names, "{removed} removed");
}
