//! `tollgate import`

use std::process::ExitCode;

/// Arguments of `tollgate import`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate import`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
