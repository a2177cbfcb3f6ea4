//! Logs: `tracing` events to standard error, for people or as JSON.

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The environment variable that overrules the configured level, e.g. `info,hyper=warn`.
pub const LEVEL_VARIABLE: &str = "TOLLGATE_LOG";

/// How logs are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// One JSON object a line instead of text for people.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,daemon::upstream=debug`.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            json: false,
            level: "info".into(),
        }
    }
}

/// Checks a level as [`init`] will read it.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop).map_err(|e| format!("{e:#}"))
}

/// Installs the subscriber of this process. Errors: the level cannot be read, or there is a subscriber already.
pub fn init(settings: &Settings) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    let level = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| settings.level.clone());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&level)?)
        .with_writer(std::io::stderr)
        .with_ansi(!settings.json && std::io::stderr().is_terminal());
    let installed = if settings.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    installed.map_err(|e| anyhow::anyhow!("logs could not be set up: {e}"))
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(level)
        .with_context(|| format!("log level `{level}` cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_read_and_nonsense_is_refused() {
        for good in ["info", "warn,daemon::upstream=debug", ""] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        assert!(check_level("daemon=loud").is_err());
    }
}
