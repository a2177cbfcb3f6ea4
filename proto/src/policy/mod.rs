//! Policies: three dialects, one meaning (see the policies page of the book).
//!
//! ```text
//! text ──doc::parse──► Node ──dialect::{native,intercept,catalogue}──► ir::Policy ──compile──► Policy ──evaluate──► Verdict
//! ```

mod arguments;
pub mod compile;
mod condition;
pub mod decision;
pub mod dialect;
pub mod evaluate;
mod glob;
pub mod ir;
mod keys;
pub mod number;
pub mod path;
pub mod report;
mod text;
mod validate;

pub use compile::{Policy, compile};
pub use decision::{Code, Denial, Verdict};
pub use dialect::{Dialect, Loaded, load};
pub use keys::Keys;
