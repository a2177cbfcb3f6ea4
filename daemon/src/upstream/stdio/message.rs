//! What a line from a child is, and ids and tokens that can be compared whatever their spelling.

use proto::scan::{self, From, Kind, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON-RPC id or a progress token, by value: a server may echo `"\u00e9"` as `"é"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A string, unescaped.
    Text(Box<str>),
    /// An integer's digits.
    Number(Box<str>),
}

impl Key {
    /// Reads an id's JSON text; `None` when it is neither a string nor a number.
    pub fn read(raw: &[u8]) -> Option<Key> {
        let raw = raw.trim_ascii();
        match raw.first()? {
            b'"' => serde_json::from_slice::<String>(raw)
                .ok()
                .map(|text| Key::Text(text.into())),
            b'-' | b'0'..=b'9' => {
                let digits = std::str::from_utf8(raw).ok()?;
                let digits = if digits == "-0" { "0" } else { digits };
                Some(Key::Number(digits.into()))
            }
            _ => None,
        }
    }
}

/// What a message from a child is, as far as its way to the client goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The reply to the request with this id.
    Reply(Key),
    /// A reply that names no request (an error with a null id).
    ReplyToNobody,
    /// Progress of the request with this token.
    Progress(Key),
    /// A request of the server.
    Request,
    /// Any other notification.
    Notification,
}

/// A line that must not reach a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, for the log.
    pub reason: String,
    /// The request that it pretends to answer, where that much can be read: it fails now instead of at its deadline.
    pub reply_to: Option<Key>,
}

/// Reads a line strictly.
pub fn read(line: &[u8], bounds: &scan::Bounds) -> Result<Message, Refused> {
    let envelope = match scan::read(line, bounds, From::Server) {
        Ok(scan::Body::One(envelope)) => envelope,
        Ok(scan::Body::Batch(_)) => {
            return Err(Refused {
                reason: "a batch".into(),
                reply_to: None,
            });
        }
        Err(refusal) => {
            return Err(Refused {
                reason: format!("{} at byte {}", refusal.reason.text(), refusal.at),
                reply_to: pretended(line),
            });
        }
    };
    Ok(match envelope.kind {
        Kind::Request => Message::Request,
        Kind::Result | Kind::Error(_) => match envelope.id.and_then(Key::read) {
            Some(id) => Message::Reply(id),
            None => Message::ReplyToNobody,
        },
        Kind::Notification if envelope.method == "notifications/progress" => envelope
            .params
            .and_then(|params| Value::new(params).get("progressToken"))
            .and_then(|token| Key::read(token.raw()))
            .map_or(Message::Notification, Message::Progress),
        Kind::Notification => Message::Notification,
    })
}

/// The id that a client's `notifications/cancelled` names.
pub fn cancelled(body: &[u8], bounds: &scan::Bounds) -> Option<Key> {
    const METHOD: &[u8] = b"notifications/cancelled";
    // Nearly every body is not one: a plain search is cheaper than a scan, and an escaped spelling is refused earlier.
    if !body.windows(METHOD.len()).any(|window| window == METHOD) {
        return None;
    }
    match scan::read(body, bounds, From::Client) {
        Ok(scan::Body::One(message))
            if message.kind == Kind::Notification && message.method.as_bytes() == METHOD =>
        {
            Key::read(Value::new(message.params?).get("requestId")?.raw())
        }
        _ => None,
    }
}

/// Who a refused line pretends to answer. Only ever used to fail a request, never to answer one.
fn pretended(line: &[u8]) -> Option<Key> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
        method: Option<serde::de::IgnoredAny>,
    }
    let reply: Reply<'_> = serde_json::from_slice(line).ok()?;
    match reply.method {
        None => Key::read(reply.id.get().as_bytes()),
        Some(_) => None,
    }
}

/// `notifications/cancelled` for a request whose id has this JSON text.
pub fn cancel(id: &[u8], reason: &'static str) -> Vec<u8> {
    [
        br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#,
        id,
        br#","reason":""#,
        reason.as_bytes(),
        br#""}}"#,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(json: &str) -> Key {
        Key::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn keys_compare_by_value_and_type() {
        for (a, b, same) in [
            (r#""\u00e9""#, r#""é""#, true),
            ("7", r#""7""#, false),
            ("-0", "0", true),
            (" 7 ", "7", true),
            ("7", "70", false),
        ] {
            assert_eq!(key(a) == key(b), same, "{a} and {b}");
        }
        for none in ["null", "true", "{}", "", r#""open"#] {
            assert_eq!(Key::read(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn lines_are_what_their_keys_say() {
        let bounds = scan::Bounds::default();
        for (line, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":"a","result":{}}"#,
                Ok(Message::Reply(key(r#""a""#))),
            ),
            (
                r#"{"jsonrpc":"2.0","id":3,"error":{"code":-1,"message":"no"}}"#,
                Ok(Message::Reply(key("3"))),
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#,
                Ok(Message::ReplyToNobody),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":9,"progress":1}}"#,
                Ok(Message::Progress(key("9"))),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#,
                Ok(Message::Notification),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
                Ok(Message::Request),
            ),
            // Refused, and whom it pretends to answer.
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#, Err(None)),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#,
                Err(Some(key("1"))),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
                Err(None),
            ),
            ("npm warn deprecated", Err(None)),
            (r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#, Err(None)),
        ] {
            let got = read(line.as_bytes(), &bounds).map_err(|refused| refused.reply_to);
            assert_eq!(got, expected, "{line}");
        }
    }

    #[test]
    fn a_cancellation_names_its_request() {
        let bounds = scan::Bounds::default();
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#,
                Some(key(r#""a""#)),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
                None,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"x","params":{"requestId":"notifications/cancelled"}}"#,
                None,
            ),
        ] {
            assert_eq!(cancelled(body.as_bytes(), &bounds), expected, "{body}");
        }
        let notice = cancel(b"7", "timeout");
        assert_eq!(cancelled(&notice, &bounds), Some(key("7")));
    }
}
