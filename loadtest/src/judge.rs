//! What a reply is: one class, and within it a code.

use crate::result::Class;
use proto::scan::{self, Body, Bounds, Envelope, From, Kind, Value};
use std::borrow::Cow;

/// Bytes of a text that are kept for people.
const SAMPLE_BYTES: usize = 300;
/// JSON-RPC codes that gateways use for limits.
const RATE_LIMITED: [i64; 2] = [-32029, -32005];

/// A verdict on one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The class.
    pub class: Class,
    /// Within it.
    pub code: Option<Cow<'static, str>>,
    /// What was seen, where it was not what was due.
    pub text: Option<String>,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The request's id.
    pub id: u64,
    /// Its method.
    pub method: &'a str,
    /// The text that a tool must answer, where it is known.
    pub text: Option<&'a str>,
}

impl Judged {
    /// What was due.
    pub const OK: Self = Self {
        class: Class::Ok,
        code: None,
        text: None,
    };

    /// Anything else.
    pub fn new(class: Class, code: impl Into<Cow<'static, str>>, text: &str) -> Self {
        let end = text.floor_char_boundary(SAMPLE_BYTES);
        Self {
            class,
            code: Some(code.into()),
            text: Some(text.get(..end).unwrap_or_default().to_owned()),
        }
    }
}

/// Judges a whole reply that is not a stream.
pub fn reply(status: u16, body: &[u8], asked: &Asked<'_>) -> Judged {
    if status != 200 {
        return by_status(status, body);
    }
    match scan::read(body, &Bounds::default(), From::Server) {
        Ok(Body::One(message)) => self::message(&message, asked),
        Ok(Body::Batch(_)) => Judged::new(Class::WrongBody, "batch", &lossy(body)),
        Err(refusal) => Judged::new(
            Class::WrongBody,
            "unreadable",
            &format!("{}: {}", refusal.reason.text(), lossy(body)),
        ),
    }
}

/// Judges a response.
pub fn message(message: &Envelope<'_>, asked: &Asked<'_>) -> Judged {
    let mut digits = [0; 20];
    let id = decimal(asked.id, &mut digits);
    match message.kind {
        Kind::Result if message.id == Some(id) => result(message, asked),
        // An error before the id was read has none.
        Kind::Error(code) if message.id == Some(id) || message.id == Some(b"null") => {
            error(code, message.raw)
        }
        Kind::Result | Kind::Error(_) => {
            let text = format!("asked {}: {}", asked.id, lossy(message.raw));
            Judged::new(Class::WrongId, lossy(message.id.unwrap_or(b"none")), &text)
        }
        Kind::Request | Kind::Notification => {
            Judged::new(Class::WrongBody, "no response", &lossy(message.raw))
        }
    }
}

fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return digits.get(at..).unwrap_or_default();
        }
    }
}

fn by_status(status: u16, body: &[u8]) -> Judged {
    let code = || Cow::Owned(format!("http {status}"));
    let class = match status {
        429 => Class::RateLimited,
        500.. => Class::ServerError,
        200..=299 => return Judged::new(Class::WrongBody, code(), "a request must be answered"),
        _ => Class::Rejected,
    };
    let mut code = code();
    if let Ok(Body::One(message)) = scan::read(body, &Bounds::default(), From::Server)
        && let Kind::Error(rpc) = message.kind
    {
        code = Cow::Owned(format!("http {status} rpc {rpc}"));
    }
    Judged::new(class, code, &lossy(body))
}

fn error(code: i64, raw: &[u8]) -> Judged {
    let text = lossy(raw);
    let says = text.to_ascii_lowercase();
    let class = if RATE_LIMITED.contains(&code)
        || says.contains("rate limit")
        || says.contains("too many requests")
    {
        Class::RateLimited
    } else {
        Class::Rejected
    };
    Judged::new(class, format!("rpc {code}"), &text)
}

