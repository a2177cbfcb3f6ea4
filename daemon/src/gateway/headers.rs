//! Which headers a request must have, and which of them travel: up to the server, and back to the client.

use super::{error::Answer, session::Session};
use crate::bounds::Bounds;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use proto::mcp::{Era, Headers};

/// MCP's names (mcp.md §2), and others that `http` has no constant for: made once, compared as they are.
pub static MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// See [`MCP_SESSION_ID`].
pub static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
static MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
static MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
static MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What a client that takes both kinds of replies says, in the words that most say it in.
const ACCEPT: &str = "application/json, text/event-stream";

/// Headers of a request, size and number.
pub fn check_size(headers: &HeaderMap, bounds: &Bounds) -> Result<(), Answer> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if headers.len() > bounds.headers || bytes > bounds.header_bytes {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Answer::refuse(
            status,
            None,
            -32600,
            "header_bytes",
            "The request's head is too large",
        )
        .closing());
    }
    Ok(())
}

/// A header that may come once at most, as text.
pub fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Answer> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str();
    if values.next().is_some() || text.is_err() {
        return Err(not_single(name));
    }
    Ok(text.ok())
}

fn not_single(name: &HeaderName) -> Answer {
    let message = format!("The header {name} must come once, in visible ASCII");
    Answer::refuse(
        StatusCode::BAD_REQUEST,
        None,
        -32600,
        "header_repeated",
        &message,
    )
    .closing()
}

/// Headers that must not come twice, `Mcp-Param-*` among them (mcp.md §5).
fn comes_once(name: &str) -> bool {
    matches!(
        name,
        "content-type" | "content-length" | "content-encoding" | "last-event-id"
    ) || name.starts_with("mcp-")
}

/// Checks every header that may come once.
pub fn check(headers: &HeaderMap) -> Result<(), Answer> {
    // Mostly none comes twice, which the map knows.
    let each_once = headers.len() == headers.keys_len();
    for (name, value) in headers {
        if !comes_once(name.as_str()) {
            continue;
        }
        if value.to_str().is_err() || !each_once && headers.get_all(name).iter().count() > 1 {
            return Err(not_single(name));
        }
    }
    Ok(())
}

/// A POST's media types: what it sends is JSON in UTF-8, what it takes is JSON and events (M4, §5).
pub fn check_media(headers: &HeaderMap) -> Result<(), Answer> {
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
    let usual = |accept: &HeaderValue| accept == ACCEPT;
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
pub fn for_rules(headers: &HeaderMap) -> Headers<'_> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    Headers {
        protocol_version: text(&MCP_PROTOCOL_VERSION),
        method: text(&MCP_METHOD),
        name: text(&MCP_NAME),
    }
}

/// The few headers that travel up: everything else, the client's credentials above all, stays here.
pub fn up(client: &HeaderMap, era: Era, session: Option<&Session>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    for (name, value) in client {
        if travels(name.as_str(), era) {
            headers.append(name, value.clone());
        }
    }
    if era == Era::Legacy
        && let Some(session) = session
    {
        if let Some(upstream) = session.upstream_id.get() {
            headers.insert(&MCP_SESSION_ID, upstream.clone());
        }
        if let Some(version) = session.version.get()
            && !headers.contains_key(&MCP_PROTOCOL_VERSION)
            && let Ok(version) = HeaderValue::from_str(version)
        {
            headers.insert(&MCP_PROTOCOL_VERSION, version);
        }
    }
    headers
}

fn travels(name: &str, era: Era) -> bool {
    match name {
        "mcp-protocol-version" | "traceparent" | "tracestate" => true,
        "mcp-method" | "mcp-name" => era == Era::Modern,
        "last-event-id" => era == Era::Legacy,
        _ => era == Era::Modern && name.starts_with("mcp-param-"),
    }
}

/// Of the upstream's headers these few reach the client; cookies, challenges and hop-by-hop headers do not.
pub fn down(theirs: &HeaderMap) -> HeaderMap {
    let mut ours = HeaderMap::with_capacity(6);
    for (name, value) in theirs {
        let pass = [
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::CONTENT_ENCODING,
            header::CACHE_CONTROL,
        ]
        .contains(name)
            || *name == header::RETRY_AFTER
            || *name == header::ALLOW
            || (name.as_str().starts_with("mcp-") && *name != MCP_SESSION_ID);
        if pass {
            ours.append(name.clone(), value.clone());
        }
    }
    ours
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

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        map
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn credentials_and_headers_of_the_connection_stay_here() {
        let client = map(&[
            ("authorization", "Bearer tg_x"),
            ("cookie", "a=b"),
            ("host", "gate"),
            ("connection", "keep-alive"),
            ("x-forwarded-for", "192.0.2.1"),
            ("mcp-session-id", "ours"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "add"),
            ("mcp-param-region", "eu"),
            ("last-event-id", "7"),
            ("traceparent", "00-1-2-01"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]);
        let modern = up(&client, Era::Modern, None);
        assert_eq!(
            names(&modern),
            [
                "accept",
                "mcp-method",
                "mcp-name",
                "mcp-param-region",
                "mcp-protocol-version",
                "traceparent",
                "tracestate"
            ],
        );
        // W3C Trace Context section 3.3.1: a list that may come in several lines.
        assert_eq!(modern.get_all("tracestate").iter().count(), 2);
        let legacy = up(&client, Era::Legacy, None);
        assert_eq!(
            names(&legacy),
            [
                "accept",
                "last-event-id",
                "mcp-protocol-version",
                "traceparent",
                "tracestate"
            ],
        );
    }

    #[test]
    fn of_a_reply_its_kind_and_length_come_back_and_what_mcp_names() {
        let theirs = map(&[
            ("content-type", "application/json"),
            ("content-length", "12"),
            ("set-cookie", "a=b"),
            ("www-authenticate", "Bearer"),
            ("server", "x"),
            ("mcp-session-id", "theirs"),
            ("mcp-protocol-version", "2025-11-25"),
            ("retry-after", "3"),
            ("transfer-encoding", "chunked"),
        ]);
        assert_eq!(
            names(&down(&theirs)),
            [
                "content-length",
                "content-type",
                "mcp-protocol-version",
                "retry-after"
            ],
        );
    }

    #[test]
    fn what_must_come_once_is_refused_when_it_comes_twice_or_hides_a_byte() {
        for (twice, refused) in [
            ("mcp-method", true),
            ("mcp-param-x", true),
            ("content-type", true),
            ("last-event-id", true),
            ("accept", false),
            ("tracestate", false),
        ] {
            let once = [("mcp-name", "add"), (twice, "a")];
            assert!(check(&map(&once)).is_ok(), "{twice}");
            let again = [("mcp-name", "add"), (twice, "a"), (twice, "a")];
            assert_eq!(check(&map(&again)).is_err(), refused, "{twice}");
        }
        let mut hidden = map(&[("mcp-name", "add")]);
        hidden.insert("mcp-method", HeaderValue::from_bytes(b"a\xff").unwrap());
        assert!(check(&hidden).is_err());
    }
}
