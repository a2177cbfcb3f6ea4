//! Stage 2: the body, read once, bounded in size and time, and strictly.

use super::{Asked, Gate, error::Answer, identify::single};
use crate::{bounds::Bounds, clock, metrics::Stage};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use proto::{
    mcp::Headers,
    scan::{Body, From},
};

/// Headers that must not come twice (mcp.md §5).
const ONCE: &[&str] = &[
    "content-type",
    "content-length",
    "content-encoding",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-session-id",
    "last-event-id",
];

/// Checks every header that may come once, also `Mcp-Param-*`.
pub fn check_headers(headers: &HeaderMap) -> Result<(), Answer> {
    for name in headers.keys() {
        if ONCE.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
            single(headers, name)?;
        }
    }
    Ok(())
}

/// A POST's media types: what it sends is JSON in UTF-8, what it takes is JSON and events (M4, §5).
fn check_media(headers: &HeaderMap) -> Result<(), Answer> {
    let unsupported = |label, message| {
        Err(Answer::refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            None,
            -32600,
            label,
            message,
        )
        .closing())
    };
    if headers.contains_key(header::CONTENT_ENCODING) {
        return unsupported("content_encoding", "Send the body without Content-Encoding");
    }
    let content_type = single(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    if !is_json(content_type) {
        return unsupported(
            "content_type",
            "Content-Type must be application/json, charset absent or utf-8",
        );
    }
    if headers.contains_key(header::ACCEPT) {
        let takes = |kind: &str| {
            headers
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .flat_map(|v| v.split(','))
                .any(|part| {
                    let media = part.split(';').next().unwrap_or_default().trim();
                    media.eq_ignore_ascii_case(kind)
                        || media == "*/*"
                        || kind.split_once('/').is_some_and(|(main, _)| {
                            media
                                .strip_suffix("/*")
                                .is_some_and(|wild| wild.eq_ignore_ascii_case(main))
                        })
                })
        };
        if !takes("application/json") || !takes("text/event-stream") {
            let message = "Accept must name application/json and text/event-stream";
            return Err(Answer::refuse(
                StatusCode::NOT_ACCEPTABLE,
                None,
                -32600,
                "accept",
                message,
            )
            .closing());
        }
    }
    Ok(())
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let json = parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) => {
            name.trim().eq_ignore_ascii_case("charset")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        None => parameter.is_empty(),
    })
}

/// The headers that the rules read.
pub fn rule_headers(headers: &HeaderMap) -> Headers<'_> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Headers {
        protocol_version: text("mcp-protocol-version"),
        method: text("mcp-method"),
        name: text("mcp-name"),
    }
}

/// Checks the headers of a POST and reads its whole body.
pub async fn body(asked: &Asked, incoming: Incoming) -> Result<Bytes, Answer> {
    check_headers(&asked.headers)?;
    check_media(&asked.headers)?;
    whole(incoming, &asked.view.bounds).await
}

/// Reads a body strictly; what comes out borrows from it.
pub fn read<'b>(gate: &Gate, asked: &Asked, body: &'b Bytes) -> Result<Body<'b>, Answer> {
    let read = proto::scan::read(body, &asked.view.bounds.scan(), From::Client);
    gate.metrics.stage(Stage::Scan, clock::since(asked.now));
    read.map_err(|refusal| {
        gate.metrics.refused(refusal.reason.label());
        let id = refusal.id.and_then(|span| body.get(span.start..span.end));
        Answer::unreadable(&refusal, id)
    })
}

async fn whole(mut incoming: Incoming, bounds: &Bounds) -> Result<Bytes, Answer> {
    let too_large = || {
        let message = format!(
            "The body is over {} bytes (bounds.body_bytes)",
            bounds.body_bytes
        );
        Answer::refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            None,
            -32600,
            "body_bytes",
            &message,
        )
        .closing()
    };
    if incoming.size_hint().lower() > bounds.body_bytes as u64 {
        return Err(too_large());
    }
    let reading = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| {
                let message = "The body broke off";
                Answer::refuse(StatusCode::BAD_REQUEST, None, -32600, "body_cut", message).closing()
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if first.len() + rest.len() + data.len() > bounds.body_bytes {
                return Err(too_large());
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                    first.clear();
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    };
    match tokio::time::timeout(bounds.body_timeout, reading).await {
        Ok(read) => read,
        Err(_) => {
            let message = "The body did not arrive in time";
            Err(Answer::refuse(
                StatusCode::REQUEST_TIMEOUT,
                None,
                -32600,
                "body_timeout",
                message,
            )
            .closing())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_in_utf8_is_json() {
        for (content_type, accepted) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=utf-16", false),
            ("application/json; charset=utf-7", false),
            ("application/json; boundary=x", false),
            ("application/json-rpc", false),
            ("application/json, text/plain", false),
            ("multipart/form-data", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), accepted, "{content_type:?}");
        }
    }
}
