//! `tollgate limits`

use super::{
    status::Gateway,
    table::{span, table},
};
use anyhow::bail;
use proto::admin::{
    Counter, Limits, LimitsQuery,
    members::{self as api, Credited, Done, Holder, Pick},
};
use std::process::ExitCode;

/// Arguments of `tollgate limits`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    gateway: Gateway,
    #[command(subcommand)]
    command: Command,
}

/// What to show or change.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show counters in their present windows, by limit
    ///
    /// USED is what was charged, and what other nodes hold leased and may not have spent yet. LOST of it was held by
    /// nodes that died: it is gone until the window ends, unless `tollgate limits credit` gives it back. LEASED TO names the
    /// nodes, each with what it was granted less what it returned; it has spent that or holds it. COUNTER is the counter's key: other nodes'
    /// counters whose names this node never met are shown by it alone.
    Show {
        /// Only counters whose limit (server/policy/tool/counter), scope value or key contains this, or the one with this
        /// key
        filter: Option<String>,
    },
    /// Show the fullest counters first
    Top {
        /// How many
        #[arg(default_value_t = 10, value_name = "N")]
        count: usize,
    },
    /// Give back what dead nodes held of a counter in its present window
    ///
    /// A node counts as dead when it has started anew, was taken out, or was silent for ten minutes. It may have admitted
    /// calls with what it held: whoever gives it back allows the limit to be exceeded
    /// by as much. Do it when you know that the node did not. The audit trail records it.
    Credit(Which),
    /// Start a counter's present window anew, as if nothing had been used
    ///
    /// Calls that were admitted stay admitted: in this window the limit then lets through up to twice its max. The audit
    /// trail records it.
    Reset(Which),
}

/// Which counter.
#[derive(Debug, clap::Args)]
struct Which {
    /// The counter: its key as `tollgate limits show` prints it, or a text that fits only one counter
    counter: String,
}

/// Runs `tollgate limits`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = &args.gateway;
    let show = |query: LimitsQuery| gateway.show(&query.target(), told);
    match args.command {
        Command::Show { filter } => {
            show(LimitsQuery { filter, top: None })?;
        }
        Command::Top { count } => {
            show(LimitsQuery {
                filter: None,
                top: Some(count),
            })?;
        }
        Command::Credit(which) => {
            let pick = pick(gateway, which.counter)?;
            gateway.change(api::CREDIT, &pick, |credited: &Credited| {
                match &*credited.credited {
                    "0" => "nothing was lost in the present window: nothing to give back\n".into(),
                    units => format!("{units} given back\n"),
                }
            })?;
        }
        Command::Reset(which) => {
            let pick = pick(gateway, which.counter)?;
            gateway.change(api::RESET, &pick, |_: &Done| {
                "the counter's window begins anew\n".to_owned()
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The one counter that a text means.
fn pick(gateway: &Gateway, counter: String) -> anyhow::Result<Pick> {
    let query = LimitsQuery {
        filter: Some(counter.clone()),
        top: None,
    };
    let found: Limits = gateway.fetch(&query.target())?;
    if !found.ledger {
        bail!(
            "the ledger cannot be reached: try again when `tollgate cluster status` shows a leader"
        );
    }
    let mut rates = found
        .counters
        .iter()
        .filter(|counter| counter.ends_ms.is_some());
    match (rates.next(), rates.next()) {
        (Some(one), None) => Ok(Pick {
            counter: one.counter.clone(),
        }),
        (None, _) => {
            bail!("`{counter}` fits no counter that is in use: see `tollgate limits show`")
        }
        (Some(_), Some(_)) => {
            let shown = told(&found);
            bail!("`{counter}` fits several counters: name one by its key\n{shown}")
        }
    }
}

fn told(limits: &Limits) -> String {
    let mut out = String::new();
    if !limits.ledger {
        out += "the ledger cannot be reached: this is what this node knew last\n";
    }
    if limits.counters.is_empty() {
        return out + "no counters: nothing was charged in a present window\n";
    }
    let row = |counter: &Counter| {
        vec![
            match counter.limit.is_empty() {
                true => format!("(limit {})", counter.identity),
                false => counter.limit.clone(),
            },
            match counter.scope_value.is_empty() {
                true => counter.scope.clone(),
                false => format!("{} {}", counter.scope, counter.scope_value),
            },
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
            counter.lost.clone(),
            held(&counter.holders),
            counter.counter.clone(),
        ]
    };
    let rows: Vec<_> = limits.counters.iter().map(row).collect();
    let heading = [
        "LIMIT",
        "SCOPE",
        "KEY",
        "WINDOW",
        "USED",
        "MAX",
        "SHARE",
        "ENDS IN",
        "LOST",
        "LEASED TO",
        "COUNTER",
    ];
    out += &table(&heading, &[4, 5, 6, 7, 8], &rows);
    if limits.total > rows.len() {
        out += &format!("{} of {} counters\n", rows.len(), limits.total);
    }
    out
}

/// `a 12, b 20-8`: what each node was granted, less what it returned.
fn held(holders: &[Holder]) -> String {
    let one = |holder: &Holder| match &*holder.returned {
        "0" => format!("{} {}", holder.node, holder.granted),
        returned => format!("{} {}-{returned}", holder.node, holder.granted),
    };
    let all: Vec<String> = holders.iter().map(one).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_with_what_is_used_and_when_the_window_ends() {
        let counter = Counter {
            limit: "flux/images/generate_image/_rate_minute".into(),
            counter: "1f".repeat(16),
            identity: "00".repeat(16),
            scope: "grant".into(),
            scope_value: "ci".into(),
            key: None,
            window: "minute".into(),
            ends_ms: Some(40_001),
            used: "30".into(),
            max: "30".into(),
            used_permille: 1_000,
            lost: "5".into(),
            holders: vec![
                Holder {
                    node: "a".into(),
                    granted: "20".into(),
                    returned: "0".into(),
                    lost: "5".into(),
                },
                Holder {
                    node: "b".into(),
                    granted: "12".into(),
                    returned: "2".into(),
                    lost: "0".into(),
                },
            ],
        };
        let unnamed = Counter {
            limit: String::new(),
            scope_value: String::new(),
            ..counter.clone()
        };
        let limits = Limits {
            counters: vec![counter, unnamed],
            total: 5,
            ledger: true,
        };
        let text = told(&limits);
        let key = "1f".repeat(16);
        let unknown = format!("(limit {})", "00".repeat(16));
        for part in [
            "grant ci",
            "minute",
            "100.0 %",
            "41 s",
            "a 20, b 12-2",
            "2 of 5 counters",
            &key,
            &unknown,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let none = told(&Limits {
            counters: Vec::new(),
            total: 0,
            ledger: false,
        });
        assert!(none.contains("no counters") && none.contains("cannot be reached"));
    }
}
