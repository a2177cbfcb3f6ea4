//! The view and the state as plain data, without secrets.

use super::Plane;
use crate::view::{Grant, Server, Transport, View};
use proto::{
    admin::{self, AuditStatus, Status},
    grant::TokenHash,
    time::rfc3339,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

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
        audit: AuditStatus {
            ready: audit.ready(),
            queued: audit.queued(),
            places: audit.places(),
            refused: audit.refused(),
            suppressed: audit.suppressed(),
        },
    }
}

/// The view in force.
pub(super) fn view(view: &View, unix_ms: u64) -> admin::View {
    let policies: BTreeSet<admin::Policy> = view
        .grants
        .values()
        .flat_map(|grant| &grant.servers)
        .filter_map(|(server, binding)| {
            let policy = binding.policy.as_ref()?;
            Some(admin::Policy {
                name: policy.name.to_string(),
                server: server.to_string(),
                revision: policy.revision.to_string(),
                limits: policy.limits.len(),
            })
        })
        .collect();
    admin::View {
        revision: view.revision,
        servers: view.servers.values().map(|s| server(s)).collect(),
        policies: policies.into_iter().collect(),
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
            label: grant.label.as_ref().map(ToString::to_string),
            tokens,
            state: state(grant, unix_ms).to_owned(),
            expires: grant.expires_ms.map(rfc3339),
            servers,
        }
    };
    by_id(view).into_values().map(shown).collect()
}

/// During a rotation one grant stands under two hashes.
fn by_id(view: &View) -> BTreeMap<&str, (&Arc<Grant>, Vec<&TokenHash>)> {
    let mut grants = BTreeMap::new();
    for (hash, grant) in &view.grants {
        let entry = grants.entry(&*grant.id).or_insert((grant, Vec::new()));
        entry.1.push(hash);
    }
    grants
}

fn state(grant: &Grant, unix_ms: u64) -> &'static str {
    match (grant.revoked, grant.expires_ms) {
        (true, _) => "revoked",
        (false, Some(expires_ms)) if unix_ms >= expires_ms => "expired",
        (false, _) => "active",
    }
}

fn server(server: &Server) -> admin::Server {
    let (transport, target) = match &server.transport {
        Transport::Http(http) => ("http", url(&http.url)),
        Transport::Stdio(stdio) => {
            let program = stdio.command.first().cloned();
            ("stdio", program.unwrap_or_default())
        }
    };
    admin::Server {
        name: server.name.to_string(),
        transport: transport.to_owned(),
        target,
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
    let whole = hash.to_string();
    format!("{}…", whole.get(..HASH_CHARS).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        bounds::Bounds,
        view::{Binding, HttpTarget, Origin},
    };
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
            }),
            extra_methods: Vec::new(),
            timeout: Duration::from_secs(1),
            calls: 1,
        });
        let grant = |id: &str, expires_ms, revoked| {
            let binding = Binding {
                server: server.clone(),
                policy: None,
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
            bounds: Bounds::default(),
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
