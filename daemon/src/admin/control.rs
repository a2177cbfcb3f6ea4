//! The control plane's part of the admin API: grants, policies and servers, those of the files shown beside those of the
//! log, and changes of the log.

use super::{
    Plane,
    guard::Caller,
    operate::{Did, Doing, Undone, audited},
    routes::{Failed, Reply, json},
    show,
};
use crate::{
    clock,
    control::{Objection, WriteError, Writer, Written, edit},
    view::{Grant, Origin, Server, Unresolved, View},
};
use ::cluster::handle::Error;
use http::{Method, StatusCode};
use proto::{
    admin::control::{self as api, Named, Resource, Resources, Shown, kind_word},
    control::{self, BODY_BYTES_MAX, Control, Kind},
    grant::TokenHash,
    time::rfc3339,
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Longest name of a caller that is replicated, bytes.
const BY_BYTES_MAX: usize = 128;
/// Longest time that replaced tokens may stay good, milliseconds.
const OVERLAP_MS_MAX: u64 = 366 * 86_400_000;

/// The method of a route; `None`: there is no such route.
pub(super) fn method(path: &str) -> Option<Method> {
    match path {
        api::RESOURCES | api::RESOURCE => Some(Method::GET),
        api::PUT | api::DELETE | api::ROTATE | api::REVOKE => Some(Method::POST),
        _ => None,
    }
}

/// Largest body of a request for a route, bytes, where it takes a document.
pub(super) fn body_bytes_max(path: &str) -> Option<usize> {
    (path == api::PUT).then_some(BODY_BYTES_MAX)
}

/// Answers one request.
pub(super) async fn answer(
    plane: &Plane,
    caller: &Caller,
    path: &str,
    query: &str,
    body: &[u8],
) -> Result<Reply, Failed> {
    let named = || Named::parse(query).map_err(bad);
    match path {
        api::RESOURCES => Ok(json(&resources(plane, named()?.kind))),
        api::RESOURCE => resource(plane, &named()?),
        api::PUT => put(plane, caller, &named()?, body).await,
        api::DELETE => delete(plane, caller, &named()?).await,
        api::ROTATE => rotate(plane, caller, read(body)?).await,
        api::REVOKE => revoke(plane, caller, read(body)?).await,
        _ => Err((StatusCode::NOT_FOUND, format!("there is no {path}"))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body cannot be read: {error}")))
}

fn bad(why: impl Into<String>) -> Failed {
    (StatusCode::BAD_REQUEST, why.into())
}

async fn put(plane: &Plane, caller: &Caller, named: &Named, body: &[u8]) -> Result<Reply, Failed> {
    let action = match named.kind {
        Kind::Grant => "grant.put",
        Kind::Policy => "policy.put",
        Kind::Server => "server.put",
    };
    if named.kind != Kind::Policy
        && let Err(error) = serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(body)
    {
        let word = kind_word(named.kind);
        return Err((
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("a {word} is put as a JSON object: {error}"),
        ));
    }
    let writer = writer(plane, caller);
    let written = writer.put(named.kind, &named.name, body.into(), named.if_version);
    written_as(plane, caller, action, &named.name, written).await
}

async fn delete(plane: &Plane, caller: &Caller, named: &Named) -> Result<Reply, Failed> {
    let action = match named.kind {
        Kind::Grant => "grant.delete",
        Kind::Policy => "policy.delete",
        Kind::Server => "server.delete",
    };
    let writer = writer(plane, caller);
    let written = writer.delete(named.kind, &named.name, named.if_version);
    written_as(plane, caller, action, &named.name, written).await
}

async fn rotate(plane: &Plane, caller: &Caller, asked: api::Rotate) -> Result<Reply, Failed> {
    let token = TokenHash::parse(&asked.token_sha256).map_err(bad)?;
    if asked.overlap_ms > OVERLAP_MS_MAX {
        return Err(bad("replaced tokens stay good for at most 366 days"));
    }
    // Both clocks that a grant's end may be judged by.
    let now = clock::now();
    let now_ms = now.unix_ms.max(plane.cluster.ledger_ms(now));
    let until_ms = (asked.overlap_ms > 0).then(|| now_ms.saturating_add(asked.overlap_ms));
    let writer = writer(plane, caller);
    let rotated = |body: &[u8]| edit::rotate(body, token, now_ms, until_ms);
    let written = writer.edit_grant(&asked.name, true, rotated);
    written_as(plane, caller, "grant.rotate", &asked.name, written).await
}

async fn revoke(plane: &Plane, caller: &Caller, asked: api::Revoke) -> Result<Reply, Failed> {
    let writer = writer(plane, caller);
    // Never held up by a judgement: less is allowed with it, whatever else is wrong.
    let written = writer.edit_grant(&asked.name, false, edit::revoke);
    written_as(plane, caller, "grant.revoke", &asked.name, written).await
}

fn writer<'p>(plane: &'p Plane, caller: &Caller) -> Writer<'p> {
    let mut by = format!("{}@{}", caller.name, plane.cluster.name());
    by.truncate(by.floor_char_boundary(BY_BYTES_MAX));
    Writer {
        cluster: &plane.cluster,
        keeper: &plane.keeper,
        views: &plane.views,
        by,
    }
}

async fn written_as(
    plane: &Plane,
    caller: &Caller,
    action: &'static str,
    name: &str,
    change: impl Future<Output = Result<Written, WriteError>>,
) -> Result<Reply, Failed> {
    let doing = Doing {
        action,
        target: Some(name),
    };
    let change = async {
        let written = change.await.map_err(|error| undone(name, error))?;
        let version = Some(written.version);
        Ok::<_, Undone>(Did {
            answer: written,
            version,
            detail: None,
        })
    };
    let written = audited(plane, caller, doing, change).await?;
    Ok(json(&api::Written {
        version: written.version,
        in_force: written.in_force,
        remarks: written.remarks,
    }))
}

fn undone(name: &str, error: WriteError) -> Undone {
    let told = format!("`{name}`: {error}");
    let status = match &error {
        WriteError::Cluster(Error::Control(control::Refusal::TooLarge)) => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        WriteError::Cluster(Error::Control(control::Refusal::Full)) => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        WriteError::Cluster(error) => return Undone::from(*error),
        WriteError::Objection(Objection::Unreadable(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        WriteError::Objection(Objection::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
        WriteError::Objection(_) | WriteError::Changed { .. } | WriteError::Unfit(_) => {
            StatusCode::CONFLICT
        }
        WriteError::Unknown => StatusCode::NOT_FOUND,
        WriteError::LeaseClient => StatusCode::FORBIDDEN,
    };
    Undone {
        outcome: "refused",
        failed: (status, told),
    }
}

fn control(plane: &Plane) -> Arc<Control> {
    plane.cluster.control().borrow().clone()
}

fn resources(plane: &Plane, kind: Kind) -> Resources {
    let (view, control, now) = (plane.views.load(), control(plane), clock::now());
    let at_ms = plane.freshness.expiry_ms(now);
    let mut resources = match &view {
        Some(view) => of_files(view, kind, at_ms),
        None => Vec::new(),
    };
    let of_log = view.as_deref().map(OfLog::new).unwrap_or_default();
    resources.extend(control.iter(kind).map(|found| of_log.row(found, at_ms)));
    Resources {
        resources,
        version: control.version(),
        age_ms: age_ms(plane),
    }
}

pub(super) fn age_ms(plane: &Plane) -> Option<u64> {
    let age = plane.freshness.age(clock::now())?;
    Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn resource(plane: &Plane, named: &Named) -> Result<Reply, Failed> {
    let (view, control) = (plane.views.load(), control(plane));
    let at_ms = plane.freshness.expiry_ms(clock::now());
    let mut found = match &view {
        Some(view) => of_files(view, named.kind, at_ms),
        None => Vec::new(),
    };
    found.retain(|resource| resource.name == named.name);
    let in_log = control.get(named.kind, &named.name);
    let of_log = view.as_deref().map(OfLog::new).unwrap_or_default();
    found.extend(in_log.map(|resource| of_log.row(resource, at_ms)));
    if found.is_empty() {
        let (word, name) = (kind_word(named.kind), &named.name);
        let why = format!("there is no {word} `{name}`, neither in the files nor in the log");
        return Err((StatusCode::NOT_FOUND, why));
    }
    let body = in_log.and_then(|resource| resource.body.as_deref());
    Ok(json(&Shown {
        resources: found,
        document: body.map(|body| masked(named.kind, body)),
    }))
}

/// A document as it may be shown: nothing of it opens anything.
fn masked(kind: Kind, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    if kind == Kind::Policy {
        return text;
    }
    let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(body) else {
        return "(not JSON)".to_owned();
    };
    mask(&mut document);
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn mask(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) if text.starts_with("sha256:") => *text = show::shortened(text),
        // People put keys into queries.
        Value::String(text) if text.starts_with("http") && text.contains('?') => {
            let end = text.find('?').unwrap_or(text.len());
            text.truncate(end);
            text.push_str("?…");
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(entries) => entries.values_mut().for_each(mask),
        _ => {}
    }
}

/// The files' part of a view.
fn of_files(view: &View, kind: Kind, at_ms: u64) -> Vec<Resource> {
    let row = |name: &str, state: &str, summary: String| Resource {
        kind,
        name: name.to_owned(),
        origin: Origin::File.as_str().to_owned(),
        version: None,
        changed: None,
        by: None,
        state: state.to_owned(),
        summary,
        why: Vec::new(),
    };
    let in_files = |origin: Origin| origin == Origin::File;
    match kind {
        Kind::Server => {
            let servers = view.servers.values().filter(|s| in_files(s.origin));
            let servers = servers.map(|s| row(&s.name, "in force", show::summary(s)));
            servers.collect()
        }
        Kind::Policy => {
            let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for ((name, server), policy) in &view.policies {
                if in_files(policy.origin) {
                    used.entry(name).or_default().insert(server);
                }
            }
            let used = used.into_iter();
            used.map(|(name, on)| row(name, "in force", on_servers(&on)))
                .collect()
        }
        Kind::Grant => {
            let grants = view.grants.values();
            let grants = grants.filter(|grant| in_files(grant.origin) && !grant.former);
            let by_id: BTreeMap<&str, &Arc<Grant>> =
                grants.map(|grant| (&*grant.id, grant)).collect();
            let rows = by_id.into_values();
            rows.map(|grant| row(&grant.id, show::state(grant, at_ms), bindings(grant)))
                .collect()
        }
    }
}

/// What the view in force has of the log, by name.
#[derive(Default)]
struct OfLog<'v> {
    servers: BTreeMap<&'v str, &'v Server>,
    policies: BTreeMap<&'v str, BTreeSet<&'v str>>,
    grants: BTreeMap<&'v str, &'v Grant>,
    unresolved: BTreeMap<(Kind, &'v str), &'v Unresolved>,
}

impl<'v> OfLog<'v> {
    fn new(view: &'v View) -> Self {
        let mut found = Self::default();
        let servers = view.servers.values().filter(|s| s.origin == Origin::Log);
        found.servers = servers.map(|s| (&*s.name, &**s)).collect();
        for ((name, server), policy) in &view.policies {
            if policy.origin == Origin::Log {
                found.policies.entry(name).or_default().insert(server);
            }
        }
        let grants = view.grants.values();
        let grants = grants.filter(|grant| grant.origin == Origin::Log && !grant.former);
        found.grants = grants.map(|grant| (&*grant.id, &**grant)).collect();
        let unresolved = view.unresolved.iter();
        found.unresolved = unresolved.map(|u| ((u.kind, &*u.name), u)).collect();
        found
    }

    fn row(&self, resource: &control::Resource, at_ms: u64) -> Resource {
        let name = &*resource.name;
        let unresolved = self.unresolved.get(&(resource.kind, name));
        let nothing = ("not in force", String::new());
        let (state, summary) = match resource.kind {
            Kind::Server => match self.servers.get(name) {
                Some(server) => ("in force", show::summary(server)),
                None => nothing,
            },
            Kind::Policy => match self.policies.get(name) {
                Some(on) => ("in force", on_servers(on)),
                // One that nobody uses may be wrong all the same.
                None if unresolved.is_none() => ("not used", String::new()),
                None => nothing,
            },
            Kind::Grant => match self.grants.get(name) {
                Some(grant) => (show::state(grant, at_ms), bindings(grant)),
                None => nothing,
            },
        };
        Resource {
            kind: resource.kind,
            name: resource.name.clone(),
            origin: Origin::Log.as_str().to_owned(),
            version: Some(resource.version),
            changed: Some(rfc3339(resource.changed_ms)),
            by: Some(resource.by.clone()),
            state: state.to_owned(),
            summary,
            why: unresolved
                .map(|found| found.why.clone())
                .unwrap_or_default(),
        }
    }
}

fn on_servers(servers: &BTreeSet<&str>) -> String {
    let servers: Vec<_> = servers.iter().copied().collect();
    format!("on {}", servers.join(", "))
}

fn bindings(grant: &Grant) -> String {
    let bound = grant.servers.iter().map(|(server, binding)| {
        let policy = binding.policy.as_ref();
        let policy = policy.map_or("(no policy)", |policy| &policy.name);
        format!("{server}: {policy}")
    });
    let missing = grant.unresolved.iter();
    let missing = missing.map(|server| format!("{server}: (not in force)"));
    let mut all: Vec<_> = bound.chain(missing).collect();
    all.sort();
    all.join(", ")
}
