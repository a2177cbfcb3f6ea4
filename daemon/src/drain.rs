//! (drain)
