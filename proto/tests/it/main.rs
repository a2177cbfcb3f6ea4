//! The rules, tested through the crate's public face.

mod mcp;
mod pair;
mod policy;
mod reply;
mod scan;
mod splice;
