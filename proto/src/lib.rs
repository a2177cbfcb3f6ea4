//! The rules of Tollgate, with no sockets, files, clock or dice.
//!
//! Every decision (what is this message? may this caller do it? is there quota?) is a function here: bytes and time
//! go in, an answer comes out. `daemon` moves bytes to these functions and acts on what they say; `cluster` makes
//! nodes agree on what is replicated.

pub mod admin;
pub mod audit;
pub mod command;
pub mod control;
mod digest;
pub mod doc;
#[cfg(feature = "faults")]
pub mod faults;
mod faulty;
pub mod grant;
pub mod id;
pub mod limit;
pub mod mcp;
pub mod policy;
pub mod scan;
pub mod time;
