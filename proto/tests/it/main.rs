//! The rules, tested through the crate's public face.

mod mcp;
mod pair;
mod policy;
mod scan;
mod splice;
