//! Nodes in temporary directories.

use cluster::handle::{self, Handle, Heard, OpenError, Settings};
use proto::{
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
        ledger::{Definition, Session},
    },
    time::Now,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A limit of 10 a day.
pub const LIMIT: Definition = Definition {
    identity: Identity(1),
    window: Window::Duration(86_400_000),
    max: 10,
};

/// Reads both clocks.
pub fn now() -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_millis() as u64);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Now {
        unix_ms,
        boot_ns: boot.tv_sec as u64 * 1_000_000_000 + boot.tv_nsec as u64,
    }
}

pub fn settings(dir: &Path) -> Settings {
    Settings::alone(dir.to_owned(), Arc::new(now))
}

pub fn open(dir: &Path) -> Result<Handle, OpenError> {
    handle::open(settings(dir))
}

/// A session with [`LIMIT`] defined.
pub async fn begin(handle: &Handle) -> Session {
    handle.define(1, &[LIMIT]).await.unwrap()
}

/// Asks for exactly this much of a counter, as a holder that never heard of it.
pub async fn lease(handle: &Handle, session: Session, key: u128, units: u64) -> Heard {
    handle.lease(session, ask(key, units)).await.unwrap()
}

pub fn ask(key: u128, units: u64) -> Ask {
    Ask {
        identity: LIMIT.identity,
        key: CounterKey(key),
        window_hint: u64::MAX,
        want: units,
        min: units,
        seen_granted: 0,
        returned_total: 0,
        group: None,
        waiting: true,
    }
}

pub fn back(key: u128, window: u64, returned_total: u128) -> GiveBack {
    GiveBack {
        key: CounterKey(key),
        window,
        returned_total,
    }
}

/// Runs a test on a runtime of its own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(120), test)
                .await
                .expect("the test takes too long")
        })
}
