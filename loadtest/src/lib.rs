//! The load tool's library: an MCP server that keeps an exact record of what it was made to do, and what loads and
//! judges any MCP endpoint.
//!
//! The gateway's tests, its demo and load runs all stand on [`upstream`]. A run leaves a [`result::Document`].

pub mod compare;
pub mod histogram;
pub mod progress;
pub mod report;
pub mod result;
pub mod upstream;
