//! Tollgate as its users meet it: the real binary, real bytes, a recording server behind it.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world is not as it must be"
)]

mod bounds;
mod calls;
mod cluster;
mod commands;
mod control;
mod control_cluster;
mod demo;
mod durable;
mod edges;
mod grants;
mod harness;
mod hostile;
mod hostile_lists;
mod lists;
mod operate;
mod peers;
mod proof;
mod reach;
mod real_peers;
mod records;
mod reload;
mod review;
mod sessions;
mod shutdown;
mod smuggling;
mod snippets;
mod soak;
mod timeouts;
mod tls;
mod units;
