//! What the documentation says must be so: links lead somewhere, commands parse, documents load, names exist.

use super::{
    files,
    markdown::{blocks, commands, heading_ids, inline_code, links, pages, prose},
    none, read, root,
};
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use daemon::cli::Cli;
use std::path::Path;

/// Joins a link to the folder of the page that has it.
fn beside(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let mut problems = Vec::new();
    for page in pages() {
        for (line, text) in prose(&page) {
            for link in links(&text) {
                if link.starts_with("https://") || link.starts_with("http://") {
                    continue;
                }
                let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
                let path = if path.is_empty() {
                    page.clone()
                } else {
                    beside(&page, path)
                };
                if !root().join(&path).exists() {
                    problems.push(format!("{page}:{line}: {link} leads nowhere"));
                } else if !heading.is_empty() && !heading_ids(&path).iter().any(|id| id == heading)
                {
                    problems.push(format!("{page}:{line}: {path} has no heading #{heading}"));
                }
            }
        }
    }
    none(problems);
}

#[test]
fn the_summary_has_every_page_of_the_book() {
    let summary: Vec<String> = prose("docs/src/SUMMARY.md")
        .iter()
        .flat_map(|(_, line)| links(line))
        .collect();
    let mut problems = Vec::new();
    for page in files("docs/src") {
        let name = page.trim_start_matches("docs/src/");
        if name.ends_with(".md") && name != "SUMMARY.md" && !summary.iter().any(|link| link == name)
        {
            problems.push(format!("{page} is not in SUMMARY.md"));
        }
    }
    none(problems);
}

#[test]
fn every_path_of_the_repository_that_is_named_exists() {
    let folders = [
        "benches/",
        "cluster/",
        "config/",
        "daemon/",
        "docs/",
        "loadtest/",
        "proto/",
        ".ci/",
    ];
    let mut problems = Vec::new();
    for page in pages() {
        for (line, text) in prose(&page) {
            for code in inline_code(&text) {
                let path = code.split([' ', ':', '#']).next().unwrap_or_default();
                let named = folders.iter().any(|folder| path.starts_with(folder));
                let pattern = path.contains(['*', '<', '{', '…']);
                if named && !pattern && !root().join(path).exists() {
                    problems.push(format!("{page}:{line}: {path} does not exist"));
                }
            }
        }
    }
    for block in blocks() {
        for word in block.text.split([' ', '\n', '"', '\'', ',', '(', ')']) {
            if (word.starts_with("config/") || word.starts_with("docs/"))
                && block.language() == "sh"
                && !root().join(word).exists()
            {
                problems.push(format!(
                    "{}:{}: {word} does not exist",
                    block.page, block.line
                ));
            }
        }
    }
    none(problems);
}

/// The arguments behind `tollgate`, if the command starts it: by name, by path, or through cargo.
fn tollgate_arguments(command: &[String]) -> Option<&[String]> {
    let (first, rest) = command.split_first()?;
    if Path::new(first)
        .file_name()
        .is_some_and(|name| name == "tollgate")
    {
        return Some(rest);
    }
    let cargo_run = first == "cargo" && rest.first().is_some_and(|word| word == "run");
    let dashes = rest.iter().position(|word| word == "--");
    let other_package = rest
        .iter()
        .any(|word| word == "-p" || word == "--package" || word == "--bin");
    (cargo_run && !other_package)
        .then(|| dashes.map_or(&[][..], |at| rest.get(at + 1..).unwrap_or_default()))
}

fn parse(arguments: &[String]) -> Result<(), clap::Error> {
    let line = std::iter::once("tollgate").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(line) {
        Err(e) if !matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Err(e),
        _ => Ok(()),
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_in_a_block_of_shell_code_parses() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.language() == "sh") {
        for command in commands(block) {
            let Some(arguments) = tollgate_arguments(&command) else {
                continue;
            };
            seen += 1;
            if let Err(e) = parse(arguments) {
                problems.push(format!(
                    "{}:{}: {}: {e}",
                    block.page,
                    block.line,
                    command.join(" ")
                ));
            }
        }
    }
    assert!(seen > 10, "only {seen} commands were found");
    none(problems);
}

