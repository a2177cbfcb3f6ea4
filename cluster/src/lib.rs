//! How nodes agree. Today one node is the whole cluster: its ledger lives in memory behind the same [`handle::Handle`]
//! that a replicated one will stand behind.

pub mod handle;
