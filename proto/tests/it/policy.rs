//! Policies as data: cases under `tests/policy/`, judged as the gateway judges.

use proto::{
    doc::{self, Node, Severity, Value},
    policy::{self, Dialect},
};
use std::fmt::Write;

mod calls;
mod judging;
mod report;
mod shipped;

use calls::{Fake, compile};

/// The cases of a file: a list of mappings.
fn cases(text: &str) -> Vec<Node> {
    match doc::parse(text).expect("test data is YAML").value {
        Value::List(cases) => cases,
        other => panic!("a list of cases, not {other:?}"),
    }
}

fn text<'n>(case: &'n Node, key: &str) -> Option<&'n str> {
    case.child(key).map(|node| node.as_str().expect("text"))
}

fn texts<'n>(case: &'n Node, key: &str) -> Vec<&'n str> {
    match case.child(key).map(|node| &node.value) {
        Some(Value::List(items)) => items
            .iter()
            .map(|item| item.as_str().expect("text"))
            .collect(),
        None => Vec::new(),
        Some(other) => panic!("{key}: a list, not {other:?}"),
    }
}

/// Writes a node as JSON.
fn json(node: &Node) -> String {
    let list = |items: Vec<String>| items.join(",");
    let string = |text: &str| serde_json::Value::from(text).to_string();
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(is) => is.to_string(),
        Value::Number(text) => text.clone(),
        Value::String(text) => string(text),
        Value::List(items) => format!("[{}]", list(items.iter().map(json).collect())),
        Value::Map(entries) => {
            let entry = |e: &doc::Entry| format!("{}:{}", string(&e.key), json(&e.value));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
    }
}

/// A condition that must hold, in every dialect that can say it, with the id of its rule; one that must not.
fn renderings(case: &Node) -> Vec<(Dialect, String, &'static str)> {
    let native = |key: &str, conditions: &Node| {
        let conditions = json(conditions);
        format!(
            r#"{{"version":"1","default":"deny","tools":{{"t":{{"{key}":[{{"conditions":{conditions},"on_deny":"no"}}]}}}}}}"#
        )
    };
    match (case.child("must"), case.child("never")) {
        (Some(must), None) => {
            let yaml = json(must);
            vec![
                (
                    Dialect::Native,
                    native("require", must),
                    "/tools/t/require/0",
                ),
                (
                    Dialect::Intercept,
                    format!(
                        r#"{{"version":"1","tools":{{"t":{{"rules":[{{"name":"n","on_deny":"no","conditions":{yaml}}}]}}}}}}"#
                    ),
                    "/tools/t/rules/0",
                ),
                (
                    Dialect::Catalogue,
                    format!(
                        "default: deny\ntools:\n  t:\n    rules:\n    - reason: no\n      conditions: {yaml}\n"
                    ),
                    "/tools/t/rules/0",
                ),
            ]
        }
        (None, Some(never)) => vec![(
            Dialect::Native,
            native("deny_if", never),
            "/tools/t/deny_if/0",
        )],
        _ => panic!("either must or never: {case:?}"),
    }
}

#[test]
fn every_condition_means_the_same_in_every_dialect() {
    for case in cases(include_str!("../policy/conditions.yaml")) {
        let name = text(&case, "case").expect("a case has a name");
        for (dialect, document, rule) in renderings(&case) {
            let policy = compile(&document);
            let exceptions = texts(&case, "intercept_passes");
            let excepted = |args: &&str| dialect == Dialect::Intercept && exceptions.contains(args);
            let rows = texts(&case, "pass").into_iter().map(|args| (args, true));
            let rows = rows.chain(texts(&case, "refuse").into_iter().map(|args| (args, false)));
            for (args, passes) in rows {
                let said = Fake::default().call(&policy, &format!("t {args}"));
                match passes || excepted(&args) {
                    true => assert_eq!(said, "admit", "{name}: {args} in {dialect:?}"),
                    false => assert!(
                        said.starts_with(&format!("rule@{rule}: no")),
                        "{name}: {args} in {dialect:?}: {said}"
                    ),
                }
            }
        }
    }
}

#[test]
fn every_document_decides_its_calls() {
    for case in cases(include_str!("../policy/documents.yaml")) {
        let name = text(&case, "case").expect("a case has a name");
        let documents = Dialect::ALL.map(|dialect| (dialect, text(&case, dialect.name())));
        for (dialect, document) in documents
            .iter()
            .filter_map(|(d, doc)| doc.map(|doc| (*d, doc)))
        {
            let loaded = policy::load(document).unwrap_or_else(|p| panic!("{name}: {p:#?}"));
            assert_eq!(loaded.dialect, dialect, "{name}");
            let policy = compile(document);
            let mut fake = Fake::default();
            for line in texts(&case, "calls") {
                let (call, wanted) = line
                    .split_once(" -> ")
                    .unwrap_or_else(|| panic!("{name}: {line}"));
                let said = fake.call(&policy, call);
                let fits = match wanted.strip_suffix('…') {
                    Some(start) => said.starts_with(start),
                    None => {
                        said == wanted
                            || said.split_once('@').is_some_and(|(code, _)| code == wanted)
                    }
                };
                assert!(fits, "{name} in {dialect:?}\n  {line}\n  said: {said}");
            }
        }
    }
}

/// What was said of a document, a line each.
fn told(document: &str) -> String {
    let problems = match policy::load(document) {
        Ok(loaded) => loaded.remarks,
        Err(problems) => {
            assert!(
                problems.iter().any(|p| p.severity == Severity::Error),
                "a failure without an error"
            );
            problems
        }
    };
    let mut out = String::new();
    for p in problems {
        let _ = writeln!(
            out,
            "{:?} {} {} {}",
            p.severity,
            p.at,
            if p.pointer.is_empty() {
                "-"
            } else {
                &p.pointer
            },
            p.message
        );
    }
    out
}

#[test]
fn every_problem_is_told_with_its_place() {
    for case in cases(include_str!("../policy/problems.yaml")) {
        let name = text(&case, "case").expect("a case has a name");
        let said = told(text(&case, "document").expect("a document"));
        let wanted = texts(&case, "told");
        let lines: Vec<&str> = said.lines().collect();
        let fits = |line: &str, wanted: &str| {
            line == wanted
                || wanted
                    .strip_suffix('…')
                    .is_some_and(|w| line.starts_with(w))
        };
        let same = lines.len() == wanted.len()
            && lines
                .iter()
                .zip(&wanted)
                .all(|(line, wanted)| fits(line, wanted));
        assert!(same, "{name}: told\n{said}wanted\n{}\n", wanted.join("\n"));
    }
}

#[test]
fn a_dialect_has_a_schema_with_its_fields_described() {
    for dialect in Dialect::ALL {
        let schema =
            serde_json::to_string(&policy::dialect::schema(dialect)).expect("a schema is JSON");
        assert!(
            schema.contains("\"description\"") && schema.contains("\"additionalProperties\":false"),
            "{schema}"
        );
        assert!(!schema.contains("Spanned"), "{schema}");
    }
}
