//! How nodes agree: the ledger behind every limit, the control plane, and who belongs to the cluster.
//!
//! ```text
//! daemon ──► handle ──► client (CORE: sessions, routing, retries) ──► transport ──► leader's replica
//!                                                                                    │ desk: requests → one batch a loop
//!                replica (CORE: raft, desk, clock) ◄──► driver (SHELL) ──► log (raft-engine), transport (QUIC, mTLS)
//!                   └─apply─► machine (CORE: ledger + control + members) ──► replies, pushes
//! ```
//!
//! Cores are state machines: inputs and time go in, effects come out; they know no socket, file, clock or dice (a seed is
//! given to them). The simulation in `tests/sim` drives the same cores as the shell does.

pub mod client;
pub mod clock;
pub mod codec;
pub mod dice;
mod disk;
mod driver;
pub mod handle;
pub mod identity;
pub mod join;
pub mod log;
pub mod machine;
pub mod membership;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod node;
pub mod replica;
pub mod setup;
pub mod snapshot_file;
pub mod tls;
pub mod transport;
pub mod wire;
