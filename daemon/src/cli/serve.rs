//! `tollgate serve`

use crate::{
    config::{self, Loaded, Settings, watch::Seen},
    server::{Server, Source, node},
    telemetry,
};
use anyhow::Context;
use proto::doc::Severity;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Arguments of `tollgate serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file (YAML or JSON); see config/full.yaml for every key
    #[arg(short, long, value_name = "FILE", default_value = "tollgate.yaml")]
    config: PathBuf,
    /// Print what would be in force, defaults filled in and secrets left out, and end
    #[arg(long)]
    print_config: bool,
}

/// Runs `tollgate serve`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Not canonical: the file may be a link that is swapped.
    let path = std::path::absolute(&args.config).unwrap_or_else(|_| args.config.clone());
    let Some((mut loaded, mut seen)) = load(&args.config) else {
        return Ok(ExitCode::from(1));
    };
    if args.print_config {
        print!("{}", config::print_config(&loaded));
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init(&loaded.settings.log)?;
    for remark in &loaded.remarks {
        match remark.problem.severity {
            Severity::Note => tracing::info!("{remark}"),
            _ => tracing::warn!("{remark}"),
        }
    }
    super::cluster::join_first(&loaded.settings).context("cannot join the cluster")?;
    if is_of_another_secret(&loaded.settings) {
        // Limits are named with the secret of the cluster that was joined just now.
        let Some(again) = load(&args.config) else {
            return Ok(ExitCode::from(1));
        };
        (loaded, seen) = again;
    }
    let listeners = loaded.settings.listeners.clone();
    let server = Server::new(loaded, Some(Source { path, seen })).context("cannot start")?;
    let addresses = server.addresses().to_vec();
    let (_keep, stop) = tokio::sync::watch::channel(false);
    server.run(stop, || {
        for (address, listener) in addresses.iter().zip(&listeners) {
            let scheme = if listener.tls.is_some() {
                "https"
            } else {
                "http"
            };
            eprintln!("tollgate: listening on {scheme}://{address}");
        }
    })
}

/// Reads the configuration, or says what is wrong with it.
fn load(path: &Path) -> Option<(Loaded, Vec<Seen>)> {
    let config::Attempt { outcome, seen } = config::attempt(path, 1, None);
    match outcome {
        Ok(loaded) => Some((loaded, seen)),
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            let n = problems.iter().filter(|problem| problem.is_error()).count();
            eprintln!(
                "tollgate: {n} problem{} in the configuration; nothing was started",
                if n == 1 { "" } else { "s" }
            );
            None
        }
    }
}

fn is_of_another_secret(settings: &Settings) -> bool {
    let own = node::secret_in(&settings.cluster.data_dir);
    !settings.secret.configured && own.is_some_and(|own| own.0 != settings.secret.key.0)
}
