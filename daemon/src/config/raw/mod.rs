//! The configuration as typed. Every key's comment is its documentation: meaning, default, minimum, unit; the JSON
//! Schema and the reference page are made from them.

mod bounds;
mod cluster;
mod servers;

pub use self::cluster::{Cluster, Join, Role};
pub use bounds::{Bounds, shown};
pub use servers::{Processes, Server, User};

use super::units::{ByteSize, HumanDuration, SecretRef};
use proto::doc::{Entries, OneOrMany, Spanned};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// Tollgate's configuration. Relative paths start at the directory of the file that names them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tollgate configuration")]
pub struct Config {
    /// Where clients connect. Default: one plain listener at `127.0.0.1:7420`.
    pub listeners: Option<Spanned<Vec<Listener>>>,
    /// The MCP servers behind the gateway by name (1 to 64 of `A-Z a-z 0-9 _ . -`); each is served at `/mcp/<name>`.
    /// Default: none.
    #[serde(deserialize_with = "or_default")]
    pub servers: Entries<Server>,
    /// Policies by name (1 to 64 of `A-Z a-z 0-9 _ . -`). Default: none.
    #[serde(deserialize_with = "or_default")]
    pub policies: Entries<Policy>,
    /// Who may use which server under which policy. Default: none.
    #[serde(deserialize_with = "or_default")]
    pub grants: Vec<Grant>,
    /// Files that hold further grants, each a list as under `grants` of at most 4 MiB (about 25,000 grants). Default:
    /// none.
    #[serde(deserialize_with = "or_default")]
    pub grants_files: Vec<Spanned<String>>,
    /// Host names, without port, that the gateway answers to beyond loopback names and its listeners' addresses.
    /// Default: none.
    #[serde(deserialize_with = "or_default")]
    pub hosts: Vec<Spanned<String>>,
    /// Web origins, e.g. `https://app.example.com`, that may call the gateway beyond those of accepted hosts.
    /// Default: none.
    #[serde(deserialize_with = "or_default")]
    pub origins: Vec<Spanned<String>>,
    /// Every bound of the gateway.
    #[serde(deserialize_with = "or_default")]
    pub bounds: Bounds,
    /// Where the audit trail is written.
    #[serde(deserialize_with = "or_default")]
    pub audit: Audit,
    /// The admin plane.
    #[serde(deserialize_with = "or_default")]
    pub admin: Admin,
    /// The cluster that counts. A node alone is a cluster of one.
    #[serde(deserialize_with = "or_default")]
    pub cluster: Cluster,
    /// The gateway's own log, on standard error.
    #[serde(deserialize_with = "or_default")]
    pub log: Log,
    /// The secret with which counters' names are hashed, at least 16 bytes; the same on every node of a cluster, which
    /// refuses others. Changing it starts every counter anew. Default: the cluster's own, in `cluster.data_dir`.
    pub identity_secret: Option<Spanned<SecretRef>>,
    /// Threads that serve connections, at most 1,024; 0 = one a core. Default: 0.
    pub runtimes: Option<Spanned<u64>>,
    /// How often files are looked at for changes, at least `100ms`; `0s` = never, only on SIGHUP. Default: `1s`.
    pub reload_interval: Option<Spanned<HumanDuration>>,
}

/// A section with nothing (or only comments) in it is one of defaults.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port, e.g. `127.0.0.1:7420` or `[::1]:7420`; port 0 takes a free one. Required.
    pub address: Spanned<String>,
    /// TLS. Default: none.
    pub tls: Option<ListenerTls>,
    /// Lets a listener without TLS stand off loopback, where tokens can be read on the way. Default: false.
    #[serde(default)]
    pub insecure: bool,
    /// What is served here: `mcp` (`/mcp/<server>`), `health` (`/healthz`, `/readyz`), `metrics` (`/metrics`). Default:
    /// all three on loopback, `mcp` and `health` elsewhere.
    pub serve: Option<Spanned<Vec<Surface>>>,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// `/mcp/<server>`
    Mcp,
    /// `/healthz` and `/readyz`
    Health,
    /// `/metrics`
    Metrics,
}

/// A listener's certificate. The files are read again when they change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM file with the certificate chain, the server's own first. Required.
    pub cert: Spanned<String>,
    /// PEM file with the private key. Required.
    pub key: Spanned<String>,
    /// PEM file with the authorities whose client certificates are let in. Default: client certificates are not asked
    /// for.
    pub client_ca: Option<Spanned<String>>,
    /// Whether a client must have a certificate where `client_ca` is set. Default: `required`.
    pub client_auth: Option<Spanned<ClientAuth>>,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// A certificate is checked when there is one.
    Optional,
    /// Connections without a certificate are refused.
    Required,
}

/// A policy: exactly one of the two. The dialect is told from the document.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A file with the policy's document. Default: none.
    pub file: Option<Spanned<String>>,
    /// The policy's document itself. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub inline: Option<Spanned<IgnoredAny>>,
}

