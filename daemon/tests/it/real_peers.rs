//! The official clients through the gateway, before real servers.

use crate::{
    harness::{Gate, Token, inline, new_token, upstream},
    peers::{Client, EverythingHttp, everything, flux_pro},
};
use serde_json::{Value, json};

/// A gateway with one server and one policy, and two grants for it.
struct Set {
    gate: Gate,
    tokens: [Token; 2],
}

impl Set {
    /// `server` is the YAML of one entry's fields, on one line.
    fn start(server: &str, policy: &Value) -> Self {
        let tokens = [new_token(), new_token()];
        let mut config = format!(
            "servers:\n  s: {server}\npolicies:\n{}grants:\n",
            inline("p", policy)
        );
        for (id, token) in ["one", "two"].iter().zip(&tokens) {
            let hash = &token.sha256;
            config.push_str(&format!(
                "  - {{ id: {id}, token_sha256: \"{hash}\", servers: {{ s: p }} }}\n"
            ));
        }
        Self {
            gate: Gate::start(&config),
            tokens,
        }
    }

    fn run(&self, client: Client, grant: usize, steps: &Value) -> Option<Vec<Value>> {
        let url = format!("http://{}/mcp/s", self.gate.address);
        client.run(&url, &self.tokens[grant].text, steps)
    }
}

/// One line of YAML (JSON is YAML) for a server over stdio.
fn stdio(command: &str, args: &[&str], env: Value) -> String {
    json!({ "command": command, "args": args, "env": env, "pass_env": [] }).to_string()
}

fn http(url: &str) -> String {
    json!({ "url": url }).to_string()
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({ "call": tool, "arguments": arguments })
}

/// At most `max` calls in a window that does not end while the test runs.
fn at_most(max: u32, more: Value) -> Value {
    let mut limit =
        json!({ "counter": "calls", "window": "366d", "max": max, "on_deny": "That was enough" });
    for (key, value) in more.as_object().unwrap() {
        limit[key] = value.clone();
    }
    json!({ "limits": [limit] })
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
}

fn code(answer: &Value) -> &str {
    answer["result"]["_meta"]["dev.tollgate/denial"]["code"]
        .as_str()
        .unwrap_or_default()
}

#[track_caller]
fn assert_denied(answer: &Value, why: &str, sentence: &str) {
    assert_eq!(code(answer), why, "{answer}");
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(
        text(answer).starts_with(&format!("[POLICY DENIED] {sentence}")),
        "{answer}"
    );
}

#[track_caller]
fn assert_passed(answer: &Value, says: &str) {
    assert_eq!(code(answer), "", "{answer}");
    assert!(text(answer).contains(says), "{answer}");
}

