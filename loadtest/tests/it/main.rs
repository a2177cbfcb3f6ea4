//! The recording server, spoken to over plain sockets and pipes; reports of results.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod agreement;
mod client;
mod faults;
mod judged;
mod limits;
mod load;
mod report;
mod stdio;
mod streams;
mod upstream;
