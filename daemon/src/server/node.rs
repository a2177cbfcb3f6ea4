//! The node of the cluster behind this gateway: opened before anything is counted, closed after everything is settled.

use crate::{clock, config::Settings, metrics::Metrics};
use anyhow::Context;
use cluster::handle::{self, Handle};
use proto::limit::{HashKey, ledger::Bounds};
use std::{path::Path, sync::Arc, time::Duration};

/// Longest pause between questions whether the control plane known here is still the newest.
const FRESH_EVERY: Duration = Duration::from_secs(1);
/// How long the first answer of a leader is waited for at the start.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// The secret that the node of a data directory hashes limits with; `None`: there is no node yet, or what is wrong with
/// it is told when it is opened.
pub fn secret_in(data_dir: &Path) -> Option<HashKey> {
    Some(cluster::identity::peek(data_dir).ok()??.secret())
}

/// Opens the node as configured.
pub fn open(settings: &Settings, metrics: &Metrics) -> anyhow::Result<Handle> {
    let ledger = metrics.ledger().clone();
    let configured = &settings.cluster;
    let opened = cluster::handle::open(handle::Settings {
        name: configured.name.clone(),
        listen: configured.listen,
        advertise: configured.advertise.clone(),
        // Where others are configured an empty directory is a mistake, not a new cluster.
        bootstrap: configured.join.is_none() && configured.listen.is_none(),
        identity_secret: Some(settings.secret.key.clone()),
        fresh_every: FRESH_EVERY.min(configured.freshness_max / 4),
        ledger: Bounds::default(),
        synced: Arc::new(move |took| ledger.synced(took)),
        ..handle::Settings::alone(configured.data_dir.clone(), Arc::new(clock::now))
    });
    opened.with_context(|| format!("cluster.data_dir {}", configured.data_dir.display()))
}

/// Waits until a leader was heard: without one no limit can be defined, and grants of the log are not known. One that is
/// not found in time is looked for further; until then what needs it is refused as unreachable.
pub async fn wait_for_leader(handle: &Handle) {
    let heard = async {
        let _ = handle.wait_for_session(FIRST_WAIT).await;
        while handle.fresh().asked_ns == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(FIRST_WAIT, heard).await.is_err() {
        tracing::warn!("no leader of the cluster was found yet");
    }
}
