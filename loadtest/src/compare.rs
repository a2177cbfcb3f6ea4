//! `tollgate-loadtest compare`: whether two results differ by more than their rounds differ among themselves.

mod stats;

use crate::{
    report::{self, format, model},
    result::{Class, Document, Round},
};
use serde::Serialize;
use stats::Ratio;
use std::{fmt::Write as _, path::PathBuf};

/// Rounds from which on an interval is worth believing without a word of caution.
const ROUNDS_GOOD: usize = 6;

/// Whether B differs from A by more than noise: ratios with confidence intervals over repeated rounds
///
/// Rounds that alternated (A, B, A, B, … or A, B, B, A, …) are compared in pairs, which takes the machine's drift out;
/// others as two groups. Make rounds with `run --rounds 6`, or alternate single runs and give all files:
/// `compare a1.json a2.json … --with b1.json b2.json …`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A.json B.json; or every file of A, with those of B behind `--with`
    #[arg(required = true, value_name = "RESULT.json")]
    pub results: Vec<PathBuf>,
    /// The files of B
    #[arg(long, value_name = "RESULT.json", num_args = 1..)]
    pub with: Vec<PathBuf>,
    /// Confidence of the intervals, percent, 50 to 99.9
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT")]
    pub confidence: f64,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What came of a comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// A's and B's names.
    pub names: [String; 2],
    /// How many rounds each has.
    pub rounds: [usize; 2],
    /// Whether rounds were compared in pairs.
    pub paired: bool,
    /// How the intervals were computed, for people.
    pub method: String,
    /// What a reader must know before believing it.
    pub warnings: Vec<String>,
    /// One for each figure.
    pub figures: Vec<Figure>,
}

/// One figure of both.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: String,
    /// Geometric mean over A's rounds; the mean where a value is zero.
    pub a: f64,
    /// The same of B.
    pub b: f64,
    /// B / A, where no value is zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The ratio's interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// In words.
    pub verdict: String,
    #[serde(skip)]
    kind: Kind,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A second.
    Rate,
    /// Nanoseconds.
    Latency,
    /// A share of 1.
    Share,
    /// Microseconds.
    Cpu,
}

impl Kind {
    fn show(self, value: f64) -> String {
        match self {
            Kind::Rate => format!("{}/s", format::number(value)),
            Kind::Latency => format::latency(value as u64),
            Kind::Share => format!("{} %", format::number(value * 100.0)),
            Kind::Cpu => format!("{} µs", format::number(value)),
        }
    }
}

/// Prints the comparison.
///
/// # Errors
/// A sentence: a file cannot be read, or there is nothing to compare.
pub fn run(args: &Args) -> Result<(), String> {
    if !(50.0..=99.9).contains(&args.confidence) {
        return Err("--confidence is a percentage from 50 to 99.9".into());
    }
    let (a, b) = match (args.results.as_slice(), args.with.as_slice()) {
        ([a, b], []) => (vec![a.clone()], vec![b.clone()]),
        (_, []) => {
            return Err(
                "two results are compared: A.json B.json, or A's files and `--with` B's".into(),
            );
        }
        (a, b) => (a.to_vec(), b.to_vec()),
    };
    let read = |paths: &[PathBuf]| {
        let documents = paths.iter().map(|path| report::read(path));
        documents.collect::<Result<Vec<_>, _>>()
    };
    let name = |paths: &[PathBuf], documents: &[Document]| {
        let label = documents.first().and_then(|d| d.label.clone());
        label.unwrap_or_else(|| {
            let file = paths.first().and_then(|p| p.file_name());
            file.map_or_else(String::new, |f| f.to_string_lossy().into_owned())
        })
    };
    let (documents_a, documents_b) = (read(&a)?, read(&b)?);
    let names = [name(&a, &documents_a), name(&b, &documents_b)];
    let found = compare(names, &documents_a, &documents_b, args.confidence / 100.0)?;
    let text = if args.json {
        let json = serde_json::to_string_pretty(&found).unwrap_or_default();
        format!("{json}\n")
    } else {
        table(&found)
    };
    report::print(&text)
}

