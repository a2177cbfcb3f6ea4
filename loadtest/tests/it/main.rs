//! The recording server, spoken to over plain sockets and pipes.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod client;
mod faults;
mod stdio;
mod streams;
mod upstream;
