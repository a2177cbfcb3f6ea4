//! The vectorised scanner against its safe twin, and both against another parser that refuses duplicate keys.

use crate::oracle::Strict;
use proto::scan::{
    Bounds, From, Reason,
    jsonrpc::{read, read_plain},
};

/// Reads bytes behind some white space, so that they lie at every place of a vector: as a body, or, if the first byte
/// says so, as the arguments of a call.
pub fn scan(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    let mut body = vec![b' '; usize::from(first % 64)];
    if first < 128 {
        body.extend_from_slice(rest);
    } else {
        body.extend_from_slice(
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":"#,
        );
        body.extend_from_slice(rest);
        body.extend_from_slice(b"}}");
    }
    // Alone in its allocation, so that a sanitizer sees every byte that is read beyond it.
    both(&body.into_boxed_slice());
}

fn both(body: &[u8]) {
    let bounds = Bounds::default();
    let asked = read(body, &bounds, From::Client);
    assert_eq!(asked, read_plain(body, &bounds, From::Client));
    let answered = read(body, &bounds, From::Server);
    assert_eq!(answered, read_plain(body, &bounds, From::Server));
    assert!(
        answered.is_ok() || asked.is_err(),
        "servers may say more than clients"
    );

    let strict = serde_json::from_slice::<Strict>(body).map_err(|e| e.to_string());
    match (answered, strict) {
        (Ok(_), Ok(_)) => {}
        // The other parser has no place for 1e400: the one thing that is forwarded and that it refuses.
        (Ok(_), Err(e)) => assert!(e.starts_with("number out of range"), "{e}"),
        (Err(refusal), Ok(_)) => assert!(!is_no_json(refusal.reason), "{refusal:?}"),
        (Err(_), Err(_)) => {}
    }
}

/// What no parser that refuses duplicate keys takes for JSON.
fn is_no_json(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Empty
            | Reason::Bom
            | Reason::Encoding
            | Reason::Syntax
            | Reason::Truncated
            | Reason::Trailing
            | Reason::ControlCharacter
            | Reason::LoneSurrogate
            | Reason::DuplicateKey
    )
}
