//! MCP: versions, methods, headers (specification 2024-11-05 … 2026-07-28).

use crate::scan::Envelope;
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

/// The era of a message from a client and whether its headers agree with it (M8–M11, M20, L5; a lying `Mcp-Name`).
///
/// `session_version` is the version negotiated by the legacy session that the request names, if it names one.
pub fn judge(
    _message: &Envelope<'_>,
    _headers: &Headers<'_>,
    _session_version: Option<&str>,
) -> Result<Era, Violation> {
    todo!()
}

/// Whether the closed table of this version has the method, for messages from a client (policies.md §4).
pub fn knows_method(_version: &str, _method: &str) -> bool {
    todo!()
}

/// Decodes `=?base64?…?=`; any other visible ASCII stands for itself (M11). `None` when malformed.
pub fn decode_header(_value: &str) -> Option<Cow<'_, str>> {
    todo!()
}

/// A JSON-RPC error message with this id (raw JSON; `None` = null) and optional `data` (raw JSON).
pub fn error(_id: Option<&[u8]>, _code: i64, _message: &str, _data: Option<&str>) -> Vec<u8> {
    todo!()
}
