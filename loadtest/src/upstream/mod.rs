//! A recording MCP server, over streamable HTTP and over stdio.
//!
//! It speaks both eras (sessions of 2025-03-26 to 2025-11-25, and stateless 2026-07-28), has the tools of the published
//! policy snippets, keeps an exact [`Recorder`] of every call it executed, and misbehaves on request ([`Fault`]).
//! It reads JSON the way JavaScript does (the last duplicate key wins), so that whatever slips past a gateway shows
//! up in its record.
//!
//! ```text
//! http.rs, stdio.rs ──► parse.rs ──► era.rs, session.rs ──► core.rs ──► tools.rs    bytes → message → answer → effect
//!       │                                                       └─────► record.rs   what was executed
//!       ├──► fast.rs                                                                the plain call, cheaply
//!       └──► fault.rs                                                               broken replies
//! ```

mod chance;
pub mod cli;
mod core;
mod era;
mod fast;
mod fault;
mod http;
mod options;
mod parse;
mod record;
mod session;
mod stdio;
mod tools;
mod wire;

pub use self::{
    chance::{Chance, Delay},
    fault::Fault,
    options::{Encoding, Eras, Options, Parser, Reply},
    record::{Call, Outcome, Recorder, Request},
    stdio::serve_stdio,
    tools::{TOOLS, Tool, said},
};

use self::core::Core;
use serde_json::Value;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// Versions served in sessions, newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// The stateless version.
pub const MODERN: &str = "2026-07-28";

/// The server; see [`Upstream::start`].
#[derive(Debug)]
pub struct Upstream;

impl Upstream {
    /// Binds and serves on a thread with a runtime of its own, so that blocking and async callers alike can use it.
    ///
    /// # Errors
    /// The address cannot be bound, or the thread or its runtime cannot be made.
    pub fn start(options: Options) -> io::Result<Running> {
        let listener = TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let core = Arc::new(Core::new(options)?);
        let (stop, stopped) = oneshot::channel();
        let serving = core.clone();
        let thread = std::thread::Builder::new()
            .name("upstream".into())
            .spawn(move || {
                runtime.block_on(http::serve(serving, listener, stopped));
                // Connections and calls in flight are cut, not awaited: a test must not hang on a hostile mode.
                runtime.shutdown_background();
            })?;
        Ok(Running {
            addr,
            core,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    core: Arc<Core>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The MCP endpoint, e.g. `http://127.0.0.1:40123/mcp`.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// What it was made to do.
    pub fn recorder(&self) -> &Recorder {
        &self.core.recorder
    }

    /// Misbehaves from now on whenever this JSON-RPC method comes (`*` = any); `None` ends it.
    pub fn fault(&self, method: &str, fault: Option<Fault>) {
        self.core.fault(method, fault);
    }

    /// Stops the whole server for this long when the next request comes.
    pub fn stall(&self, time: std::time::Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.core
            .stall_us
            .store(us, std::sync::atomic::Ordering::Relaxed);
    }

    /// Sends a message to every open GET stream of a session; returns to how many.
    pub fn push(&self, message: &Value) -> usize {
        self.core.push(message)
    }

    /// Tells every GET stream, and every listen stream that asked, that the tools changed; returns to how many.
    pub fn push_tools_changed(&self) -> usize {
        self.core.push_tools_changed()
    }

    /// Ends every listen stream gracefully, with a result; returns how many there were.
    pub fn end_listens(&self) -> usize {
        self.core.end_listens()
    }

    /// Forgets every session, as after a restart; returns how many there were.
    pub fn forget_sessions(&self) -> usize {
        self.core.forget_sessions()
    }

    /// Ids of the sessions that live.
    pub fn sessions(&self) -> Vec<String> {
        self.core.session_ids()
    }

    /// Blocks until the server's thread ends (it does not, by itself).
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
