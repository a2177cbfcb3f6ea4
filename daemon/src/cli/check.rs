//! `tollgate check`

use std::process::ExitCode;

/// Arguments of `tollgate check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate check`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
