//! Policies: each document is read once and compiled once for every server that it is used on.

use super::{Resolver, unknown};
use crate::{
    bounds::Bounds,
    config::{PolicyDocument, raw, settings::Secret},
};
use proto::{
    doc::{Node, Problem, Spanned, pointer_token},
    id::ServerName,
    policy::{self, Policy, compile::Site, dialect::Loaded},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Policies by server and name, compiled; `None`: with problems.
pub(crate) type Compiled = HashMap<(ServerName, String), Option<Arc<Policy>>>;

pub(super) struct Policies {
    documents: BTreeMap<String, Document>,
    compiled: Compiled,
    secret: Secret,
    sessions_per_grant: u32,
}

struct Document {
    /// The file that its places belong to.
    file: String,
    name: Spanned<String>,
    /// Where the document begins in that file, as a JSON Pointer.
    pointer: String,
    /// `None`: it has problems.
    loaded: Option<Loaded>,
    used: bool,
}

impl Policies {
    pub(super) fn load(
        resolver: &mut Resolver<'_>,
        config: &raw::Config,
        node: &Node,
        secret: &Secret,
        bounds: &Bounds,
    ) -> Self {
        let mut documents = BTreeMap::new();
        for (name, raw) in config.policies.iter() {
            resolver.name(name, "policy");
            let mut pointer = String::new();
            let (file, loaded) = match (&raw.file, &raw.inline) {
                (Some(path), None) => {
                    let text = resolver.text(path);
                    (resolver.label(path), text.map(|text| policy::load(&text)))
                }
                (None, Some(_)) => {
                    for token in ["policies", name, "inline"] {
                        pointer_token(&mut pointer, token);
                    }
                    let inline = node
                        .child("policies")
                        .and_then(|policies| policies.child(name))
                        .and_then(|policy| policy.child("inline"));
                    (
                        resolver.file.clone(),
                        inline.map(policy::dialect::load_node),
                    )
                }
                _ => {
                    let message =
                        format!("`{}` needs exactly one of `file` and `inline`", name.value);
                    resolver.error(name.at, message);
                    (resolver.file.clone(), None)
                }
            };
            let loaded = resolver.in_file(file.clone(), |resolver| match loaded? {
                Ok(loaded) => {
                    resolver.add_all(below(&pointer, loaded.remarks.clone()));
                    Some(loaded)
                }
                Err(problems) => {
                    resolver.add_all(below(&pointer, problems));
                    None
                }
            });
            let document = Document {
                file,
                name: name.clone(),
                pointer,
                loaded,
                used: false,
            };
            documents.insert(name.value.clone(), document);
        }
        Self {
            documents,
            compiled: HashMap::new(),
            secret: secret.clone(),
            sessions_per_grant: u32::try_from(bounds.sessions_grant).unwrap_or(u32::MAX),
        }
    }

    /// The policy for use on a server; `None` when it is unknown or has problems, which are told.
    pub(super) fn on(
        &mut self,
        resolver: &mut Resolver<'_>,
        server: &ServerName,
        name: &Spanned<String>,
    ) -> Option<Arc<Policy>> {
        let Some(document) = self.documents.get_mut(&name.value) else {
            let known = self.documents.keys().map(String::as_str);
            resolver.error(name.at, unknown("policy", name, known));
            return None;
        };
        document.used = true;
        let key = (server.clone(), name.value.clone());
        if let Some(compiled) = self.compiled.get(&key) {
            return compiled.clone();
        }
        let compiled = document.compile(resolver, server, &self.secret, self.sessions_per_grant);
        self.compiled.insert(key, compiled.clone());
        compiled
    }

    /// Compiles what no grant uses all the same, for its problems, and hands the documents on.
    pub(super) fn finish(self, resolver: &mut Resolver<'_>) -> (Vec<PolicyDocument>, Compiled) {
        let nowhere = ServerName::new("-");
        for document in self.documents.values().filter(|d| !d.used) {
            document.compile(resolver, &nowhere, &self.secret, self.sessions_per_grant);
            let message = format!("no grant uses the policy `{}`", document.name.value);
            resolver.note(document.name.at, message);
        }
        let documents = self.documents.into_values();
        let documents = documents.filter_map(|document| {
            Some(PolicyDocument {
                name: document.name.value,
                file: document.file,
                loaded: document.loaded?,
            })
        });
        (documents.collect(), self.compiled)
    }
}

impl Document {
    fn compile(
        &self,
        resolver: &mut Resolver<'_>,
        server: &ServerName,
        secret: &Secret,
        sessions_per_grant: u32,
    ) -> Option<Arc<Policy>> {
        let site = Site {
            server,
            policy: &self.name,
            secret: &secret.key,
            sessions_per_grant,
        };
        match policy::compile(&self.loaded.as_ref()?.policy, site) {
            Ok(policy) => Some(Arc::new(policy)),
            Err(problems) => {
                let problems = below(&self.pointer, problems);
                resolver.in_file(self.file.clone(), |resolver| resolver.add_all(problems));
                None
            }
        }
    }
}

/// Problems of an inline policy, with pointers into the whole file.
fn below(pointer: &str, mut problems: Vec<Problem>) -> Vec<Problem> {
    for problem in &mut problems {
        problem.pointer.insert_str(0, pointer);
    }
    problems
}
