//! The ways in which a server can break the protocol.

use super::wire::{ReplyBody, event_text, events, reply};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

/// A way to break the protocol. The call itself is executed; its reply is what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Fault {
    /// Never answer
    Hang,
    /// Send the head and half of a JSON body, then nothing
    HangMidBody,
    /// Send the head of an SSE stream, then nothing
    HangMidStream,
    /// Close without a byte
    Die,
    /// Close in the middle of the head
    DieMidHead,
    /// Close in the middle of a body whose length was announced
    DieMidBody,
    /// Close in the middle of a chunked SSE stream
    DieMidStream,
    /// End an SSE stream properly, without a response in it
    EndWithoutResponse,
    /// Reset the connection in the middle of a body
    Reset,
    /// Send an endless JSON body
    Flood,
    /// Send endless SSE notifications
    FloodEvents,
    /// Send one endless SSE line (stdio: one endless line)
    FloodLine,
    /// Announce more bytes than come
    LongLength,
    /// Announce fewer bytes than come: the rest is a second response
    ShortLength,
    /// Two Content-Length headers that differ
    TwoLengths,
    /// Content-Length and Transfer-Encoding: chunked
    LengthAndChunked,
    /// A header of 1 MiB
    BigHeader,
    /// 1,000 headers
    ManyHeaders,
    /// 307 to another path of this server
    Redirect,
    /// 401 with WWW-Authenticate
    Unauthorized,
    /// 404, as if the session were gone
    SessionGone,
    /// 500 without a body
    ServerError,
    /// 200 with Set-Cookie and hop-by-hop headers
    Cookies,
    /// An HTML page as text/html
    Html,
    /// No Content-Type
    NoContentType,
    /// An empty body
    Empty,
    /// Say gzip, send something else
    BadGzip,
    /// gzip of 64 MiB of blanks
    GzipBomb,
    /// Say zstd-like unknown coding
    UnknownEncoding,
    /// A byte order mark
    Bom,
    /// Bytes that are no UTF-8
    InvalidUtf8,
    /// NaN
    Nan,
    /// Two documents
    TwoDocuments,
    /// A comma too many
    TrailingComma,
    /// Half a document
    HalfDocument,
    /// 100,000 opening brackets
    Deep,
    /// A lone surrogate in a string
    LoneSurrogate,
    /// `result` twice
    DuplicateResult,
    /// In the result, its first key twice (for a list: `tools`, the first time empty)
    DuplicateKeys,
    /// In the first tool, `name` twice
    DuplicateNames,
    /// `name` spelled with an escape
    EscapedKeys,
    /// `result` and `error` both
    ResultAndError,
    /// Neither `result` nor `error`
    Neither,
    /// Another id
    WrongId,
    /// No id
    NoId,
    /// The id as a string (or, of a string, as a number)
    RetypedId,
    /// The response twice
    Twice,
    /// stdio: lines that are no JSON before the reply; HTTP: SSE comments and unknown events
    Noise,
}

/// How a broken reply reaches the client.
pub(super) enum Delivery {
    Never,
    Reply(Box<Response<ReplyBody>>),
    Raw { bytes: Bytes, reset: bool },
}

