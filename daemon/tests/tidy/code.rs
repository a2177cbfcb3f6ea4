//! What Rust files may name, and how long they may be.

use super::{files_ending, none, read, root};

/// Files that may hold `unsafe`: the vectorised part of the scanner alone.
const UNSAFE: &[&str] = &["proto/src/scan/simd.rs"];

/// Longest Rust file, lines, the tests at its foot not counted.
const LINES_MAX: usize = 500;
/// Longest file of tests alone, lines.
const TEST_LINES_MAX: usize = 800;

/// Longer files and why: each is one state machine, one stage or one table that would be harder to read in pieces.
const LONG: &[(&str, usize)] = &[];

/// A Rust file's code without comments and without what stands in quotes, so that only names are left.
fn names_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if c == 'r' && raw_quote(rest).is_some() && !out.ends_with(is_word) {
            raw_quote(rest).unwrap_or(1)
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')) {
            quoted(rest, '\'')
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.push(' ');
        rest = &rest[skip..];
    }
    out
}

/// Length of `r"…"` or `r##"…"##` at the start of the text.
fn raw_quote(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end)? + end.len())
}

/// Length of a literal in quotes at the start of the text, escapes respected.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Lines on which the name stands as a whole word, with what follows it on the line.
fn uses<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
    code.lines().enumerate().flat_map(move |(line, text)| {
        text.match_indices(name)
            .map(move |(at, _)| (line + 1, &text[..at], &text[at + name.len()..]))
            .filter(|(_, before, after)| !before.ends_with(is_word) && !after.starts_with(is_word))
    })
}

#[test]
fn comments_and_quotes_are_not_names() {
    let code = names_only(
        "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe */ let b = r#\"unsafe\"#; let c: &'a str = 'u'; unsafe",
    );
    assert_eq!(uses(&code, "unsafe").count(), 1, "{code}");
    assert!(
        uses(&names_only("let unsafe_code = x;"), "unsafe")
            .next()
            .is_none()
    );
    assert!(
        uses(&names_only("let q = '\"'; unsafe"), "unsafe")
            .next()
            .is_some()
    );
}

/// Where a name stands in the code of files that are not allowed to have it.
fn named_outside(name: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for path in files_ending(".rs").iter().filter(|path| !allowed(path)) {
        for (line, _, _) in uses(&names_only(&read(path)), name) {
            problems.push(format!("{path}:{line}: names `{name}`"));
        }
    }
    problems
}

#[test]
fn consensus_transport_and_codec_are_named_only_in_cluster() {
    let mut problems = Vec::new();
    for name in ["raft", "raft_engine", "quinn", "bincode"] {
        problems.extend(named_outside(name, |path| path.starts_with("cluster/")));
    }
    none(problems);
}

/// The crate, not a field, a section of the configuration or a module of that name.
fn names_crate(before: &str, after: &str) -> bool {
    after.starts_with("::") && !before.ends_with(':') && !before.ends_with('.')
}

#[test]
fn only_the_composition_root_the_control_plane_the_limiter_the_admin_plane_and_cluster_commands_name_it()
 {
    let mut problems = Vec::new();
    let may = |path: &str| {
        let rooms = ["server", "control", "limiter", "admin", "cli/cluster"].iter();
        let mut rooms = rooms.map(|room| format!("daemon/src/{room}"));
        let inside = |room: &String| {
            path.strip_prefix(room.as_str())
                .is_some_and(|rest| rest.starts_with(['/', '.']))
        };
        rooms.any(|room| inside(&room))
            || path.starts_with("cluster/")
            || path.starts_with("benches/")
            // The limiter over three real voters; in a process of its own, for their logs are open in it.
            || path == "daemon/tests/it/units.rs"
            // It names the module of those commands.
            || path == "daemon/src/cli/mod.rs"
    };
    for path in files_ending(".rs").iter().filter(|path| !may(path)) {
        for (line, before, after) in uses(&names_only(&read(path)), "cluster") {
            if names_crate(before, after) {
                problems.push(format!("{path}:{line}: names the crate `cluster`"));
            }
        }
    }
    none(problems);
}

#[test]
fn proto_names_neither_the_daemon_nor_the_cluster() {
    let mut problems = Vec::new();
    let proto = files_ending(".rs").into_iter();
    for path in proto.filter(|path| path.starts_with("proto/src/")) {
        for name in ["daemon", "cluster", "loadtest"] {
            for (line, before, after) in uses(&names_only(&read(&path)), name) {
                if names_crate(before, after) {
                    problems.push(format!("{path}:{line}: names the crate `{name}`"));
                }
            }
        }
    }
    none(problems);
}

#[test]
fn an_admitted_call_is_made_only_in_the_decide_stage() {
    let mut problems = Vec::new();
    for path in files_ending(".rs") {
        if path == "daemon/src/gateway/decide.rs" || !path.starts_with("daemon/") {
            continue;
        }
        for (line, before, after) in uses(&names_only(&read(&path)), "Admitted") {
            let after = after.trim_start();
            let before = before.trim_end();
            let declares = ["struct", "impl", "for", "->", "enum", "let"]
                .iter()
                .any(|word| before.ends_with(word));
            if after.starts_with('{') && !declares {
                problems.push(format!("{path}:{line}: makes an `Admitted`"));
            }
        }
    }
    none(problems);
}

#[test]
fn nothing_is_unsafe() {
    none(named_outside("unsafe", |path| UNSAFE.contains(&path)));
}

#[test]
fn nothing_is_left_to_do() {
    let mut problems = Vec::new();
    for path in files_ending(".rs") {
        let text = read(&path);
        let code = names_only(&text);
        for name in ["todo", "unimplemented"] {
            let macros = uses(&code, name).filter(|(_, _, after)| after.starts_with('!'));
            problems.extend(macros.map(|(line, ..)| format!("{path}:{line}: `{name}!`")));
        }
        for word in [
            concat!("FIX", "ME"),
            concat!("XX", "X:"),
            concat!("TO", "DO"),
        ] {
            let lines = text
                .lines()
                .enumerate()
                .filter(|(_, line)| line.contains(word));
            problems.extend(lines.map(|(line, _)| format!("{path}:{}: {word}", line + 1)));
        }
    }
    none(problems);
}

/// Lines of a file of tests, or lines before the tests at a file's foot; and how many there may be.
fn lines(path: &str) -> (usize, usize) {
    let text = read(path);
    if path.contains("/tests/") || path.ends_with("/tests.rs") {
        return (text.lines().count(), TEST_LINES_MAX);
    }
    let mut before = text.as_str();
    for tests in ["#[cfg(test)]\nmod ", "#[cfg(all(test"] {
        before = before.split(tests).next().unwrap_or_default();
    }
    (before.lines().count(), LINES_MAX)
}

#[test]
fn rust_files_are_short() {
    let mut problems = Vec::new();
    for path in files_ending(".rs") {
        let (lines, max) = lines(&path);
        let long = LONG.iter().find(|(name, _)| *name == path);
        if lines > long.map_or(max, |(_, allowed)| *allowed) {
            problems.push(format!("{path}: {lines} lines, {max} allowed"));
        } else if long.is_some() && lines <= max {
            problems.push(format!("{path}: {lines} lines: no exception needed"));
        }
    }
    for (path, _) in LONG.iter().filter(|(path, _)| !root().join(path).exists()) {
        problems.push(format!(
            "{path}: an exception for a file that does not exist"
        ));
    }
    none(problems);
}
