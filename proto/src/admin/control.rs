//! What the admin API says of grants, policies and servers, those of the node's files and those of the cluster's log.

use super::{percent_decode, percent_encode};
use crate::control::Kind;
use serde::{Deserialize, Serialize};

/// `GET /v1/control?kind=KIND`, answered by [`Resources`]
pub const RESOURCES: &str = "/v1/control";
/// `GET /v1/control/resource?kind=KIND&name=NAME`, answered by [`Shown`]
pub const RESOURCE: &str = "/v1/control/resource";
/// `POST /v1/control/put?kind=KIND&name=NAME[&if_version=N]` with the document, answered by [`Written`]
pub const PUT: &str = "/v1/control/put";
/// `POST /v1/control/delete?kind=KIND&name=NAME[&if_version=N]`, answered by [`Written`]
pub const DELETE: &str = "/v1/control/delete";
/// `POST /v1/control/rotate` with [`Rotate`], answered by [`Written`]
pub const ROTATE: &str = "/v1/control/rotate";
/// `POST /v1/control/revoke` with [`Revoke`], answered by [`Written`]
pub const REVOKE: &str = "/v1/control/revoke";

/// Which resource is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is.
    pub kind: Kind,
    /// Its name; empty where all of a kind are meant.
    pub name: String,
    /// Only if this is its version; 0: only if there is none.
    pub if_version: Option<u64>,
}

/// The word for a kind.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Grant => "grant",
        Kind::Policy => "policy",
        Kind::Server => "server",
    }
}

impl Named {
    /// Path and query.
    pub fn target(&self, path: &str) -> String {
        let mut target = format!("{path}?kind={}", kind_word(self.kind));
        if !self.name.is_empty() {
            target += &format!("&name={}", percent_encode(&self.name));
        }
        if let Some(version) = self.if_version {
            target += &format!("&if_version={version}");
        }
        target
    }

    /// Reads a query. Errors: an unknown, repeated or missing key, a bad number, bad percent-encoding.
    pub fn parse(query: &str) -> Result<Self, String> {
        let (mut kind, mut name, mut if_version) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_decode(value).ok_or_else(|| format!("`{key}` cannot be decoded"))?;
            let repeated = match key {
                "kind" => {
                    let all = [Kind::Grant, Kind::Policy, Kind::Server];
                    let known = all.into_iter().find(|kind| kind_word(*kind) == value);
                    let want = || format!("kind: `{value}` is none of grant, policy, server");
                    kind.replace(known.ok_or_else(want)?).is_some()
                }
                "name" => name.replace(value).is_some(),
                "if_version" => {
                    let number = value.parse();
                    let number =
                        number.map_err(|_| format!("if_version: `{value}` is not a number"))?;
                    if_version.replace(number).is_some()
                }
                _ => return Err(format!("`{key}` is not known here")),
            };
            if repeated {
                return Err(format!("`{key}` stands twice"));
            }
        }
        Ok(Self {
            kind: kind.ok_or("`kind` is missing")?,
            name: name.unwrap_or_default(),
            if_version,
        })
    }
}

/// One grant, policy or server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// `file` or `log`.
    pub origin: String,
    /// The version at which the log's was last changed.
    pub version: Option<u64>,
    /// When that was, RFC 3339.
    pub changed: Option<String>,
    /// Who did it.
    pub by: Option<String>,
    /// `in force`, `not used` (a policy), `not in force`; of a grant `active`, `expired`, `revoked` or `not in force`.
    pub state: String,
    /// What it comes to, in few words.
    pub summary: String,
    /// Why it is not in force on the node that was asked.
    pub why: Vec<String>,
}

/// The reply to [`RESOURCES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// By name; the files' before the log's.
    pub resources: Vec<Resource>,
    /// The version of the log that this node knows.
    pub version: u64,
    /// Its age, milliseconds; none: it was never confirmed.
    pub age_ms: Option<u64>,
}

/// The reply to [`RESOURCE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What it is, twice where it stands in the files and in the log.
    pub resources: Vec<Resource>,
    /// Of the log's: the document as it was put; hashes of tokens and queries of URLs are shortened.
    pub document: Option<String>,
}

/// A new token for a grant of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotate {
    /// The grant.
    pub name: String,
    /// `sha256:` and the digits of the new token's hash.
    pub token_sha256: String,
    /// How long the tokens so far stay good, milliseconds.
    pub overlap_ms: u64,
}

/// The end of a grant of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// The grant.
    pub name: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The control plane's version with it.
    pub version: u64,
    /// The node that was asked has it in force.
    pub in_force: bool,
    /// What there is to say of the document.
    pub remarks: Vec<String>,
}

/// The control plane's part of the view in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its version; 0: nothing of it.
    pub version: u64,
    /// Age of what is known, milliseconds; none: it was never confirmed.
    pub age_ms: Option<u64>,
    /// Beyond this age grants of the log are refused.
    pub age_ms_max: u64,
    /// Servers of the log.
    pub servers: usize,
    /// Policies of the log, used ones.
    pub policies: usize,
    /// Grants of the log.
    pub grants: usize,
    /// Resources that cannot be put in force on this node, the first few.
    pub unresolved: Vec<Unresolved>,
    /// How many there are.
    pub unresolved_total: usize,
}

/// A resource that cannot be put in force on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_is_written() {
        for (kind, name, if_version) in [
            (Kind::Grant, "", None),
            (Kind::Policy, "a.b-c_d", Some(0)),
            (Kind::Server, "ü&=%", Some(7)),
        ] {
            let named = Named {
                kind,
                name: name.to_owned(),
                if_version,
            };
            let target = named.target(PUT);
            let query = target.split_once('?').map_or("", |(_, query)| query);
            assert_eq!(Named::parse(query), Ok(named), "{target}");
        }
        for wrong in [
            "",
            "name=a",
            "kind=grants",
            "kind=grant&kind=grant",
            "kind=grant&if_version=x",
            "kind=grant&other=1",
        ] {
            assert!(Named::parse(wrong).is_err(), "{wrong}");
        }
    }
}
