//! `tollgate status`

use super::table::{span, table};
use crate::admin::{default_socket, send};
use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use proto::{
    admin::{
        self, NodeStatus, Status, View,
        control::{InForce, kind_word},
    },
    command::Role,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `tollgate status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gateway: Gateway,
    /// Show servers, policies and grants of the view in force
    #[arg(long)]
    view: bool,
}

/// Which gateway is asked, and how its reply is printed.
#[derive(Debug, clap::Args)]
pub struct Gateway {
    /// The gateway's admin socket [default: where a gateway of this user has it]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The gateway's configuration file: it says where the admin socket and the data are
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "socket"
    )]
    config: Option<PathBuf>,
    /// Print the reply as JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Gateway {
    /// Asks, and prints the reply as JSON or as told. Returns the reply.
    pub(super) fn show<T: DeserializeOwned>(
        &self,
        target: &str,
        told: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<T> {
        let body = self.exchange(Method::GET, target, Bytes::new())?;
        let reply = understood(&body)?;
        self.print(&body, || told(&reply))?;
        Ok(reply)
    }

    /// Has something done, and prints the reply as JSON or as told. Returns the reply.
    pub(super) fn change<T: DeserializeOwned>(
        &self,
        target: &str,
        asked: &impl Serialize,
        told: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<T> {
        let asked = serde_json::to_vec(asked)?;
        let body = self.exchange(Method::POST, target, asked.into())?;
        let reply = understood(&body)?;
        self.print(&body, || told(&reply))?;
        Ok(reply)
    }

    /// The configuration file that was named.
    pub(super) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Has something done without printing.
    pub(super) fn obtain<T: DeserializeOwned>(
        &self,
        target: &str,
        asked: &impl Serialize,
    ) -> anyhow::Result<T> {
        let asked = serde_json::to_vec(asked)?;
        understood(&self.exchange(Method::POST, target, asked.into())?)
    }

    /// Has something done with a document, without printing.
    pub(super) fn put<T: DeserializeOwned>(&self, target: &str, body: Bytes) -> anyhow::Result<T> {
        understood(&self.exchange(Method::POST, target, body)?)
    }

    /// Whether replies are printed as JSON.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Asks without printing.
    pub(super) fn fetch<T: DeserializeOwned>(&self, target: &str) -> anyhow::Result<T> {
        understood(&self.exchange(Method::GET, target, Bytes::new())?)
    }

    fn exchange(&self, method: Method, target: &str, asked: Bytes) -> anyhow::Result<Bytes> {
        let socket = self.socket()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(send(&socket, method, target, asked))?)
    }

    /// As given, else as configured, else where it is without configuration.
    fn socket(&self) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let Some(path) = &self.config else {
            return Ok(default_socket());
        };
        let settings = super::settings(path)?;
        settings.admin.unix.with_context(|| {
            format!(
                "{}: `admin.socket` is none; --socket names one",
                path.display()
            )
        })
    }

    fn print(&self, body: &[u8], told: impl FnOnce() -> String) -> io::Result<()> {
        match self.json {
            true => print(&[body, b"\n"].concat()),
            false => print(told().as_bytes()),
        }
    }
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("the gateway speaks another version of the admin API")
}

/// A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Runs `tollgate status`: 1 when the gateway is not ready.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.view {
        args.gateway.show(admin::VIEW, told_view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = args.gateway.show(admin::STATUS, told_status)?;
    Ok(ExitCode::from(u8::from(!status.ready)))
}

fn told_status(status: &Status) -> String {
    let Status {
        version,
        pid,
        audit,
        ..
    } = status;
    let state = match (status.ready, status.draining, status.revision, audit.ready) {
        (true, ..) => "ready",
        (_, true, ..) => "not ready: shutting down",
        (_, _, None, _) => "not ready: no view in force",
        (_, _, _, false) => "not ready: calls cannot be recorded",
        _ => "not ready",
    };
    let view = match status.revision {
        Some(revision) => format!(
            "revision {revision}: {} servers, {} grants",
            status.servers, status.grants
        ),
        None => "none".to_owned(),
    };
    let up = span(status.uptime_s);
    let recorded = if audit.ready {
        "writing"
    } else {
        "NOT WRITING"
    };
    let log = status.control.as_ref().map(told_log).unwrap_or_default();
    format!(
        "tollgate {version}, process {pid}, up {up}: {state}\n\
         view      {view}\n\
         {log}\
         node      {}\n\
         sessions  {}\n\
         audit     {recorded}; {} of {} places taken; {} calls refused; {} rejections suppressed\n",
        told_node(&status.node),
        status.sessions,
        audit.queued,
        audit.places,
        audit.refused,
        audit.suppressed
    )
}

fn told_node(node: &NodeStatus) -> String {
    let role = match (node.role, node.leads) {
        (_, true) => "voter, leads",
        (Role::Voter, _) => "voter",
        (Role::Client, _) => "lease client",
    };
    let leader = match node.has_leader {
        true => "",
        false => "; NO LEADER: what is leased is served, then limits are unreachable",
    };
    let NodeStatus { name, counters, .. } = node;
    format!("{name}, {role}; {counters} counters here{leader}")
}

fn told_log(log: &InForce) -> String {
    let age = match log.age_ms {
        None => "never confirmed".to_owned(),
        Some(ms) if ms > log.age_ms_max => format!("TOO OLD: confirmed {} ago", span(ms / 1_000)),
        Some(ms) => format!("confirmed {}.{} s ago", ms / 1_000, ms % 1_000 / 100),
    };
    let InForce {
        version,
        servers,
        policies,
        grants,
        ..
    } = log;
    let mut told = format!(
        "of the log version {version}: {servers} servers, {policies} policies, {grants} grants; {age}\n"
    );
    for found in &log.unresolved {
        let why = found.why.join("\n            ");
        let (kind, name) = (kind_word(found.kind), &found.name);
        told += &format!("          NOT IN FORCE here: the {kind} `{name}`:\n            {why}\n");
    }
    let more = log.unresolved_total.saturating_sub(log.unresolved.len());
    if more > 0 {
        told += &format!("          and {more} more that are not in force here\n");
    }
    told
}

fn told_view(view: &View) -> String {
    let servers = view.servers.iter().map(|server| {
        vec![
            server.name.clone(),
            server.origin.clone(),
            server.transport.clone(),
            server.target.clone(),
        ]
    });
    let policies = view.policies.iter().map(|policy| {
        let limits = policy.limits.to_string();
        vec![
            policy.name.clone(),
            policy.server.clone(),
            policy.origin.clone(),
            policy.revision.clone(),
            limits,
        ]
    });
    let grants = view.grants.iter().map(|grant| {
        let bound = |binding: &admin::Binding| {
            let policy = binding.policy.as_deref().unwrap_or("(no policy)");
            format!("{}: {policy}", binding.server)
        };
        let servers: Vec<String> = grant.servers.iter().map(bound).collect();
        vec![
            grant.id.clone(),
            grant.origin.clone(),
            grant.label.clone().unwrap_or_default(),
            grant.state.clone(),
            grant.expires.clone().unwrap_or_else(|| "never".into()),
            servers.join(", "),
        ]
    });
    format!(
        "revision {}\n\n{}\n{}\n{}",
        view.revision,
        table(
            &["SERVER", "FROM", "TRANSPORT", "TARGET"],
            &[],
            &servers.collect::<Vec<_>>()
        ),
        table(
            &["POLICY", "SERVER", "FROM", "REVISION", "LIMITS"],
            &[4],
            &policies.collect::<Vec<_>>()
        ),
        table(
            &["GRANT", "FROM", "LABEL", "STATE", "EXPIRES", "SERVERS"],
            &[],
            &grants.collect::<Vec<_>>()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin::AuditStatus;

    #[test]
    fn a_status_says_in_words_why_the_gateway_is_not_ready() {
        let mut status = Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_s: 200,
            ready: true,
            draining: false,
            revision: Some(3),
            servers: 2,
            grants: 4,
            sessions: 1,
            control: None,
            node: NodeStatus {
                name: "gate-1".into(),
                role: Role::Voter,
                leads: true,
                has_leader: true,
                counters: 7,
            },
            audit: AuditStatus {
                ready: true,
                queued: 0,
                places: 8,
                refused: 0,
                suppressed: 0,
            },
        };
        assert!(
            told_status(&status).starts_with("tollgate 0.1.0, process 7, up 3 min 20 s: ready\n")
        );
        let alone = "node      gate-1, voter, leads; 7 counters here\n";
        assert!(told_status(&status).contains(alone));
        status.node.leads = false;
        status.node.has_leader = false;
        assert!(told_status(&status).contains("voter; 7 counters here; NO LEADER"));
        status.ready = false;
        status.audit.ready = false;
        assert!(told_status(&status).contains("calls cannot be recorded"));
        status.draining = true;
        assert!(told_status(&status).contains("shutting down"));
    }

    #[test]
    fn nobody_answering_is_said_plainly() {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Gateway {
            socket: Some(dir.path().join("no.sock")),
            config: None,
            json: false,
        };
        let error = run(Args {
            gateway,
            view: false,
        })
        .unwrap_err();
        assert!(
            error.to_string().contains("no gateway answers at"),
            "{error}"
        );
    }
}
