//! The only way in.
