//! Calls and streams in flight: in all, on a server, of a grant.

use dashmap::DashMap;
use proto::id::{GrantId, ServerName};
use smallvec::SmallVec;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `bounds.calls`
    All,
    /// The server's `calls`
    Server,
    /// `bounds.calls_grant` or `bounds.streams_grant`
    Grant,
}

/// Counters of what is in flight.
#[derive(Debug, Default)]
pub struct InFlight {
    calls: Arc<AtomicUsize>,
    servers: DashMap<ServerName, Arc<AtomicUsize>>,
    grants: DashMap<GrantId, Arc<AtomicUsize>>,
    streams: DashMap<GrantId, Arc<AtomicUsize>>,
}

/// What one grant and one server have in flight: looked up once for many requests.
#[derive(Clone, Debug)]
pub struct Load {
    grant: Arc<AtomicUsize>,
    server: Arc<AtomicUsize>,
}

/// A place in flight, given back on drop.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

/// The places of one exchange.
pub type Places = SmallVec<[Place; 3]>;

impl Place {
    fn take(counter: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        counter
            .fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1))
            .ok()?;
        Some(Self(counter.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn counter<K: Eq + std::hash::Hash + Clone>(
    map: &DashMap<K, Arc<AtomicUsize>>,
    key: &K,
) -> Arc<AtomicUsize> {
    if let Some(found) = map.get(key) {
        return found.clone();
    }
    map.entry(key.clone()).or_default().clone()
}

impl InFlight {
    /// Takes a call's places, all or none.
    pub fn call(&self, load: &Load, max: (usize, usize, usize)) -> Result<[Place; 3], Full> {
        let (all, on_server, of_grant) = max;
        Ok([
            Place::take(&load.grant, of_grant).ok_or(Full::Grant)?,
            Place::take(&load.server, on_server).ok_or(Full::Server)?,
            Place::take(&self.calls, all).ok_or(Full::All)?,
        ])
    }
    /// The counts of this grant and this server; they are remembered for as long as somebody holds them.
    pub fn load(&self, grant: &GrantId, server: &ServerName) -> Load {
        Load {
            grant: counter(&self.grants, grant),
            server: counter(&self.servers, server),
        }
    }
    /// Takes a stream's place.
    pub fn stream(&self, grant: &GrantId, max: usize) -> Result<Place, Full> {
        Place::take(&counter(&self.streams, grant), max).ok_or(Full::Grant)
    }
    /// Calls in flight in all.
    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
    /// Forgets grants and servers with nothing in flight, so that the tables are bounded by what is in flight.
    pub fn sweep(&self) {
        // A counter that somebody holds (a place, or a `counter` call in progress) has more than one owner.
        self.grants.retain(|_, c| Arc::strong_count(c) > 1);
        self.servers.retain(|_, c| Arc::strong_count(c) > 1);
        self.streams.retain(|_, c| Arc::strong_count(c) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_holds_at_its_edge_and_a_refusal_takes_nothing() {
        let flight = InFlight::default();
        let (grant, server) = (GrantId::new("g"), ServerName::new("s"));
        let load = flight.load(&grant, &server);
        let first = flight.call(&load, (2, 2, 1)).unwrap();
        assert_eq!(flight.call(&load, (2, 2, 1)).unwrap_err(), Full::Grant);
        assert_eq!(flight.call(&load, (2, 1, 9)).unwrap_err(), Full::Server);
        assert_eq!(flight.call(&load, (1, 9, 9)).unwrap_err(), Full::All);
        let second = flight.call(&load, (2, 2, 2)).unwrap();
        drop((first, second));
        flight.sweep();
        assert!(
            !flight.grants.is_empty(),
            "a load that is held is forgotten"
        );
        drop(load);
        flight.sweep();
        assert_eq!(flight.calls(), 0);
        assert!(flight.grants.is_empty());
    }
}