/// Compares two results, each in one document or in several.
///
/// # Errors
/// A sentence where they hold nothing that could be compared.
pub fn compare(
    names: [String; 2],
    a: &[Document],
    b: &[Document],
    confidence: f64,
) -> Result<Comparison, String> {
    let rounds = |documents: &[Document]| {
        let all = documents.iter().flat_map(|d| d.rounds.iter().cloned());
        all.collect::<Vec<_>>()
    };
    let (rounds_a, rounds_b) = (rounds(a), rounds(b));
    if rounds_a.is_empty() || rounds_b.is_empty() {
        return Err("a result without rounds cannot be compared".into());
    }
    let different = |d: &Document| !model::repeated(d);
    if a.iter().chain(b).any(different) {
        return Err("the steps of a ramp or of `--steps` are different loads, not rounds: compare runs at one rate".into());
    }
    let paired = alternated(&rounds_a, &rounds_b);
    let percent = format::number(confidence * 100.0);
    let method = if paired {
        format!(
            "rounds alternated and are compared in pairs: Student's t on logarithms, {percent} %"
        )
    } else {
        format!(
            "rounds did not alternate and are compared as two groups: Welch's t on logarithms, {percent} %"
        )
    };
    let figures = readings(&rounds_a, &rounds_b)
        .into_iter()
        .map(|reading| figure(reading, &rounds_a, &rounds_b, paired, confidence))
        .collect();
    Ok(Comparison {
        names,
        rounds: [rounds_a.len(), rounds_b.len()],
        paired,
        method,
        warnings: warnings(a, b, rounds_a.len().min(rounds_b.len()), paired),
        figures,
    })
}

/// Whether the n-th rounds of both lie before the (n+1)-th rounds of both.
fn alternated(a: &[Round], b: &[Round]) -> bool {
    let ends = |round: &Round| round.started_ms as f64 + round.seconds * 1e3;
    a.len() == b.len()
        && a.len() > 1
        && (1..a.len()).all(|at| {
            let before = ends(&a[at - 1]).max(ends(&b[at - 1]));
            before <= a[at].started_ms.min(b[at].started_ms) as f64
        })
}

type Read = Box<dyn Fn(&Round) -> f64>;

/// What is compared: a name, how it is written, and where it stands in a round.
fn readings(a: &[Round], b: &[Round]) -> Vec<(String, Kind, Read)> {
    fn counted(round: &Round, wanted: impl Fn(Class) -> bool) -> f64 {
        let classes = round.classes.iter().filter(|c| wanted(c.class));
        classes.map(|c| c.count as f64).sum()
    }
    let mut all: Vec<(String, Kind, Read)> = vec![
        (
            "good replies a second".into(),
            Kind::Rate,
            Box::new(|r| counted(r, |c| c == Class::Ok) / r.seconds.max(1e-9)),
        ),
        (
            "share of other replies".into(),
            Kind::Share,
            Box::new(|r| counted(r, Class::is_error) / counted(r, |_| true).max(1.0)),
        ),
    ];
    for (name, quantile) in model::QUANTILES {
        // A percentile that no ten replies lie beyond is chance.
        let enough = |r: &Round| model::good(r).count as f64 * (1.0 - quantile) >= 10.0;
        if a.iter().chain(b).all(enough) {
            all.push((
                format!("{name} of good replies"),
                Kind::Latency,
                Box::new(move |r| model::good(r).quantile(quantile) as f64),
            ));
        }
    }
    all.push((
        "client CPU a request".into(),
        Kind::Cpu,
        Box::new(|r| r.client.cpu_us_request),
    ));
    let watched = a.first().map(|round| round.processes.as_slice());
    for process in watched.unwrap_or_default() {
        let name = process.name.clone();
        let of = move |r: &Round| {
            let found = r.processes.iter().find(|p| p.name == name);
            found.map(|p| p.cpu_us_request)
        };
        if a.iter().chain(b).all(|r| of(r).is_some()) {
            all.push((
                format!("CPU a request of {}", process.name),
                Kind::Cpu,
                Box::new(move |r| of(r).unwrap_or(0.0)),
            ));
        }
    }
    all
}

