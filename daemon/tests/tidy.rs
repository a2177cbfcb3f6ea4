//! The invariants that the compiler cannot hold, as tests: what may name what, how long a file may be, what the
//! documentation promises. `docs/src/architecture.md` gives the reasons.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where its world is not as it must be"
)]

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/deploy.rs"]
mod deploy;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/reference.rs"]
mod reference;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The top of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: daemon/ stands in the workspace")
        .to_owned()
}

/// Every file below a folder of the workspace, as paths from its top, in order; hidden folders, build output and
/// installed packages are not looked into.
fn files(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let skipped = [
                "target",
                "node_modules",
                "artifacts",
                "corpus-local",
                "__pycache__",
            ];
            if path.is_dir() {
                if !name.starts_with('.') && !skipped.contains(&&*name) {
                    folders.push(path);
                }
            } else if name != ".git" {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Every file of the workspace whose name ends so.
fn files_ending(end: &str) -> Vec<String> {
    files("")
        .into_iter()
        .filter(|path| path.ends_with(end))
        .collect()
}

/// The text of a file of the workspace.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Fails with every problem at once.
#[track_caller]
fn none(problems: Vec<String>) {
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}
