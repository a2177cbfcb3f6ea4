//! Bodies that no two parsers read alike, or that are no JSON: a strict reader refuses every one.

/// What is wrong, and the body.
pub fn wrong() -> Vec<(&'static str, Vec<u8>)> {
    let call = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
            .into_bytes()
    };
    let arguments = |text: &str| call(&format!(r#"{{"name":"t","arguments":{text}}}"#));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let mut broken = arguments(r#"{"a":"??"}"#);
    if let Some(at) = broken.iter().position(|&b| b == b'?') {
        broken[at] = 0xc3;
        broken[at + 1] = 0x28;
    }
    let mut surrogate = arguments(r#"{"a":"???"}"#);
    if let Some(at) = surrogate.iter().position(|&b| b == b'?') {
        surrogate.splice(at..at + 3, *b"\xed\xa0\x80");
    }
    let mut trailing = arguments("{}");
    trailing.extend_from_slice(b"{}");
    let mut nul = arguments("{}");
    nul.push(0);
    let mut bom = b"\xef\xbb\xbf".to_vec();
    bom.extend(arguments("{}"));
    vec![
        (
            "name twice",
            call(r#"{"name":"a","arguments":{},"name":"b"}"#),
        ),
        (
            "name twice, once with an escape",
            call(r#"{"name":"a","n\u0061me":"b"}"#),
        ),
        (
            "method twice",
            br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#.to_vec(),
        ),
        ("argument twice", arguments(r#"{"a":1,"a":2}"#)),
        (
            "argument twice, deep",
            arguments(r#"{"a":[{"b":1,"c":2,"b":3}]}"#),
        ),
        ("invalid UTF-8", broken),
        ("UTF-8 of a surrogate", surrogate),
        ("half a surrogate pair", arguments(r#"{"a":"\ud83d"}"#)),
        ("the other half", arguments(r#"{"a":"\ude00"}"#)),
        ("bad escape", arguments(r#"{"a":"\x41"}"#)),
        ("short \\u", arguments(r#"{"a":"\u12"}"#)),
        ("control character", arguments("{\"a\":\"\n\"}")),
        ("nested 100 deep", arguments(&deep)),
        ("NaN", arguments(r#"{"a":NaN}"#)),
        ("leading zero", arguments(r#"{"a":012}"#)),
        ("number without digits", arguments(r#"{"a":1.}"#)),
        ("trailing comma", arguments(r#"{"a":[1,]}"#)),
        ("trailing document", trailing),
        ("trailing NUL", nul),
        ("byte order mark", bom),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::scan::{Bounds, From, read};

    #[test]
    fn the_scanner_refuses_what_is_wrong() {
        let wrong = wrong();
        assert_eq!(wrong.len(), 20);
        for (what, body) in wrong {
            for from in [From::Client, From::Server] {
                let said = read(&body, &Bounds::default(), from);
                assert!(said.is_err(), "{what}: {said:?}");
            }
        }
    }
}
