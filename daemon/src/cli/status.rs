//! `tollgate status`

use std::process::ExitCode;

/// Arguments of `tollgate status`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate status`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
