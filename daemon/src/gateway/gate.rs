//! What the stages share: the gate of the whole process, what one runtime has for itself, what one request is.

use super::{
    identify::{Caller, FailedTokens},
    inflight::InFlight,
    record::Recorder,
    session::Sessions,
};
use crate::{
    audit::Audit,
    bounds::Bounds,
    clock,
    drain::Drain,
    freshness::Freshness,
    limiter::Limiter,
    metrics::Metrics,
    upstream::{stdio, streamable_http},
    view::{Grant, View, Views},
};
use http::HeaderMap;
use proto::time::Now;
use std::{net::SocketAddr, rc::Rc, sync::Arc};

/// What all runtimes of the gateway share.
pub struct Gate {
    /// The view in force.
    pub views: Arc<Views>,
    /// How old what is known of the cluster's grants is.
    pub freshness: Arc<Freshness>,
    /// Counters of limits.
    pub limiter: Arc<Limiter>,
    /// The audit trail.
    pub audit: Audit,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Legacy sessions.
    pub sessions: Arc<Sessions>,
    /// Child processes.
    pub stdio: Arc<stdio::Pool>,
    /// The phase of a shutdown.
    pub drain: Drain,
    /// Calls and streams in flight.
    pub inflight: InFlight,
    /// Wrong tokens by source.
    pub failed: FailedTokens,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// Puts the parts together.
    pub fn new(
        views: Arc<Views>,
        freshness: Arc<Freshness>,
        limiter: Arc<Limiter>,
        audit: Audit,
        metrics: Arc<Metrics>,
        stdio: Arc<stdio::Pool>,
    ) -> Self {
        let (sessions, drain) = (Arc::default(), Drain::default());
        let (inflight, failed) = (InFlight::default(), FailedTokens::default());
        Self {
            views,
            freshness,
            limiter,
            audit,
            metrics,
            sessions,
            stdio,
            drain,
            inflight,
            failed,
        }
    }

    /// Ends what is over: idle sessions, sessions whose grant is gone, empty counters. Called every few seconds.
    pub fn sweep(&self, now: Now) {
        let Some(view) = self.views.load() else {
            return;
        };
        let at_ms = self.freshness.expiry_ms(now);
        let good = |grant: &Grant| !grant.revoked && !grant.barred;
        let alive: std::collections::HashSet<(&str, &str)> = view
            .grants
            .values()
            .filter(|grant| good(grant) && grant.expires_ms.is_none_or(|at| at_ms < at))
            .flat_map(|grant| grant.servers.keys().map(|server| (&*grant.id, &**server)))
            .collect();
        self.sessions.sweep(&view.bounds, now, |session| {
            let server = view.servers.get(&session.server);
            let same = session.began_with.get().is_none_or(|began| {
                server.is_some_and(|server| began.transport.same_peer(&server.transport))
            });
            same && alive.contains(&(&*session.grant, &*session.server))
        });
        self.inflight.sweep();
        self.metrics.set_sessions(self.sessions.count_open());
    }
}

/// What one runtime has for itself.
pub struct Core {
    /// What all share.
    pub gate: Arc<Gate>,
    /// This runtime's connections to HTTP upstreams.
    pub http: streamable_http::Pool,
}

impl Core {
    /// Bounds in force.
    pub fn bounds(&self) -> Arc<Bounds> {
        self.gate
            .views
            .load()
            .map(|view| view.bounds.clone())
            .unwrap_or_default()
    }
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client.
    pub peer: SocketAddr,
    /// This side.
    pub local: SocketAddr,
}

/// What is known of a request beside its body, once its caller is identified.
pub struct Asked {
    /// Who asks, for which server.
    pub caller: Rc<Caller>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The connection's two ends.
    pub ends: Ends,
    /// The view that identified the caller.
    pub view: Arc<View>,
    /// When its head came.
    pub arrived: Now,
    /// When it was asked: a body or a place in the audit's queue may have taken its time.
    pub now: Now,
    /// The boot clock as it was read last, nanoseconds: where one stage ends the next begins.
    pub read_ns: u64,
}

impl Asked {
    /// Begins a record, with its place in the audit's queue if there is one to be had in time.
    pub async fn recorder(&mut self, gate: &Gate, verb: &'static str) -> Box<Recorder> {
        let mut slot = gate.audit.try_slot();
        if slot.is_none() {
            slot = gate.audit.slot(self.view.bounds.audit_wait).await.ok();
            self.at(clock::now());
        }
        Recorder::new(
            clock::request_id(),
            &self.caller,
            self.ends.peer.ip(),
            verb,
            &gate.metrics,
            slot,
            self.arrived,
        )
    }
    /// From now on it is as if it were asked at this time.
    pub fn at(&mut self, now: Now) {
        self.now = now;
        self.read_ns = now.boot_ns;
    }
}
