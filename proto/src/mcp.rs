//! MCP: versions, methods, headers (specification 2024-11-05 … 2026-07-28).

mod headers;
mod methods;

pub use headers::{decode_header, encode_header};
pub use methods::{Sent, VERSIONS, known_method, knows_method, sent_as};

use crate::scan::{Envelope, Kind};
use std::borrow::Cow;

/// Which rules a request lives under: its body decides, a header alone never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2026-07-28 and later: every request stands alone.
    Modern,
    /// 2025-03-26, 2025-06-18, 2025-11-25: `initialize` opens a session.
    Legacy,
}

/// The versions of the modern era, newest first.
pub const MODERN: &[&str] = &["2026-07-28"];
/// The versions of the legacy era over streamable HTTP, newest first.
pub const LEGACY: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26"];

/// The key of `_meta` whose presence makes a request modern.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The key of `_meta` that every modern request must have beside it.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

const INVALID_REQUEST: i64 = -32600;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const UNSUPPORTED_VERSION: i64 = -32022;

/// The headers of one POST that the rules read. A header that came more than once is refused before this is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `MCP-Protocol-Version`
    pub protocol_version: Option<&'a str>,
    /// `Mcp-Method`
    pub method: Option<&'a str>,
    /// `Mcp-Name`
    pub name: Option<&'a str>,
}

/// A request that is well-formed JSON-RPC and yet not what its era allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The HTTP status.
    pub status: u16,
    /// The JSON-RPC error code.
    pub code: i64,
    /// A sentence for the client.
    pub message: Cow<'static, str>,
    /// `error.data` as JSON text, if the specification demands one.
    pub data: Option<String>,
    /// A short fixed word for metrics and audit lines.
    pub label: &'static str,
}

impl Violation {
    fn new(code: i64, label: &'static str, message: &'static str) -> Self {
        Self {
            status: 400,
            code,
            message: Cow::Borrowed(message),
            data: None,
            label,
        }
    }
}

/// The era of a message from a client and whether its headers agree with it (M8–M11, M20, L5; a lying `Mcp-Name`).
///
/// `session_version` is the version negotiated by the legacy session that the request names, if it names one.
pub fn judge(
    message: &Envelope<'_>,
    headers: &Headers<'_>,
    session_version: Option<&str>,
) -> Result<Era, Violation> {
    sent_as_specified(message)?;
    if let Some(version) = message.meta_version.as_deref() {
        modern(message, headers, version)?;
        return Ok(Era::Modern);
    }
    if message.method == "initialize" {
        // The version is negotiated in the body: what the header says of it does not count yet.
        mirrors(message, headers, INVALID_REQUEST)?;
        return Ok(Era::Legacy);
    }
    match headers.protocol_version {
        Some(version) if session_version == Some(version) || LEGACY.contains(&version) => {}
        None => {}
        Some(version) if MODERN.contains(&version) => return modern_without_meta(message, headers),
        Some(_) => {
            return Err(Violation::new(
                INVALID_REQUEST,
                "protocol_version",
                "The MCP-Protocol-Version header names a version that is not supported: send the negotiated one.",
            ));
        }
    }
    mirrors(message, headers, INVALID_REQUEST)?;
    Ok(Era::Legacy)
}

/// Whether batches exist in this version (L6).
pub fn has_batches(version: &str) -> bool {
    version == "2025-03-26"
}

/// Servers guess differently about a request without an id and a notification with one: neither is forwarded.
fn sent_as_specified(message: &Envelope<'_>) -> Result<(), Violation> {
    match (sent_as(message.method), message.kind) {
        (Some(Sent::Request), Kind::Notification) => Err(Violation::new(
            INVALID_REQUEST,
            "request_without_id",
            "This method is a request: send it with an id.",
        )),
        (Some(Sent::Notification), Kind::Request) => Err(Violation::new(
            INVALID_REQUEST,
            "notification_with_id",
            "This method is a notification: send it without an id.",
        )),
        _ => Ok(()),
    }
}

