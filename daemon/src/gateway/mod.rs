//! A request's way.
