//! `tollgate serve`

use std::process::ExitCode;

/// Arguments of `tollgate serve`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate serve`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
