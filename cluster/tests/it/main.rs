//! Real nodes on loopback.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world is not as it must be"
)]

mod join;
mod transport;
