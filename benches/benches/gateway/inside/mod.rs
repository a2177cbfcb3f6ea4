//! A gateway in this process: what decides in it alone, and the whole of it before an upstream of fixed bytes.

mod decider;
mod through;
mod world;

pub use decider::Decider;
pub use through::{Ends, Gateway};
pub use world::Size;

use daemon::config;
use proto::grant::TokenHash;
use std::fmt::Write as _;

/// The grant's token.
pub const TOKEN: &[u8] = world::TOKEN.as_bytes();
/// A small gateway.
pub const SMALL: Size = Size {
    tools: 10,
    grants: 1,
    servers: 1,
};
/// Bytes of a call's body, and of its reply's.
pub const CALL_BYTES: usize = 500;
const REPLY_BYTES: usize = 500;

fn sha256(token: &[u8]) -> TokenHash {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
    let bytes = digest.as_ref().try_into();
    TokenHash(bytes.expect("invariant: SHA-256 has 32 bytes"))
}

fn written(hash: &TokenHash) -> String {
    hash.0.iter().fold("sha256:".into(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn load(folder: &std::path::Path, upstream: &str, size: Size) -> config::Loaded {
    let hash = written(&sha256(world::TOKEN.as_bytes()));
    let text = world::configuration(folder, upstream, &hash, size);
    config::load_text(&text, folder, 1).unwrap_or_else(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", problems.join("\n"))
    })
}
