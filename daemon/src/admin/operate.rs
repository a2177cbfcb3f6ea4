//! Changes that operators make: each leaves an audit line, whatever came of it.

use super::{Plane, guard::Caller, routes::Failed};
use crate::clock;
use ::cluster::handle::Error;
use http::StatusCode;
use proto::{audit::Operation, control::Refusal};
use std::time::Duration;

/// How long an operator waits for a place in the audit's queue.
const SLOT_WAIT: Duration = Duration::from_secs(5);

/// What is about to be done.
pub(super) struct Doing<'a> {
    /// A word of the code, e.g. `cluster.remove`.
    pub(super) action: &'static str,
    /// To what.
    pub(super) target: Option<&'a str>,
}

/// What was done.
pub(super) struct Did<T> {
    pub(super) answer: T,
    /// The version that came of it.
    pub(super) version: Option<u64>,
    /// What the audit line says beside.
    pub(super) detail: Option<String>,
}

impl<T> Did<T> {
    pub(super) fn plainly(answer: T) -> Self {
        Self {
            answer,
            version: None,
            detail: None,
        }
    }
}

/// Tries a change. Without a place for its audit line it is not tried.
pub(super) async fn audited<T>(
    plane: &Plane,
    caller: &Caller,
    doing: Doing<'_>,
    change: impl Future<Output = Result<Did<T>, Error>>,
) -> Result<T, Failed> {
    let slot = plane.audit.operation_slot(SLOT_WAIT).await.map_err(|_| {
        let why = "nothing was changed: it could not be recorded in the audit trail";
        (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    })?;
    let done = change.await;
    let (outcome, version, detail) = match &done {
        Ok(did) => ("done", did.version, did.detail.clone()),
        Err(Error::Unreachable) => ("unknown", None, Some(Error::Unreachable.to_string())),
        Err(error) => ("refused", None, Some(error.to_string())),
    };
    slot.write(Operation {
        unix_ms: clock::now().unix_ms,
        by: caller.name.to_string(),
        action: doing.action,
        target: doing.target.map(str::to_owned),
        outcome,
        version,
        detail,
    });
    done.map(|did| did.answer).map_err(failed)
}

/// An error of the cluster as a status and a sentence that says what to do.
pub(super) fn failed(error: Error) -> Failed {
    match error {
        Error::Unreachable => (
            StatusCode::GATEWAY_TIMEOUT,
            "no leader answered: whether it was done is not known; look at `tollgate cluster status`, then try again".into(),
        ),
        Error::Forbidden => (
            StatusCode::FORBIDDEN,
            "the cluster does not let this node do that: ask a voter that belongs to it".into(),
        ),
        Error::Control(Refusal::TooLarge) => {
            (StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        Error::Refused(_) | Error::Control(_) | Error::Member(_) => {
            (StatusCode::CONFLICT, error.to_string())
        }
    }
}
