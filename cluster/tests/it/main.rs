//! Real nodes: files, threads and, where there are several, QUIC on loopback. Time is the machine's.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world is not as it must be"
)]

mod alone;
mod disk;
mod harness;
mod join;
mod partition;
mod several;
mod three;
mod transport;
