//! The command line: one file a command.

pub mod check;
pub mod cluster;
pub mod demo;
pub mod grant;
pub mod import;
pub mod limits;
pub mod policy;
mod resources;
pub mod schema;
pub mod serve;
pub mod server;
pub mod status;
mod table;

use crate::config::{self, Settings};
use clap::{Parser, Subcommand};
use std::{path::Path, process::ExitCode};

/// The gate that every AI agent's tool call passes.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the gateway in front of a built-in demo server, on loopback, with ready grants
    Demo(demo::Args),
    /// Start the gateway from a configuration file
    Serve(serve::Args),
    /// Check configuration and policy files, or ask what a policy says of one call
    Check(check::Args),
    /// Turn an MCP client's configuration (.mcp.json) into servers, grants and the file that replaces it
    Import(import::Args),
    /// Make grants; create, rotate and revoke them in the cluster's log
    Grant(grant::Args),
    /// Put policies into the cluster's log
    Policy(policy::Args),
    /// Put servers into the cluster's log
    Server(server::Args),
    /// Write the JSON Schemas of the configuration and of policies
    #[command(hide = true)]
    Schema(schema::Args),
    /// Show a running gateway's state
    Status(status::Args),
    /// Show and change a running gateway's limits
    Limits(limits::Args),
    /// Form a cluster, see how it is, and mend it
    Cluster(cluster::Args),
}

/// Runs the command line; the exit code is 0 for success, 1 for a problem found, 2 for a wrong call.
pub fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Import(args) => import::run(args),
        Command::Grant(args) => grant::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Server(args) => server::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Status(args) => status::run(args),
        Command::Limits(args) => limits::run(args),
        Command::Cluster(args) => cluster::run(args),
    }
}

/// What a configuration file sets a gateway up with. Errors: every problem with its place.
fn settings(path: &Path) -> anyhow::Result<Settings> {
    match config::load(path, 1) {
        Ok(loaded) => Ok(loaded.settings),
        Err(problems) => {
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("the configuration cannot be used\n{}", told.join("\n"))
        }
    }
}