/// A grant: a token and what it may do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its name in audit lines and limits, 1 to 64 of `A-Z a-z 0-9 _ . -`; it stays when the token is changed. Required.
    pub id: Spanned<String>,
    /// A name for people, at most 128 bytes. Default: none.
    pub label: Option<Spanned<String>>,
    /// `sha256:` and the 64 hexadecimal digits of the token's SHA-256, as `tollgate grant new` prints it; during a
    /// rotation a list of at most 8. Required.
    pub token_sha256: OneOrMany<Spanned<String>>,
    /// Tokens that were replaced, each with the moment from which it is refused; at most 8. Default: none.
    #[serde(default)]
    pub former_tokens: Vec<FormerToken>,
    /// Date and time (RFC 3339) from which the grant is refused. Default: never.
    pub expires: Option<Spanned<String>>,
    /// Refuses the grant, and keeps its name for the audit trail. Default: false.
    #[serde(default)]
    pub revoked: bool,
    /// The servers it may use, each with the name of its policy there; without a policy (`null`) every call is denied.
    /// Default: none.
    #[serde(default)]
    pub servers: Entries<Option<Spanned<String>>>,
}

/// A token that was replaced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormerToken {
    /// `sha256:` and the 64 hexadecimal digits of the token's SHA-256. Required.
    pub token_sha256: Spanned<String>,
    /// Date and time (RFC 3339) from which this token is refused. Required.
    pub until: Spanned<String>,
}

/// The audit trail.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Where lines go: `stdout`, `{file: …}` or `{syslog: …}`. Default: `stdout`.
    pub sink: Option<Sink>,
    /// Lines that may wait for the sink, 1 to 1,048,576; beyond, calls wait (`bounds.audit_wait`) and are then refused.
    /// Default: 16384.
    pub queue: Option<Spanned<u64>>,
}

/// Where audit lines go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sink {
    /// Standard output, one line a record.
    Stdout,
    /// A file that is rotated.
    File(AuditFile),
    /// RFC 5424 messages to a syslog on this machine: exactly one of the three.
    Syslog(Spanned<Syslog>),
}

/// The file sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFile {
    /// The open file, made with mode 0600; its directory must exist. Required.
    pub path: Spanned<String>,
    /// The file is closed and a new one begun at this size, at least `64KiB`. Default: `128MiB`.
    pub rotate_bytes: Option<Spanned<ByteSize>>,
    /// The file is closed and a new one begun at this age, at least `1m`. Default: age does not matter.
    pub rotate_age: Option<Spanned<HumanDuration>>,
    /// Closed files that are kept, at most 10,000. Default: 16.
    pub keep: Option<Spanned<u64>>,
    /// Space of the file system that is left free; `0B` = never looked at. Default: `256MiB`.
    pub min_free: Option<Spanned<ByteSize>>,
    /// What happens below `min_free` and beyond `keep`: `best_effort` removes the oldest closed files, `required`
    /// removes nothing and refuses calls until there is space. Default: `best_effort`.
    pub retain: Option<Spanned<Retain>>,
}

/// What becomes of old audit files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retain {
    /// The oldest are removed.
    BestEffort,
    /// Nothing is removed.
    Required,
}

/// Where syslog listens; only on this machine: a local relay forwards.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// A datagram socket such as `/dev/log`. Default: none.
    pub socket: Option<Spanned<String>>,
    /// A loopback address for one message a datagram. Default: none.
    pub udp: Option<Spanned<String>>,
    /// A loopback address for octet-counted messages (RFC 6587). Default: none.
    pub tcp: Option<Spanned<String>>,
}

/// The admin plane.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Path of its Unix socket (mode 0600), at most 100 bytes, or `none`. Default: `tollgate/admin.sock` in
    /// `$XDG_RUNTIME_DIR`; without that in `/run` for root, else `tollgate-<uid>/admin.sock` in the temporary directory.
    pub socket: Option<Spanned<String>>,
    /// A TCP listener beside it. Default: none.
    pub tcp: Option<Spanned<AdminTcp>>,
}

/// The admin plane over TCP: it needs `tls`, a token, or both, on loopback too.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTcp {
    /// IP address and port. Without `tls` it must be a loopback address. Required.
    pub address: Spanned<String>,
    /// Mutual TLS. Default: none.
    pub tls: Option<AdminTls>,
    /// `sha256:` and the 64 hexadecimal digits of the SHA-256 of the token that callers send as bearer. Default: none.
    pub token_sha256: Option<Spanned<String>>,
}

/// Mutual TLS of the admin plane.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// PEM file with the certificate chain. Required.
    pub cert: Spanned<String>,
    /// PEM file with the private key. Required.
    pub key: Spanned<String>,
    /// PEM file with the authorities whose client certificates are let in. Required.
    pub client_ca: Spanned<String>,
}

/// The gateway's own log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `human` or `json` (one object a line). Default: `human`.
    pub format: Option<LogFormat>,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,daemon::upstream=debug`; the environment
    /// variable `TOLLGATE_LOG` overrules it. Default: `info`.
    pub level: Option<Spanned<String>>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object a line.
    Json,
}
