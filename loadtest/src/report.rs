//! `tollgate-loadtest report`: what a result says, as one HTML file, as Markdown or as JSON.
//!
//! ```text
//! Document ──► model.rs (figures) ──┬─► page.rs ◄── figures.rs ──► chart.rs, bars.rs ──► scale.rs     HTML
//!                                   ├─► markdown.rs                                                   Markdown
//!                                   └─► JSON                  tables.rs serves both; format.rs escapes
//! ```

mod bars;
mod chart;
mod figures;
pub(crate) mod format;
mod markdown;
pub(crate) mod model;
mod page;
mod scale;
mod tables;

use self::model::{ClassFigures, Figures, Run};
use crate::result::{Document, Limits, Machine, Ramp};
use serde::Serialize;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Most results in one report.
const RESULTS_MAX: usize = 32;
/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What a result says, for people: one HTML file that needs no network, or Markdown, or JSON
///
/// Several results are drawn over each other and then told one after the other. `compare` says whether two differ.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files that `run` or `limits` wrote
    #[arg(required = true, value_name = "RESULT.json")]
    pub results: Vec<PathBuf>,
    /// Where to write it (`-` = standard output); HTML goes beside the first result unless told otherwise, the others to
    /// standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Markdown instead of HTML
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// JSON with the figures instead of HTML (the results themselves hold every histogram)
    #[arg(long)]
    pub json: bool,
}

/// Writes the report, and prints where it is unless it went to standard output.
///
/// # Errors
/// A sentence: a file cannot be read or written, or is no result.
pub fn run(args: &Args) -> Result<(), String> {
    if args.results.len() > RESULTS_MAX {
        return Err(format!("at most {RESULTS_MAX} results fit into one report"));
    }
    let runs = args.results.iter().map(|path| {
        let document = read(path)?;
        Ok(Run::new(&path.to_string_lossy(), document))
    });
    let runs = runs.collect::<Result<Vec<_>, String>>()?;
    let text = match (args.markdown, args.json) {
        (true, _) => markdown::document(&runs),
        (_, true) => json(&runs),
        _ => page::document(&runs),
    };
    let beside = || (!args.markdown && !args.json).then(|| args.results[0].with_extension("html"));
    match args.out.clone().or_else(beside) {
        Some(path) if path != Path::new("-") => {
            fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
            print(&format!("{}\n", path.display()))
        }
        _ => print(&text),
    }
}

/// Standard output, where a reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Reads one result.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn read(path: &Path) -> Result<Document, String> {
    let named = |error: String| format!("{}: {error}", path.display());
    let size = fs::metadata(path).map_err(|e| named(e.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(named(format!(
            "{size} bytes are more than {FILE_BYTES_MAX}"
        )));
    }
    let text = fs::read_to_string(path).map_err(|e| named(e.to_string()))?;
    Document::from_json(&text).map_err(named)
}

/// A report's figures for machines.
#[derive(Debug, Serialize)]
struct Json<'a> {
    title: &'a str,
    file: &'a str,
    command: &'a [String],
    started_ms: u64,
    machine: &'a Machine,
    warnings: &'a [String],
    all: &'a Figures,
    rounds: &'a [Figures],
    classes: &'a [ClassFigures],
    #[serde(skip_serializing_if = "Option::is_none")]
    ramp: Option<&'a Ramp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<&'a Limits>,
}

fn json(runs: &[Run]) -> String {
    let runs: Vec<_> = runs
        .iter()
        .map(|run| Json {
            title: &run.title,
            file: &run.file,
            command: &run.document.command,
            started_ms: run.document.started_ms,
            machine: &run.document.machine,
            warnings: &run.warnings,
            all: &run.all,
            rounds: &run.rounds,
            classes: &run.classes,
            ramp: run.document.ramp.as_ref(),
            limits: run.document.limits.as_ref(),
        })
        .collect();
    let text = serde_json::to_string_pretty(&runs).unwrap_or_default();
    format!("{text}\n")
}
