//! What cases as text cannot say: order of charges, methods, lists, identities, bytes that are no JSON.

use super::calls::{Fake, SITE, compile};
use proptest::prelude::*;
use proto::{
    id::RequestId,
    limit::{HashKey, OnUnreachable, Scope},
    mcp::Era,
    policy::{
        self, Code, Denial, Policy, Verdict,
        compile::{Call, Site},
    },
};
use std::{collections::HashSet, sync::LazyLock};

fn on(document: &str, site: Site<'_>) -> Policy {
    let loaded = policy::load(document).expect("a policy");
    policy::compile(&loaded.policy, site).expect("it compiles")
}

fn charged(policy: &Policy, call: &Call<'_>) -> Vec<(Scope, String, String)> {
    match policy.evaluate(call, &Fake::default()) {
        Verdict::Admit { charges, .. } => charges
            .iter()
            .map(|c| {
                (
                    c.limit.scope,
                    c.limit.label.to_string(),
                    c.scope_value.to_owned(),
                )
            })
            .collect(),
        Verdict::Deny(denial) => panic!("{denial:?}"),
    }
}

const CALL: Call<'static> = Call {
    tool: "t",
    arguments: Some(b"{\"id\":1}"),
    grant: "g",
    keys: None,
    session: Some("s"),
    unix_ms: 0,
};

#[test]
fn charges_come_narrowest_scope_first_then_in_document_order() {
    let policy = compile(
        r#"{"version":"1","default":"deny","tools":{"t":{"limits":[
          {"counter":"all","window":"hour","max":9,"scope":"all"},
          {"counter":"server","window":"hour","max":9,"scope":"server"},
          {"counter":"key","window":"hour","max":9,"key":"args.id"},
          {"counter":"grant","window":"hour","max":9},
          {"counter":"session","window":"hour","max":9,"scope":"session"},
          {"counter":"grant2","window":"hour","max":9,"scope":"grant"}]}},
          "all_tools":{"limits":[{"counter":"last","window":"day","max":9}]}}"#,
    );
    let order: Vec<_> = charged(&policy, &CALL)
        .into_iter()
        .map(|(_, label, value)| format!("{label} {value}"))
        .collect();
    assert_eq!(
        order,
        [
            "srv/pol/t/session s",
            "srv/pol/t/grant g",
            "srv/pol/t/session (all sessions) g",
            "srv/pol/t/grant2 g",
            "srv/pol/*/last g",
            "srv/pol/t/key g",
            "srv/pol/t/server srv",
            "srv/pol/t/all *",
        ]
    );
    assert_eq!(policy.limits.len(), 8);
    let identities: HashSet<_> = policy.limits.iter().map(|l| l.identity).collect();
    assert_eq!(identities.len(), 8);
}

#[test]
fn servers_do_not_share_counters_and_the_whole_gateway_does() {
    let document = r#"{"version":"1","default":"deny","tools":{"t":{"limits":[
      {"counter":"a","window":"hour","max":9,"scope":"server"},{"counter":"b","window":"hour","max":9},
      {"counter":"c","window":"hour","max":9,"scope":"all"}]}}}"#;
    let one = on(document, SITE);
    let two = on(
        document,
        Site {
            server: "srv2",
            ..SITE
        },
    );
    let other = on(
        document,
        Site {
            policy: "pol2",
            ..SITE
        },
    );
    let secret = on(
        document,
        Site {
            secret: &HashKey([8; 16]),
            ..SITE
        },
    );
    let identities = |p: &Policy| -> Vec<_> { p.limits.iter().map(|l| l.identity).collect() };
    let same = |p: &Policy| -> Vec<bool> {
        identities(&one)
            .iter()
            .zip(identities(p))
            .map(|(a, b)| *a == b)
            .collect()
    };
    assert_eq!(same(&two), [false, false, true]);
    assert_eq!(same(&other), [false, false, false]);
    assert_eq!(same(&secret), [false, false, false]);
    assert_eq!(one.revision, two.revision);
}

