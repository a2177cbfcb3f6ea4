//! The audit line: what is recorded of one request, bounded and as JSON.

mod json;
mod line;

use crate::{
    id::{GrantId, RequestId, ServerName},
    limit::Settled,
    mcp::Era,
    scan::Value,
};
use siphasher::sip::SipHasher24;
use std::{borrow::Cow, hash::Hasher as _, net::IpAddr, sync::Arc};

/// Bytes of a tool's name that are kept; a longer one is cut and its SipHash added.
pub const TOOL_BYTES: usize = 128;
/// Argument keys that are kept.
pub const KEYS: usize = 32;
/// Bytes of each.
pub const KEY_BYTES: usize = 64;

/// One request that reached `identify` with a known grant.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id, also in answers (`requestId`) and logs.
    pub request: RequestId,
    /// When it arrived, milliseconds since 1970.
    pub unix_ms: u64,
    /// The client's address.
    pub source: Option<IpAddr>,
    /// The grant's id.
    pub grant: GrantId,
    /// The grant's label.
    pub label: Option<Arc<str>>,
    /// The legacy session, hashed to 16 hexadecimal digits (an id is a credential of sorts).
    pub session: Option<String>,
    /// The server.
    pub server: ServerName,
    /// The era, once known.
    pub era: Option<Era>,
    /// HTTP verb.
    pub verb: &'static str,
    /// JSON-RPC method (bounded like a tool's name).
    pub method: Option<String>,
    /// Tool name (the caller bounds it with [`bounded_tool`]).
    pub tool: Option<String>,
    /// Position in a batch.
    pub batch_index: Option<u32>,
    /// `allow`, `deny`, `shadow` (would have been denied), `refuse` (unreadable or against the protocol), `error` (upstream).
    pub decision: &'static str,
    /// A denial's code, a refusal's label or an upstream error's label.
    pub code: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The policy's name and revision.
    pub policy: Option<(Arc<str>, Arc<str>)>,
    /// Keys of the arguments, never values (the caller bounds them with [`bounded_keys`]).
    pub argument_keys: Vec<String>,
    /// HTTP status sent to the client.
    pub status: u16,
    /// HTTP status of the upstream.
    pub upstream_status: Option<u16>,
    /// Whose fault an error is: `downstream`, `upstream`, `internal`.
    pub side: Option<&'static str>,
    /// How the reply ended: `complete`, `cancelled`, `cut`, `timeout`.
    pub end: &'static str,
    /// From arrival to the end of the reply, microseconds.
    pub latency_us: u64,
    /// From arrival to the decision, microseconds.
    pub decide_us: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the reply's body.
    pub bytes_out: u64,
    /// Every limit that was charged.
    pub limits: Vec<LimitLine>,
}

/// What one limit was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitLine {
    /// The limit's identity hash.
    pub identity: u128,
    /// The window's id.
    pub window: u64,
    /// Units.
    pub amount: u64,
    /// What became of it.
    pub settled: Settled,
}

/// A request that was turned away before a grant was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Why: a word of the code.
    pub reason: &'static str,
    /// The client's address.
    pub source: IpAddr,
    /// The path without its query, bounded by [`Rejection::new`].
    path: String,
    /// HTTP status sent.
    pub status: u16,
}

/// What an operator changed through the admin plane, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Who, as the admin plane knows callers: `uid:0`, `token`, `certificate:1f2e…`.
    pub by: String,
    /// What: a word of the code, e.g. `grant.put`.
    pub action: &'static str,
    /// The resource, counter or node that it was done to.
    pub target: Option<String>,
    /// `done`, `refused`, or `unknown` where no answer came and it may have been done.
    pub outcome: &'static str,
    /// The version that came of it.
    pub version: Option<u64>,
    /// Why it was refused, or what there is to say beside.
    pub detail: Option<String>,
}

/// How many more rejections there were in one second for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// The second, since 1970.
    pub unix_s: u64,
    /// Why: a word of the code.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// Bytes of a rejected path, a rule, a label and the like that are kept.
const TEXT_BYTES: usize = 256;
/// Bytes that a mark of cutting (`…#` and 16 digits) adds to a bounded text.
const MARK_BYTES: usize = "…#".len() + 16;

impl Rejection {
    /// `target` may come with a query, which is cut off: people put secrets there.
    pub fn new(
        unix_ms: u64,
        reason: &'static str,
        source: IpAddr,
        target: &str,
        status: u16,
    ) -> Self {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        Self {
            unix_ms,
            reason,
            source,
            path: bounded(path, TOOL_BYTES).into_owned(),
            status,
        }
    }
}

/// Cuts a client's name to [`TOOL_BYTES`] at a character's border and adds `…#<hash>` when it was longer.
pub fn bounded_tool(name: &str) -> String {
    bounded(name, TOOL_BYTES).into_owned()
}

/// The keys of an arguments object (validated bytes), at most [`KEYS`], each at most [`KEY_BYTES`] and, when it was
/// longer, the same mark as in [`bounded_tool`].
pub fn bounded_keys(arguments: &[u8]) -> Vec<String> {
    Value::new(arguments)
        .members()
        .take(KEYS)
        .map(|(key, _)| bounded(&key, KEY_BYTES).into_owned())
        .collect()
}

/// At most `bytes` of the text, then a mark with the SipHash (zero key) of the whole: cut texts can be told apart.
fn bounded(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let mut hasher = SipHasher24::new();
    hasher.write(text.as_bytes());
    let kept = &text[..text.floor_char_boundary(bytes)];
    Cow::Owned(format!("{kept}…#{:016x}", hasher.finish()))
}

/// A second fence for what the caller should have bounded: a mark already there is not cut off.
fn bounded_again(text: &str) -> Cow<'_, str> {
    bounded(text, TOOL_BYTES + MARK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_name_keeps_its_beginning_and_gets_the_hash_of_the_whole() {
        assert_eq!(bounded_tool(&"a".repeat(128)), "a".repeat(128));
        let (one, other) = ("a".repeat(128) + "1", "a".repeat(128) + "2");
        let cut = bounded_tool(&one);
        assert!(cut.starts_with(&("a".repeat(128) + "…#")), "{cut}");
        assert_eq!(cut.len(), TOOL_BYTES + MARK_BYTES);
        assert_ne!(cut, bounded_tool(&other));
        // A cut never splits a character.
        assert!(bounded_tool(&"é".repeat(100)).starts_with(&"é".repeat(64)));
        assert!(bounded_tool(&("a".to_owned() + &"é".repeat(100))).contains("é…#"));
    }

    #[test]
    fn argument_keys_are_named_without_their_values() {
        let many: String = (0..40).map(|i| format!("\"k{i}\":{i},")).collect();
        let json = format!("{{{many}\"last\":0}}");
        let keys = bounded_keys(json.as_bytes());
        assert_eq!(keys.len(), KEYS);
        assert_eq!(keys[31], "k31");
        assert_eq!(
            bounded_keys(br#"{"pass\u0077ord":"hunter2","b":{"c":1}}"#),
            ["password", "b"]
        );
        assert!(bounded_keys(b"{}").is_empty());
    }
}
