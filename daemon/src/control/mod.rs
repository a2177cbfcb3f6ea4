//! The control plane on this node: one view from the node's files and the cluster's log.
//!
//! ```text
//! files ──config::attempt──► Loaded ──┐
//! log ──Handle::control──► Control ───┴─assemble─► View ──Limiter::define──► Views::put ──► Freshness::confirm
//!                             ▲                                 keeper: one view after the other
//! admin ──write: judge, propose, wait until it is in force──┘
//! ```
//!
//! Files and log never take each other's place: a name that stands in both is refused where it is written, and where that
//! could not be known in time the log's is not put in force on this node. What of the log cannot be put in force is denied
//! and shown; everything else goes on.

mod assemble;
mod bind;
pub mod edit;
mod hold;
mod judge;
mod keeper;
#[cfg(test)]
mod tests;
mod write;

pub use judge::Objection;
pub use keeper::{ASKS, Ask, Keeper};
pub use write::{WriteError, Writer, Written};
