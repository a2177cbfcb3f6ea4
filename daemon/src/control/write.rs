//! Changes of the cluster's control plane: judged by what this node knows, proposed on that condition, acknowledged when
//! committed.

use super::{Ask, Objection};
use crate::{clock, view::Views};
use cluster::{
    handle::{Error, Handle, Operated},
    wire::Operate,
};
use proto::{
    command::Role,
    control::{BODY_BYTES_MAX, Change, Control, Kind, Refusal, Resource},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

/// How long a change waits to be judged.
const JUDGE_WAIT: Duration = Duration::from_secs(15);
/// How long a change waits for this node to know the newest version.
const CATCH_UP_WAIT: Duration = Duration::from_secs(3);
/// How long an acknowledgement waits for the change to be in force here.
const IN_FORCE_WAIT: Duration = Duration::from_secs(5);
/// How often an unconditional change is tried when others change the same resource.
const TRIES: usize = 4;

/// The way of a change.
pub struct Writer<'a> {
    /// The way to the leader.
    pub cluster: &'a Handle,
    /// Who judges.
    pub keeper: &'a mpsc::Sender<Ask>,
    /// Where the change shows in the end.
    pub views: &'a Views,
    /// Who asks, as it is replicated.
    pub by: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The control version with it.
    pub version: u64,
    /// Whether this node has it in force.
    pub in_force: bool,
    /// What there is to say of the document.
    pub remarks: Vec<String>,
}

/// Why nothing was written, or may have been.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It would make no view that can be put in force here.
    #[error(transparent)]
    Objection(#[from] Objection),
    /// The cluster refuses it or is silent.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The resource changed meanwhile.
    #[error("its version is {version} and not {expected}: look at it and try again")]
    Changed {
        /// Now; 0: there is none.
        version: u64,
        /// As it was asked for.
        expected: u64,
    },
    /// There is no such resource in the log.
    #[error("there is none of this name in the log")]
    Unknown,
    /// It cannot be done to the resource as it is.
    #[error("{0}")]
    Unfit(String),
    /// Lease clients read the control plane and do not change it.
    #[error("this node is a lease client, which does not change the control plane: ask a voter")]
    LeaseClient,
}

/// A document, or its end.
type Body = Option<Arc<[u8]>>;

impl Writer<'_> {
    /// Puts a document. `if_version`: only if that is the resource's version; 0: only if there is none.
    pub async fn put(
        &self,
        kind: Kind,
        name: &str,
        body: Arc<[u8]>,
        if_version: Option<u64>,
    ) -> Result<Written, WriteError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::Control(Refusal::TooLarge).into());
        }
        let body = Some(body);
        self.write(kind, name, if_version, true, |_| Ok(body.clone()))
            .await
    }

    /// Deletes a document. A grant's end is never held up by a judgement.
    pub async fn delete(
        &self,
        kind: Kind,
        name: &str,
        if_version: Option<u64>,
    ) -> Result<Written, WriteError> {
        self.must_be_there(kind, name).await?;
        let judged = kind != Kind::Grant;
        self.write(kind, name, if_version, judged, |_| Ok(None))
            .await
    }

    /// Changes a grant that is there; `judged`: whether the outcome must be one that can be put in force.
    pub async fn edit_grant(
        &self,
        name: &str,
        judged: bool,
        edit: impl Fn(&[u8]) -> Result<Vec<u8>, WriteError>,
    ) -> Result<Written, WriteError> {
        self.must_be_there(Kind::Grant, name).await?;
        self.write(Kind::Grant, name, None, judged, |known| {
            let body = known.and_then(|resource| resource.body.as_deref());
            let edited = edit(body.ok_or(WriteError::Unknown)?)?;
            Ok(Some(edited.into()))
        })
        .await
    }

    async fn write(
        &self,
        kind: Kind,
        name: &str,
        if_version: Option<u64>,
        judged: bool,
        body: impl Fn(Option<&Resource>) -> Result<Body, WriteError>,
    ) -> Result<Written, WriteError> {
        if self.cluster.role() == Role::Client {
            return Err(WriteError::LeaseClient);
        }
        for _ in 0..TRIES {
            let control = self.control();
            let known = control.get(kind, name);
            let version = known.map_or(0, |resource| resource.version);
            let change = Change {
                kind,
                name: name.to_owned(),
                body: body(known)?,
                expect: Some(if_version.unwrap_or(version)),
                by: self.by.clone(),
            };
            let remarks = match judged {
                true => self.judge(&change).await?,
                false => Vec::new(),
            };
            let changed = match self.cluster.operate(Operate::Control(change.clone())).await {
                Ok(Operated::Version(version)) => return Ok(self.wait(version, remarks).await),
                Ok(_) => return Err(Error::Unreachable.into()),
                Err(Error::Control(Refusal::Changed { version })) => version,
                Err(Error::Control(Refusal::Unknown)) => return Err(WriteError::Unknown),
                Err(error) => return Err(error.into()),
            };
            self.know(changed).await;
            let control = self.control();
            // An answer that was lost on its way and asked for again: what was changed since is our own change.
            let ours = |found: &Resource| {
                found.version > version && found.body == change.body && found.by == change.by
            };
            let own = match control.get(kind, name) {
                Some(found) => ours(found),
                None => change.body.is_none() && version != 0,
            };
            if own && change.expect == Some(version) {
                return Ok(self.wait(control.version(), remarks).await);
            }
            if let Some(expected) = if_version {
                return Err(WriteError::Changed {
                    version: changed,
                    expected,
                });
            }
        }
        Err(WriteError::Unfit(
            "others change it again and again: nothing was done, try again".into(),
        ))
    }

    fn control(&self) -> Arc<Control> {
        self.cluster.control().borrow().clone()
    }

    async fn judge(&self, change: &Change) -> Result<Vec<String>, WriteError> {
        let (answer, answered) = oneshot::channel();
        let change = change.clone();
        let asked = async {
            self.keeper.send(Ask::Check { change, answer }).await.ok()?;
            answered.await.ok()
        };
        match timeout(JUDGE_WAIT, asked).await {
            Ok(Some(judged)) => Ok(judged?),
            Ok(None) => Err(Objection::Stopping.into()),
            Err(_) => Err(WriteError::Unfit(
                "this node is too busy to judge it: nothing was done, try again".into(),
            )),
        }
    }

    /// A resource that this node has not heard of may be there all the same.
    async fn must_be_there(&self, kind: Kind, name: &str) -> Result<(), WriteError> {
        let asked_ns = clock::now().boot_ns;
        let until = Instant::now() + CATCH_UP_WAIT;
        while self.control().get(kind, name).is_none() {
            let fresh = self.cluster.fresh();
            let newest = fresh.asked_ns > asked_ns && self.control().version() >= fresh.version;
            if newest && self.control().get(kind, name).is_none() {
                return Err(WriteError::Unknown);
            }
            if Instant::now() >= until {
                return Err(Error::Unreachable.into());
            }
            sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    /// Waits until this node knows a version.
    async fn know(&self, version: u64) {
        let mut control = self.cluster.control();
        let known = control.wait_for(|control| control.version() >= version);
        let _ = timeout(CATCH_UP_WAIT, known).await;
    }

    async fn wait(&self, version: u64, remarks: Vec<String>) -> Written {
        let mut views = self.views.subscribe();
        let has = || (self.views.load()).is_some_and(|view| view.control >= version);
        let in_force = timeout(IN_FORCE_WAIT, views.wait_for(|_| has())).await;
        Written {
            version,
            in_force: matches!(in_force, Ok(Ok(_))),
            remarks,
        }
    }
}