#[test]
fn every_command_named_in_a_sentence_exists() {
    let mut problems = Vec::new();
    for page in pages() {
        for (line, text) in prose(&page) {
            for code in inline_code(&text)
                .into_iter()
                .filter(|code| code.starts_with("tollgate "))
            {
                let words = code
                    .split(' ')
                    .skip(1)
                    .take_while(|word| !word.contains('…'));
                let words: Vec<String> = words.map(str::to_owned).collect();
                if let Err(e) = parse(&words) {
                    let short = [
                        ErrorKind::MissingRequiredArgument,
                        ErrorKind::MissingSubcommand,
                        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                        ErrorKind::InvalidValue,
                    ];
                    if !short.contains(&e.kind()) {
                        problems.push(format!("{page}:{line}: {code}: {e}"));
                    }
                }
            }
        }
    }
    none(problems);
}

#[test]
fn every_document_in_the_pages_can_be_read() {
    let mut problems = Vec::new();
    for block in blocks() {
        let told = |why: String| format!("{}:{}: {why}", block.page, block.line);
        match block.language() {
            "yaml" | "json" => {}
            "" => {
                problems.push(told("a block of code without a language".into()));
                continue;
            }
            _ => continue,
        }
        if let Err(found) = proto::doc::parse(&block.text) {
            problems.extend(
                found
                    .iter()
                    .map(|p| told(format!("{}: {}", p.at, p.message))),
            );
        }
    }
    none(problems);
}

#[test]
fn every_policy_in_the_pages_loads_without_a_warning() {
    let mut problems = Vec::new();
    let mut dialects = Vec::new();
    for block in blocks().iter().filter(|block| block.has("policy")) {
        let remarks = match proto::policy::load(&block.text) {
            Ok(loaded) => {
                dialects.push(loaded.dialect);
                loaded.remarks
            }
            Err(found) => found,
        };
        for problem in remarks
            .iter()
            .filter(|p| p.severity != proto::doc::Severity::Note)
        {
            problems.push(format!(
                "{}:{}: {}: {}",
                block.page, block.line, problem.at, problem.message
            ));
        }
    }
    none(problems);
    for dialect in [
        proto::policy::Dialect::Native,
        proto::policy::Dialect::Intercept,
        proto::policy::Dialect::Catalogue,
    ] {
        assert!(
            dialects.contains(&dialect),
            "no page shows a policy in the dialect {dialect:?}"
        );
    }
}

/// A folder with the files that configurations of the pages name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["gate.example.com".into()]).unwrap();
    write("tls/chain.pem", &own.cert.pem());
    write("tls/key.pem", &own.signing_key.serialize_pem());
    write("tls/clients.pem", &own.cert.pem());
    write("image-token", "secret\n");
    folder
}

#[test]
fn every_configuration_in_the_pages_loads() {
    let folder = folder();
    let sources = daemon::config::Sources {
        env: &|_| Some("/usr/bin".into()),
        builtin: &[],
    };
    let mut problems = Vec::new();
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.has("config")) {
        seen += 1;
        if let Err(found) = daemon::config::load_with(&block.text, folder.path(), &sources, 1) {
            problems.extend(
                found
                    .iter()
                    .map(|problem| format!("{}:{}: {problem}", block.page, block.line)),
            );
        }
    }
    assert!(seen > 5, "only {seen} configurations were found");
    none(problems);
}

#[test]
fn every_metric_has_its_line() {
    let page = read("docs/src/metrics.md");
    let missing = daemon::metrics::TABLE.iter().filter(|row| {
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", row.name)));
        !line.is_some_and(|line| {
            labels.iter().all(|label| line.contains(label)) && line.contains(row.help)
        })
    });
    none(
        missing
            .map(|row| format!("docs/src/metrics.md: no exact line for {}", row.name))
            .collect(),
    );
}

#[test]
fn the_changelog_begins_with_what_is_not_released() {
    let first = prose("CHANGELOG.md")
        .into_iter()
        .find(|(_, line)| line.starts_with("## "));
    assert_eq!(
        first.map(|(_, line)| line).as_deref(),
        Some("## Unreleased")
    );
}
