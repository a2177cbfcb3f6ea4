//! A report as Markdown: the same texts and tables, without the charts.

use super::{
    format,
    model::Run,
    tables::{self, Table},
};
use std::fmt::Write as _;

/// The whole report.
pub fn document(runs: &[Run]) -> String {
    let mut out = String::from("# Load test\n");
    if runs.len() > 1 {
        table(&tables::results(runs), &mut out);
    }
    for run in runs {
        let _ = writeln!(out, "\n## {}\n", format::markdown(&run.title));
        for warning in &run.warnings {
            let _ = writeln!(out, "- **Note:** {}", format::markdown(warning));
        }
        if let Some(limits) = &run.document.limits {
            let _ = writeln!(out, "\n**{}**", format::markdown(&limits.sentence));
        }
        if let Some(ramp) = &run.document.ramp {
            let _ = writeln!(out, "\n**{}**", format::markdown(&ramp.verdict));
        }
        let all = &run.all;
        // The exactness test alone has no rounds.
        if !run.rounds.is_empty() {
            let _ = writeln!(
                out,
                "\n{} requests ended in {} s: {}/s, {} ok. The client used {} µs of CPU a request.",
                format::count(all.ended),
                format::number(all.seconds),
                format::number(all.ended_second),
                format::share(all.ok, all.ended),
                format::number(all.client_cpu_us_request)
            );
        }
        // An indented block has no end mark that a command could hold.
        let command = format::plain_command(&run.document.command);
        let _ = writeln!(out, "\n    {command}");
        for part in tables::of_run(run) {
            table(&part, &mut out);
        }
        for (title, rows) in [("Settings", run.settings()), ("Machine", run.machine())] {
            let _ = writeln!(out, "\n### {title}\n\n| | |\n|---|---|");
            for (name, value) in rows {
                let _ = writeln!(out, "| {name} | {} |", format::markdown(&value));
            }
        }
    }
    out
}

fn table(table: &Table, out: &mut String) {
    let _ = writeln!(out, "\n### {}\n", format::markdown(&table.title));
    let cells = |row: &[String]| {
        let row = row.iter().map(|cell| format::markdown(cell));
        format!("| {} |", row.collect::<Vec<_>>().join(" | "))
    };
    let _ = writeln!(out, "{}", cells(&table.head));
    let rule = (0..table.head.len()).map(|at| if at < table.words { "---" } else { "--:" });
    let _ = writeln!(out, "|{}|", rule.collect::<Vec<_>>().join("|"));
    for row in &table.rows {
        let _ = writeln!(out, "{}", cells(row));
    }
    if table.left_out > 0 {
        let _ = writeln!(
            out,
            "\n{} further rows.",
            format::count(table.left_out as u64)
        );
    }
}
