//! `tollgate policy`

use super::{
    resources::{self, Delete, List, Show},
    status::Gateway,
};
use proto::control::Kind;
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `tollgate policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put a policy's document, of any dialect, into the cluster's log; it must be fine
    Put(Put),
    /// Delete a policy from the cluster's log; no grant of the log may use it
    Delete(Delete),
    /// List policies, those of the files and those of the log
    List(List),
    /// Show a policy; of one of the log the document as it was put
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Put {
    /// Its name, 1 to 64 of A-Z a-z 0-9 _ . -
    name: String,
    /// The document, JSON or YAML; `-` for standard input
    file: PathBuf,
    /// Only if it was not changed since: its version, as `list` shows it; 0: only if there is none
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs `tollgate policy`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Put(put) => {
            let text = resources::read(&put.file)?.into_bytes();
            let (name, gateway) = (&put.name, &put.gateway);
            let written = resources::put(Kind::Policy, name, put.if_version, text, gateway)?;
            resources::report(gateway, &format!("policy {name}: put"), &written)
        }
        Command::Delete(args) => resources::delete(Kind::Policy, &args),
        Command::List(args) => resources::list(Kind::Policy, &args),
        Command::Show(args) => resources::show(Kind::Policy, &args),
    }
}
