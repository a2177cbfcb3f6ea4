//! The rules, tested through the crate's public face.

mod mcp;
mod scan;
mod splice;
