//! What `tollgate check` says.

use proto::policy::{
    Loaded, load,
    report::{self, Change, Kept},
};

const POLICY: &str = r#"{
  "version": "1", "default": "deny", "hide": ["delete_account"],
  "tools": {
    "charge": {
      "deny_if": [{"conditions": [{"path": "args.amount", "op": "gt", "value": 50000}], "on_deny": "Over $500"}],
      "limits": [{"counter": "spend", "window": "day", "max": 1000000, "increment_from": "args.amount"},
                 {"counter": "rate", "window": "minute", "max": 3, "scope": "session"},
                 {"max_in_flight": 2, "scope": "server"}]},
    "list": {}
  }
}"#;

fn loaded(text: &str) -> Loaded {
    load(text).expect("a policy")
}

#[test]
fn a_document_is_told_with_its_limits_companions_and_methods() {
    let report = report::check(POLICY, 8);
    assert!(report.is_usable());
    let text = report.to_text("p.json");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert!(lines[0].starts_with("p.json:5:35: warning: /tools/charge/deny_if/0/conditions/0: a call without args.amount is not denied"), "{text}");
    assert!(
        lines[1].starts_with("p.json:8:36: note: /tools/charge/limits/2/max_in_flight: "),
        "{text}"
    );
    assert!(
        lines[2].starts_with("p.json: native policy, 2 tools listed, 1 name hidden; denies tools that are not listed; revision "),
        "{text}"
    );
    assert_eq!(
        lines[3..],
        [
            "  methods: all methods that the protocol version knows pass unjudged, but for tools/call",
            "  /tools/charge/limits/spend: 1000000 of args.amount per day and grant",
            "  /tools/charge/limits/rate: 3 per minute and session; its companion `rate (all sessions)`: 24 per minute and grant, over all of its sessions",
            "  /tools/charge/limits/2: 2 in flight on each node for every server",
        ]
    );
}

#[test]
fn a_document_that_cannot_be_used_is_told_with_every_place() {
    let report = report::check(
        "version: '1'\ndefault: maybe\ntools: {a: {limits: [{counter: c}]}}\n",
        8,
    );
    assert!(!report.is_usable());
    assert_eq!(
        report.to_text("p.yaml"),
        "p.yaml:2:10: error: /default: `maybe` is none of allow, deny\n\
         p.yaml:3:22: error: /tools/a/limits/0: `window` is missing\n\
         p.yaml:3:22: error: /tools/a/limits/0: `max` is missing\n"
    );
}

#[test]
fn a_call_is_told_with_the_rule_that_decided() {
    let policy = loaded(POLICY);
    let say = |tool: &str, arguments: &str| match report::call(&policy, tool, arguments, 0) {
        Ok(report) => report.to_text("p.json"),
        Err(why) => why,
    };
    assert_eq!(
        say("charge", r#"{"amount": 50001}"#),
        "denied (rule) by /tools/charge/deny_if/0 at p.json:5:19\n  [POLICY DENIED] Over $500\n"
    );
    assert_eq!(
        say("charge", r#"{"amount": 12.5}"#),
        "admitted by /tools/charge at p.json:4:5\n  /tools/charge/limits/rate: 1 of 3 per minute, session\n  \
         /tools/charge/limits/spend: 12.5 of 1000000 per day, grant\n  \
         /tools/charge/limits/rate: 1 of 3 per minute, grant\n  /tools/charge/limits/2: 1 of 2 in flight, server\n"
    );
    assert!(say("charge", "{}").starts_with(
        "denied (rule) by /tools/charge/limits/spend/increment_from at p.json:6:18\n"
    ));
    assert_eq!(say("list", "{}"), "admitted by /tools/list at p.json:9:5\n");
    assert!(say("other", "{}").starts_with("denied (default) by (default deny) at p.json:1:1\n"));
    assert!(say("delete_account", "{}").starts_with("denied (hidden) by (hidden) at p.json:1:1\n"));
}

#[test]
fn arguments_are_read_as_strictly_as_the_gateway_reads_them() {
    let policy = loaded(POLICY);
    for arguments in [
        "",
        "[]",
        "1",
        "null",
        "{",
        "{}}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":NaN}",
        "{},\"x\":1",
        "{\"a\":1}}}}",
    ] {
        let why = report::call(&policy, "list", arguments, 0).expect_err(arguments);
        assert!(!why.is_empty(), "{arguments}");
    }
    assert!(report::call(&policy, "a\"b\\", "{}", 0).is_ok());
}

#[test]
fn what_changes_is_told_tool_by_tool_and_counter_by_counter() {
    let old = loaded(POLICY);
    let new = loaded(
        r#"{
  "version": "1", "default": "allow", "hide": ["list"],
  "tools": {
    "charge": {
      "deny_if": [{"conditions": [{"path": "args.amount", "op": "gt", "value": 40000}], "on_deny": "Over $400"}],
      "limits": [{"counter": "rate", "window": "hour", "max": 3, "scope": "session"},
                 {"counter": "spend", "window": "day", "max": 500000, "increment_from": "args.amount"},
                 {"counter": "new", "window": "day", "max": 5}]},
    "drop": {"deny_if": [{"conditions": []}]}
  }
}"#,
    );
    let changes = report::against(&old, &new);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "default: deny → allow",
            "tool charge: gone or changed: /tools/charge/deny_if/0; new or changed: /tools/charge/deny_if/0",
            "tool delete_account: hidden → allowed",
            "tool drop: denied by default → always denied",
            "tool list: allowed → hidden",
            "limit /tools/charge/limits/new: new: 5 per day and grant; its counter starts at zero",
            "limit /tools/charge/limits/rate: 3 per minute and session → 3 per hour and session; its counter starts at zero",
            "limit /tools/charge/limits/spend: 1000000 per day and grant → 500000 per day and grant; its counter is kept",
            "limit /tools/charge/limits/2: gone: 2 in flight and server; its counter ends",
            "limit /tools/charge/limits/rate: gone: 3 per minute and session; its counter ends",
        ]
    );
    assert!(changes.iter().any(|c| matches!(
        c,
        Change::Limit {
            counter: Kept::Kept,
            ..
        }
    )));
    assert_eq!(report::against(&old, &loaded(POLICY)), []);
    let reordered = POLICY.replace("\"list\": {}", "\"list\": { }");
    assert_eq!(report::against(&old, &loaded(&reordered)), []);
}

#[test]
fn a_policy_that_moves_to_another_dialect_starts_its_counters_over() {
    let native = loaded(
        r#"{"version":"1","default":"allow","tools":{"t":{"limits":[{"counter":"_rate_minute","window":"minute","max":3}]}}}"#,
    );
    let intercept = loaded("version: '1'\ntools: {t: {rules: [{name: n, rate_limit: 3/minute}]}}");
    let lines: Vec<String> = report::against(&native, &intercept)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lines,
        [
            "dialect: native → intercept",
            "limit /tools/t/rules/0: 3 per minute and grant → 3 per minute and server; its counter starts at zero",
            "limit /tools/t/limits/_rate_minute: gone: 3 per minute and grant; its counter ends",
        ]
    );
}
