//! Metrics: handles made once, labels only from the configuration.

/// The handles of one server, made when a view is built or a server first seen.
#[derive(Debug)]
pub struct ServerMetrics {}
