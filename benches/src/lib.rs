//! What the benchmarks share: bodies that they read, bodies that a strict reader must refuse, and policies.

pub mod bodies;
pub mod chance;
pub mod policies;
mod shapes;
pub mod wrong;
