//! Filtering the tools of a `tools/list` reply by splicing the original bytes.

use super::{Bounds, Refusal};

/// A filtered reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Filtered {
    /// Nothing was removed or changed: forward the bytes as they came.
    Unchanged,
    /// The reply without the removed tools; all else is kept byte for byte.
    Spliced {
        /// The whole new message.
        bytes: Vec<u8>,
        /// How many tools were removed.
        removed: usize,
    },
}

/// Filters the reply to `tools/list`: a result's `tools` whose `name` is refused by `keep` are cut out.
///
/// An error reply is `Unchanged`. A result without a `tools` array, a tool without a string name, or anything that
/// [`super::read`] refuses is a refusal: the caller fails closed. With `private` the result's `cacheScope` becomes
/// `"private"` if it is there or if `modern`.
pub fn filter(
    _reply: &[u8],
    _bounds: &Bounds,
    _modern: bool,
    _keep: impl FnMut(&str) -> bool,
) -> Result<Filtered, Refusal> {
    todo!()
}
