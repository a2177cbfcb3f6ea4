//! A report as one HTML file that asks no network for anything.
//!
//! A Content-Security-Policy in the page allows exactly its own style and script, by their SHA-256 (CSP Level 3, section
//! 6.7): should a text of a result ever get past the escaping, it could still run and load nothing.

use super::{
    figures, format,
    model::Run,
    tables::{self, Table},
};
use crate::result::{LimitWindow, Limits, Verdict};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("hover.js");

/// The whole page.
pub fn document(runs: &[Run]) -> String {
    let hash = |text: &str| {
        format!(
            "'sha256-{}'",
            STANDARD.encode(digest(&SHA256, text.as_bytes()))
        )
    };
    let title = match runs {
        [run] => format!("Load test: {}", run.title),
        _ => format!("Load test: {} results", runs.len()),
    };
    let mut out = String::with_capacity(256 * 1024);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'\">\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n<meta name=color-scheme content=\"light dark\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
        hash(STYLE),
        hash(SCRIPT),
        format::html(&title),
        format::html(&title)
    );
    if runs.len() > 1 {
        if let Some(chart) = figures::percentiles_of_all(runs) {
            out.push_str(&chart.figure());
        }
        table(&tables::results(runs), &mut out);
    }
    for run in runs {
        if runs.len() > 1 {
            let _ = writeln!(out, "<h2>{}</h2>", format::html(&run.title));
        }
        section(run, &mut out);
    }
    let _ = write!(
        out,
        "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    );
    out
}

fn section(run: &Run, out: &mut String) {
    let document = &run.document;
    let _ = writeln!(
        out,
        "<p class=dim>{} · {} · {}</p>",
        format::html(&format::moment(document.started_ms)),
        format::html(&document.machine.host),
        format::html(&document.machine.cpu)
    );
    for warning in &run.warnings {
        let _ = writeln!(out, "<p class=warning>⚠ {}</p>", format::html(warning));
    }
    if let Some(limits) = &document.limits {
        let good = limits.verdict == Verdict::Exact;
        let (_, sign) = figures::verdict(limits.verdict);
        let _ = writeln!(
            out,
            "<p class=\"verdict{}\">{sign} {}</p>",
            if good { "" } else { " bad" },
            format::html(&limits.sentence)
        );
        let _ = writeln!(
            out,
            "<p class=dim>Windows of {}.</p>",
            format::length(limits.window_ms)
        );
    }
    if let Some(ramp) = &document.ramp {
        let _ = writeln!(out, "<p class=verdict>{}</p>", format::html(&ramp.verdict));
    }
    key_figures(run, out);
    let command = format::escaped(&format::plain_command(&document.command));
    let _ = writeln!(out, "<pre aria-label=\"The exact command\">{command}</pre>");
    if let Some(bars) = document.limits.as_ref().and_then(figures::admissions) {
        out.push_str(&bars.figure());
    }
    for chart in [
        figures::percentiles(run),
        figures::throughput(run),
        figures::latency_over_time(run),
    ] {
        out.push_str(&chart.map(|chart| chart.figure()).unwrap_or_default());
    }
    for part in tables::of_run(run) {
        table(&part, out);
    }
    for (title, rows) in [("Settings", run.settings()), ("Machine", run.machine())] {
        let _ = write!(out, "<h3>{title}</h3>\n<table class=facts>");
        for (name, value) in rows {
            let _ = write!(out, "<tr><td>{name}<td>{}", format::html(&value));
        }
        out.push_str("</table>\n");
    }
}

fn key_figures(run: &Run, out: &mut String) {
    let limits = run.document.limits.as_ref();
    let mut rows = limits.map(exactness).unwrap_or_default();
    // The exactness test alone has no rounds.
    if !run.rounds.is_empty() || limits.is_none() {
        rows.extend(load(run));
    }
    out.push_str("<dl class=figures>");
    for (name, value) in rows {
        let _ = write!(
            out,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            format::html(&value)
        );
    }
    out.push_str("</dl>\n");
}

