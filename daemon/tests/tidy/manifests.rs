//! The workspace's layout, its manifests and what it depends on.

use super::{files, files_ending, none, read, root};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Folders at the top. The layout is fixed: a new thing finds its room in one of these.
const FOLDERS: &[&str] = &[
    "benches", "cluster", "config", "daemon", "docs", "loadtest", "proto",
];

/// Files at the top.
const FILES: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "clippy.toml",
];

/// Nothing of `proto` may bring sockets, clocks, dice or an executor with it.
const NOT_IN_PROTO: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "hyper",
    "hyper-util",
    "http",
    "rustls",
    "aws-lc-rs",
    "getrandom",
    "rand",
    "rand_core",
    "rustix",
    "nix",
    "async-std",
    "smol",
    "quinn",
    "raft",
    "fastrand",
    "reqwest",
    "tracing-subscriber",
    "chrono",
];

/// One `[…dependencies]` table: the kind of table and the names in it, each with its line.
fn dependencies(manifest: &str) -> Vec<(String, String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in read(manifest).lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']').to_owned();
        } else if table.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.push((
                table.clone(),
                name.trim_matches('"').to_owned(),
                line.to_owned(),
            ));
        }
    }
    found
}

/// Manifests of the workspace's crates.
fn crates() -> Vec<String> {
    files_ending("/Cargo.toml")
}

/// Names in `[workspace.dependencies]`, those of the workspace's own crates left out.
fn shared() -> BTreeSet<String> {
    let all = dependencies("Cargo.toml").into_iter();
    all.filter(|(_, _, line)| !line.contains("path ="))
        .map(|(_, name, _)| name)
        .collect()
}

#[test]
fn the_top_level_is_fixed() {
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let expected = if entry.path().is_dir() {
            FOLDERS
        } else {
            FILES
        };
        if !name.starts_with('.') && name != "target" && !expected.contains(&&*name) {
            problems.push(format!(
                "{name} does not belong at the top of the repository"
            ));
        }
    }
    for name in FOLDERS
        .iter()
        .chain(FILES)
        .filter(|name| **name != "NOTICE")
    {
        if !root().join(name).exists() {
            problems.push(format!("{name} is missing"));
        }
    }
    none(problems);
}

#[test]
fn proto_brings_no_io_no_clock_and_no_dice() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "-p",
            "tollgate-proto",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        names.contains("tollgate-proto") && names.contains("serde"),
        "{tree}"
    );
    let found: Vec<_> = NOT_IN_PROTO
        .iter()
        .filter(|name| names.contains(**name))
        .collect();
    assert!(found.is_empty(), "tollgate-proto depends on {found:?}");
    let own: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("tollgate-"))
        .collect();
    assert_eq!(
        own,
        [&"tollgate-proto"],
        "proto imports no other crate of the workspace"
    );
}

/// Every package below one, with the features that are on in a plain build of it.
fn tree(package: &str, more: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p} [{f}]", "-p", package])
        .args(more)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

/// Packages of a tree that have planted faults, or a ledger that forgets.
fn faulty(tree: &[String]) -> Vec<&String> {
    let has_faults = |line: &&String| {
        let features = line.split_once('[').map_or("", |(_, features)| features);
        features
            .split([',', ']'])
            .any(|name| matches!(name, "faults" | "memory"))
    };
    tree.iter().filter(has_faults).collect()
}

#[test]
fn the_shipped_binaries_have_no_planted_faults_and_no_ledger_that_forgets() {
    for package in ["tollgate-daemon", "tollgate-loadtest"] {
        let tree = tree(package, &[]);
        assert!(
            tree.iter().any(|line| line.starts_with(package)),
            "{tree:#?}"
        );
        assert_eq!(faulty(&tree), Vec::<&String>::new(), "{package}");
    }
    // And it would be seen if they had.
    let with = tree("tollgate-cluster", &["--features", "faults"]);
    assert!(faulty(&with).len() >= 2, "{with:#?}");
}

