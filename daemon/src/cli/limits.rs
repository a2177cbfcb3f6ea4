//! `tollgate limits`

use std::process::ExitCode;

/// Arguments of `tollgate limits`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `tollgate limits`.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    todo!()
}
