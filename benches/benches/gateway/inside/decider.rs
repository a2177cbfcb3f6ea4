//! Token → grant → scan → policy → buckets, as a gateway does it.

use super::{CALL_BYTES, Size, load, sha256, world};
use daemon::{clock, limiter::Limiter, metrics::Metrics, server, view::View};
use proto::{
    grant::TokenHash,
    limit::Outcome,
    policy::{Verdict, compile::Call},
    scan::{self, Body, From},
};
use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

const WARM_MAX: Duration = Duration::from_secs(20);
const WARM_CALLS: usize = 1_000;

/// What decides in a gateway: view and limiter.
pub struct Decider {
    view: Arc<View>,
    limiter: Arc<Limiter>,
    /// Where leases are asked for.
    runtime: Handle,
    known: TokenHash,
    body: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Decider {
    /// In a gateway of this size; every counter has its lease.
    pub fn new(size: Size) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let loaded = load(folder.path(), "http://127.0.0.1:9/mcp", size);
        let handle = server::node::open(&loaded.settings, &Metrics::new()).expect("a node");
        let limiter = Arc::new(Limiter::new(handle.clone(), 10_000, Arc::new(clock::now)));
        let mut view = loaded.view;
        let known = sha256(world::TOKEN.as_bytes());
        if size.grants > 1 {
            let view = Arc::get_mut(&mut view).expect("nobody else has the view yet");
            let grant = view.grants.get(&known).expect("the grant").clone();
            let others = 1..size.grants as u64;
            let hash = |n: u64| sha256(&n.to_le_bytes());
            view.grants.extend(others.map(|n| (hash(n), grant.clone())));
        }
        let (ready, is_ready) = mpsc::channel();
        let (beside, of_view) = (limiter.run(), view.clone());
        let defining = limiter.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                server::node::wait_for_leader(&handle).await;
                let beside = tokio::spawn(beside);
                let policies = of_view.policies.values();
                let limits = policies.flat_map(|used| &used.policy.limits);
                let defined = defining.define(limits, clock::now()).await;
                defined.expect("the ledger hears of the limits");
                let _ = ready.send(Handle::current());
                let _ = beside.await;
            });
        });
        let runtime = is_ready.recv().expect("the limiter is ready");
        let decider = Self {
            view,
            limiter,
            runtime,
            known,
            body: world::call(CALL_BYTES),
            _folder: folder,
        };
        let begun = Instant::now();
        // The first calls wait for a lease, and the first leases are small.
        for _ in 0..WARM_CALLS {
            while !decider.decides_known() {
                assert!(begun.elapsed() < WARM_MAX, "no lease came");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        decider
    }

    /// Whether a call with this token is admitted at once.
    pub fn decides_token(&self, token: &[u8]) -> bool {
        self.decides(&sha256(token))
    }

    /// The same on a connection whose token is remembered.
    // By this name its instructions are counted.
    #[inline(never)]
    pub fn decides_known(&self) -> bool {
        self.decides(&self.known)
    }

    fn decides(&self, token: &TokenHash) -> bool {
        let now = clock::now();
        let Some(grant) = self.view.grants.get(token) else {
            return false;
        };
        if grant.revoked || !grant.lives(now.unix_ms) {
            return false;
        }
        let Some(binding) = grant.servers.get(world::SERVER) else {
            return false;
        };
        let bounds = self.view.bounds.scan();
        let Ok(Body::One(envelope)) = scan::read(&self.body, &bounds, From::Client) else {
            return false;
        };
        let (Some(policy), Some(tool)) = (&binding.policy, envelope.name.as_deref()) else {
            return false;
        };
        let call = Call {
            tool,
            arguments: envelope.arguments,
            grant: &grant.id,
            keys: Some(&binding.keys),
            session: None,
            unix_ms: now.unix_ms,
        };
        let Verdict::Admit { charges, .. } = policy.evaluate(&call, self.limiter.usage()) else {
            return false;
        };
        let _entered = self.runtime.enter();
        let mut reserving = pin!(self.limiter.reserve(&charges, now));
        let mut unwoken = Context::from_waker(Waker::noop());
        match reserving.as_mut().poll(&mut unwoken) {
            Poll::Ready(Ok(tickets)) => {
                black_box(tickets.settle(Outcome::Acted, || now));
                true
            }
            _ => false,
        }
    }
}
