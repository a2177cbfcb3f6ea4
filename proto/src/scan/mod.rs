//! The only parser of untrusted input: bytes become an [`Envelope`], and everything about them is validated.
//!
//! ```text
//! body ──jsonrpc::read──► Body ─► Envelope ──► policy (Value reads arguments by path)
//! SSE  ──sse::Splitter──► events ──┘     └──► splice (only spans that the gateway owns)
//! stdio ─lines::Splitter─► lines ──┘
//! ```

pub mod jsonrpc;
pub mod lines;
pub mod splice;
pub mod sse;
pub mod tools;
pub mod value;

pub use jsonrpc::{Body, Envelope, Kind, Reason, Refusal, read};
pub use value::Value;

/// How large one message may be in every dimension but its length, which whoever reads the bytes bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deepest nesting of arrays and objects. Default 64.
    pub depth_max: usize,
    /// Most keys in one object. Default 1,024.
    pub keys_object_max: usize,
    /// Most keys in a whole body. Default 16,384.
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

/// Who sent the bytes: what a client may send is closed, what a server may send is open to later versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A client: unknown top-level keys are refused.
    Client,
    /// A server: unknown top-level keys pass, duplicates are refused all the same.
    Server,
}
