//! Replies in pieces, against the reader of whole bodies.

use proptest::prelude::*;
use proto::scan::{
    Body, Bounds, From, Kind, Value, read,
    reply::{Passed, Reply, Tool},
};

const REPLIES: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    r#" {"result":[],"id":"a\u0062","jsonrpc":"2.0","extra":{"a":[1,-2.5e3,true]}} "#,
    r#"{"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":[{"type":"text","text":"世界 \ud83d\ude00 \\ é"}]}}"#,
    r#"{"jsonrpc":"2.0","id":7,"result":{"isError":"true"}}"#,
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no","data":{"code":1}}}"#,
    r#"{"jsonrpc":"2.0","error":{"code":5}}"#,
    r#"{"jsonrpc":"2.0","id":2,"result":{"tools":[{"name":"a\u0041","x":{"name":"b"}}, {"y":1,"name":"c"},{},3,{"name":4}],"nextCursor":"x"}}"#,
    r#"{"jsonrpc":"2.0","id":2,"result":{"tools":{"name":1}}}"#,
    r#"{"jsonrpc":"2.0","id":2,"result":{"a":{"__proto__":1,"b":[{"c":1,"c":2}]}}}"#,
    r#"{"jsonrpc":"2.0","id":2,"x":{"__proto__":1},"result":{}}"#,
    r#"{"jsonrpc":"2.0","id":2,"result":[{"__proto__":1}]}"#,
    r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{"a":"\ud800"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{"a":01,"b":nul}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
    r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#,
];

/// The same by the reader of whole bodies; `None` where that is refused or no reply.
fn whole(bytes: &[u8]) -> Option<Passed> {
    let Ok(Body::One(message)) = read(bytes, &Bounds::default(), From::Server) else {
        return None;
    };
    if !matches!(message.kind, Kind::Result | Kind::Error(_)) {
        return None;
    }
    let tools = message
        .result_member("tools")
        .filter(|t| t.raw()[0] == b'[');
    let tool = |tool: Value<'_>| {
        let start = tool.raw().as_ptr() as usize - bytes.as_ptr() as usize;
        let name = tool.get("name").and_then(|name| name.as_str());
        Some(Tool {
            name: name.map(|name| name.into_owned()),
            start,
            end: start + tool.raw().len(),
        })
    };
    Some(Passed {
        kind: message.kind,
        id: message.id.map(<[u8]>::to_vec),
        is_tool_error: message.is_tool_error,
        tools: tools.map(|tools| tools.elements().filter_map(tool).collect()),
    })
}

fn in_pieces(bytes: &[u8], length: usize) -> Option<Passed> {
    let mut reply = Reply::new(&Bounds::default());
    for piece in bytes.chunks(length.max(1)) {
        reply.push(piece).ok()?;
    }
    reply.finish().ok()
}

fn agrees(bytes: &[u8], length: usize) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(in_pieces(bytes, length), whole(bytes), "{length}: {text}");
}

#[test]
fn pieces_of_every_length_say_what_the_whole_says() {
    for reply in REPLIES {
        for length in 1..=reply.len() {
            agrees(reply.as_bytes(), length);
        }
        for cut in 0..reply.len() {
            agrees(&reply.as_bytes()[..cut], 7);
        }
    }
    assert_eq!(
        REPLIES
            .iter()
            .filter(|r| whole(r.as_bytes()).is_some())
            .count(),
        8
    );
}

#[test]
fn bounds_hold_in_pieces_too() {
    let reply = |inner: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":{inner}}}}}"#);
    let many = |n: usize| {
        let members: Vec<String> = (0..n).map(|n| format!(r#""{n}":0"#)).collect();
        reply(&format!("{{{}}}", members.join(",")))
    };
    for (text, fits) in [
        (
            reply(&format!("{}{}", "[".repeat(62), "]".repeat(62))),
            true,
        ),
        (
            reply(&format!("{}{}", "[".repeat(63), "]".repeat(63))),
            false,
        ),
        (many(16_384), true),
        (many(16_385), false),
    ] {
        assert_eq!(in_pieces(text.as_bytes(), 1_000).is_some(), fits);
        assert_eq!(whole(text.as_bytes()).is_some(), fits);
    }
}

proptest! {
    #[test]
    fn mutated_replies_mean_the_same_in_pieces(
        reply in 0..REPLIES.len(),
        changes in proptest::collection::vec((any::<usize>(), 0usize..3, any::<u8>()), 0..3),
        length in 1usize..40,
    ) {
        let mut bytes = REPLIES[reply].as_bytes().to_vec();
        for (place, how, byte) in changes {
            let at = place % bytes.len();
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"{}[],:\"\\u019 "[usize::from(byte) % 13]),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        agrees(&bytes, length);
    }

    #[test]
    fn long_strings_mean_the_same_in_pieces_longer_than_a_vector(
        picks in proptest::collection::vec((0usize..100, 1usize..80), 1..30),
        key in any::<bool>(),
        length in 60usize..400,
    ) {
        let text: String = picks
            .iter()
            .map(|&(n, times)| match FAULTS.get(n) {
                Some(fault) => fault.to_string(),
                None => TEXTS[n % TEXTS.len()].repeat(times),
            })
            .collect();
        let result = if key { format!(r#"{{"{text}":1}}"#) } else { format!(r#"{{"a":"{text}"}}"#) };
        agrees(format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#).as_bytes(), length);
    }
}

/// What a long string is made of, and what none may hold.
const TEXTS: &[&str] = &[
    "a",
    "\\\\",
    "\\n",
    "\\ud83d\\ude00",
    "\\u4e16",
    "世",
    "\\\"",
];
const FAULTS: &[&str] = &["\\ud83d", "\\ude00", "\u{1}", "\\x"];