#[test]
fn crates_depend_on_one_another_only_as_drawn() {
    let drawn = BTreeMap::from([
        ("proto/Cargo.toml", vec![]),
        ("proto/fuzz/Cargo.toml", vec!["proto"]),
        ("cluster/Cargo.toml", vec!["proto"]),
        ("loadtest/Cargo.toml", vec!["proto"]),
        ("daemon/Cargo.toml", vec!["cluster", "loadtest", "proto"]),
        ("benches/Cargo.toml", vec!["cluster", "daemon", "proto"]),
    ]);
    let mut problems = Vec::new();
    for manifest in crates() {
        let Some(may) = drawn.get(&*manifest) else {
            problems.push(format!(
                "{manifest}: not a crate of the map in architecture.md"
            ));
            continue;
        };
        for (_, name, _) in dependencies(&manifest) {
            if ["proto", "cluster", "daemon", "loadtest"].contains(&&*name)
                && !may.contains(&&*name)
            {
                problems.push(format!("{manifest}: must not depend on `{name}`"));
            }
        }
    }
    none(problems);
}

#[test]
fn consensus_transport_and_codec_are_dependencies_of_cluster_alone() {
    let mut problems = Vec::new();
    for manifest in crates()
        .iter()
        .filter(|manifest| *manifest != "cluster/Cargo.toml")
    {
        for (_, name, _) in dependencies(manifest) {
            if ["raft", "raft-engine", "quinn", "bincode"].contains(&&*name) {
                problems.push(format!("{manifest}: `{name}` belongs to cluster/"));
            }
        }
    }
    none(problems);
}

#[test]
fn every_crate_follows_the_lints_and_versions_of_the_workspace() {
    let mut problems = Vec::new();
    for manifest in crates() {
        if !read(&manifest).contains("[lints]\nworkspace = true") {
            problems.push(format!("{manifest}: `[lints] workspace = true` is missing"));
        }
        for (table, name, line) in dependencies(&manifest) {
            if !line.contains("workspace = true") {
                problems.push(format!(
                    "{manifest}: {table}.{name}: its version belongs in the root manifest"
                ));
            }
        }
    }
    none(problems);
}

#[test]
fn every_dependency_is_used() {
    let mut problems = Vec::new();
    let mut wanted = BTreeSet::new();
    for manifest in crates() {
        let folder = manifest.trim_end_matches("Cargo.toml");
        let sources: Vec<String> = files(folder)
            .iter()
            .filter(|path| {
                path.ends_with(".rs") && (folder.contains("fuzz") || !path.contains("/fuzz/"))
            })
            .map(|path| read(path))
            .collect();
        for (_, name, _) in dependencies(&manifest) {
            let word = name.replace('-', "_");
            if !sources.iter().any(|text| {
                text.contains(&format!("{word}::")) || text.contains(&format!("use {word}"))
            }) {
                problems.push(format!("{manifest}: `{name}` is not used"));
            }
            wanted.insert(name);
        }
    }
    let unused = shared().into_iter().filter(|name| !wanted.contains(name));
    problems.extend(unused.map(|name| format!("Cargo.toml: no crate wants `{name}`")));
    none(problems);
}

#[test]
fn every_direct_dependency_is_explained() {
    let page = read("docs/src/dependencies.md");
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let shared = shared();
    let mut problems = Vec::new();
    for name in &shared {
        if !explained.contains(&**name) {
            problems.push(format!("docs/src/dependencies.md: no line for `{name}`"));
        }
    }
    for name in explained.iter().filter(|name| !shared.contains(**name)) {
        problems.push(format!(
            "docs/src/dependencies.md: `{name}` is no dependency"
        ));
    }
    none(problems);
}

#[test]
fn packages_come_from_the_public_registries() {
    let mut problems = Vec::new();
    let mut told = |path: &str, line: &str| {
        // Cargo names the public index by its repository; the other clients' locks are not kept here.
        let public = ["registry+https://github.com/rust-lang/"];
        let source = line.contains("source = ")
            || line.contains("\"resolved\":")
            || line.contains("index-url");
        if source && !public.iter().any(|url| line.contains(url)) {
            problems.push(format!("{path}: {}", line.trim()));
        }
    };
    for path in files("") {
        if path.ends_with("Cargo.lock")
            || path.ends_with("package-lock.json")
            || path.contains("requirements")
        {
            read(&path).lines().for_each(|line| told(&path, line));
        }
    }
    none(problems);
}

#[test]
fn no_file_names_a_path_of_the_machine_it_was_written_on() {
    let needles = [
        concat!("/wo", "rk/"),
        concat!("/tmp/", "wt"),
        concat!("/ro", "ot/"),
    ];
    let mut problems = Vec::new();
    for path in files("").into_iter().chain([".ci/run".to_owned()]) {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for needle in needles.iter().filter(|needle| text.contains(**needle)) {
            problems.push(format!("{path}: {needle}"));
        }
    }
    none(problems);
}
