//! The view and the state as plain data, without secrets.

use super::{Plane, control};
use crate::view::{Grant, Origin, Server, Transport, View};
use proto::{
    admin::{
        self, AuditStatus, NodeStatus, Status,
        control::{InForce, Unresolved},
    },
    grant::TokenHash,
    time::rfc3339,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// Resources that are not in force, shown at once.
const UNRESOLVED_MAX: usize = 20;
/// Characters of a token's hash that are shown, `sha256:` included.
const HASH_CHARS: usize = "sha256:".len() + 8;

/// How the gateway is.
pub(super) fn status(plane: &Plane) -> Status {
    let view = plane.views.load();
    let draining = plane.draining.load(Relaxed);
    let audit = &plane.audit;
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: plane.started.elapsed().as_secs(),
        ready: view.is_some() && audit.ready() && !draining,
        draining,
        revision: view.as_ref().map(|view| view.revision),
        servers: view.as_ref().map_or(0, |view| view.servers.len()),
        grants: view.as_ref().map_or(0, |view| by_id(view).len()),
        sessions: (plane.sessions)(),
        control: view.as_deref().map(|view| in_force(plane, view)),
        node: node(plane),
        audit: AuditStatus {
            ready: audit.ready(),
            queued: audit.queued(),
            places: audit.places(),
            refused: audit.refused(),
            suppressed: audit.suppressed(),
        },
    }
}

/// The log's part of the view.
fn in_force(plane: &Plane, view: &View) -> InForce {
    let of_log = |origin: Origin| origin == Origin::Log;
    let grants = view.grants.values().filter(|grant| of_log(grant.origin));
    let grants: HashSet<&str> = grants.map(|grant| &*grant.id).collect();
    let policies = view.policies.iter().filter(|(_, used)| of_log(used.origin));
    let policies: HashSet<&str> = policies.map(|((name, _), _)| &**name).collect();
    let servers = view.servers.values().filter(|server| of_log(server.origin));
    let unresolved = view.unresolved.iter().take(UNRESOLVED_MAX);
    InForce {
        version: view.control,
        age_ms: control::age_ms(plane),
        age_ms_max: u64::try_from(plane.freshness.max().as_millis()).unwrap_or(u64::MAX),
        servers: servers.count(),
        policies: policies.len(),
        grants: grants.len(),
        unresolved: unresolved
            .map(|found| Unresolved {
                kind: found.kind,
                name: found.name.clone(),
                why: found.why.clone(),
            })
            .collect(),
        unresolved_total: view.unresolved.len(),
    }
}

fn node(plane: &Plane) -> NodeStatus {
    let (handle, local) = (&plane.cluster, plane.cluster.local());
    NodeStatus {
        name: handle.name().to_owned(),
        role: handle.role(),
        leads: local.leader == Some(handle.node()),
        has_leader: local.leader.is_some(),
        counters: plane.limiter.len(),
    }
}

/// The view in force.
pub(super) fn view(view: &View, unix_ms: u64) -> admin::View {
    let policies = view
        .policies
        .iter()
        .map(|((name, server), used)| admin::Policy {
            name: name.to_string(),
            server: server.to_string(),
            origin: used.origin.as_str().to_owned(),
            revision: used.policy.revision.to_string(),
            limits: used.policy.limits.len(),
        });
    admin::View {
        revision: view.revision,
        servers: view.servers.values().map(|s| server(s)).collect(),
        policies: policies.collect(),
        grants: grants(view, unix_ms),
    }
}

/// The grants of the view by id.
pub(super) fn grants(view: &View, unix_ms: u64) -> Vec<admin::Grant> {
    let shown = |(grant, hashes): (&Arc<Grant>, Vec<&TokenHash>)| {
        let mut servers: Vec<_> = grant
            .servers
            .iter()
            .map(|(server, binding)| admin::Binding {
                server: server.to_string(),
                policy: binding
                    .policy
                    .as_ref()
                    .map(|policy| policy.name.to_string()),
            })
            .collect();
        servers.sort_by(|a, b| a.server.cmp(&b.server));
        let mut tokens: Vec<String> = hashes.iter().map(|hash| short(hash)).collect();
        tokens.sort();
        admin::Grant {
            id: grant.id.to_string(),
            origin: grant.origin.as_str().to_owned(),
            label: grant.label.as_ref().map(ToString::to_string),
            tokens,
            state: state(grant, unix_ms).to_owned(),
            expires: grant.expires_ms.map(rfc3339),
            servers,
        }
    };
    by_id(view).into_values().map(shown).collect()
}

