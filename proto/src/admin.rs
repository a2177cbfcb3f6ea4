//! What the admin API says: requests and replies as plain data. Never a token, a whole hash or an upstream's secret.

pub mod control;
pub mod members;

use crate::command::Role;
use serde::{Deserialize, Serialize};

/// `GET /v1/status`
pub const STATUS: &str = "/v1/status";
/// `GET /v1/view`
pub const VIEW: &str = "/v1/view";
/// `GET /v1/grants`
pub const GRANTS: &str = "/v1/grants";
/// `GET /v1/limits?filter=TEXT&top=N`
pub const LIMITS: &str = "/v1/limits";
/// `POST /v1/reload`
pub const RELOAD: &str = "/v1/reload";
/// `GET /metrics`
pub const METRICS: &str = "/metrics";

/// Most counters in one reply.
pub const COUNTERS_MAX: usize = 1_000;

/// How the gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// A view is in force, the audit takes calls and the gateway is not draining.
    pub ready: bool,
    /// It is shutting down.
    pub draining: bool,
    /// Revision of the view in force.
    pub revision: Option<u64>,
    /// Servers of the view.
    pub servers: usize,
    /// Grants of the view.
    pub grants: usize,
    /// Open sessions.
    pub sessions: usize,
    /// The cluster's part of the view.
    pub control: Option<control::InForce>,
    /// Its place in the cluster.
    pub node: NodeStatus,
    /// The audit trail.
    pub audit: AuditStatus,
}

/// A node's place in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// It leads.
    pub leads: bool,
    /// It knows a leader.
    pub has_leader: bool,
    /// Counters that it remembers.
    pub counters: usize,
}

/// How the audit trail is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Calls can be recorded.
    pub ready: bool,
    /// Places of the queue that are taken.
    pub queued: usize,
    /// Places of the queue.
    pub places: usize,
    /// Calls refused so far because they could not be recorded.
    pub refused: u64,
    /// Rejections counted instead of written so far.
    pub suppressed: u64,
}

/// The view in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its revision.
    pub revision: u64,
    /// Servers by name.
    pub servers: Vec<Server>,
    /// Policies as they are used, by name and server.
    pub policies: Vec<Policy>,
    /// Grants by id.
    pub grants: Vec<Grant>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Where it stands: `file` or `log`.
    pub origin: String,
    /// `http` or `stdio`.
    pub transport: String,
    /// The URL without user, password and query, or the program without its arguments.
    pub target: String,
}

/// A policy on one server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The server.
    pub server: String,
    /// Where its document stands: `file` or `log`.
    pub origin: String,
    /// Changes with the document's meaning.
    pub revision: String,
    /// How many limits it has, companions included.
    pub limits: usize,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: String,
    /// Where it stands: `file` or `log`.
    pub origin: String,
    /// A name for people.
    pub label: Option<String>,
    /// The beginning of each of its tokens' hashes: enough to tell two apart.
    pub tokens: Vec<String>,
    /// `active`, `expired`, `revoked`, or `not in force` on this node.
    pub state: String,
    /// RFC 3339.
    pub expires: Option<String>,
    /// Where it may go.
    pub servers: Vec<Binding>,
}

/// What a grant may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The server.
    pub server: String,
    /// The policy there; none: every call is denied.
    pub policy: Option<String>,
}

/// The reply to `GET /v1/grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Grants by id.
    pub grants: Vec<Grant>,
}

/// The reply to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Revision of the view now in force.
    pub revision: u64,
}

/// What to show of `GET /v1/limits`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsQuery {
    /// Only counters whose limit, scope value or key contains this.
    pub filter: Option<String>,
    /// Only so many, the fullest first. Otherwise by limit.
    pub top: Option<usize>,
}

/// The reply to `GET /v1/limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// At most [`COUNTERS_MAX`].
    pub counters: Vec<Counter>,
    /// How many there were before the bound.
    pub total: usize,
    /// The ledger answered. Otherwise counters are shown as this node knew them last.
    pub ledger: bool,
}

/// One counter in its present window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// `server/policy/tool/counter`; empty where this node does not know the limit.
    pub limit: String,
    /// The counter's key.
    pub counter: String,
    /// The limit's identity hash, as in audit lines.
    pub identity: String,
    /// Over what it counts: `session`, `grant`, `server`, `all`.
    pub scope: String,
    /// Of which session, grant or server; empty where this node has not met the counter.
    pub scope_value: String,
    /// The value of `key`, if the limit has one.
    pub key: Option<String>,
    /// `minute`, `90s`, `month` …; `in flight` for concurrency.
    pub window: String,
    /// Milliseconds until the window ends; none for concurrency.
    pub ends_ms: Option<u64>,
    /// Used, as a decimal number: what was charged, and what other nodes hold leased and may not have spent yet.
    pub used: String,
    /// At most, as a decimal number.
    pub max: String,
    /// Used of max, in tenths of a percent; may exceed 1,000 when `max` was lowered.
    pub used_permille: u64,
    /// Of what is used: what dead nodes held; it is gone until the window ends, unless it is credited.
    pub lost: String,
    /// Who leased how much, for limits that the ledger holds.
    pub holders: Vec<members::Holder>,
}

/// The reply to whatever failed, with a 4xx or 5xx status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A sentence.
    pub error: String,
}

impl LimitsQuery {
    /// Path and query.
    pub fn target(&self) -> String {
        let mut pairs = Vec::new();
        if let Some(filter) = &self.filter {
            pairs.push(format!("filter={}", percent_encode(filter)));
        }
        if let Some(top) = self.top {
            pairs.push(format!("top={top}"));
        }
        match pairs.is_empty() {
            true => LIMITS.to_owned(),
            false => format!("{LIMITS}?{}", pairs.join("&")),
        }
    }

    /// Reads a query. Errors: an unknown or repeated key, a bad number, bad percent-encoding.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_decode(value).ok_or_else(|| format!("`{key}` cannot be decoded"))?;
            let repeated = match key {
                "filter" => parsed.filter.replace(value).is_some(),
                "top" => {
                    let number = value.parse();
                    let number = number.map_err(|_| format!("top: `{value}` is not a number"))?;
                    parsed.top.replace(number).is_some()
                }
                _ => return Err(format!("`{key}` is not known here")),
            };
            if repeated {
                return Err(format!("`{key}` stands twice"));
            }
        }
        Ok(parsed)
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_is_written() {
        for query in [
            LimitsQuery::default(),
            LimitsQuery {
                filter: Some("flux/a b&c=ü%+".into()),
                top: None,
            },
            LimitsQuery {
                filter: Some("x".into()),
                top: Some(7),
            },
        ] {
            let target = query.target();
            let text = target.split_once('?').map_or("", |(_, query)| query);
            assert_eq!(LimitsQuery::parse(text), Ok(query), "{target}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for text in [
            "top=x",
            "top=1&top=2",
            "all=1",
            "filter=%4",
            "filter=%zz",
            "filter=%ff",
            "top=-1",
        ] {
            assert!(LimitsQuery::parse(text).is_err(), "{text}");
        }
    }
}
