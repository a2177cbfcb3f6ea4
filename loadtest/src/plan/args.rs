//! Arguments that every kind of load has in common.

use super::{
    Balance, Plan,
    call::{Call, Protocol},
    grants, text,
};
use crate::{
    result::{Config, Mode, Tls},
    target::{Connector, Endpoint},
    tls, upstream,
};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Whom to ask, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetArgs {
    /// Endpoints, e.g. http://127.0.0.1:8080/mcp; several take turns
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    /// A file with one grant a line: NAME TOKEN, or TOKEN alone. Tokens are never given on the command line
    #[arg(long, value_name = "FILE", help_heading = "Callers")]
    pub grants: Option<PathBuf>,
    /// How requests find a target
    #[arg(long, value_enum, default_value_t, help_heading = "Callers")]
    pub balance: Balance,
    /// auto, 2026-07-28 (no sessions), 2025-11-25, 2025-06-18 or 2025-03-26 (sessions)
    #[arg(long, default_value = "auto", help_heading = "Protocol")]
    pub protocol: String,
    /// Sessions a thread, target and grant
    #[arg(long, default_value_t = 1, help_heading = "Protocol")]
    pub sessions: usize,
    /// Delete a session after this many calls and open another (0 = keep it)
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Protocol")]
    pub session_calls: u64,
    /// HTTP/2 instead of HTTP/1.1 (without TLS: with prior knowledge)
    #[arg(long, help_heading = "Connections")]
    pub http2: bool,
    /// A new connection for every request
    #[arg(long, help_heading = "Connections")]
    pub churn: bool,
    /// Believe only the certificate authorities in this PEM file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "insecure",
        help_heading = "Connections"
    )]
    pub ca: Option<PathBuf>,
    /// Believe any certificate: whoever is in between can read and change everything
    #[arg(long, help_heading = "Connections")]
    pub insecure: bool,
    /// Give a reply up after this
    #[arg(long, default_value = "30s", value_parser = text::duration, value_name = "DURATION", help_heading = "Connections")]
    pub timeout: Duration,
    /// Threads of the client (default: one a processor, no more than requests in flight)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Connections")]
    pub threads: Option<u16>,
    /// Of all randomness: equal seeds ask the same
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Call tools that the target does not list
    #[arg(long)]
    pub unlisted: bool,
    /// Write the result to this file, as JSON (`-` = standard output)
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A name for the result
    #[arg(long)]
    pub label: Option<String>,
}

impl TargetArgs {
    /// The version that was asked for; `None` = whatever the target has.
    ///
    /// # Errors
    /// A sentence that names the versions.
    pub fn protocol(&self) -> Result<Option<Protocol>, String> {
        match self.protocol.as_str() {
            "auto" => Ok(None),
            upstream::MODERN | "modern" => Ok(Some(Protocol::Modern)),
            "legacy" => Ok(Some(Protocol::Legacy(upstream::LEGACY[0].into()))),
            version if upstream::LEGACY.contains(&version) => {
                Ok(Some(Protocol::Legacy(version.into())))
            }
            other => Err(format!(
                "--protocol {other} is not known: write auto, {} or {}",
                upstream::MODERN,
                upstream::LEGACY.join(", ")
            )),
        }
    }

    /// A plan that lacks what only the targets can say.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn plan(&self, calls: Vec<Call>) -> Result<Plan, String> {
        let endpoints: Result<Vec<Endpoint>, String> =
            self.urls.iter().map(|url| Endpoint::parse(url)).collect();
        let grants = match &self.grants {
            Some(path) => grants::read(path)?,
            None => Vec::new(),
        };
        Ok(Plan {
            endpoints: endpoints?,
            connector: Connector {
                tls: tls::client(self.ca.as_deref(), self.insecure, self.http2)?,
                http2: self.http2,
            },
            calls,
            grants,
            protocol: self.protocol()?.unwrap_or(Protocol::Modern),
            balance: self.balance,
            churn: self.churn,
            progress: false,
            sessions: self.sessions.max(1),
            session_calls: self.session_calls,
            listens: 0,
            timeout: self.timeout,
            seed: self.seed,
            check: false,
            lanes: 1,
            connections: 1,
            queue_max: 0,
            poisson: false,
            busy_poll: false,
            threads: 1,
            interrupted: Arc::new(AtomicBool::new(false)),
        })
    }

    /// What a result says of the plan.
    pub fn config(&self, plan: &Plan, mode: Mode) -> Config {
        Config {
            mode,
            connections: match self.http2 {
                true => plan.connections * plan.endpoints.len(),
                false => plan.lanes * plan.endpoints.len(),
            },
            threads: plan.threads,
            http: if self.http2 { "2" } else { "1.1" }.into(),
            churn: plan.churn,
            tls: match plan.endpoints.iter().any(Endpoint::is_tls) {
                false => Tls::None,
                true if self.insecure => Tls::Insecure,
                true => Tls::Verified,
            },
            protocol: plan.protocol.version().into(),
            balance: plan.balance.name().into(),
            grants: plan.grants.len(),
            mix: plan.calls.iter().map(Call::entry).collect(),
            busy_poll: plan.busy_poll,
            listens: plan.listens,
            timeout_ms: u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX),
            seed: plan.seed,
            checked: plan.check,
            ..Config::default()
        }
    }
}