/// During a rotation one grant stands under several hashes.
fn by_id(view: &View) -> BTreeMap<&str, (&Arc<Grant>, Vec<&TokenHash>)> {
    let mut grants = BTreeMap::new();
    for (hash, grant) in &view.grants {
        let entry = grants.entry(&*grant.id).or_insert((grant, Vec::new()));
        if !grant.former {
            entry.0 = grant;
        }
        entry.1.push(hash);
    }
    grants
}

pub(super) fn state(grant: &Grant, unix_ms: u64) -> &'static str {
    match (grant.revoked, grant.expires_ms) {
        (true, _) => "revoked",
        (false, _) if grant.barred => "not in force",
        (false, Some(expires_ms)) if unix_ms >= expires_ms => "expired",
        (false, _) => "active",
    }
}

fn server(server: &Server) -> admin::Server {
    let (transport, target) = reached(server);
    admin::Server {
        name: server.name.to_string(),
        origin: server.origin.as_str().to_owned(),
        transport: transport.to_owned(),
        target,
    }
}

/// How a server is reached, in few words.
pub(super) fn summary(server: &Server) -> String {
    let (transport, target) = reached(server);
    format!("{transport} {target}")
}

fn reached(server: &Server) -> (&'static str, String) {
    match &server.transport {
        Transport::Http(http) => ("http", url(&http.url)),
        Transport::Stdio(stdio) => {
            let program = stdio.command.first().cloned();
            ("stdio", program.unwrap_or_default())
        }
    }
}

/// Scheme, host, port and path: users, passwords and queries are where people put keys.
fn url(url: &http::Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("http");
    let host = url.host().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{scheme}://{host}{port}{}", url.path())
}

fn short(hash: &TokenHash) -> String {
    shortened(&hash.to_string())
}

/// Enough of a hash as it is written to tell it from others.
pub(super) fn shortened(hash: &str) -> String {
    format!("{}…", hash.get(..HASH_CHARS).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::view::{Binding, HttpTarget, Origin};
    use proto::id::{GrantId, ServerName};
    use std::time::Duration;

    /// A view with one server and two grants, one of them under two hashes.
    pub(in crate::admin) fn sample() -> View {
        let server = Arc::new(Server {
            name: ServerName::new("flux"),
            origin: Origin::File,
            transport: Transport::Http(HttpTarget {
                url: "https://user:pass@example.com:8443/mcp?key=secret"
                    .parse()
                    .unwrap(),
                headers: Vec::new(),
                ca_file: None,
                route: Default::default(),
            }),
            extra_methods: Vec::new(),
            timeout: Duration::from_secs(1),
            calls: 1,
        });
        let grant = |id: &str, expires_ms, revoked| {
            let binding = Binding {
                server: server.clone(),
                policy: None,
                keys: Default::default(),
            };
            Arc::new(Grant {
                id: GrantId::new(id),
                label: Some(format!("the {id}").into()),
                expires_ms,
                revoked,
                origin: Origin::Log,
                former: false,
                barred: false,
                unresolved: Vec::new(),
                servers: [(server.name.clone(), binding)].into_iter().collect(),
            })
        };
        let rotated = grant("b", Some(2_000), false);
        View {
            revision: 3,
            policies: BTreeMap::new(),
            control: 0,
            unresolved: Arc::default(),
            grants: [
                (TokenHash([0x11; 32]), rotated.clone()),
                (TokenHash([0x22; 32]), rotated),
                (TokenHash([0x33; 32]), grant("a", None, true)),
            ]
            .into_iter()
            .collect(),
            servers: [(server.name.clone(), server.clone())]
                .into_iter()
                .collect(),
            bounds: Arc::default(),
            hosts: Vec::new(),
            origins: Vec::new(),
        }
    }

    #[test]
    fn the_view_is_shown_without_anything_that_opens_a_door() {
        let shown = view(&sample(), 1_999);
        assert_eq!(shown.servers[0].target, "https://example.com:8443/mcp");
        assert_eq!(shown.grants.len(), 2);
        assert_eq!(shown.grants[0].state, "revoked");
        assert_eq!(shown.grants[1].state, "active");
        assert_eq!(
            shown.grants[1].tokens,
            ["sha256:11111111…", "sha256:22222222…"]
        );
        assert_eq!(grants(&sample(), 2_000)[1].state, "expired");
        let json = serde_json::to_string(&shown).unwrap();
        for secret in ["pass", "secret", &"11".repeat(5)] {
            assert!(!json.contains(secret), "{secret} in {json}");
        }
    }
}
