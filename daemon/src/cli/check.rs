//! `tollgate check`

mod call;

use crate::config::{self, FileProblem};
use anyhow::{Context, ensure};
use proto::{
    doc::{self, Node, Problem, Value, suggest},
    policy::{self, dialect::Loaded},
};
use std::{fs, path::Path, path::PathBuf, process::ExitCode};

/// Arguments of `tollgate check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Problems go to standard error, answers to standard output. The exit code is 1 if there is an error."
)]
pub struct Args {
    /// Configuration and policy files; which one a file is, is told from its keys
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Say what each policy decides of a call of this tool
    #[arg(long, value_name = "TOOL")]
    call: Option<String>,
    /// The call's arguments, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "call")]
    args: String,
    /// Say what the policy changes, compared with this older one
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
}

/// What a file is.
#[derive(Debug, PartialEq)]
enum Document {
    Config,
    Policy,
    Grants,
}

/// Runs `tollgate check`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(
        args.against.is_none() || args.files.len() == 1,
        "--against compares one policy with another: give one file"
    );
    let mut fine = true;
    for path in &args.files {
        fine &= check(path, &args)?;
    }
    Ok(match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

/// Checks one file; false if it has an error.
fn check(path: &Path, args: &Args) -> anyhow::Result<bool> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let node = match doc::parse(&text) {
        Ok(node) => node,
        Err(problems) => return Ok(tell(path, problems)),
    };
    match told_from_keys(&node) {
        Document::Config => {
            ensure!(
                args.against.is_none(),
                "--against compares policies; {} is a configuration",
                path.display()
            );
            Ok(check_config(path, args))
        }
        Document::Policy => check_policy(path, &text, args),
        Document::Grants => {
            println!(
                "{}: a list of grants; it is checked with the configuration that names it",
                path.display()
            );
            Ok(true)
        }
    }
}

/// A configuration has sections that no policy has; a misspelt one counts too.
fn told_from_keys(node: &Node) -> Document {
    const SECTIONS: &[&str] = &[
        "listeners",
        "servers",
        "policies",
        "grants",
        "grants_files",
        "hosts",
        "origins",
        "bounds",
        "audit",
        "admin",
        "log",
        "identity_secret",
        "runtimes",
        "reload_interval",
    ];
    const POLICY: &[&str] = &[
        "version",
        "default",
        "description",
        "hide",
        "tools",
        "all_tools",
        "mode",
        "methods",
        "rules",
    ];
    if matches!(node.value, Value::List(_)) {
        return Document::Grants;
    }
    let near = |known: &[&str]| {
        let keys = node.entries().iter();
        keys.filter(|entry| suggest(&entry.key, known.iter().copied()).is_some())
            .count()
    };
    match near(SECTIONS) >= near(POLICY) {
        true => Document::Config,
        false => Document::Policy,
    }
}

fn tell(path: &Path, problems: Vec<Problem>) -> bool {
    let file = path.display().to_string();
    let problems = problems.into_iter().map(|problem| FileProblem {
        file: file.clone(),
        problem,
    });
    tell_all(problems)
}

/// Prints problems; false if there is an error among them.
fn tell_all(problems: impl IntoIterator<Item = FileProblem>) -> bool {
    let mut fine = true;
    for problem in problems {
        fine &= !problem.is_error();
        eprintln!("{problem}");
    }
    fine
}

fn check_config(path: &Path, args: &Args) -> bool {
    let loaded = match config::load(path, 1) {
        Ok(loaded) => loaded,
        Err(problems) => return tell_all(problems),
    };
    tell_all(loaded.remarks);
    let view = &loaded.view;
    let tokens = view.grants.len();
    let grants: std::collections::BTreeSet<_> =
        view.grants.values().map(|grant| &grant.id).collect();
    println!(
        "{}: fine; servers: {}, grants: {}, tokens: {tokens}",
        path.display(),
        view.servers.len(),
        grants.len()
    );
    if let Some(tool) = &args.call {
        return call::on_view(view, tool, &args.args);
    }
    true
}

fn check_policy(path: &Path, text: &str, args: &Args) -> anyhow::Result<bool> {
    let Some((loaded, compiled)) = read_policy(path, text) else {
        return Ok(false);
    };
    println!(
        "{}: fine; a policy in the {} dialect",
        path.display(),
        loaded.dialect.name()
    );
    if let Some(tool) = &args.call {
        return Ok(call::on_policy(&compiled, tool, &args.args));
    }
    Ok(true)
}

/// Reads and compiles a policy; its problems are printed.
fn read_policy(path: &Path, text: &str) -> Option<(Loaded, policy::Policy)> {
    let mut loaded = policy::load(text)
        .map_err(|problems| tell(path, problems))
        .ok()?;
    tell(path, std::mem::take(&mut loaded.remarks));
    let site = call::site();
    let compiled = policy::compile(&loaded.policy, site).map_err(|problems| tell(path, problems));
    Some((loaded, compiled.ok()?))
}
