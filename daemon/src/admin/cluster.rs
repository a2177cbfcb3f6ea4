//! The cluster's part of the admin API.

use super::{
    Plane,
    guard::Caller,
    limits,
    names::{self, Nodes},
    operate::{Did, Doing, audited},
    routes::{Failed, Reply, json},
};
use crate::clock;
use ::cluster::{
    handle::{Handle, Operated},
    wire::{self, Operate},
};
use http::{Method, StatusCode};
use proto::{
    admin::members::{self as api, Cluster, Conflict, Led, Member},
    command::{NodeId, Role},
    limit::{CounterKey, Scale, ledger::Counters},
};
use serde::de::DeserializeOwned;
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a status waits for the leader; beyond, this node answers for itself.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// How long a copy of the state may take.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(30);
/// Longest time that a token may be good, seconds.
const TOKEN_LIFE_MAX_S: u64 = 86_400;
/// Most nodes that are taken out at once.
const REMOVED_MAX: usize = 16;

/// The method of a route; `None`: there is no such route.
pub(super) fn method(path: &str) -> Option<Method> {
    match path {
        api::CLUSTER => Some(Method::GET),
        api::TOKEN | api::REMOVE | api::SNAPSHOT | api::ACCEPT_CLOCK | api::CREDIT | api::RESET => {
            Some(Method::POST)
        }
        _ => None,
    }
}

