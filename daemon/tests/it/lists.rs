//! tools/list is filtered on JSON, SSE and compressed replies, page by page, and fails closed.

use crate::harness::*;
use loadtest::upstream::{Encoding, Fault, Options, Reply as Form, Running, Upstream};
use serde_json::{Value, json};

fn start(options: Options) -> (Running, Gate, Client) {
    let (upstream, token) = (Upstream::start(options).unwrap(), new_token());
    let policy = json!({ "version": "1", "default": "deny", "hide": ["delete_*"], "tools": { "echo": {}, "img2img": {}, "delete_account": {} } });
    let gate = Gate::before(&upstream, &inline("p", &policy), &[("g", &token, "p")], "");
    let client = gate.client("s", &token);
    (upstream, gate, client)
}

fn names(message: &Value) -> Vec<String> {
    let tools = message["result"]["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("{message}"));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn lists_are_filtered_in_every_form_and_era() {
    for reply in [Form::Json, Form::Sse] {
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Deflate] {
            let (_upstream, _gate, mut client) = start(Options {
                reply,
                encoding,
                ..Options::default()
            });
            let modern = client.modern("tools/list", json!({}));
            let mut seen = names(&modern.message());
            seen.sort();
            assert_eq!(seen, ["echo", "img2img"], "{reply:?} {encoding:?}");
            assert_eq!(modern.message()["result"]["cacheScope"], "private");
            assert_eq!(modern.header("content-encoding"), None);
            client.initialize("2025-11-25");
            let mut seen = names(&client.legacy("tools/list", json!({})).message());
            seen.sort();
            assert_eq!(seen, ["echo", "img2img"], "{reply:?} {encoding:?}");
        }
    }
}

#[test]
fn every_page_is_filtered_and_its_cursor_kept() {
    let (_upstream, _gate, client) = start(Options {
        page_size: 2,
        ..Options::default()
    });
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<Value>, 0);
    loop {
        let params = cursor.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
        let message = client.modern("tools/list", params).message();
        seen.extend(names(&message));
        pages += 1;
        match message["result"].get("nextCursor") {
            Some(next) if pages < 50 => cursor = Some(next.clone()),
            _ => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["echo", "img2img"]);
    assert!(pages > 3);
}

#[test]
fn a_list_that_cannot_be_judged_fails_closed() {
    for fault in [
        Fault::DuplicateKeys,
        Fault::DuplicateNames,
        Fault::TrailingComma,
        Fault::Nan,
        Fault::InvalidUtf8,
        Fault::TwoDocuments,
        Fault::Deep,
        Fault::Bom,
        Fault::BadGzip,
        Fault::GzipBomb,
        Fault::UnknownEncoding,
        Fault::Flood,
        Fault::DieMidBody,
        Fault::Html,
    ] {
        let (upstream, gate, client) = start(Options::default());
        upstream.fault("tools/list", Some(fault));
        let reply = client.modern("tools/list", json!({}));
        assert!(
            !reply.text().contains("delete_account"),
            "{fault:?}: {}",
            reply.text()
        );
        assert_eq!(
            reply.message()["error"]["code"],
            -32603,
            "{fault:?}: {}",
            reply.text()
        );
        let line = &gate.audit(1, |line| line["method"] == "tools/list")[0];
        assert_eq!(line["side"], "upstream", "{fault:?}: {line}");
    }
}
