//! The rules, tested through the crate's public face.

mod scan;
