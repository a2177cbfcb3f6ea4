//! The tables of a report as text in rows; HTML and Markdown write the same ones.

use super::{
    figures, format,
    model::{Figures, QUANTILES, Run},
};
use crate::result::Limits;

/// Most rows of any table; what is left out is said.
pub const ROWS_MAX: usize = 500;

/// A table. Cells are plain text, escaped by whoever writes them.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    /// How many columns at the left are words; the others are numbers.
    pub words: usize,
    pub rows: Vec<Vec<String>>,
    /// Rows that are not shown.
    pub left_out: usize,
}

impl Table {
    fn new(title: &str, words: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            title: title.into(),
            head: head.into_iter().map(Into::into).collect(),
            words,
            ..Self::default()
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        if self.rows.len() < ROWS_MAX {
            self.rows.push(cells);
        } else {
            self.left_out += 1;
        }
    }
}

fn quantile_names() -> impl Iterator<Item = String> {
    QUANTILES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(["max".to_owned()])
}

fn quantile_cells(
    latency: &std::collections::BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = String> {
    let names = QUANTILES.iter().map(|(name, _)| *name).chain(["max"]);
    names.map(|name| {
        latency
            .get(name)
            .map_or_else(|| "–".to_owned(), |ns| format::latency(*ns))
    })
}

fn figures_row(name: &str, figures: &Figures) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        figures
            .rate_intended
            .map_or_else(|| "–".to_owned(), format::number),
        format::number(figures.ended_second),
        format::share(figures.ok, figures.ended),
    ];
    row.extend(quantile_cells(&figures.latency_ns));
    row.push(format::number(figures.client_cpu_us_request));
    row
}

fn figures_head(first: &str) -> Vec<String> {
    let mut head: Vec<String> = vec![
        first.into(),
        "intended/s".into(),
        "ended/s".into(),
        "ok".into(),
    ];
    head.extend(quantile_names());
    head.push("client µs/request".into());
    head
}

/// One row for each result.
pub fn results(runs: &[Run]) -> Table {
    let mut table = Table::new(
        "Results (latency of good replies)",
        1,
        figures_head("result"),
    );
    for run in runs {
        table.row(figures_row(&run.title, &run.all));
    }
    table
}

/// Everything about one result, in the order of reading.
pub fn of_run(run: &Run) -> Vec<Table> {
    let mut tables = Vec::new();
    if !run.classes.is_empty() {
        tables.push(classes(run));
    }
    if run.rounds.len() > 1 {
        let mut table = Table::new("Rounds (latency of good replies)", 1, figures_head("round"));
        for round in &run.rounds {
            table.row(figures_row(&round.name, round));
        }
        tables.push(table);
    }
    if run.document.targets.len() > 1 && !run.rounds.is_empty() {
        tables.push(targets(run));
    }
    tables.extend(processes(run));
    tables.extend(ramp(run));
    if let Some(limits) = &run.document.limits {
        tables.push(windows(limits));
    }
    tables.extend(samples(run));
    tables
}

fn classes(run: &Run) -> Table {
    let mut head: Vec<String> = ["reply", "code", "count", "share"].map(Into::into).into();
    head.extend(quantile_names());
    let mut table = Table::new("How requests ended", 2, head);
    for class in &run.classes {
        let mut row = vec![
            class.class.name().to_owned(),
            class.code.clone().unwrap_or_default(),
            format::count(class.count),
            format::share(class.count, run.all.ended),
        ];
        row.extend(quantile_cells(&class.latency_ns));
        table.row(row);
    }
    table
}

fn targets(run: &Run) -> Table {
    let mut head: Vec<String> = ["target", "ended", "ok"].map(Into::into).into();
    head.extend(quantile_names());
    let mut table = Table::new("Targets (latency of every reply)", 1, head);
    let all = super::model::together(&run.document.rounds);
    for target in &all.targets {
        let url = run.document.targets.get(target.target);
        let ended = target.latency.count;
        let ok = target.classes.get(&crate::result::Class::Ok).copied();
        let mut row = vec![
            url.map_or_else(|| target.target.to_string(), |t| t.url.clone()),
            format::count(ended),
            format::share(ok.unwrap_or(0), ended),
        ];
        row.extend(quantile_cells(&super::model::latencies(&target.latency)));
        table.row(row);
    }
    table
}

fn processes(run: &Run) -> Option<Table> {
    let mut table = Table::new(
        "Watched processes",
        2,
        ["round", "process", "CPU s", "CPU µs/request", "memory"],
    );
    for round in &run.document.rounds {
        for process in &round.processes {
            table.row(vec![
                round.name.clone(),
                format!("{} ({})", process.name, process.pid),
                format::number(process.cpu_s),
                format::number(process.cpu_us_request),
                format::bytes(process.rss_bytes),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn ramp(run: &Run) -> Option<Table> {
    let ramp = run.document.ramp.as_ref()?;
    let mut table = Table::new(
        &format!("Search: {}", ramp.slo),
        3,
        ["rate/s", "objective", "why"],
    );
    for step in &ramp.steps {
        table.row(vec![
            format::number(step.rate),
            if step.met { "✓ met" } else { "✗ not met" }.into(),
            step.why.clone(),
        ]);
    }
    Some(table)
}

fn windows(limits: &Limits) -> Table {
    let mut table = Table::new(
        "Windows (those that are not exact first)",
        3,
        [
            "window (UTC)",
            "key",
            "verdict",
            "max",
            "admitted",
            "upstream",
            "audit",
            "refused",
            "unavailable",
            "unknown",
            "sent",
            "remark",
        ],
    );
    for (key, window) in figures::windows(limits) {
        let (word, sign) = figures::verdict(window.verdict);
        let maybe = |n: Option<u64>| n.map_or_else(|| "–".to_owned(), format::count);
        table.row(vec![
            format::moment(window.starts_ms),
            key.to_owned(),
            format!("{sign} {word}"),
            format::count(limits.max),
            format::count(window.admitted),
            maybe(window.admitted_upstream),
            maybe(window.admitted_audit),
            format::count(window.refused),
            format::count(window.unavailable),
            format::count(window.unknown),
            format::count(window.sent),
            window.why.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn samples(run: &Run) -> Option<Table> {
    let mut table = Table::new(
        "What went wrong, the first of each kind",
        4,
        ["round", "reply", "target", "text"],
    );
    for round in &run.document.rounds {
        for sample in &round.samples {
            let url = run.document.targets.get(sample.target);
            table.row(vec![
                round.name.clone(),
                sample.class.name().into(),
                url.map_or_else(|| sample.target.to_string(), |t| t.url.clone()),
                sample.text.clone(),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}