fn exactness(limits: &Limits) -> Vec<(&'static str, String)> {
    let windows = || limits.keys.iter().flat_map(|key| &key.windows);
    let sum = |of: fn(&LimitWindow) -> u64| format::count(windows().map(of).sum());
    let exact = windows().filter(|w| w.verdict == Verdict::Exact).count();
    vec![
        ("Maximum", format::count(limits.max)),
        ("Keys", format::count(limits.keys.len() as u64)),
        ("Windows exact", format!("{exact} of {}", windows().count())),
        ("Calls sent", sum(|w| w.sent)),
        ("Admitted", sum(|w| w.admitted)),
        ("Refused by the limit", sum(|w| w.refused)),
        ("Refused otherwise", sum(|w| w.unavailable)),
        ("Outcome unknown", sum(|w| w.unknown)),
    ]
}

fn load(run: &Run) -> Vec<(&'static str, String)> {
    let all = &run.all;
    let latency = |name: &str| {
        let ns = all.latency_ns.get(name);
        ns.map_or_else(|| "–".to_owned(), |ns| format::latency(*ns))
    };
    let mut rows = vec![
        ("Requests ended", format::count(all.ended)),
        ("A second", format::number(all.ended_second)),
        ("Good replies", format::share(all.ok, all.ended)),
    ];
    for (label, name) in [
        ("Good: p50", "p50"),
        ("Good: p99", "p99"),
        ("Good: p99.9", "p99.9"),
        ("Good: longest", "max"),
    ] {
        rows.push((label, latency(name)));
    }
    rows.push((
        "Client CPU a request",
        format!("{} µs", format::number(all.client_cpu_us_request)),
    ));
    rows
}

fn table(table: &Table, out: &mut String) {
    let title = format::html(&table.title);
    let _ = write!(
        out,
        "<h3>{title}</h3>\n<div class=scroll tabindex=0 role=region aria-label=\"{title}\"><table><thead><tr>"
    );
    let word = |at: usize| at < table.words || table.head[at] == "remark";
    let class = |at: usize, cell: &str| match (word(at), cell.chars().count()) {
        (false, _) => "",
        // Long texts wrap in a column of their own width, short ones never.
        (true, 0..=34) => " class=word",
        (true, _) => " class=\"word long\"",
    };
    for (at, cell) in table.head.iter().enumerate() {
        let _ = write!(out, "<th scope=col{}>{}", class(at, ""), format::html(cell));
    }
    out.push_str("<tbody>");
    for row in &table.rows {
        out.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}", class(at, cell), format::html(cell));
        }
    }
    out.push_str("</table></div>\n");
    if table.left_out > 0 {
        let _ = writeln!(
            out,
            "<p class=dim>{} further rows are in the JSON.</p>",
            format::count(table.left_out as u64)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let parts = [1, 3, 5].map(|at| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_lines_stand_out_from_their_ground_in_light_and_in_dark() {
        let themes: Vec<&str> = STYLE.split(":root {").skip(1).collect();
        assert_eq!(themes.len(), 2);
        for theme in themes {
            let theme = theme.split('}').next().unwrap();
            let colour = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap();
                rest.split(';').next().unwrap().to_owned()
            };
            for (front, ground, least) in [
                ("text", "page", 7.0),
                ("text", "soft", 7.0),
                ("dim", "page", 4.5),
                ("dim", "soft", 4.5),
                ("warn-text", "warn", 4.5),
                ("good", "page", 3.0),
                ("bad", "page", 3.0),
            ] {
                let found = contrast(&colour(front), &colour(ground));
                assert!(found >= least, "{front} on {ground}: {found:.2}");
            }
            for line in 0..super::super::chart::LINES_MAX {
                let found = contrast(&colour(&format!("s{line}")), &colour("page"));
                assert!(found >= 4.5, "s{line}: {found:.2}");
            }
        }
    }
}
