//! The `tollgate-loadtest` binary.

use clap::{Parser, Subcommand};
use loadtest::{compare, limits, report, run, upstream::cli};
use std::process::ExitCode;

/// Servers and load for measuring MCP gateways.
#[derive(Debug, Parser)]
#[command(name = "tollgate-loadtest", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Limits(Box<limits::Args>),
    /// Start an MCP server that remembers every call
    Upstream(cli::Args),
    Report(report::Args),
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Limits(args) => limits::run(&args),
        Command::Upstream(args) => cli::run(args)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|e| e.to_string()),
        Command::Report(args) => report::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::run(&args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tollgate-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
