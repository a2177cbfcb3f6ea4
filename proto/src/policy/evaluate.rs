//! Judging one call: `Policy::evaluate` and what it needs.
