//! `tollgate server`

use super::{
    resources::{self, Delete, List, Show},
    status::Gateway,
};
use crate::config::emit;
use anyhow::bail;
use proto::{control::Kind, doc};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `tollgate server`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put a server into the cluster's log: every node serves it at /mcp/<name>
    Put(Put),
    /// Delete a server from the cluster's log; no grant of the log may use it
    Delete(Delete),
    /// List servers, those of the files and those of the log
    List(List),
    /// Show a server; of one of the log the document as it was put
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Put {
    /// Its name, 1 to 64 of A-Z a-z 0-9 _ . -
    name: String,
    /// What stands under its name in `servers` of a configuration, JSON or YAML; `-` for standard input
    #[arg(required_unless_present = "url")]
    file: Option<PathBuf>,
    /// Its URL, where there is nothing else to say
    #[arg(long, conflicts_with = "file")]
    url: Option<String>,
    /// Only if it was not changed since: its version, as `list` shows it; 0: only if there is none
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs `tollgate server`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Put(put) => {
            let document = match (&put.file, &put.url) {
                (Some(file), _) => read(file)?,
                (None, url) => serde_json::json!({ "url": url }),
            };
            let (name, gateway) = (&put.name, &put.gateway);
            let body = document.to_string().into_bytes();
            let written = resources::put(Kind::Server, name, put.if_version, body, gateway)?;
            resources::report(gateway, &format!("server {name}: put"), &written)
        }
        Command::Delete(args) => resources::delete(Kind::Server, &args),
        Command::List(args) => resources::list(Kind::Server, &args),
        Command::Show(args) => resources::show(Kind::Server, &args),
    }
}

/// A document of a person is replicated as JSON.
fn read(file: &Path) -> anyhow::Result<serde_json::Value> {
    match doc::parse(&resources::read(file)?) {
        Ok(node) => Ok(emit::json(&node)),
        Err(problems) => {
            let file = file.display();
            let told = problems.iter();
            let told: Vec<_> = told
                .map(|found| format!("{file}:{}: {}", found.at, found.message))
                .collect();
            bail!("{}", told.join("\n"))
        }
    }
}
