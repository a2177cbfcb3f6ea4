//! The one meaning of the three dialects, as written: names are not yet hashed, nothing is resolved.

/// A policy. (The policy author completes this type.)
#[derive(Clone, Debug)]
pub struct Policy {}
