//! Grants: whose token opens which server under which policy.

use super::{Policies, Resolver, Servers, policies::Compiled, unknown};
use crate::{
    config::{PolicyDocument, raw},
    view::{Binding, Grant, Origin},
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

/// What a grant says by itself.
#[derive(Clone, Debug)]
pub(crate) struct TypedGrant {
    pub(crate) id: GrantId,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) revoked: bool,
    pub(crate) tokens: Vec<Token>,
}

/// A token's hash and how long it is good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) hash: TokenHash,
    at: Pos,
    /// Of one that was replaced: refused from then on, milliseconds since 1970.
    pub(crate) until_ms: Option<u64>,
}

pub(crate) type Bindings = HashMap<ServerName, Binding, foldhash::fast::RandomState>;

impl TypedGrant {
    /// The grant under each of its tokens; a token that was replaced is one that expires sooner.
    pub(crate) fn grants(
        &self,
        origin: Origin,
        barred: bool,
        servers: Bindings,
        unresolved: Vec<ServerName>,
    ) -> Vec<(TokenHash, Arc<Grant>)> {
        let grant = |former, expires_ms, servers, unresolved| {
            Arc::new(Grant {
                id: self.id.clone(),
                label: self.label.clone(),
                expires_ms,
                revoked: self.revoked,
                origin,
                former,
                barred,
                unresolved,
                servers,
            })
        };
        let sooner = |until_ms: u64| self.expires_ms.map_or(until_ms, |at| at.min(until_ms));
        let mut former = Vec::new();
        for token in &self.tokens {
            if let Some(until_ms) = token.until_ms {
                let expires_ms = Some(sooner(until_ms));
                let former_grant = grant(true, expires_ms, servers.clone(), unresolved.clone());
                former.push((token.hash, former_grant));
            }
        }
        let present = grant(false, self.expires_ms, servers, unresolved);
        let tokens = self.tokens.iter().filter(|token| token.until_ms.is_none());
        let mut all: Vec<_> = tokens.map(|token| (token.hash, present.clone())).collect();
        all.extend(former);
        all
    }
}

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
    ) -> (Grants, Vec<PolicyDocument>, Compiled) {
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
        let (documents, compiled) = known.policies.finish(self);
        (known.granted, documents, compiled)
    }

    /// A file without a single grant is one whose last grant was taken out.
    fn grants_file(&mut self, node: &Node) -> Option<Vec<raw::Grant>> {
        match node.value {
            proto::doc::Value::Null => Some(Vec::new()),
            _ => self.read(node),
        }
    }

    fn grant(&mut self, raw: &raw::Grant, known: &mut Known<'_>) {
        let place = format!("{}:{}", self.file, raw.id.at);
        if raw.id.at != Pos::default()
            && let Some(first) = known.ids.insert(raw.id.value.clone(), place)
        {
            let message = format!("the grant `{}` is already at {first}", raw.id.value);
            self.error(raw.id.at, message);
        }
        let typed = self.typed_grant(raw);
        let servers = self.bindings(raw, known);
        for token in &typed.tokens {
            let place = format!("{}:{}", self.file, token.at);
            if let Some(first) = known.tokens.insert(token.hash, place) {
                self.error(token.at, format!("the same token is already at {first}"));
            }
        }
        known
            .granted
            .extend(typed.grants(Origin::File, false, servers, Vec::new()));
    }

    /// What a grant says by itself, without the servers and policies that it names.
    pub(super) fn typed_grant(&mut self, raw: &raw::Grant) -> TypedGrant {
        self.name(&raw.id, "grant");
        if let Some(label) = &raw.label
            && (label.len() > LABEL_BYTES_MAX || label.contains(char::is_control))
        {
            let message =
                format!("`label` has at most {LABEL_BYTES_MAX} bytes and no control characters");
            self.error(label.at, message);
        }
        TypedGrant {
            id: GrantId::new(&raw.id),
            label: raw.label.as_ref().map(|label| label.as_str().into()),
            expires_ms: raw
                .expires
                .as_ref()
                .and_then(|expires| self.moment(expires)),
            revoked: raw.revoked,
            tokens: self.tokens(raw),
        }
    }

    fn moment(&mut self, text: &Spanned<String>) -> Option<u64> {
        parse_rfc3339(text)
            .map_err(|why| self.error(text.at, why))
            .ok()
    }

    fn tokens(&mut self, raw: &raw::Grant) -> Vec<Token> {
        let present = &raw.token_sha256.0;
        if present.is_empty() {
            let message = format!("the grant `{}` has no token", raw.id.value);
            self.error(raw.id.at, message);
        }
        if let Some(beyond) = present.get(TOKENS_MAX) {
            let message = format!("a grant has at most {TOKENS_MAX} tokens");
            self.error(beyond.at, message);
        }
        if let Some(beyond) = raw.former_tokens.get(TOKENS_MAX) {
            let message = format!("a grant has at most {TOKENS_MAX} former tokens");
            self.error(beyond.token_sha256.at, message);
        }
        let present = present.iter().map(|token| (token, None));
        let former = raw.former_tokens.iter();
        let former = former.map(|former| (&former.token_sha256, Some(&former.until)));
        let mut tokens = Vec::new();
        for (token, until) in present.chain(former) {
            // A moment that cannot be read has passed.
            let until_ms = until.map(|until| self.moment(until).unwrap_or(0));
            match TokenHash::parse(token) {
                Ok(hash) => tokens.push(Token {
                    hash,
                    at: token.at,
                    until_ms,
                }),
                Err(why) => self.error(token.at, why),
            }
        }
        tokens
    }

    fn bindings(&mut self, raw: &raw::Grant, known: &mut Known<'_>) -> Bindings {
        if raw.servers.is_empty() {
            let message = format!("the grant `{}` may use no server", raw.id.value);
            self.warning(raw.id.at, message);
        }
        let mut bindings = Bindings::default();
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
                let keys = Default::default();
                bindings.insert(
                    server_name,
                    Binding {
                        server,
                        policy,
                        keys,
                    },
                );
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
