//! `tollgate check`

mod log;

use self::log::Log;
use crate::{
    bounds::Bounds,
    clock,
    config::{self, FileProblem, PolicyDocument},
};
use anyhow::{Context, bail, ensure};
use proto::{
    doc::{self, Node, Problem, Value, suggest},
    policy::report,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    /// Say what changes in the policies, compared with this older file
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Say which names of a configuration stand in the cluster's log too, as the gateway with this admin socket knows it
    #[arg(long, value_name = "SOCKET")]
    log_of: Option<PathBuf>,
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
        "--against compares one file with another: give one"
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

/// Checks one file, and answers what is asked of it; false if there is an error.
fn check(path: &Path, args: &Args) -> anyhow::Result<bool> {
    let log = args.log_of.as_deref().map(Log::of).transpose()?;
    let Some(policies) = read(path, log.as_ref(), true)? else {
        return Ok(false);
    };
    let mut fine = true;
    if let Some(tool) = &args.call {
        fine &= call(&policies, tool, &args.args);
    }
    if let Some(old) = &args.against {
        let Some(old) = read(old, None, false)? else {
            return Ok(false);
        };
        against(&old, &policies);
    }
    Ok(fine)
}

/// Reads a file and tells its problems; the policies in it, or nothing if there is an error.
fn read(
    path: &Path,
    log: Option<&Log>,
    summarise: bool,
) -> anyhow::Result<Option<Vec<PolicyDocument>>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let node = match doc::parse(&text) {
        Ok(node) => node,
        Err(problems) => {
            tell(path, problems);
            return Ok(None);
        }
    };
    match told_from_keys(&node) {
        Document::Config => Ok(read_config(path, log, summarise)),
        Document::Policy => Ok(read_policy(path, &text, summarise).map(|policy| vec![policy])),
        Document::Grants => bail!(
            "{}: a list; if these are grants, check the configuration that names them in `grants_files`",
            path.display()
        ),
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
    // The catalogue's older pages print tools without the `tools:` around them.
    let fragment = node
        .entries()
        .iter()
        .any(|entry| entry.value.child("rules").is_some());
    match near(SECTIONS) >= near(POLICY) && !(fragment && near(SECTIONS) == 0) {
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

fn read_config(path: &Path, log: Option<&Log>, summarise: bool) -> Option<Vec<PolicyDocument>> {
    let loaded = match config::load(path, 1) {
        Ok(loaded) => loaded,
        Err(problems) => {
            tell_all(problems);
            return None;
        }
    };
    tell_all(loaded.remarks.iter().cloned());
    let (view, file) = (&loaded.view, path.display());
    let conflicts = log.map(|log| log.conflicts(&loaded)).unwrap_or_default();
    if !conflicts.is_empty() {
        conflicts
            .iter()
            .for_each(|line| eprintln!("{file}: {line}"));
        return None;
    }
    if summarise {
        let ids: BTreeSet<_> = view.grants.values().map(|grant| &grant.id).collect();
        let (servers, grants, tokens) = (view.servers.len(), ids.len(), view.grants.len());
        println!("{file}: fine; servers: {servers}, grants: {grants}, tokens: {tokens}");
        if let Some(log) = log {
            println!("{file}: {}", log.summary());
        }
    }
    Some(loaded.policies())
}

fn read_policy(path: &Path, text: &str, summarise: bool) -> Option<PolicyDocument> {
    let sessions = u32::try_from(Bounds::default().sessions_grant).unwrap_or(u32::MAX);
    let report = report::check(text, sessions);
    tell(path, report.problems);
    let (summary, loaded) = report.summary.zip(report.loaded)?;
    let file = path.display().to_string();
    if summarise {
        print!("{file}: {summary}");
    }
    Some(PolicyDocument {
        name: String::new(),
        file,
        loaded,
    })
}

/// Prints what each policy says of a call; false if the call is refused before any policy.
fn call(policies: &[PolicyDocument], tool: &str, arguments: &str) -> bool {
    for policy in policies {
        announce(policy);
        match report::call(&policy.loaded, tool, arguments, clock::now().unix_ms) {
            Ok(answer) => print!("{}", answer.to_text(&policy.file)),
            Err(why) => {
                println!("{why}");
                return false;
            }
        }
    }
    true
}

/// Prints what changed in each policy; policies of configurations belong together by name.
fn against(old: &[PolicyDocument], new: &[PolicyDocument]) {
    let among = |policies: &[PolicyDocument], name: &str| policies.iter().any(|p| p.name == name);
    for gone in old.iter().filter(|policy| !among(new, &policy.name)) {
        println!("policy {}: is gone; its counters end", gone.name);
    }
    for policy in new {
        let Some(before) = old.iter().find(|old| old.name == policy.name) else {
            println!("policy {}: is new", policy.name);
            continue;
        };
        announce(policy);
        let changes = report::against(&before.loaded, &policy.loaded);
        changes.iter().for_each(|change| println!("{change}"));
        if changes.is_empty() {
            println!("nothing changes");
        }
    }
}

fn announce(policy: &PolicyDocument) {
    if !policy.name.is_empty() {
        println!("policy {}:", policy.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_keys() {
        for (text, document) in [
            ("", Document::Config),
            ("servers: {}", Document::Config),
            ("server: {}\nlisteners: []", Document::Config),
            ("version: '1'\ndefault: deny", Document::Policy),
            ("tools: {}", Document::Policy),
            ("tolls: {}", Document::Policy),
            ("flux: {rules: [{action: deny}]}", Document::Policy),
            ("servers: {rules: {command: cat}}", Document::Config),
            ("- id: a", Document::Grants),
        ] {
            let node = doc::parse(text).unwrap();
            assert_eq!(told_from_keys(&node), document, "{text}");
        }
    }

    fn checked(name: &str, text: &str, args: &[&str]) -> bool {
        use clap::Parser;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let line = ["tollgate", "check", &path]
            .into_iter()
            .chain(args.iter().copied());
        let cli = crate::cli::Cli::parse_from(line.map(|arg| arg.replace("SELF", &path)));
        let crate::cli::Command::Check(args) = cli.command else {
            panic!("check")
        };
        run(args).unwrap() == ExitCode::SUCCESS
    }

    #[test]
    fn the_exit_code_tells_errors_from_remarks() {
        let policy = "version: '1'\ndefault: allow\ntools: {a: {}}\n";
        let config = "policies: {p: {inline: {version: '1', default: deny}}}\n";
        for (text, args, fine) in [
            (policy, &[][..], true),
            (policy, &["--call", "a", "--args", "{\"x\": 1}"], true),
            (
                policy,
                &["--call", "a", "--args", "{\"x\": 1, \"x\": 2}"],
                false,
            ),
            (policy, &["--against", "SELF"], true),
            (config, &[], true),
            (config, &["--call", "a"], true),
            (config, &["--against", "SELF"], true),
            ("version: '2'\ndefault: allow\n", &[], false),
            ("bounds: {depth: 1}\n", &[], false),
            ("a: [", &[], false),
        ] {
            assert_eq!(checked("file.yaml", text, args), fine, "{text} {args:?}");
        }
    }
}
