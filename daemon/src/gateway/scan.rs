//! Stage 2: the body, read once, bounded in size and time, and strictly.

use super::{Asked, Gate, error::Answer, identify::single};
use crate::{bounds::Bounds, clock, metrics::Stage};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use proto::{
    mcp::Headers,
    scan::{Body, From},
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Headers that must not come twice, `Mcp-Param-*` among them (mcp.md §5).
fn comes_once(name: &str) -> bool {
    matches!(
        name,
        "content-type" | "content-length" | "content-encoding" | "last-event-id"
    ) || name.starts_with("mcp-")
}

/// Checks every header that may come once.
pub fn check_headers(headers: &HeaderMap) -> Result<(), Answer> {
    let names = headers.keys();
    names
        .filter(|name| comes_once(name.as_str()))
        .try_for_each(|name| single(headers, name).map(|_| ()))
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
    let usual = |accept: &HeaderValue| accept == "application/json, text/event-stream";
    if headers
        .get(header::ACCEPT)
        .is_some_and(|accept| !usual(accept))
    {
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

/// Checks the headers of a POST and reads its whole body. What a body asks for that took its time is asked now.
pub async fn body(asked: &mut Asked, incoming: Incoming) -> Result<Bytes, Answer> {
    check_headers(&asked.headers)?;
    check_media(&asked.headers)?;
    let (body, waited) = whole(incoming, &asked.view.bounds).await?;
    if waited {
        asked.at(clock::now());
    }
    Ok(body)
}

/// Reads a body strictly; what comes out borrows from it.
pub fn read<'b>(gate: &Gate, asked: &mut Asked, body: &'b Bytes) -> Result<Body<'b>, Answer> {
    let read = proto::scan::read(body, &asked.view.bounds.scan(), From::Client);
    let (began_ns, read_ns) = (asked.read_ns, clock::boot_ns());
    asked.read_ns = read_ns;
    gate.metrics
        .stage(Stage::Scan, read_ns.saturating_sub(began_ns));
    read.map_err(|refusal| {
        gate.metrics.refused(refusal.reason.label());
        let id = refusal.id.and_then(|span| body.get(span.start..span.end));
        Answer::unreadable(&refusal, id)
    })
}

/// The whole body; says whether it had to be waited for.
async fn whole(mut incoming: Incoming, bounds: &Bounds) -> Result<(Bytes, bool), Answer> {
    let announced = incoming.size_hint().lower();
    if announced > bounds.body_bytes as u64 {
        return Err(too_large(bounds));
    }
    let mut reading = pin!(collect(&mut incoming, announced as usize, bounds));
    // A short body came with its head: no timer is set for it.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return Ok((read?, false));
    }
    match tokio::time::timeout(bounds.body_timeout, reading).await {
        Ok(read) => Ok((read?, true)),
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

async fn collect(
    incoming: &mut Incoming,
    announced: usize,
    bounds: &Bounds,
) -> Result<Bytes, Answer> {
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
            return Err(too_large(bounds));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // Room for what is announced, but never for much more than came.
                let came = 16 * (first.len() + data.len());
                rest.reserve(announced.min(came).max(first.len() + data.len()));
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
}

fn too_large(bounds: &Bounds) -> Answer {
    let message = format!(
        "The body is over {} bytes (bounds.body_bytes)",
        bounds.body_bytes
    );
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    Answer::refuse(status, None, -32600, "body_bytes", &message).closing()
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