/// Answers one request.
pub(super) async fn answer(
    plane: &Plane,
    caller: &Caller,
    path: &str,
    body: &[u8],
) -> Result<Reply, Failed> {
    match path {
        api::CLUSTER => Ok(json(&status(plane).await)),
        api::TOKEN => token(plane, caller, read(body)?).await,
        api::REMOVE => remove(plane, caller, read(body)?).await,
        api::SNAPSHOT => snapshot(plane, caller, read(body)?).await,
        api::ACCEPT_CLOCK => {
            let doing = Doing {
                action: "cluster.accept_clock",
                target: None,
            };
            done(plane, caller, doing, Operate::AcceptClock).await
        }
        api::CREDIT => credit(plane, caller, read(body)?).await,
        api::RESET => reset(plane, caller, read(body)?).await,
        _ => Err((StatusCode::NOT_FOUND, format!("there is no {path}"))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body cannot be read: {error}")))
}

fn bad(why: impl Into<String>) -> Failed {
    (StatusCode::BAD_REQUEST, why.into())
}

/// Names of nodes, as far as the leader answers.
pub(super) async fn nodes(plane: &Plane) -> Nodes {
    let status = led(&plane.cluster).await;
    status.as_ref().map(Nodes::of).unwrap_or_default()
}

async fn led(handle: &Handle) -> Option<wire::Status> {
    let asked = tokio::time::timeout(LEADER_WAIT, handle.status()).await;
    asked.ok()?.ok()
}

async fn status(plane: &Plane) -> Cluster {
    let handle = &plane.cluster;
    let led = led(handle).await;
    let local = handle.local();
    let asked_ns = handle.fresh().asked_ns;
    let age_ns = clock::now().boot_ns.saturating_sub(asked_ns);
    Cluster {
        cluster: format!("{:032x}", handle.cluster()),
        node: names::id(handle.node()),
        name: handle.name().to_owned(),
        role: handle.role(),
        leader: local.leader.map(names::id),
        term: local.term,
        committed: local.committed,
        applied: local.applied,
        log_bytes: local.log_bytes,
        fresh_age_ms: (asked_ns > 0).then_some(age_ns / 1_000_000),
        led: led.map(|status| shown(plane, &status)),
    }
}

fn shown(plane: &Plane, status: &wire::Status) -> Led {
    let nodes = Nodes::of(status);
    let view = plane.views.load();
    let known = view.as_deref().map(names::Limits::of).unwrap_or_default();
    let mut members: Vec<Member> = status
        .members
        .iter()
        .map(|member| Member {
            node: names::id(member.node),
            name: member.name.clone(),
            address: member.address.clone(),
            role: member.role,
            leader: member.node == status.leader,
            learner: member.learner,
            leaving: member.leaving,
            reachable: member.reachable,
            matched: member.matched,
            clock_offset_ms: member.clock_offset_ms,
            rules_max: member.rules_max,
        })
        .collect();
    let rank = |member: &Member| (member.role == Role::Client, member.learner);
    members.sort_by(|a, b| {
        let (a, b) = ((rank(a), &a.name, &a.node), (rank(b), &b.name, &b.node));
        a.cmp(&b)
    });
    let conflicts = status.conflicts.iter().map(|conflict| {
        let limit = known.limit(conflict.identity);
        let identity = format!("{:032x}", conflict.identity.0);
        let scale = limit.map_or(Scale::Integer, |limit| limit.scale);
        let sources = conflict.sources.iter();
        Conflict {
            limit: limit.map_or_else(|| identity.clone(), |limit| limit.label.to_string()),
            sources: sources
                .map(|(node, max)| (nodes.name(*node), scale.show(*max)))
                .collect(),
            identity,
        }
    });
    Led {
        now_ms: status.now_ms,
        rules_version: status.rules_version,
        counters: status.counters,
        limits: status.limits,
        control_version: status.control_version,
        clock_problem: status.clock_problem.clone(),
        conflicts: conflicts.collect(),
        members,
    }
}

/// An operator's write without an answer of its own.
async fn done(
    plane: &Plane,
    caller: &Caller,
    doing: Doing<'_>,
    operate: Operate,
) -> Result<Reply, Failed> {
    let change = async {
        plane.cluster.operate(operate).await?;
        Ok(Did::plainly(()))
    };
    audited(plane, caller, doing, change).await?;
    Ok(json(&api::Done {}))
}

async fn token(plane: &Plane, caller: &Caller, asked: api::NewToken) -> Result<Reply, Failed> {
    if !(1..=TOKEN_LIFE_MAX_S).contains(&asked.ttl_s) {
        return Err(bad(format!("`ttl_s` goes from 1 to {TOKEN_LIFE_MAX_S}")));
    }
    let role = match asked.role {
        Role::Voter => "voter",
        Role::Client => "client",
    };
    let doing = Doing {
        action: "cluster.token",
        target: Some(role),
    };
    let ttl = Duration::from_secs(asked.ttl_s);
    let made = audited(plane, caller, doing, async {
        Ok(Did::plainly(plane.cluster.token(asked.role, ttl).await?))
    });
    let token = made.await?.ok_or_else(|| {
        let why = "this node is a cluster of its own that nobody can join: stop it, give it `cluster.listen`, and run \
                   `tollgate cluster init`";
        (StatusCode::CONFLICT, why.to_owned())
    })?;
    let voters = plane.cluster.voters().into_values();
    Ok(json(&api::Token {
        token: token.reveal(),
        peers: voters.filter(|address| !address.is_empty()).collect(),
    }))
}

async fn remove(plane: &Plane, caller: &Caller, asked: api::Remove) -> Result<Reply, Failed> {
    if !(1..=REMOVED_MAX).contains(&asked.nodes.len()) {
        return Err(bad(format!("name 1 to {REMOVED_MAX} nodes")));
    }
    let status = plane
        .cluster
        .status()
        .await
        .map_err(super::operate::failed)?;
    let nodes = asked.nodes.iter().map(|name| find(&status, name));
    let nodes: Vec<NodeId> = nodes.collect::<Result<_, _>>()?;
    let target = asked.nodes.join(" ");
    let doing = Doing {
        action: "cluster.remove",
        target: Some(&target),
    };
    done(plane, caller, doing, Operate::Remove { nodes }).await
}

/// A member by its id or its name.
fn find(status: &wire::Status, text: &str) -> Result<NodeId, Failed> {
    let named = |m: &&wire::MemberStatus| m.name == text || names::id(m.node) == text;
    let found: Vec<NodeId> = status
        .members
        .iter()
        .filter(named)
        .map(|m| m.node)
        .collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err((
            StatusCode::NOT_FOUND,
            format!("there is no node `{text}`; see `tollgate cluster status`"),
        )),
        _ => {
            let ids: Vec<String> = found.into_iter().map(names::id).collect();
            Err((
                StatusCode::CONFLICT,
                format!(
                    "several nodes are called `{text}`: name one by its id, {}",
                    ids.join(" or ")
                ),
            ))
        }
    }
}

async fn snapshot(plane: &Plane, caller: &Caller, asked: api::Snapshot) -> Result<Reply, Failed> {
    if plane.cluster.role() != Role::Voter {
        let why = "a lease client stores nothing: ask a voter";
        return Err((StatusCode::CONFLICT, why.into()));
    }
    let now_ms = clock::now().unix_ms;
    let path: PathBuf = match &asked.path {
        Some(path) if Path::new(path).is_absolute() => path.into(),
        Some(_) => return Err(bad("`path` is absolute")),
        None => {
            let stamp = proto::time::rfc3339(now_ms).replace(':', "");
            let folder = plane.data_dir.join("backups");
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder);
            made.map_err(|error| {
                let why = format!("{}: {error}", folder.display());
                (StatusCode::CONFLICT, why)
            })?;
            folder.join(format!("{stamp}.snapshot"))
        }
    };
    if path.symlink_metadata().is_ok() {
        let why = format!("{}: there is something already", path.display());
        return Err((StatusCode::CONFLICT, why));
    }
    let target = path.display().to_string();
    let slot = plane.audit.operation_slot(Duration::from_secs(5)).await;
    let slot = slot.map_err(|_| {
        let why = "nothing was done: it could not be recorded in the audit trail";
        (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    })?;
    let made = tokio::time::timeout(SNAPSHOT_WAIT, plane.cluster.snapshot_to(path.clone())).await;
    let made = made.unwrap_or_else(|_elapsed| Err("it takes too long; see the log".into()));
    slot.write(proto::audit::Operation {
        unix_ms: now_ms,
        by: caller.name.to_string(),
        action: "cluster.snapshot",
        target: Some(target.clone()),
        outcome: if made.is_ok() { "done" } else { "refused" },
        version: None,
        detail: made.as_ref().err().cloned(),
    });
    let index = made.map_err(|why| (StatusCode::CONFLICT, why))?;
    let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    Ok(json(&api::Snapped {
        path: target,
        index,
        bytes,
    }))
}

fn picked(pick: &api::Pick) -> Result<CounterKey, Failed> {
    limits::counter_key(&pick.counter)
        .ok_or_else(|| bad("`counter` is a key as `tollgate limits show` prints it"))
}

async fn credit(plane: &Plane, caller: &Caller, pick: api::Pick) -> Result<Reply, Failed> {
    let key = picked(&pick)?;
    let scale = scale(plane, key).await?;
    let doing = Doing {
        action: "limits.credit",
        target: Some(&pick.counter),
    };
    let change = async {
        let units = match plane.cluster.operate(Operate::Credit { key }).await? {
            Operated::Credited(units) => units,
            Operated::Done | Operated::Version(_) => 0,
        };
        let credited = limits::shown_units(scale, units);
        Ok(Did {
            answer: api::Credited {
                credited: credited.clone(),
            },
            version: None,
            detail: Some(credited),
        })
    };
    Ok(json(&audited(plane, caller, doing, change).await?))
}

async fn reset(plane: &Plane, caller: &Caller, pick: api::Pick) -> Result<Reply, Failed> {
    let key = picked(&pick)?;
    scale(plane, key).await?;
    let doing = Doing {
        action: "limits.reset",
        target: Some(&pick.counter),
    };
    done(plane, caller, doing, Operate::Reset { key }).await
}

/// In which fixed point a counter counts, as far as this node knows. Errors: the ledger does not have it.
async fn scale(plane: &Plane, key: CounterKey) -> Result<Scale, Failed> {
    let asked = Counters {
        key: Some(key),
        most: 1,
        ..Counters::default()
    };
    let (rows, ..) = plane
        .cluster
        .counters(asked)
        .await
        .map_err(super::operate::failed)?;
    let row = rows.first().ok_or_else(|| {
        let why = "no such counter is in use: see `tollgate limits show`";
        (StatusCode::NOT_FOUND, why.to_owned())
    })?;
    let view = plane.views.load();
    let known = view.as_deref().map(names::Limits::of).unwrap_or_default();
    Ok(known
        .limit(row.identity)
        .map_or(Scale::Integer, |limit| limit.scale))
}
