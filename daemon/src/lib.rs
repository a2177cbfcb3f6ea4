//! The Tollgate daemon: it moves bytes to the rules in `proto` and acts on their answers.
//!
//! Reading order: `main` → `cli/serve` → [`server`] (composition root) → [`gateway`] (a request's way, one file a
//! stage) → [`upstream`].

pub mod admin;
pub mod audit;
pub mod bounds;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod drain;
pub mod freshness;
pub mod gateway;
pub mod limiter;
pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod view;