fn figure(
    (name, kind, read): (String, Kind, Read),
    a: &[Round],
    b: &[Round],
    paired: bool,
    confidence: f64,
) -> Figure {
    let (a, b): (Vec<f64>, Vec<f64>) =
        (a.iter().map(&read).collect(), b.iter().map(&read).collect());
    let ratio = if paired {
        stats::paired(&a, &b, confidence)
    } else {
        stats::unpaired(&a, &b, confidence)
    };
    Figure {
        name,
        a: middle(&a),
        b: middle(&b),
        ratio: ratio.map(|r| r.ratio),
        interval: ratio.and_then(|r| r.interval),
        verdict: verdict(ratio, &a, &b),
        kind,
    }
}

fn middle(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    if values.iter().all(|v| *v > 0.0) {
        (values.iter().map(|v| v.ln()).sum::<f64>() / n).exp()
    } else {
        values.iter().sum::<f64>() / n
    }
}

fn verdict(ratio: Option<Ratio>, a: &[f64], b: &[f64]) -> String {
    let Some(ratio) = ratio else {
        return if a.iter().chain(b).all(|v| *v == 0.0) {
            "both are zero".into()
        } else {
            "no ratio: a value is zero".into()
        };
    };
    let Some((low, high)) = ratio.interval else {
        return "no interval: more than one round is needed".into();
    };
    let change = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
    if low > 1.0 {
        format!("B is higher, by {}", change(ratio.ratio))
    } else if high < 1.0 {
        format!("B is lower, by {}", change(ratio.ratio))
    } else {
        format!(
            "no difference shown; it may be {} to {}",
            change(low),
            change(high)
        )
    }
}

fn warnings(a: &[Document], b: &[Document], fewest: usize, paired: bool) -> Vec<String> {
    let mut found = Vec::new();
    if fewest < 2 {
        found.push("One round says nothing about noise: there is no interval. Measure with `--rounds 6` or more.".to_owned());
    } else if fewest < ROUNDS_GOOD {
        found.push(format!(
            "{fewest} rounds are few: the intervals are wide and rest on the noise being bell-shaped. {ROUNDS_GOOD} or more are better."
        ));
    }
    if !paired && fewest > 1 {
        found.push("The rounds of A and B did not alternate: a machine that slowed down meanwhile would look like a difference.".to_owned());
    }
    for (name, documents) in [("A", a), ("B", b)] {
        let rounds = || documents.iter().flat_map(|d| &d.rounds);
        let own = rounds().filter(|r| r.client.bottleneck).count();
        if own > 0 {
            found.push(format!("{name}: the client was the bottleneck in {own} rounds, which then measure it and not the target."));
        }
        let unsent = rounds().fold(0_u64, |sum, r| sum.saturating_add(r.unsent));
        if unsent > 0 {
            found.push(format!(
                "{name}: {} requests that were due were never sent.",
                format::count(unsent)
            ));
        }
        if documents.iter().any(|d| d.interrupted) {
            found.push(format!("{name} was interrupted."));
        }
    }
    let (Some(first_a), Some(first_b)) = (a.first(), b.first()) else {
        return found;
    };
    if first_a.machine != first_b.machine {
        found.push("They were measured on different machines.".to_owned());
    }
    let (config_a, config_b) = (&first_a.config, &first_b.config);
    let differs = [
        ("pace", config_a.mode != config_b.mode),
        ("busy polling", config_a.busy_poll != config_b.busy_poll),
        ("connections", config_a.connections != config_b.connections),
        ("HTTP version", config_a.http != config_b.http),
        ("TLS", config_a.tls != config_b.tls),
        ("protocol version", config_a.protocol != config_b.protocol),
        ("calls", config_a.mix != config_b.mix),
        ("connection reuse", config_a.churn != config_b.churn),
    ];
    for (name, _) in differs.iter().filter(|(_, differs)| *differs) {
        found.push(format!("They differ in what was asked for: {name}."));
    }
    found
}

