//! The plain call, cheaply: a well-formed `tools/call` of a tool that answers at once, where nothing is to go wrong and
//! no details are kept. Whatever is out of the ordinary takes the long way, which answers the same.

use super::{
    Eras, MODERN, Parser, Reply,
    core::Core,
    era::text,
    tools::{TOOLS, said},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use proto::scan::{self, Body, Bounds, Envelope, From, Kind};
use serde_json::Value;

use super::wire::ReplyBody;

/// The reply, or `None` for the long way.
pub(super) fn answer(
    core: &Core,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<http::Response<ReplyBody>> {
    let options = &core.options;
    let plain = options.parser == Parser::JavaScript
        && options.reply != Reply::Sse
        && options.chance.is_none()
        && core.recorder.is_light()
        && !core.has_faults();
    if !plain {
        return None;
    }
    let Ok(Body::One(message)) = scan::read(body, &Bounds::default(), From::Client) else {
        return None;
    };
    if message.kind != Kind::Request || message.method != "tools/call" || message.task {
        return None;
    }
    let accept = text(headers, "accept")?;
    if !(accept.contains("application/json") && accept.contains("text/event-stream")) {
        return None;
    }
    let name = message.name.as_deref()?;
    let tool = TOOLS.iter().find(|t| t.name == name)?.name;
    if !options.tools.is_empty() && !options.tools.iter().any(|t| t == tool) {
        return None;
    }
    let modern = message.meta_version.is_some();
    let session = match modern {
        true => {
            modern_as_due(core, headers, &message)?;
            None
        }
        false => legacy_as_due(core, headers)?,
    };
    let arguments = message.arguments.unwrap_or(b"{}");
    let value: Value = serde_json::from_slice(arguments).ok()?;
    let said = said(tool, &value)?;
    let id = message.id?;
    let era = if modern { "modern" } else { "legacy" };
    core.recorder.done(tool, id, arguments, era, session);
    Some(reply(core, id, &said, modern))
}

/// What the long way demands of a modern request.
fn modern_as_due(core: &Core, headers: &HeaderMap, message: &Envelope<'_>) -> Option<()> {
    let checked = core.options.check_headers;
    let due = core.options.eras != Eras::Legacy
        && message.meta_version.as_deref() == Some(MODERN)
        && (!checked
            || text(headers, "mcp-protocol-version") == Some(MODERN)
                && text(headers, "mcp-method") == Some("tools/call")
                && text(headers, "mcp-name") == message.name.as_deref());
    due.then_some(())
}

/// The session's id where there are sessions.
fn legacy_as_due<'a>(core: &Core, headers: &'a HeaderMap) -> Option<Option<&'a str>> {
    let version = text(headers, "mcp-protocol-version");
    let due =
        core.options.eras != Eras::Modern && version.is_none_or(|v| super::LEGACY.contains(&v));
    if !due {
        return None;
    }
    if !core.options.sessions {
        return Some(None);
    }
    let id = text(headers, "mcp-session-id")?;
    core.session(id).map(|_| Some(id))
}

fn reply(core: &Core, id: &[u8], said: &str, modern: bool) -> http::Response<ReplyBody> {
    let mut body = Vec::with_capacity(said.len() + 320);
    body.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    body.extend_from_slice(id);
    body.extend_from_slice(br#","result":{"content":[{"type":"text","text":"#);
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut body, said);
    body.extend_from_slice(b"}]");
    if modern {
        body.extend_from_slice(
            br#","resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":"#,
        );
        body.extend_from_slice(core.info_text().as_bytes());
        body.push(b'}');
    }
    body.extend_from_slice(b"}}");
    let mut response = http::Response::new(ReplyBody::Full(Some(Bytes::from(body))));
    let value = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Options;

    fn core(options: Options) -> Core {
        Core::new(options).unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(n, v): &(&'static str, &'static str)| {
            (
                http::HeaderName::from_static(n),
                HeaderValue::from_static(v),
            )
        };
        pairs.iter().map(pair).collect()
    }

    const MODERN_HEADERS: &[(&str, &str)] = &[
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    ];
    const CALL: &str = r#"{"jsonrpc":"2.0","id":"x\"1","method":"tools/call","params":{"name":"echo","arguments":{"a":"é\"\u0001"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

    #[tokio::test]
    async fn both_ways_say_the_same() {
        let light = Options {
            record_details: false,
            ..Options::default()
        };
        let core = core(light);
        let mut response = answer(&core, &headers(MODERN_HEADERS), CALL.as_bytes()).unwrap();
        let ReplyBody::Full(Some(fast)) = response.body_mut() else {
            panic!("no body");
        };
        let message: Value = serde_json::from_str(CALL).unwrap();
        let context = super::super::core::Context {
            modern: true,
            session: core.common.clone(),
            headers: Default::default(),
        };
        let slow = core.answer(&message, &context, &Default::default()).await;
        assert_eq!(slow.body.unwrap().to_string().as_bytes(), &fast[..]);
        let calls = core.recorder.calls();
        let strip = |at: usize| crate::upstream::Call {
            seq: 0,
            at_ms: 0,
            ..calls[at].clone()
        };
        assert_eq!(strip(0), strip(1));
    }

    #[test]
    fn whatever_is_out_of_the_ordinary_takes_the_long_way() {
        let light = || Options {
            record_details: false,
            ..Options::default()
        };
        let plain = core(light());
        let take = |core: &Core, headers: &HeaderMap, body: &str| {
            answer(core, headers, body.as_bytes()).is_some()
        };
        let modern = headers(MODERN_HEADERS);
        assert!(take(&plain, &modern, CALL));
        assert!(!take(&core(Options::default()), &modern, CALL));
        for body in [
            CALL.replace("echo", "slow"),
            CALL.replace("echo", "nothing"),
            CALL.replace("tools/call", "tools/list"),
            CALL.replace("2026-07-28", "2030-01-01"),
            CALL.replace(r#""name":"echo""#, r#""name":"echo","name":"big""#),
            CALL.replace(r#""id":"x\"1","#, ""),
        ] {
            assert!(!take(&plain, &modern, &body), "{body}");
        }
        let lying = headers(&[
            MODERN_HEADERS[0],
            MODERN_HEADERS[1],
            MODERN_HEADERS[2],
            ("mcp-name", "big"),
        ]);
        assert!(!take(&plain, &lying, CALL));
        let faulty = core(Options {
            faults: vec![("*".into(), crate::upstream::Fault::Hang)],
            ..light()
        });
        assert!(!take(&faulty, &modern, CALL));
        let old = core(Options {
            eras: Eras::Legacy,
            ..light()
        });
        assert!(!take(&old, &modern, CALL));
    }
}
