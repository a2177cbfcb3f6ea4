//! What the benchmarks share: the bodies that they read.
