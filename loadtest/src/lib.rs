//! The load tool's library: an MCP server that keeps an exact record of what it was made to do, and what loads and
//! judges any MCP endpoint.
//!
//! The gateway's tests, its demo and load runs all stand on [`upstream`]. A run leaves a [`result::Document`].

pub mod compare;
pub mod drive;
pub mod histogram;
mod judge;
pub mod limits;
mod lines;
pub mod live;
mod machine;
mod plan;
mod preflight;
pub mod progress;
mod ramp;
pub mod report;
pub mod result;
pub mod run;
mod summary;
mod target;
mod tls;
pub mod upstream;