/// The broken form of a reply's text; `None` for faults that are not in the text.
pub(super) fn edit(fault: Fault, body: &Value) -> Option<Vec<u8>> {
    let text = body.to_string();
    let without = |key: &str| {
        let mut body = body.clone();
        body.as_object_mut().map(|fields| fields.remove(key));
        body
    };
    let with = |key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body.to_string()
    };
    let head = |extra: &str| text.replacen('{', &format!("{{{extra}"), 1);
    Some(match fault {
        Fault::Bom => format!("\u{feff}{text}").into_bytes(),
        Fault::InvalidUtf8 => [text.as_bytes(), b"\xff"].concat(),
        Fault::Nan => head(r#""score":NaN,"#).into_bytes(),
        Fault::TwoDocuments => format!("{text} {text}").into_bytes(),
        Fault::TrailingComma => {
            format!("{},}}", text.strip_suffix('}').unwrap_or(&text)).into_bytes()
        }
        Fault::HalfDocument => text.as_bytes().get(..text.len() / 2)?.to_vec(),
        Fault::Deep => vec![b'['; 100_000],
        Fault::LoneSurrogate => text
            .replacen(r#""result":{"#, r#""result":{"x":"\ud800","#, 1)
            .into_bytes(),
        Fault::DuplicateResult => text
            .replacen(r#""result":"#, r#""result":{},"result":"#, 1)
            .into_bytes(),
        Fault::DuplicateKeys => {
            let first = body.get("result")?.as_object()?.keys().next()?;
            text.replacen(r#""result":{"#, &format!(r#""result":{{"{first}":[],"#), 1)
                .into_bytes()
        }
        Fault::DuplicateNames => text
            .replacen(r#"{"name":"#, r#"{"name":"harmless","name":"#, 1)
            .into_bytes(),
        Fault::EscapedKeys => text.replace(r#"{"name":"#, "{\"n\\u0061me\":").into_bytes(),
        Fault::ResultAndError => {
            with("error", json!({"code": -32603, "message": "both"})).into_bytes()
        }
        Fault::Neither => without("result").to_string().into_bytes(),
        Fault::WrongId => with("id", json!(987_654_321)).into_bytes(),
        Fault::NoId => without("id").to_string().into_bytes(),
        Fault::RetypedId => match body.get("id")? {
            Value::String(id) => with("id", json!(id.parse::<i64>().unwrap_or(0))).into_bytes(),
            id => with("id", json!(id.to_string())).into_bytes(),
        },
        Fault::Empty => Vec::new(),
        _ => return None,
    })
}

/// The broken reply over HTTP.
pub(super) fn deliver(fault: Fault, body: &Value, sse: bool) -> Delivery {
    let text = body.to_string();
    let half = text.get(..text.len() / 2).unwrap_or_default();
    let whole = |response| Delivery::Reply(Box::new(response));
    let raw = |text: String| Delivery::Raw {
        bytes: text.into(),
        reset: false,
    };
    let json = |extra: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{extra}\r\n{body}")
    };
    let coded = |coding: &'static str, bytes: Bytes| {
        let mut response = reply(200, "application/json", bytes);
        let value = HeaderValue::from_static(coding);
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, value);
        response
    };
    let endless = |first: Bytes, again: Option<Bytes>| {
        events(ReplyBody::Endless {
            first: Some(first),
            again,
        })
    };
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "again"}});
    if let Some(bytes) = edit(fault, body) {
        // In an event the text is cut into lines first: it must stay one event.
        return whole(match std::str::from_utf8(&bytes) {
            Ok(text) if sse => events(ReplyBody::Full(Some(event_text(text, &mut None)))),
            _ => reply(200, "application/json", bytes),
        });
    }
    match fault {
        Fault::Hang => Delivery::Never,
        Fault::HangMidBody => {
            let mut response = endless(half.to_owned().into(), None);
            let value = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, value);
            whole(response)
        }
        Fault::HangMidStream => whole(endless(Bytes::from_static(b": open\n\n"), None)),
        Fault::Die => raw(String::new()),
        Fault::DieMidHead => raw("HTTP/1.1 200 OK\r\ncontent-ty".into()),
        Fault::DieMidBody => raw(json(&format!("content-length: {}\r\n", text.len()), half)),
        Fault::LongLength => raw(json(
            &format!("content-length: {}\r\n", text.len() + 100),
            &text,
        )),
        Fault::Reset => Delivery::Raw {
            bytes: json(&format!("content-length: {}\r\n", text.len()), half).into(),
            reset: true,
        },
        Fault::DieMidStream => raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n40\r\ndata: {half}"
        )),
        Fault::EndWithoutResponse => whole(events(ReplyBody::Full(Some(event_text(
            &note.to_string(),
            &mut None,
        ))))),
        Fault::Flood => {
            let mut response = endless(text.into(), Some(vec![b' '; 64 << 10].into()));
            let value = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, value);
            whole(response)
        }
        Fault::FloodEvents => {
            let event = event_text(&note.to_string(), &mut None);
            whole(endless(event.clone(), Some(event)))
        }
        Fault::FloodLine => whole(endless(
            Bytes::from_static(b"data: {\"jsonrpc\":\"2.0\",\"x\":\""),
            Some(vec![b'x'; 64 << 10].into()),
        )),
        Fault::ShortLength => {
            let second = json(&format!("content-length: {}\r\n", text.len()), &text);
            raw(json(
                &format!("content-length: {}\r\n", text.len()),
                &format!("{text}{second}"),
            ))
        }
        Fault::TwoLengths => raw(json(
            &format!(
                "content-length: {}\r\ncontent-length: {}\r\n",
                text.len(),
                half.len()
            ),
            &text,
        )),
        Fault::LengthAndChunked => raw(json(
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            &format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()),
        )),
        Fault::BigHeader => raw(json(
            &format!(
                "content-length: {}\r\nx-big: {}\r\n",
                text.len(),
                "x".repeat(1 << 20)
            ),
            &text,
        )),
        Fault::ManyHeaders => {
            let many: String = (0..1_000).map(|n| format!("x-{n}: 1\r\n")).collect();
            raw(json(
                &format!("content-length: {}\r\n{many}", text.len()),
                &text,
            ))
        }
        Fault::Redirect => {
            let mut response = reply(307, "", "");
            let value = HeaderValue::from_static("/mcp/elsewhere");
            response.headers_mut().insert(header::LOCATION, value);
            whole(response)
        }
        Fault::Unauthorized => {
            let mut response = reply(401, "application/json", text);
            let value = HeaderValue::from_static("Bearer realm=\"upstream\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, value);
            whole(response)
        }
        Fault::SessionGone => whole(reply(404, "", "")),
        Fault::ServerError => whole(reply(500, "", "")),
        Fault::Cookies => {
            let mut response = reply(200, "application/json", text);
            for (name, value) in [
                ("set-cookie", "upstream=1"),
                ("keep-alive", "timeout=99"),
                ("proxy-authenticate", "Basic"),
                ("upgrade", "h9"),
            ] {
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            whole(response)
        }
        Fault::Html => whole(reply(
            200,
            "text/html",
            "<!doctype html><title>Sign in</title>",
        )),
        Fault::NoContentType => whole(reply(200, "", text)),
        Fault::BadGzip => whole(coded("gzip", text.into())),
        Fault::UnknownEncoding => whole(coded("x-unknown", text.into())),
        Fault::GzipBomb => whole(coded("gzip", bomb())),
        Fault::Twice if sse => {
            let event = event_text(&text, &mut None);
            whole(events(ReplyBody::Full(Some(
                [&event[..], &event[..]].concat().into(),
            ))))
        }
        Fault::Noise => {
            let event = event_text(&text, &mut None);
            let noise = b": a comment\n\nevent: unheard-of\ndata: not json\n\nretry: x\n\n";
            whole(events(ReplyBody::Full(Some(
                [&noise[..], &event[..]].concat().into(),
            ))))
        }
        _ => whole(reply(200, "application/json", format!("{text}{text}"))),
    }
}

/// 64 MiB of blanks as gzip, made once: it takes a while.
fn bomb() -> Bytes {
    use std::{io::Write as _, sync::OnceLock};
    static BOMB: OnceLock<Bytes> = OnceLock::new();
    let make = || {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let blanks = vec![b' '; 1 << 20];
        for _ in 0..64 {
            let _ = encoder.write_all(&blanks);
        }
        encoder.finish().unwrap_or_default().into()
    };
    BOMB.get_or_init(make).clone()
}