fn result(message: &Envelope<'_>, asked: &Asked<'_>) -> Judged {
    let Some(result) = message.result.map(Value::new) else {
        return Judged::new(Class::WrongBody, "no result", &lossy(message.raw));
    };
    match asked.method {
        "tools/call" => {}
        "tools/list" => return has(result, "tools"),
        "prompts/list" => return has(result, "prompts"),
        "resources/list" => return has(result, "resources"),
        _ => return Judged::OK,
    }
    // One walk: in replies of many kilobytes every look-up is another.
    let (mut text, mut error, mut asks, mut meta) = (None, false, false, None);
    for (key, value) in result.members() {
        match &*key {
            "content" => text = value.index(0).and_then(|c| c.get("text")),
            "isError" => error = value.as_bool() == Some(true),
            "resultType" => asks = value.raw() == br#""input_required""#,
            "_meta" => meta = Some(value),
            _ => {}
        }
    }
    if asks {
        return Judged::new(Class::Rejected, "input_required", &lossy(message.raw));
    }
    if error {
        let said = text.and_then(|t| t.as_str()).unwrap_or_default();
        let denial = meta.and_then(|meta| meta.get("dev.tollgate/denial"));
        return failed(&said, denial);
    }
    let said = text.and_then(|t| t.as_str());
    match (said, asked.text) {
        (None, None) if result.get("content").is_some() => Judged::OK,
        (None, _) => Judged::new(Class::WrongBody, "no text", &lossy(message.raw)),
        (Some(said), Some(due)) if said != due => Judged::new(
            Class::WrongBody,
            "another text",
            &format!("due {due:.100?}, came {said:.150?}"),
        ),
        _ => Judged::OK,
    }
}

fn has(result: Value<'_>, key: &str) -> Judged {
    match result.get(key).map(|v| v.kind()) {
        Some(scan::value::Type::Array) => Judged::OK,
        _ => Judged::new(Class::WrongBody, "no list", &lossy(result.raw())),
    }
}

/// A result with `isError`: a gateway's denial, or the tool's own failure.
fn failed(said: &str, denial: Option<Value<'_>>) -> Judged {
    if let Some(denial) = denial {
        let code = denial.get("code").and_then(|c| c.as_str());
        let code = code.unwrap_or(Cow::Borrowed("unknown")).into_owned();
        return Judged::new(Class::Denied, code, said);
    }
    if said.contains("POLICY DENIED") {
        let says = said.to_ascii_lowercase();
        let limit = says.contains("rate limit") || says.contains("try again");
        return Judged::new(Class::Denied, if limit { "limit" } else { "policy" }, said);
    }
    Judged {
        code: None,
        ..Judged::new(Class::ToolError, "", said)
    }
}

fn lossy(bytes: &[u8]) -> String {
    let kept = bytes.get(..SAMPLE_BYTES).unwrap_or(bytes);
    String::from_utf8_lossy(kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, body: &str, text: Option<&str>) -> (Class, String) {
        let asked = Asked {
            id: 7,
            method: "tools/call",
            text,
        };
        let judged = reply(status, body.as_bytes(), &asked);
        (judged.class, judged.code.unwrap_or_default().into_owned())
    }

    #[test]
    fn every_reply_has_one_class() {
        let ok = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"a\"b"}]}}"#;
        let denied = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"no"}],"isError":true,"_meta":{"dev.tollgate/denial":{"code":"limit"}}}}"#;
        let other = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"[X POLICY DENIED] Rate limit of 5"}],"isError":true}}"#;
        let tool = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"it broke"}],"isError":true}}"#;
        let rpc = |code: i64, message: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":{code},"message":"{message}"}}}}"#)
        };
        let rows: &[(u16, &str, Option<&str>, Class, &str)] = &[
            (200, ok, None, Class::Ok, ""),
            (200, ok, Some("a\"b"), Class::Ok, ""),
            (200, ok, Some("ab"), Class::WrongBody, "another text"),
            (200, denied, None, Class::Denied, "limit"),
            (200, other, None, Class::Denied, "limit"),
            (200, tool, None, Class::ToolError, ""),
            (200, &rpc(-32602, "no"), None, Class::Rejected, "rpc -32602"),
            (
                200,
                &rpc(-32000, "Rate limit reached"),
                None,
                Class::RateLimited,
                "rpc -32000",
            ),
            (200, &ok.replace(":7", ":8"), None, Class::WrongId, "8"),
            (
                200,
                &ok.replace(":7", ":\"7\""),
                None,
                Class::WrongId,
                "\"7\"",
            ),
            (200, "{}", None, Class::WrongBody, "unreadable"),
            (200, "<html>", None, Class::WrongBody, "unreadable"),
            (200, "", None, Class::WrongBody, "unreadable"),
            (202, "", None, Class::WrongBody, "http 202"),
            (429, "", None, Class::RateLimited, "http 429"),
            (401, "", None, Class::Rejected, "http 401"),
            (
                404,
                &rpc(-32601, "no"),
                None,
                Class::Rejected,
                "http 404 rpc -32601",
            ),
            (503, "", None, Class::ServerError, "http 503"),
        ];
        for (status, body, text, class, code) in rows {
            let (seen, code_seen) = judge(*status, body, *text);
            assert_eq!(
                (seen, code_seen.as_str()),
                (*class, *code),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn numbers_are_written_as_in_json() {
        for n in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut digits = [0; 20];
            assert_eq!(decimal(n, &mut digits), n.to_string().as_bytes());
        }
    }
}