#[test]
fn max_message_and_place_are_no_part_of_an_identity() {
    let limit = |text: &str| {
        let document =
            format!(r#"{{"version":"1","default":"deny","tools":{{"t":{{"limits":[{text}]}}}}}}"#);
        let policy = compile(&document);
        let limit = policy
            .limits
            .iter()
            .find(|l| l.label.ends_with("/c"))
            .unwrap();
        (limit.identity, policy.revision.to_string())
    };
    let (identity, revision) = limit(r#"{"counter":"c","window":"minute","max":30}"#);
    for same in [
        r#"{"counter":"c","window":"60s","max":29,"on_deny":"x"}"#,
        r#"{"counter":"b","window":"day","max":1}, {"max":30,"counter":"c","scope":"grant","window":"1m","increment":2}"#,
    ] {
        let (other, changed) = limit(same);
        assert_eq!(other, identity, "{same}");
        assert_ne!(changed, revision, "{same}");
    }
    for different in [
        r#"{"counter":"c","window":"hour","max":30}"#,
        r#"{"counter":"c","window":"minute","max":30,"scope":"server"}"#,
        r#"{"counter":"c","window":"minute","max":30.5}"#,
        r#"{"counter":"c","window":"minute","max":30,"increment_from":"args.x"}"#,
    ] {
        assert_ne!(limit(different).0, identity, "{different}");
    }
    let shadow = compile(
        r#"{"version":"1","default":"deny","mode":"shadow","tools":{"t":{"limits":[{"counter":"c","window":"minute","max":30}]}}}"#,
    );
    assert_ne!(shadow.limits[0].identity, identity);
    assert!(shadow.limits[0].counts_only);
}

#[test]
fn what_gives_back_is_as_each_dialect_means_it() {
    let refunds = |document: &str| {
        let policy = compile(document);
        let limit = &policy.limits[0];
        let on = limit.refund_on;
        (
            on.rpc_error,
            on.http_5xx,
            on.tool_error,
            limit.refund_max,
            limit.on_unreachable,
        )
    };
    let native = |more: &str| {
        format!(
            r#"{{"version":"1","default":"deny","tools":{{"t":{{"limits":[{{"counter":"c","window":"hour","max":9{more}}}]}}}}}}"#
        )
    };
    let intercept = |state: &str| {
        format!(
            "version: '1'\ntools: {{t: {{rules: [{{name: n, conditions: [{{path: state.t.c, op: lte, value: 9}}], state: {{counter: c, window: hour{state}}}}}]}}}}"
        )
    };
    let deny = OnUnreachable::Deny;
    for (document, wanted) in [
        (native(""), (false, false, false, 9, deny)),
        (
            native(
                r#","refund_on":["http_5xx","tool_error"],"refund_max":2,"on_unreachable":"allow""#,
            ),
            (false, true, true, 2, OnUnreachable::Allow),
        ),
        (
            native(r#","refund_on":["rpc_error"],"increment":0.5"#),
            (true, false, false, 9_000_000, deny),
        ),
        (intercept(""), (true, false, false, 9, deny)),
        (intercept(", increment: 2"), (true, false, false, 9, deny)),
        (
            intercept(", increment_from: args.x"),
            (false, false, false, 9_000_000, deny),
        ),
        (
            "version: '1'\ntools: {t: {rules: [{name: n, rate_limit: 9/hour}]}}".to_owned(),
            (true, false, false, 9, deny),
        ),
        (
            "tools: {t: {rules: [{rate_limit: {max: 9, window: 60}}]}}".to_owned(),
            (false, false, false, 9, deny),
        ),
    ] {
        assert_eq!(refunds(&document), wanted, "{document}");
    }
}

#[test]
fn methods_pass_as_the_policy_says() {
    let judge = |methods: &str, method: &str| {
        let document = format!(r#"{{"version":"1","default":"deny","methods":{methods}}}"#);
        compile(&document).judge_method(method).map_err(|denial| {
            assert_eq!(denial.code, Code::Rule);
            denial.rule.into_owned()
        })
    };
    let allow = r#"{"allow":["tools/list","resources/*"]}"#;
    for method in [
        "tools/list",
        "resources/read",
        "initialize",
        "server/discover",
        "ping",
        "notifications/cancelled",
        "tools/call",
    ] {
        assert_eq!(judge(allow, method), Ok(()), "{method}");
    }
    assert_eq!(
        judge(allow, "prompts/get"),
        Err("/methods/allow".to_owned())
    );
    let deny = r#"{"deny":["prompts/*","resources/read"]}"#;
    assert_eq!(judge(deny, "tools/list"), Ok(()));
    assert_eq!(
        judge(deny, "prompts/get"),
        Err("/methods/deny/0".to_owned())
    );
    assert_eq!(
        judge(deny, "resources/read"),
        Err("/methods/deny/1".to_owned())
    );
    let shadow = compile(
        r#"{"version":"1","default":"deny","mode":"shadow","methods":{"deny":["prompts/*"]}}"#,
    );
    assert_eq!(shadow.judge_method("prompts/get"), Ok(()));
    assert_eq!(
        shadow.shadow_method("prompts/get").unwrap().rule,
        "/methods/deny/0"
    );
    assert_eq!(shadow.shadow_method("tools/list"), None);
}

#[test]
fn lists_show_what_may_be_called() {
    let shown = |document: &str| -> (bool, String) {
        let policy = compile(document);
        let names = ["a", "b", "get_x"]
            .into_iter()
            .filter(|name| policy.lists(name))
            .collect::<Vec<_>>();
        (policy.filters_lists(), names.join(" "))
    };
    let list = |filters: bool, names: &str| (filters, names.to_owned());
    for (document, wanted) in [
        (
            r#"{"version":"1","default":"allow"}"#,
            list(false, "a b get_x"),
        ),
        (
            r#"{"version":"1","default":"allow","hide":["b"]}"#,
            list(true, "a get_x"),
        ),
        (
            r#"{"version":"1","default":"allow","hide":["*"]}"#,
            list(true, ""),
        ),
        (
            r#"{"version":"1","default":"deny","tools":{"a":{},"get_*":{}}}"#,
            list(true, "a get_x"),
        ),
        (
            r#"{"version":"1","default":"deny","tools":{"a":{},"b":{}},"hide":["b"],"list_denied":"show"}"#,
            list(true, "a get_x"),
        ),
        (
            r#"{"version":"1","default":"deny","tools":{"a":{}},"list_denied":"show"}"#,
            list(false, "a b get_x"),
        ),
        (
            r#"{"version":"1","default":"deny","tools":{"a":{}},"hide":["b"],"mode":"shadow"}"#,
            list(false, "a b get_x"),
        ),
        (
            "version: '1'\nhide: [a]\ntools: {b: {rules: [{name: n, action: deny}]}}",
            list(true, "b get_x"),
        ),
        ("default: deny\ntools: {b: {rules: []}}", list(true, "b")),
        (
            "tools: {b: {rules: []}, '*': {rules: [{action: deny}]}}",
            list(false, "a b get_x"),
        ),
    ] {
        assert_eq!(shown(document), wanted, "{document}");
    }
}

#[test]
fn arguments_that_are_absent_count_as_an_empty_object() {
    let policy = compile(
        r#"{"version":"1","default":"deny","tools":{"t":{"deny_if":[{"conditions":[{"path":"args.x","op":"exists","value":false}]}]}}}"#,
    );
    let call = Call {
        arguments: None,
        ..CALL
    };
    assert!(matches!(
        policy.evaluate(&call, &Fake::default()),
        Verdict::Deny(_)
    ));
}

#[test]
fn long_texts_are_tried_on_no_pattern_and_long_keys_are_shown_short() {
    let policy = compile(
        r#"{"version":"1","default":"deny","tools":{
          "re":{"deny_if":[{"conditions":[{"path":"args.s","op":"regex","value":"^b"}]}]},
          "key":{"limits":[{"counter":"k","window":"hour","max":1,"key":"args.s"},{"counter":"sum","window":"hour","max":9}]}}}"#,
    );
    let mut fake = Fake::default();
    let text = |n: usize| format!("{{\"s\":\"{}\"}}", "é".repeat(n / 2));
    assert_eq!(
        fake.call(&policy, &format!("re {}", text(64 << 10))),
        "admit"
    );
    let said = fake.call(&policy, &format!("re {}", text((64 << 10) + 2)));
    assert_eq!(
        said,
        "rule@/tools/re/deny_if/0: The policy denies calls where args.s matches ^b. args.s is longer than 65536 bytes, more than a pattern is tried on"
    );
    let said = fake.call(&policy, &format!("key {}", text(1_000_000)));
    assert!(
        said.starts_with("admit s:éé") && said.ends_with('…') && said.len() < 150,
        "{said}"
    );
    assert!(
        fake.call(&policy, &format!("key {}", text(1_000_002)))
            .starts_with("admit")
    );
    assert!(
        fake.call(&policy, &format!("key {}", text(1_000_002)))
            .starts_with("limit")
    );
}

#[test]
fn a_name_of_any_length_is_judged_and_told_short() {
    let policy = compile(r#"{"version":"1","default":"allow","hide":["*x*y"]}"#);
    let name = format!("{}y", "x".repeat(1 << 20));
    let call = Call {
        tool: &name,
        ..CALL
    };
    match policy.evaluate(&call, &Fake::default()) {
        Verdict::Deny(denial) => assert!(denial.code == Code::Hidden && denial.message.len() < 200),
        Verdict::Admit { .. } => panic!("hidden"),
    }
}

#[test]
fn denial_detail_is_the_gateways_to_hide() {
    let policy = compile(r#"{"version":"1","default":"deny","denial_detail":"code"}"#);
    assert!(policy.hides_detail());
    let denial = Denial::no_policy();
    let message = denial.to_message(b"null", Era::Legacy, RequestId(7), policy.hides_detail());
    let message = String::from_utf8(message).unwrap();
    assert!(
        message.contains("\"code\":\"no_policy\"") && !message.contains("\"rule\""),
        "{message}"
    );
}

/// A policy that reaches every operator and every kind of limit.
static EVERYTHING: LazyLock<Policy> = LazyLock::new(|| {
    compile(
        r#"
version: "1"
default: allow
tools:
  t:
    require:
    - conditions:
      - {path: "args.a[*].b", op: lte, value: 5}
      - {path: 'args["c"].0', op: in, value: [1, x, true]}
    - conditions: [{path: args.d, op: regex, value: "^(a|b)*$"}, {path: args.e, op: contains, value: 1}]
    deny_if:
    - conditions: [{path: args.f, op: neq, value: x}, {path: args.g, op: exists, value: false}]
    limits:
    - {counter: c, window: month, max: 5, increment_from: args.a, scope: session}
    - {counter: d, window: week, max: 5, key: args.b}
"#,
    )
});

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tool in "t|.*") {
        let policy = &*EVERYTHING;
        let call = Call { arguments: Some(&bytes), tool: &tool, ..CALL };
        let _ = policy.evaluate(&call, &Fake::default());
    }
    #[test]
    fn nothing_that_looks_like_json_panics(text in "(\\{|\\}|\\[|\\]|\"|:|,|\\\\|\\\\u00e9|\\\\ud800|[a-g]|-|1e9|0|true|null| ){0,60}") {
        let policy = &*EVERYTHING;
        let call = Call { arguments: Some(text.as_bytes()), ..CALL };
        let _ = policy.evaluate(&call, &Fake::default());
    }
    #[test]
    fn no_document_panics(text in "(version: \"1\"|default: deny|\n|  |- |tools:|limits:|rules:|rate_limit: |conditions: |\\{|\\}|\\[|\\]|,|a|1|\\*|path: args.x|op: eq|value: ){0,40}") {
        if let Ok(loaded) = policy::load(&text) {
            let _ = policy::compile(&loaded.policy, SITE);
        }
    }
}