fn table(found: &Comparison) -> String {
    let mut out = String::new();
    for (letter, at) in [("A", 0), ("B", 1)] {
        let _ = writeln!(
            out,
            "{letter}: {} ({} rounds)",
            format::plain(&found.names[at]),
            found.rounds[at]
        );
    }
    let _ = writeln!(out, "{}", found.method);
    for warning in &found.warnings {
        let _ = writeln!(out, "Note: {}", format::plain(warning));
    }
    let head = ["", "A", "B", "B / A", "interval", ""].map(String::from);
    let rows = found.figures.iter().map(|figure| {
        [
            format::plain(&figure.name),
            figure.kind.show(figure.a),
            figure.kind.show(figure.b),
            figure
                .ratio
                .map_or_else(|| "–".into(), |r| format!("{r:.3}")),
            figure.interval.map_or_else(
                || "–".into(),
                |(low, high)| format!("{low:.3} to {high:.3}"),
            ),
            figure.verdict.clone(),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| {
        rows.iter()
            .map(|row| row[at].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    out.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[at] - cell.chars().count());
            let _ = match at {
                0 | 5 => write!(line, "{cell}{gap}  "),
                _ => write!(line, "{gap}{cell}  "),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(
        out,
        "\nOf twenty figures that do not differ, one lies outside its 95 % interval by chance."
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = include_str!("../tests/data/result.json");

    /// The fixture with this many rounds, the first beginning at `from`, one every `step` ms; latencies times `slower`.
    fn result(rounds: usize, from: u64, step: u64, slower: f64) -> Document {
        let mut document = Document::from_json(FIXTURE).unwrap();
        document.ramp = None;
        let first = document.rounds[0].clone();
        document.rounds = (0..rounds)
            .map(|at| {
                let mut round = first.clone();
                round.started_ms = from + at as u64 * step;
                for class in &mut round.classes {
                    // A machine that gets slower, and a little noise.
                    let factor = slower * (1.0 + at as f64 * 0.2) * (1.0 + (at % 3) as f64 * 0.004);
                    for bucket in &mut class.latency.buckets {
                        bucket.0 = (bucket.0 as f64 * factor) as u64;
                    }
                    class.latency.max = (class.latency.max as f64 * factor) as u64;
                }
                round
            })
            .collect();
        document
    }

    fn compared(a: &Document, b: &Document) -> Comparison {
        let names = ["a", "b"].map(String::from);
        let (a, b) = (std::slice::from_ref(a), std::slice::from_ref(b));
        compare(names, a, b, 0.95).unwrap()
    }

    fn p50(found: &Comparison) -> &Figure {
        let mut figures = found.figures.iter();
        figures.find(|f| f.name.starts_with("p50")).unwrap()
    }

    #[test]
    fn alternating_rounds_are_paired_and_show_a_tenth_under_a_drift() {
        let found = compared(&result(6, 0, 20_000, 1.0), &result(6, 8_000, 20_000, 1.1));
        assert!(found.paired);
        let figure = p50(&found);
        let (low, high) = figure.interval.unwrap();
        assert!(low > 1.09 && high < 1.11, "{figure:?}");
        assert!(figure.verdict.starts_with("B is higher"), "{figure:?}");
        assert!(
            table(&found).contains("compared in pairs"),
            "{}",
            table(&found)
        );
    }

    #[test]
    fn rounds_one_after_the_other_are_not_paired_and_it_is_said() {
        let found = compared(&result(6, 0, 10_000, 1.0), &result(6, 100_000, 10_000, 1.1));
        assert!(!found.paired);
        assert!(
            found
                .warnings
                .iter()
                .any(|w| w.contains("did not alternate"))
        );
        assert!(
            p50(&found).verdict.starts_with("no difference shown"),
            "{:?}",
            p50(&found)
        );
    }

    #[test]
    fn too_few_rounds_are_called_too_few() {
        let one = compared(&result(1, 0, 1, 1.0), &result(1, 10_000, 1, 2.0));
        assert!(one.figures.iter().all(|f| f.interval.is_none()));
        assert!(
            one.warnings[0].contains("One round says nothing"),
            "{:?}",
            one.warnings
        );
        let two = compared(&result(2, 0, 20_000, 1.0), &result(2, 8_000, 20_000, 2.0));
        assert!(
            two.warnings[0].contains("2 rounds are few"),
            "{:?}",
            two.warnings
        );
    }

    #[test]
    fn different_loads_are_no_rounds() {
        let document = Document::from_json(FIXTURE).unwrap();
        let both = std::slice::from_ref(&document);
        let error = compare(["a", "b"].map(String::from), both, both, 0.95).unwrap_err();
        assert!(error.contains("different loads"), "{error}");
    }
}
