//! The keys that decide what a message does, and the spellings of them that parsers confuse.

use super::{
    reader::Text,
    reason::{Fault, Reason},
    text,
};
use crate::mcp;

pub(super) const META_VERSION: &[u8] = mcp::META_VERSION.as_bytes();
pub(super) const META_CAPABILITIES: &[u8] = mcp::META_CAPABILITIES.as_bytes();

/// Where a routing key stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    /// The top level of JSON-RPC.
    Top,
    /// `params`.
    Params,
    /// `params._meta`, of which the gateway reads a few.
    Meta,
}

impl Level {
    /// The keys that mean something here.
    #[inline(always)]
    fn keys(self) -> &'static [&'static str] {
        match self {
            Level::Top => &["jsonrpc", "id", "method", "params", "result", "error"],
            Level::Params => &[
                "name",
                "arguments",
                "uri",
                "_meta",
                "task",
                "cursor",
                "requestState",
                "inputResponses",
            ],
            Level::Meta => &[mcp::META_VERSION, mcp::META_CAPABILITIES, "progressToken"],
        }
    }

    /// Whether it is one of them, spelt plainly.
    #[inline(always)]
    pub(super) fn has(self, raw: &[u8]) -> bool {
        self.keys().iter().any(|plain| plain.as_bytes() == raw)
    }
}

/// Whether the key is `__proto__`, to which JavaScript gives a meaning of its own.
#[inline(always)]
pub(super) fn is_proto(key: &Text<'_>) -> bool {
    const PROTO: &[u8] = b"__proto__";
    if key.escaped {
        *key.meaning() == *PROTO
    } else {
        key.raw == PROTO
    }
}

pub(super) fn check_proto(key: &Text<'_>) -> Result<(), Fault> {
    if is_proto(key) {
        return Err(Fault::new(Reason::ProtoKey, key.at));
    }
    Ok(())
}

/// Refuses a key that some parser takes for one of the level's, though it is spelt otherwise.
///
/// Only in `_meta` are escapes allowed: some languages write every `/` as `\/`, and all parsers agree on what it means.
#[inline(never)]
pub(super) fn check_key(key: &Text<'_>, level: Level) -> Result<(), Fault> {
    check_proto(key)?;
    let meant = key.meaning();
    let mut folded = false;
    for plain in level.keys() {
        if *meant == *plain.as_bytes() {
            return match level {
                Level::Top | Level::Params if key.escaped => {
                    Err(Fault::new(Reason::EscapedKey, key.at))
                }
                _ => Ok(()),
            };
        }
        folded |= text::folds_to(&meant, plain);
    }
    if folded {
        return Err(Fault::new(Reason::FoldedKey, key.at));
    }
    Ok(())
}
