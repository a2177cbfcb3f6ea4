//! `tollgate grant`

use std::process::ExitCode;

/// Arguments of `tollgate grant`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate grant`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
