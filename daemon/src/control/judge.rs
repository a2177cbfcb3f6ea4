//! Would a change of the log make a view that can be put in force here? Asked before the change is proposed.

use super::{assemble::Assembler, hold::sentences};
use crate::{
    config::{self, FileProblem, Loaded, log},
    view::{Unresolved, View},
};
use proto::{
    control::{Change, Control, Kind, Refusal},
    limit::ledger::Bounds,
};
use std::collections::HashSet;

/// Why a change is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// The document has errors, each a line with its place.
    #[error("the document cannot be used:\n{0}")]
    Unreadable(String),
    /// The name stands in this node's files.
    #[error("{0}")]
    Taken(String),
    /// Others would no longer resolve.
    #[error("{0}")]
    Needed(String),
    /// The control plane itself would refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

/// Judges a change by what this node knows: its files, and the log so far. Answers with remarks.
pub(super) fn judge(
    mut assembler: Assembler,
    files: &Loaded,
    control: &Control,
    in_force: Option<&View>,
    change: &Change,
) -> Result<Vec<String>, Objection> {
    let word = log::kind_word(change.kind);
    let (kind, name) = (change.kind, &change.name);
    if !config::is_name(name) {
        let message = format!("`{name}`: the name of a {word} is 1 to 64 of A-Z a-z 0-9 _ . -");
        return Err(Objection::Unreadable(message));
    }
    if change.body.is_some() && config::names(files, kind).contains(&**name) {
        return Err(Objection::Taken(format!(
            "a {word} `{name}` is in this node's files: give it another name, or take it out of the files first"
        )));
    }
    let before = match in_force {
        Some(view) if view.control == control.version() => view.unresolved.clone(),
        _ => assembler.assemble(files, control, 0).unresolved,
    };
    let mut next = control.clone();
    let unconditional = Change {
        expect: None,
        ..change.clone()
    };
    next.apply(&unconditional, 0)?;
    let remarks = match &change.body {
        Some(body) => read(kind, name, body, files)?,
        None => Vec::new(),
    };
    let after = assembler.assemble(files, &next, 0);
    let was: HashSet<(Kind, &str)> = before.iter().map(key).collect();
    if let Some(own) = after.unresolved.iter().find(|u| key(u) == (kind, &**name)) {
        return Err(Objection::Unreadable(own.why.join("\n")));
    }
    let broken: Vec<&Unresolved> = after
        .unresolved
        .iter()
        .filter(|unresolved| !was.contains(&key(unresolved)))
        .collect();
    if let Some(first) = broken.first() {
        let names: Vec<_> = broken.iter().take(5).map(|u| place(u)).collect();
        let more = broken.len().saturating_sub(names.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return Err(Objection::Needed(format!(
            "{}{more} would no longer be in force ({}): change or revoke that first",
            names.join(", "),
            first.why.join("; ")
        )));
    }
    let (limits, most) = (limits(&after), Bounds::default().limits_max);
    if limits > most {
        return Err(Objection::Unreadable(format!(
            "with it this node would have {limits} limits; a cluster takes {most}"
        )));
    }
    Ok(remarks)
}

/// The document by itself, also one that nobody uses yet.
fn read(kind: Kind, name: &str, body: &[u8], files: &Loaded) -> Result<Vec<String>, Objection> {
    let sources = config::Sources::default();
    let with = config::Surroundings {
        sources: &sources,
        bounds: &files.view.bounds,
        commands: files.settings.cluster.commands_from_log,
    };
    let mut problems = match kind {
        Kind::Grant => log::grant(name, body, with).problems,
        Kind::Server => log::server(name, body, with).problems,
        Kind::Policy => {
            let reading = log::policy(name, body, with);
            let mut problems = reading.problems;
            if let Some(document) = &reading.value {
                let place = log::place(kind, name);
                let nowhere = proto::id::ServerName::new("-");
                let compiled = config::compile(files, &place, name, document, &nowhere);
                problems.extend(compiled.err().into_iter().flatten());
            }
            problems
        }
    };
    if problems.iter().any(FileProblem::is_error) {
        problems.retain(FileProblem::is_error);
        return Err(Objection::Unreadable(sentences(&problems).join("\n")));
    }
    Ok(problems.iter().map(ToString::to_string).collect())
}

fn key(unresolved: &Unresolved) -> (Kind, &str) {
    (unresolved.kind, &unresolved.name)
}

fn place(unresolved: &Unresolved) -> String {
    let word = log::kind_word(unresolved.kind);
    format!("the {word} `{}`", unresolved.name)
}

fn limits(view: &View) -> usize {
    let all = view.policies.values().flat_map(|used| &used.policy.limits);
    let identities: HashSet<_> = all.map(|limit| limit.identity).collect();
    identities.len()
}
