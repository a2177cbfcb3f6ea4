//! Grants: whose token opens which server under which policy.

use super::{Policies, Resolver, Servers, unknown};
use crate::{
    config::{PolicyDocument, raw},
    view::{Binding, Grant},
};
use proto::{
    doc::{Node, Pos, Spanned},
    grant::TokenHash,
    id::{GrantId, ServerName},
    time::parse_rfc3339,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

const LABEL_BYTES_MAX: usize = 128;
const TOKENS_MAX: usize = 8;

type Grants = HashMap<TokenHash, Arc<Grant>, foldhash::fast::RandomState>;

/// What all files of grants share.
struct Known<'a> {
    servers: &'a Servers,
    /// Servers that are named, readable or not: only others are unknown.
    named: Vec<&'a str>,
    policies: Policies,
    ids: BTreeMap<String, String>,
    tokens: HashMap<TokenHash, String>,
    granted: Grants,
}

impl Resolver<'_> {
    pub(super) fn grants(
        &mut self,
        config: &raw::Config,
        servers: &Servers,
        policies: Policies,
        node: &Node,
    ) -> (Grants, Vec<PolicyDocument>) {
        let named = node.child("servers").map_or(&[][..], Node::entries);
        let mut known = Known {
            servers,
            named: named.iter().map(|entry| entry.key.as_str()).collect(),
            policies,
            ids: BTreeMap::new(),
            tokens: HashMap::new(),
            granted: Grants::default(),
        };
        for grant in &config.grants {
            self.grant(grant, &mut known);
        }
        for path in &config.grants_files {
            let Some(text) = self.text(path) else {
                continue;
            };
            self.in_file(self.label(path), |resolver| {
                let lossy = resolver.lossy;
                if let Some(node) = resolver.parse(&text)
                    && let Some(grants) = resolver.grants_file(&node)
                {
                    for grant in &grants {
                        resolver.grant(grant, &mut known);
                    }
                    resolver.fill_pointers(&node);
                }
                resolver.lossy = lossy;
            });
        }
        (known.granted, known.policies.finish(self))
    }

    /// A file without a single grant is one whose last grant was taken out.
    fn grants_file(&mut self, node: &Node) -> Option<Vec<raw::Grant>> {
        match node.value {
            proto::doc::Value::Null => Some(Vec::new()),
            _ => self.read(node),
        }
    }

    fn grant(&mut self, raw: &raw::Grant, known: &mut Known<'_>) {
        self.name(&raw.id, "grant");
        let place = format!("{}:{}", self.file, raw.id.at);
        if raw.id.at != Pos::default()
            && let Some(first) = known.ids.insert(raw.id.value.clone(), place.clone())
        {
            let message = format!("the grant `{}` is already at {first}", raw.id.value);
            self.error(raw.id.at, message);
        }
        if let Some(label) = &raw.label
            && (label.len() > LABEL_BYTES_MAX || label.contains(char::is_control))
        {
            let message =
                format!("`label` has at most {LABEL_BYTES_MAX} bytes and no control characters");
            self.error(label.at, message);
        }
        let grant = Arc::new(Grant {
            id: GrantId::new(&raw.id),
            label: raw.label.as_ref().map(|label| label.as_str().into()),
            expires_ms: raw.expires.as_ref().and_then(|expires| {
                parse_rfc3339(expires)
                    .map_err(|why| self.error(expires.at, why))
                    .ok()
            }),
            revoked: raw.revoked,
            servers: self.bindings(raw, known),
        });
        self.tokens(raw, &grant, known);
    }

    fn tokens(&mut self, raw: &raw::Grant, grant: &Arc<Grant>, known: &mut Known<'_>) {
        let tokens = &raw.token_sha256.0;
        if tokens.is_empty() {
            self.error(
                raw.id.at,
                format!("the grant `{}` has no token", raw.id.value),
            );
        }
        if let Some(beyond) = tokens.get(TOKENS_MAX) {
            self.error(
                beyond.at,
                format!("a grant has at most {TOKENS_MAX} tokens"),
            );
        }
        for token in tokens {
            let Ok(hash) = TokenHash::parse(token).map_err(|why| self.error(token.at, why)) else {
                continue;
            };
            let place = format!("{}:{}", self.file, token.at);
            if let Some(first) = known.tokens.insert(hash, place) {
                self.error(token.at, format!("the same token is already at {first}"));
            }
            known.granted.insert(hash, grant.clone());
        }
    }

    fn bindings(
        &mut self,
        raw: &raw::Grant,
        known: &mut Known<'_>,
    ) -> HashMap<ServerName, Binding, foldhash::fast::RandomState> {
        if raw.servers.is_empty() {
            let message = format!("the grant `{}` may use no server", raw.id.value);
            self.warning(raw.id.at, message);
        }
        let mut bindings = HashMap::default();
        for (name, policy) in raw.servers.iter() {
            let server = self.server(name, known);
            let server_name = ServerName::new(name);
            let policy = match policy {
                Some(policy) => known.policies.on(self, &server_name, policy),
                None => {
                    let message = format!("no policy for `{}`: every call is denied", name.value);
                    self.warning(name.at, message);
                    None
                }
            };
            if let Some(server) = server {
                bindings.insert(server_name, Binding { server, policy });
            }
        }
        bindings
    }

    fn server(
        &mut self,
        name: &Spanned<String>,
        known: &Known<'_>,
    ) -> Option<Arc<crate::view::Server>> {
        let server = known.servers.get(name.value.as_str());
        if server.is_none() && !known.named.contains(&name.value.as_str()) {
            self.error(
                name.at,
                unknown("server", name, known.named.iter().copied()),
            );
        }
        server.cloned()
    }
}
