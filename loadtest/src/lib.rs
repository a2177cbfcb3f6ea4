//! The load tool's library: an MCP server that keeps an exact record of what it was made to do.
//!
//! The gateway's tests, its demo and load runs all stand on [`upstream`].

pub mod upstream;
