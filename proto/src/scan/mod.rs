//! The only parser of untrusted input: bytes become an [`Envelope`], and everything about them is validated.
//!
//! ```text
//! body ──jsonrpc::read──► Body ─► Envelope ──► policy (Value reads arguments by path)
//! SSE  ──sse::Splitter──► events ──┘     └──► splice (only spans that the gateway owns)
//! stdio ─lines::Splitter─► lines ──┘
//! ```

mod envelope;
mod grammar;
pub mod jsonrpc;
mod keys;
pub mod lines;
mod plain;
mod reader;
mod reason;
pub mod reply;
mod routing;
mod simd;
pub mod splice;
pub mod sse;
mod table;
mod text;
pub mod tools;
pub mod value;

pub use jsonrpc::{Body, Envelope, ID_BYTES_MAX, Kind, Reason, Refusal, Span, read};
pub use simd::kernel;
pub use value::Value;

/// How large one message may be in every dimension but its length, which whoever reads the bytes bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deepest nesting of arrays and objects. Default 64.
    pub depth_max: usize,
    /// Most keys in one object. Default 1,024; of a server's message 16 times as many.
    pub keys_object_max: usize,
    /// Most keys in a whole body. Default 16,384; of a server's message 16 times as many.
    pub keys_body_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            depth_max: 64,
            keys_object_max: 1_024,
            keys_body_max: 16_384,
        }
    }
}

/// Servers send tables and schemas: their messages may have this many times the keys (the search for duplicates is
/// linear, and whoever reads the bytes bounds their length).
const SERVER_KEYS: usize = 16;

impl Bounds {
    /// The bounds of a server's message: [`SERVER_KEYS`] times the keys.
    fn of_server(&self) -> Bounds {
        Bounds {
            depth_max: self.depth_max,
            keys_object_max: self.keys_object_max.saturating_mul(SERVER_KEYS),
            keys_body_max: self.keys_body_max.saturating_mul(SERVER_KEYS),
        }
    }
}

/// Who sent the bytes: what a client may send is closed, what a server may send is open to later versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A client: unknown top-level keys are refused.
    Client,
    /// A server: unknown top-level keys pass, duplicates are refused all the same.
    Server,
}
