//! Changes that operators make: each leaves an audit line, whatever came of it.

use super::{Plane, guard::Caller, routes::Failed};
use crate::{audit::OperationSlot, clock};
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

/// Why nothing was done, or may have been.
pub(super) struct Undone {
    /// For the audit line: `refused` or `unknown`.
    pub(super) outcome: &'static str,
    /// For who asked.
    pub(super) failed: Failed,
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        Self {
            outcome: match error {
                Error::Unreachable => "unknown",
                _ => "refused",
            },
            failed: failed(error),
        }
    }
}

/// The audit line of a change. It is written when it is dropped: also when the asker's connection ends first.
struct Line {
    slot: Option<OperationSlot>,
    operation: Operation,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.write(self.operation.clone());
        }
    }
}

/// Tries a change. Without a place for its audit line it is not tried.
pub(super) async fn audited<T>(
    plane: &Plane,
    caller: &Caller,
    doing: Doing<'_>,
    change: impl Future<Output = Result<Did<T>, Undone>>,
) -> Result<T, Failed> {
    let slot = plane.audit.operation_slot(SLOT_WAIT).await.map_err(|_| {
        let why = "nothing was changed: it could not be recorded in the audit trail";
        (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    })?;
    let mut line = Line {
        slot: Some(slot),
        operation: Operation {
            unix_ms: clock::now().unix_ms,
            by: caller.name.to_string(),
            action: doing.action,
            target: doing.target.map(str::to_owned),
            outcome: "unknown",
            version: None,
            detail: Some("who asked left before the answer".into()),
        },
    };
    let done = change.await;
    let operation = &mut line.operation;
    (operation.outcome, operation.version, operation.detail) = match &done {
        Ok(did) => ("done", did.version, did.detail.clone()),
        Err(undone) => (undone.outcome, None, Some(undone.failed.1.clone())),
    };
    drop(line);
    done.map(|did| did.answer).map_err(|undone| undone.failed)
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
