//! `tollgate demo`

use std::process::ExitCode;

/// Arguments of `tollgate demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate demo`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
