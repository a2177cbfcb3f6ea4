//! `tollgate cluster`

mod offline;
mod show;

pub(super) use offline::join_first;

use super::status::Gateway;
use anyhow::{Context as _, bail};
use clap::ValueEnum;
use proto::{
    admin::members::{self as api, Cluster, Done, NewToken, Remove, Snapped, Snapshot, Token},
    command::Role,
};
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

const TEACHES: &str = "\
Forming a cluster. Each node has a configuration of its own, whose `cluster` section says where it
listens for the others and, but for the first, whom to join with which token:

  first node   tollgate cluster init -c a.yaml && tollgate serve -c a.yaml
  the others   tollgate cluster token -c a.yaml -o b.token     on the first; hand the file over
               tollgate serve -c b.yaml                        on the new one: it joins by itself
  gateways     the same with --role client, and `role: client` in their configuration

Voters hold the ledger: of 3 one may fail, of 5 two. A second voter waits as a learner for a third.

Mending one:

  a node is lost for good      tollgate cluster remove NODE, then join a new one, its directory empty
  more than half are lost      tollgate cluster recover --force, on one that is left
  all of them are lost         tollgate cluster restore FILE, made by tollgate cluster snapshot";

/// Arguments of `tollgate cluster`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = TEACHES)]
pub struct Args {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make this node the first of a cluster that others can join
    ///
    /// Makes the cluster's private certificate authority, whose key stays in this node's data directory: keep a copy of
    /// `ca.key` in a safe place, for nobody can join without it. A node that served alone until now keeps its counters. The gateway must not be running.
    Init,
    /// Make a token that lets one node join, and print it
    ///
    /// It is good once, and for ten minutes. Whoever has it can join: hand it over as you would a password.
    Token {
        /// What the node will be
        #[arg(long, value_enum, default_value_t = As::Voter)]
        role: As,
        /// How long it is good, e.g. 10m; at most 24h
        #[arg(long, value_name = "TIME", default_value = "10m")]
        ttl: crate::config::units::HumanDuration,
        /// Write it into this file (mode 0600) instead of printing it
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Join a cluster; `tollgate serve` does the same at its first start
    Join {
        /// A node of the cluster [default: `cluster.join.peers` of the configuration]; may be repeated
        #[arg(long = "peer", value_name = "HOST:PORT")]
        peers: Vec<String>,
        /// A file with the token, or `-` for standard input [default: `cluster.join.token` of the configuration]
        #[arg(long, value_name = "FILE")]
        token: Option<PathBuf>,
    },
    /// Show the nodes, who leads, and what is wrong; ends with code 1 when no leader answers
    Status,
    /// Take nodes out of the cluster; their ids are never used again
    Remove {
        /// Names or ids, as `tollgate cluster status` shows them
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Copy counters, control plane and members into a file, while the gateway runs
    Snapshot {
        /// A new file on the gateway's machine [default: one under `backups` in the data directory]
        file: Option<PathBuf>,
    },
    /// Begin a new cluster from a file of `tollgate cluster snapshot`, in an empty data directory
    ///
    /// Grants, policies and servers of the control plane are kept. Every window that was running counts as used up, because
    /// what was admitted after the copy is not known. The cluster has a new id: all other nodes join again.
    Restore {
        /// The file
        file: PathBuf,
    },
    /// Begin a new cluster from what a voter's data directory holds, when more than half of the voters are lost
    ///
    /// What the lost voters had acknowledged and this one had not heard of is lost, revocations of grants among it: choose
    /// the voter whose `applied` is highest. Every window that was running counts as used up. The cluster has a new id, so
    /// that a voter that comes back cannot speak for the old one; all other nodes join again. The gateway must not be
    /// running.
    Recover {
        /// Says that the other voters will not come back
        #[arg(long)]
        force: bool,
    },
    /// Let the cluster go on with the present time, when it waits because clocks jumped
    ///
    /// Check the clocks of all voters first. If the cluster's time moves back, every window that was running counts as
    /// used up.
    AcceptClock,
}

/// What a node can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// Holds the ledger and votes
    Voter,
    /// Leases quota; neither votes nor stores
    Client,
}

/// Runs `tollgate cluster`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = &args.gateway;
    match args.command {
        Command::Init => offline::init(&settings(gateway)?)?,
        Command::Join { peers, token } => offline::join(&settings(gateway)?, peers, token)?,
        Command::Restore { file } => offline::restore(&settings(gateway)?, &file)?,
        Command::Recover { force } => offline::recover(&settings(gateway)?, force)?,
        Command::Token { role, ttl, out } => token(gateway, role, ttl.0, out.as_deref())?,
        Command::Status => {
            let cluster: Cluster = gateway.show(api::CLUSTER, show::told)?;
            return Ok(ExitCode::from(u8::from(cluster.led.is_none())));
        }
        Command::Remove { nodes } => {
            let named = nodes.join(", ");
            gateway.change(api::REMOVE, &Remove { nodes }, |_: &Done| {
                format!("{named}: taken out; see `tollgate cluster status`\n")
            })?;
        }
        Command::Snapshot { file } => {
            let path = file.as_deref().map(std::path::absolute).transpose()?;
            let path = path.map(|path| path.display().to_string());
            gateway.change(api::SNAPSHOT, &Snapshot { path }, |made: &Snapped| {
                let Snapped { path, index, bytes } = made;
                format!("{path}: everything up to index {index}, {bytes} bytes\n")
            })?;
        }
        Command::AcceptClock => {
            gateway.change(api::ACCEPT_CLOCK, &serde_json::json!({}), |_: &Done| {
                "the present time is accepted\n".to_owned()
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration that an offline command works by.
fn settings(gateway: &Gateway) -> anyhow::Result<crate::config::Settings> {
    let path = gateway.config_path().unwrap_or(Path::new("tollgate.yaml"));
    if !path.exists() {
        bail!(
            "{}: there is no such file; --config names the node's configuration",
            path.display()
        );
    }
    super::settings(path)
}

fn token(gateway: &Gateway, role: As, ttl: Duration, out: Option<&Path>) -> anyhow::Result<()> {
    let asked = NewToken {
        role: match role {
            As::Voter => Role::Voter,
            As::Client => Role::Client,
        },
        ttl_s: ttl.as_secs().max(1),
    };
    let Some(path) = out else {
        let made: Token = gateway.change(api::TOKEN, &asked, |made: &Token| {
            format!("{}\n", made.token)
        })?;
        eprintln!(
            "# Good once, for {} s. A node joins with it through {}.",
            asked.ttl_s,
            made.peers.join(" or ")
        );
        return Ok(());
    };
    // Before a token is made that nobody could keep.
    let mut file = private(path).with_context(|| path.display().to_string())?;
    let made: Token = gateway.obtain(api::TOKEN, &asked)?;
    file.write_all(format!("{}\n", made.token).as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| path.display().to_string())?;
    Ok(())
}

/// A file that only its owner reads, empty; an older one is removed first, so that its mode and its readers do not matter.
fn private(path: &Path) -> std::io::Result<fs::File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