fn names(answer: &Value) -> Vec<&str> {
    let tools = answer["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("no list: {answer}"));
    tools.iter().filter_map(Value::as_str).collect()
}

/// What `client` must see of the recording server; everything the issue of real clients asks for.
fn through_the_gate(client: Client) {
    let server = upstream();
    let policy = json!({
        "version": "1", "default": "allow", "hide": ["delete_account"],
        "tools": {
            "echo": at_most(2, json!({})),
            "reject": at_most(2, json!({})),
            "delete_customer": { "deny_if": [{ "conditions": [], "on_deny": "Not for agents" }] },
        },
    });
    let set = Set::start(&http(&server.url()), &policy);
    let steps = json!([
        { "list": true },
        call("echo", json!({ "message": "a" })),
        call("echo", json!({ "message": "b" })),
        call("echo", json!({ "message": "c" })),
        { "call": "progress", "arguments": { "steps": 3, "ms": 20 }, "progress": true },
        call("delete_customer", json!({ "customer_id": "c1" })),
        call("delete_account", json!({})),
        call("reject", json!({})),
        call("reject", json!({})),
        call("reject", json!({})),
        call("reject", json!({})),
        call("reject", json!({})),
        { "read": "demo://readme" },
    ]);
    let Some(answers) = set.run(client, 0, &steps) else {
        return;
    };
    assert_eq!(answers.len(), 13, "{answers:#?}");
    let listed = names(&answers[0]);
    assert!(
        listed.contains(&"generate_image") && !listed.contains(&"delete_account"),
        "{listed:?}"
    );
    assert_passed(&answers[1], "\"a\"");
    assert_passed(&answers[2], "\"b\"");
    assert_denied(&answers[3], "limit", "That was enough");
    assert_passed(&answers[4], "3 steps done");
    let progress: Vec<f64> = answers[4]["progress"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert_eq!(progress, [1.0, 2.0, 3.0]);
    assert_denied(&answers[5], "rule", "Not for agents");
    assert_denied(&answers[6], "hidden", "");
    // Two are given back, as many as the limit gives back in a window; two more use it up.
    for rejected in &answers[7..11] {
        assert_eq!(rejected["error"]["code"], -32602, "{rejected}");
    }
    assert_denied(&answers[11], "limit", "That was enough");
    let read = &answers[12];
    assert_eq!(
        read["result"]["contents"][0]["uri"], "demo://readme",
        "{read}"
    );

    // The other grant has all of its own.
    let steps = json!([
        call("echo", json!({ "message": "d" })),
        call("echo", json!({ "message": "e" })),
        call("echo", json!({}))
    ]);
    let Some(answers) = set.run(client, 1, &steps) else {
        return;
    };
    assert_passed(&answers[0], "\"d\"");
    assert_passed(&answers[1], "\"e\"");
    assert_denied(&answers[2], "limit", "That was enough");

    let record = server.recorder();
    let counts =
        ["echo", "progress", "delete_customer", "delete_account"].map(|tool| record.count(tool));
    assert_eq!(counts, [4, 1, 0, 0]);
    for request in record.requests() {
        assert_eq!(request.header("authorization"), None);
    }
}

#[test]
fn the_typescript_client_works_through_the_gate() {
    through_the_gate(Client::TypeScript);
}

#[test]
fn the_modern_typescript_client_works_through_the_gate() {
    through_the_gate(Client::TypeScriptModern);
}

#[test]
fn the_python_client_works_through_the_gate() {
    through_the_gate(Client::Python);
}

#[test]
fn the_modern_python_client_works_through_the_gate() {
    through_the_gate(Client::PythonModern);
}

#[test]
fn a_client_without_the_right_token_is_turned_away() {
    let server = upstream();
    let set = Set::start(
        &http(&server.url()),
        &json!({ "version": "1", "default": "allow" }),
    );
    let url = format!("http://{}/mcp/s", set.gate.address);
    for client in Client::ALL {
        let Some(answers) = client.run(&url, &new_token().text, &json!([{ "list": true }])) else {
            continue;
        };
        assert!(
            answers.iter().all(|answer| answer.get("error").is_some()),
            "{client:?}: {answers:?}"
        );
    }
    assert_eq!(server.recorder().requests().len(), 0);
}

/// `server-everything`, over whichever transport: what its own clients see directly, less what the policy takes.
fn everything_behind(server: &str, clients: &[Client]) {
    let policy = json!({
        "version": "1", "default": "allow", "hide": ["get-env"],
        "tools": { "echo": at_most(2, json!({})), "get-sum": at_most(2, json!({ "refund_on": ["tool_error"] })) },
    });
    for client in clients {
        let set = Set::start(server, &policy);
        let steps = json!([
            { "list": true },
            call("echo", json!({ "message": "a" })),
            { "call": "trigger-long-running-operation", "arguments": { "duration": 1, "steps": 2 }, "progress": true },
            call("get-env", json!({})),
            call("get-sum", json!({ "a": "no number" })),
            call("get-sum", json!({ "a": "no number" })),
            call("get-sum", json!({ "a": 2, "b": 3 })),
            call("get-sum", json!({ "a": 2, "b": 3 })),
            call("get-sum", json!({ "a": 2, "b": 3 })),
            call("echo", json!({ "message": "b" })),
            call("echo", json!({ "message": "c" })),
        ]);
        let Some(answers) = set.run(*client, 0, &steps) else {
            continue;
        };
        assert_eq!(answers.len(), 11, "{answers:#?}");
        let listed = names(&answers[0]);
        assert!(
            listed.len() >= 11 && listed.contains(&"echo") && !listed.contains(&"get-env"),
            "{listed:?}"
        );
        assert_passed(&answers[1], "Echo: a");
        assert_eq!(
            answers[2]["progress"].as_array().map(Vec::len),
            Some(2),
            "{}",
            answers[2]
        );
        assert_denied(&answers[3], "hidden", "");
        // Two failures are given back, two successes are not.
        assert_passed(&answers[4], "expected number");
        assert_passed(&answers[5], "expected number");
        assert_passed(&answers[6], "5");
        assert_passed(&answers[7], "5");
        assert_denied(&answers[8], "limit", "That was enough");
        assert_passed(&answers[9], "Echo: b");
        assert_denied(&answers[10], "limit", "That was enough");
        let Some(answers) = set.run(
            *client,
            1,
            &json!([call("echo", json!({ "message": "other" }))]),
        ) else {
            continue;
        };
        assert_passed(&answers[0], "Echo: other");
        rejection_is_given_back(&set);
    }
}

/// `task: {}` makes this server answer −32602.
fn rejection_is_given_back(set: &Set) {
    let mut client = set.gate.client("s", &set.tokens[1]);
    client.initialize("2025-11-25");
    let params = json!({ "name": "echo", "arguments": { "message": "x" }, "task": {} });
    for _ in 0..2 {
        let reply = client.legacy("tools/call", params.clone());
        assert_eq!(reply.message()["error"]["code"], -32602, "{}", reply.text());
    }
    let last = || client.legacy_call("echo", json!({ "message": "x" }));
    assert_eq!(last().denial(), None);
    assert_eq!(last().denial().as_deref(), Some("limit"));
}

#[test]
fn server_everything_over_stdio_stands_behind_the_gate() {
    let Some(command) = everything() else { return };
    let args: Vec<&str> = command[1..]
        .iter()
        .map(String::as_str)
        .chain(["stdio"])
        .collect();
    everything_behind(&stdio(&command[0], &args, json!({})), &Client::LEGACY);
}

#[test]
fn server_everything_over_http_stands_behind_the_gate() {
    let Some(server) = EverythingHttp::start() else {
        return;
    };
    everything_behind(&http(&server.url()), &Client::LEGACY);
}

#[test]
fn an_image_server_over_stdio_stands_behind_the_gate() {
    let Some(program) = flux_pro() else { return };
    // The published form of the catalogue, with a window that outlasts the test.
    let policy = json!({
        "tools": {
            "flux_generate_image": { "rules": [{ "action": "allow", "rate_limit": { "max": 2, "window": 31_622_400 } }] },
            "flux_generate_video": { "rules": [{ "action": "deny", "reason": "No videos" }] },
        },
    });
    // It must not reach its service from a test: nothing listens on the discard port.
    let env = json!({ "ACEDATACLOUD_API_TOKEN": "dummy", "ACEDATACLOUD_API_BASE_URL": "http://127.0.0.1:9" });
    for client in Client::LEGACY {
        let set = Set::start(&stdio(&program, &[], env.clone()), &policy);
        let image = || call("flux_generate_image", json!({ "prompt": "a tollgate" }));
        let steps = json!([
            { "list": true },
            call("flux_list_models", json!({})),
            call("flux_generate_video", json!({ "request": {} })),
            image(),
            image(),
            image(),
        ]);
        let Some(answers) = set.run(client, 0, &steps) else {
            continue;
        };
        assert_eq!(answers.len(), 6, "{answers:#?}");
        let listed = names(&answers[0]);
        assert!(
            listed.contains(&"flux_generate_image") && listed.contains(&"flux_edit_image"),
            "{listed:?}"
        );
        assert_passed(&answers[1], "Flux");
        assert_denied(&answers[2], "rule", "No videos");
        assert_passed(&answers[3], "flux_generate_image");
        assert_passed(&answers[4], "flux_generate_image");
        assert_denied(&answers[5], "limit", "");
        let Some(answers) = set.run(client, 1, &json!([image()])) else {
            continue;
        };
        assert_passed(&answers[0], "flux_generate_image");
    }
}