fn modern(message: &Envelope<'_>, headers: &Headers<'_>, version: &str) -> Result<(), Violation> {
    match headers.protocol_version {
        None => {
            return Err(Violation::new(
                HEADER_MISMATCH,
                "header_missing",
                "The MCP-Protocol-Version header is missing: send the version of the body's _meta.",
            ));
        }
        Some(header) if header != version => {
            return Err(Violation::new(
                HEADER_MISMATCH,
                "header_mismatch",
                "The MCP-Protocol-Version header differs from the version of the body's _meta: send the same in both.",
            ));
        }
        Some(_) => {}
    }
    if !MODERN.contains(&version) {
        let supported: Vec<&str> = MODERN.iter().chain(LEGACY).copied().collect();
        return Err(Violation {
            data: Some(
                serde_json::json!({ "supported": supported, "requested": version }).to_string(),
            ),
            ..Violation::new(
                UNSUPPORTED_VERSION,
                "unsupported_version",
                "Unsupported protocol version",
            )
        });
    }
    if message.kind == Kind::Request {
        if !message.meta_capabilities {
            return Err(incomplete_meta());
        }
        required(
            headers.method,
            "The Mcp-Method header is missing: send the body's method.",
        )?;
        if let "tools/call" | "resources/read" | "prompts/get" = message.method {
            required(
                headers.name,
                "The Mcp-Name header is missing: send the body's name or URI.",
            )?;
        }
    }
    mirrors(message, headers, HEADER_MISMATCH)
}

fn modern_without_meta(message: &Envelope<'_>, headers: &Headers<'_>) -> Result<Era, Violation> {
    match message.kind {
        Kind::Request => Err(incomplete_meta()),
        // Only requests must carry the version in `_meta`; a notification is answered alike in both eras.
        Kind::Notification => mirrors(message, headers, HEADER_MISMATCH).map(|()| Era::Modern),
        Kind::Result | Kind::Error(_) => Err(Violation::new(
            INVALID_REQUEST,
            "client_response",
            "Version 2026-07-28 has no responses from clients: send requests and notifications only.",
        )),
    }
}

fn incomplete_meta() -> Violation {
    Violation::new(
        INVALID_PARAMS,
        "meta_incomplete",
        "params._meta lacks io.modelcontextprotocol/protocolVersion or io.modelcontextprotocol/clientCapabilities: \
         every request must carry both.",
    )
}

fn required(header: Option<&str>, message: &'static str) -> Result<(), Violation> {
    match header {
        Some(_) => Ok(()),
        None => Err(Violation::new(HEADER_MISMATCH, "header_missing", message)),
    }
}

/// What a header says of the body must be true, whether or not it had to be sent.
fn mirrors(message: &Envelope<'_>, headers: &Headers<'_>, code: i64) -> Result<(), Violation> {
    if headers
        .method
        .is_some_and(|method| method != message.method)
    {
        return Err(Violation::new(
            code,
            "header_mismatch",
            "The Mcp-Method header differs from the body's method: send the same in both.",
        ));
    }
    let Some(header) = headers.name else {
        return Ok(());
    };
    let Some(header) = decode_header(header) else {
        return Err(Violation::new(
            code,
            "header_malformed",
            "The Mcp-Name header is malformed: send visible ASCII or =?base64?…?= with padding.",
        ));
    };
    if named(message).is_none_or(|name| name != header) {
        return Err(Violation::new(
            code,
            "header_mismatch",
            "The Mcp-Name header differs from the body's name or URI: send the same in both.",
        ));
    }
    Ok(())
}

/// What `Mcp-Name` mirrors: the name of a tool or prompt, the URI of a resource, the id of a task (SEP-2663).
fn named<'m>(message: &'m Envelope<'_>) -> Option<Cow<'m, str>> {
    let name = || message.name.as_deref().map(Cow::Borrowed);
    let uri = || message.uri.as_deref().map(Cow::Borrowed);
    match message.method {
        "tools/call" | "prompts/get" => name(),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => uri(),
        method if method.starts_with("tasks/") => message.param("taskId")?.as_str(),
        _ => name().or_else(uri),
    }
}

/// A JSON-RPC error message with this id (raw JSON; `None` = null) and optional `data` (raw JSON).
pub fn error(id: Option<&[u8]>, code: i64, message: &str, data: Option<&str>) -> Vec<u8> {
    let message = serde_json::Value::from(message).to_string();
    let mut out = Vec::with_capacity(80 + message.len() + data.map_or(0, str::len));
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.unwrap_or(b"null"));
    out.extend_from_slice(format!(r#","error":{{"code":{code},"message":{message}"#).as_bytes());
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data.as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}
