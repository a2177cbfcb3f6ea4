//! `tollgate limits`

use super::{
    status::Gateway,
    table::{span, table},
};
use proto::admin::{Counter, Limits, LimitsQuery};
use std::process::ExitCode;

/// Arguments of `tollgate limits`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: Command,
}

/// What to show.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show counters in their present windows, by limit
    Show {
        /// Only counters whose limit (server/policy/tool/counter), scope value or key contains this
        filter: Option<String>,
    },
    /// Show the fullest counters first
    Top {
        /// How many
        #[arg(default_value_t = 10, value_name = "N")]
        count: usize,
    },
}

/// Runs `tollgate limits`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let query = match args.command {
        Command::Show { filter } => LimitsQuery { filter, top: None },
        Command::Top { count } => LimitsQuery {
            filter: None,
            top: Some(count),
        },
    };
    args.gateway.show(&query.target(), told)?;
    Ok(ExitCode::SUCCESS)
}

fn told(limits: &Limits) -> String {
    if limits.counters.is_empty() {
        return "no counters: nothing was charged in a present window\n".to_owned();
    }
    let row = |counter: &Counter| {
        vec![
            counter.limit.clone(),
            format!("{} {}", counter.scope, counter.scope_value),
            counter.key.clone().unwrap_or_default(),
            counter.window.clone(),
            counter.used.clone(),
            counter.max.clone(),
            format!(
                "{}.{} %",
                counter.used_permille / 10,
                counter.used_permille % 10
            ),
            counter
                .ends_ms
                .map_or_else(String::new, |ms| span(ms.div_ceil(1_000))),
        ]
    };
    let rows: Vec<_> = limits.counters.iter().map(row).collect();
    let heading = [
        "LIMIT", "SCOPE", "KEY", "WINDOW", "USED", "MAX", "SHARE", "ENDS IN",
    ];
    let mut out = table(&heading, &[4, 5, 6, 7], &rows);
    if limits.total > rows.len() {
        out += &format!("{} of {} counters\n", rows.len(), limits.total);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_with_what_is_used_and_when_the_window_ends() {
        let counter = Counter {
            limit: "flux/images/generate_image/_rate_minute".into(),
            identity: "00".repeat(16),
            scope: "grant".into(),
            scope_value: "ci".into(),
            key: None,
            window: "minute".into(),
            ends_ms: Some(40_001),
            used: "30".into(),
            max: "30".into(),
            used_permille: 1_000,
        };
        let limits = Limits {
            counters: vec![counter],
            total: 5,
        };
        let text = told(&limits);
        for part in ["grant ci", "minute", "100.0 %", "41 s", "1 of 5 counters"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let none = told(&Limits {
            counters: Vec::new(),
            total: 0,
        });
        assert!(none.contains("no counters"));
    }
}
