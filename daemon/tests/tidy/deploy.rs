//! The files to run Tollgate with: what they name exists, what they start can be started.

use super::{files, none, read, root};
use clap::Parser as _;
use daemon::cli::Cli;
use proto::doc;

/// The instructions of the Dockerfile, continued lines joined, comments dropped.
fn instructions() -> Vec<String> {
    let text = read("config/Dockerfile");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_container_copies_what_exists_and_starts_the_gateway() {
    let mut problems = Vec::new();
    for line in instructions() {
        let Some(words) = line.strip_prefix("COPY ") else {
            continue;
        };
        let words: Vec<&str> = words.split_whitespace().collect();
        if words.iter().any(|word| word.starts_with("--from")) {
            continue;
        }
        let Some((_, sources)) = words.split_last() else {
            continue;
        };
        for source in sources.iter().filter(|word| !word.starts_with("--")) {
            if !root().join(source).exists() {
                problems.push(format!("config/Dockerfile: COPY {source}: does not exist"));
            }
        }
    }
    none(problems);
    let lines = instructions();
    let list = |name: &str| -> Vec<String> {
        let found = lines
            .iter()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        serde_json::from_str(found.trim()).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let words: Vec<String> = list("ENTRYPOINT").into_iter().chain(list("CMD")).collect();
    assert!(
        words
            .first()
            .is_some_and(|word| word.ends_with("/tollgate")),
        "{words:?}"
    );
    Cli::try_parse_from(words).unwrap();
    assert!(
        lines.iter().any(|line| line.starts_with("USER ")),
        "the container does not run as root"
    );
}

#[test]
fn every_folder_of_the_workspace_is_copied_into_the_build() {
    let copied = instructions().join("\n");
    for folder in [
        "benches", "cluster", "config", "daemon", "docs", "loadtest", "proto",
    ] {
        assert!(
            copied.contains(&format!(" {folder} ")),
            "{folder} is missing: cargo reads every member's manifest"
        );
    }
}

#[test]
fn the_service_starts_the_gateway_with_options_that_parse() {
    let unit = read("config/tollgate.service");
    let mut seen = 0;
    for line in unit.lines() {
        let command = ["ExecStart=", "ExecStartPre=", "ExecReload="]
            .iter()
            .find_map(|key| line.strip_prefix(key));
        let Some(command) = command.filter(|command| command.contains("/tollgate")) else {
            continue;
        };
        seen += 1;
        if let Err(e) = Cli::try_parse_from(command.split_whitespace()) {
            panic!("{command}: {e}");
        }
    }
    assert!(seen >= 1);
    let start = unit
        .lines()
        .find(|line| line.starts_with("ExecStart="))
        .unwrap_or_default();
    assert!(start.contains(" serve --config "), "{start}");
    for setting in [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "KillSignal=SIGTERM",
        "StateDirectory=tollgate",
        "ExecReload=",
    ] {
        assert!(unit.contains(setting), "{setting} is missing");
    }
}

#[test]
fn prometheus_scrapes_the_metrics() {
    let text = read("config/prometheus.yml");
    let node = doc::parse(&text).unwrap();
    let Some(doc::Value::List(jobs)) = node.child("scrape_configs").map(|node| &node.value) else {
        panic!("no scrape_configs");
    };
    let path = jobs
        .iter()
        .find_map(|job| job.child("metrics_path")?.as_str());
    assert_eq!(path, Some("/metrics"));
}

#[test]
fn every_policy_that_is_shipped_loads() {
    let policies = files("config/policies");
    assert!(policies.len() >= 5, "{policies:?}");
    let mut problems = Vec::new();
    for path in policies {
        if let Err(found) = proto::policy::load(&read(&path)) {
            problems.extend(
                found
                    .iter()
                    .map(|p| format!("{path}:{}: {}", p.at, p.message)),
            );
        }
    }
    none(problems);
}
