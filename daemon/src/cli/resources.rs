//! What grants, policies and servers of the cluster's log have in common on the command line.

use super::{
    status::{Gateway, print},
    table::table,
};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use proto::{
    admin::control::{
        DELETE, Named, PUT, RESOURCE, RESOURCES, Resource, Resources, Shown, Written, kind_word,
    },
    control::{BODY_BYTES_MAX, Kind},
};
use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

/// Arguments of listing.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    gateway: Gateway,
}

/// Arguments of showing one.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    gateway: Gateway,
}

/// Arguments of deleting one.
#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// Its name
    name: String,
    /// Only if it was not changed since: its version, as `list` shows it
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) fn list(kind: Kind, args: &List) -> anyhow::Result<ExitCode> {
    let named = named(kind, "", None);
    args.gateway.show(&named.target(RESOURCES), told_all)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(kind: Kind, args: &Show) -> anyhow::Result<ExitCode> {
    let named = named(kind, &args.name, None);
    args.gateway.show(&named.target(RESOURCE), told_one)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn delete(kind: Kind, args: &Delete) -> anyhow::Result<ExitCode> {
    let named = named(kind, &args.name, args.if_version);
    let target = named.target(DELETE);
    let written: Written = args.gateway.put(&target, Bytes::new())?;
    let word = kind_word(kind);
    report(
        &args.gateway,
        &format!("{word} {}: deleted", args.name),
        &written,
    )
}

/// Puts a document.
pub(super) fn put(
    kind: Kind,
    name: &str,
    if_version: Option<u64>,
    body: Vec<u8>,
    gateway: &Gateway,
) -> anyhow::Result<Written> {
    gateway.put(&named(kind, name, if_version).target(PUT), body.into())
}

/// Tells what was written: as JSON on standard output, or in words on standard error.
pub(super) fn report(gateway: &Gateway, done: &str, written: &Written) -> anyhow::Result<ExitCode> {
    if gateway.json() {
        let mut text = serde_json::to_vec(written)?;
        text.push(b'\n');
        print(&text)?;
    } else {
        tell(done, written);
    }
    Ok(ExitCode::SUCCESS)
}

/// In words, on standard error.
pub(super) fn tell(done: &str, written: &Written) {
    for remark in &written.remarks {
        eprintln!("{remark}");
    }
    let here = match written.in_force {
        true => "in force on this node",
        false => "committed, and not yet in force on this node: see `tollgate status`",
    };
    eprintln!("{done}, version {}, {here}", written.version);
}

/// A file's content, or that of standard input for `-`.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let most = BODY_BYTES_MAX as u64 + 1;
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => io::stdin().take(most).read_to_string(&mut text),
        false => fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)),
    };
    read.with_context(|| path.display().to_string())?;
    ensure!(
        text.len() <= BODY_BYTES_MAX,
        "{}: a document has at most 4 MiB",
        path.display()
    );
    Ok(text)
}

fn named(kind: Kind, name: &str, if_version: Option<u64>) -> Named {
    Named {
        kind,
        name: name.to_owned(),
        if_version,
    }
}

fn row(resource: &Resource) -> Vec<String> {
    vec![
        resource.name.clone(),
        resource.origin.clone(),
        resource.version.map_or_else(String::new, |v| v.to_string()),
        resource.state.clone(),
        resource.changed.clone().unwrap_or_default(),
        resource.by.clone().unwrap_or_default(),
        resource.summary.clone(),
    ]
}

fn why(resources: &[Resource]) -> String {
    let broken = resources.iter().filter(|resource| !resource.why.is_empty());
    let told = broken.map(|resource| {
        let why = resource.why.join("\n  ");
        format!("\n{}: not in force on this node:\n  {why}\n", resource.name)
    });
    told.collect()
}

fn told_all(all: &Resources) -> String {
    if all.resources.is_empty() {
        return "none, neither in the files nor in the log\n".to_owned();
    }
    let rows: Vec<_> = all.resources.iter().map(row).collect();
    let heading = ["NAME", "FROM", "VERSION", "STATE", "CHANGED", "BY", "WHAT"];
    let told = table(&heading, &[2], &rows) + &why(&all.resources);
    match all.age_ms {
        Some(_) => told,
        None => {
            told + "\nthe log was never confirmed on this node: what it says of it may be old\n"
        }
    }
}

fn told_one(shown: &Shown) -> String {
    let rows: Vec<_> = shown.resources.iter().map(row).collect();
    let heading = ["NAME", "FROM", "VERSION", "STATE", "CHANGED", "BY", "WHAT"];
    let told = table(&heading, &[2], &rows) + &why(&shown.resources);
    match &shown.document {
        Some(document) => format!("{told}\n{}\n", document.trim_end()),
        None => told + "\nit stands in the node's files\n",
    }
}
