//! Reports of results, those that lie and those that attack included.

use loadtest::{report, result::Document};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const FIXTURE: &str = include_str!("../data/result.json");

fn written(folder: &Path, name: &str, document: &Value) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, document.to_string()).unwrap();
    path
}

fn fixture() -> Value {
    serde_json::from_str(FIXTURE).unwrap()
}

fn made(results: Vec<PathBuf>, markdown: bool, json: bool) -> String {
    let out = results[0].with_extension("out");
    let args = report::Args {
        results,
        out: Some(out.clone()),
        markdown,
        json,
    };
    report::run(&args).unwrap();
    fs::read_to_string(out).unwrap()
}

/// Names of the elements that a page opens, outside its style and script.
fn elements(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let name: String = rest
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        if !name.is_empty() {
            let raw = (name == "style" || name == "script").then(|| format!("</{name}>"));
            found.insert(name);
            if let Some(end) = raw {
                rest = rest.split_once(&end).unwrap().1;
            }
        }
    }
    found
}

/// Replaces every text of a document by one that attacks.
fn poison(value: &mut Value, with: &str) {
    match value {
        // What decides the document's shape stays.
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if !["class", "unit", "kind", "verdict", "tls"].contains(&name.as_str())
                    || (name == "verdict" && field.as_str().is_some_and(|t| t.contains(' ')))
                {
                    poison(field, with);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, with)),
        Value::String(text) => *text = with.to_owned(),
        _ => {}
    }
}

#[test]
fn texts_of_a_result_make_no_elements_no_attributes_and_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let calm = made(
        vec![written(folder.path(), "calm.json", &fixture())],
        false,
        false,
    );
    let calm_markdown = made(
        vec![written(folder.path(), "m.json", &fixture())],
        true,
        false,
    );
    for attack in [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(1)</script>",
        "\"><svg onload=alert(1)>",
        "' autofocus onfocus='alert(1)",
        "a\n\n# b\n| c | d |\n<script>alert(1)</script>",
        "![x](https://example.com/x.png) `y` \u{1b}[2J\u{202e}",
    ] {
        let mut document = fixture();
        poison(&mut document, attack);
        let path = written(folder.path(), "hostile.json", &document);
        let page = made(vec![path.clone()], false, false);
        assert_eq!(elements(&page), elements(&calm), "{attack}");
        assert!(!page.contains(attack), "{attack}");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
        let markdown = made(vec![path], true, false);
        assert_eq!(
            markdown.lines().count(),
            calm_markdown.lines().count(),
            "{attack}"
        );
        for line in markdown.lines().filter(|line| !line.starts_with("    ")) {
            assert!(
                !line.contains('<') && !line.replace("\\]", "").contains("]("),
                "{attack}: {line}"
            );
        }
    }
}

#[test]
fn a_page_asks_no_network_for_anything_and_forbids_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.json", &fixture());
    let page = made(vec![path.clone(), path], false, false);
    assert!(
        page.contains("Content-Security-Policy content=\"default-src 'none'; style-src 'sha256-")
    );
    for reference in [" src=", " href=", "url(", "@import", "fetch(", "XMLHttp"] {
        assert!(!page.contains(reference), "{reference}");
    }
    // An attribute would be refused by the policy.
    assert!(!page.contains(" style="));
}

#[test]
fn every_form_has_the_figures_the_machine_and_the_exact_command() {
    let folder = tempfile::tempdir().unwrap();
    let document = Document::from_json(FIXTURE).unwrap();
    let path = written(folder.path(), "a.json", &fixture());
    let [page, markdown, json] = [(false, false), (true, false), (false, true)]
        .map(|(markdown, json)| made(vec![path.clone()], markdown, json));
    let command = document.command.join(" ");
    for text in [&page, &markdown] {
        assert!(text.contains(&command), "{command}");
        for expected in [
            "AMD EPYC 9R14",
            "1,324",
            "agent-a",
            "▲ over",
            "9.06 %",
            "110",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
    }
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["all"]["ended"], 1324);
    assert_eq!(json[0]["all"]["ok"], 1200);
    let first = &document.rounds[0].classes[0].latency;
    assert_eq!(
        json[0]["rounds"][0]["latency_ns"]["p99"],
        first.quantile(0.99)
    );
    assert_eq!(json[0]["limits"]["keys"][0]["windows"][0]["admitted"], 30);
}

#[test]
fn the_charts_hold_the_measured_values() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = fixture();
    document.as_object_mut().unwrap().remove("ramp");
    let page = made(
        vec![written(folder.path(), "a.json", &document)],
        false,
        false,
    );
    // The first second of the series, and a window that was over, as the hover script shows them.
    assert!(page.contains("|0.5 s|100;"));
    assert!(page.contains(
        "data-name=\"agent-a, window of 12:01:00: over\" data-rows=\"client&#39;s view|31;"
    ));
}

#[test]
fn a_result_without_any_reply_makes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = fixture();
    document["rounds"] = Value::Array(Vec::new());
    document["limits"]["keys"] = Value::Array(Vec::new());
    let path = written(folder.path(), "a.json", &document);
    for (markdown, json) in [(false, false), (true, false), (false, true)] {
        let text = made(vec![path.clone()], markdown, json);
        assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.json");
    fs::write(&path, "{\"format\": 7}").unwrap();
    let args = report::Args {
        results: vec![path],
        out: None,
        markdown: false,
        json: false,
    };
    let error = report::run(&args).unwrap_err();
    assert!(
        error.contains("b.json") && error.contains("format is 7"),
        "{error}"
    );
}

#[test]
fn a_report_of_the_exactness_test_alone_shows_what_was_asked_and_no_empty_figures() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = fixture();
    document["rounds"] = serde_json::json!([]);
    document.as_object_mut().unwrap().remove("ramp");
    let limits = &mut document["limits"];
    limits["upstream_record"] = false.into();
    limits["audit_logs"] = serde_json::json!(["audit.jsonl"]);
    let path = written(folder.path(), "limits.json", &document);
    let page = made(vec![path.clone()], false, false);
    let markdown = made(vec![path], true, false);
    for absent in [
        "Requests ended",
        "requests ended",
        "Client CPU",
        "Targets (latency",
        "upstream&#39;s record",
        "upstream's record",
    ] {
        assert!(!page.contains(absent), "{absent}");
        assert!(!markdown.contains(absent), "{absent}");
    }
    for present in ["Windows exact", "Refused by the limit", "audit logs"] {
        assert!(page.contains(present), "{present}");
    }
}
