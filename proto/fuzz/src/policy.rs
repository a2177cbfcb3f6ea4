//! Policy documents of any dialect: what is read compiles or says why, and judges every call.

use proto::{
    doc::{Problem, Severity},
    id::RequestId,
    limit::{CounterKey, HashKey, Limit},
    mcp::Era,
    policy::{
        Dialect, Policy, Verdict, compile,
        compile::{Call, Site, Usage},
        dialect::load,
    },
    scan::{Body, Bounds, Envelope, From, jsonrpc::read},
};

use std::sync::Arc;

const SECRET: HashKey = HashKey([7; 16]);
/// Noon of a day: far from the borders of windows.
const UNIX_MS: u64 = 1_785_240_000_000;

/// Arguments that every policy meets, whatever its rules read.
const ARGUMENTS: &[&str] = &[
    "{}",
    r#"{"amount":5000,"currency":"usd","to":"a@example.com","items":[{"price":1},{"price":2.5}],"a":{"b":null}}"#,
    r#"{"amount":"5000","currency":["usd"],"to":7,"items":[],"a":[[]]}"#,
    r#"{"amount":-1,"currency":null,"items":{"price":1},"a.b":true}"#,
    r#"{"amount":1e400,"currency":true,"items":[1e-400,9007199254740993]}"#,
    r#"{"amount":0.0000001,"to":"\ud83d\ude00","items":[{"price":99999999999999999999}]}"#,
];

/// A native policy.
pub fn native(bytes: &[u8]) {
    policy(bytes);
}

/// A policy in Intercept's form.
pub fn intercept(bytes: &[u8]) {
    policy(bytes);
}

/// A policy in the catalogue's form.
pub fn catalogue(bytes: &[u8]) {
    policy(bytes);
}

/// Reads a document and judges calls by it; behind a zero byte may stand arguments of the input's own.
fn policy(bytes: &[u8]) {
    let (document, own) = match bytes.iter().position(|&b| b == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b""[..]),
    };
    let Ok(document) = std::str::from_utf8(document) else {
        return;
    };
    let loaded = match load(document) {
        Ok(loaded) => loaded,
        Err(problems) => return reported(&problems),
    };
    assert!(Dialect::ALL.contains(&loaded.dialect));
    assert!(loaded.remarks.iter().all(|r| r.severity != Severity::Error));
    let site = Site {
        server: "server",
        policy: "policy",
        secret: &SECRET,
        sessions_per_grant: 8,
    };
    let policy = match compile(&loaded.policy, site) {
        Ok(policy) => policy,
        Err(problems) => return reported(&problems),
    };
    let again = load(document).expect("invariant: reading has no memory");
    let again = compile(&again.policy, site).expect("invariant: compiling has no memory");
    assert_eq!(policy.revision, again.revision);
    assert_eq!(policy.limits.len(), again.limits.len());

    let hidden = loaded.policy.hide.iter().map(|h| h.name.as_str());
    let tools = loaded.policy.tools.iter().map(|t| t.name.as_str());
    let strangers = ["unlisted", "", "create_charge", "*"];
    for tool in hidden.chain(tools).take(16).chain(strangers) {
        for arguments in ARGUMENTS {
            judge(&policy, tool, Some(arguments.as_bytes()));
        }
        judge(&policy, tool, None);
        own_arguments(own, |arguments| judge(&policy, tool, arguments));
    }
    for method in ["tools/call", "resources/read", "ping", ""] {
        let _ = policy.judge_method(method).map_err(|denial| denial.text());
    }
}

/// A document that is refused says why, and at least one of the reasons is an error.
fn reported(problems: &[Problem]) {
    assert!(problems.iter().any(|p| p.severity == Severity::Error));
    assert!(problems.iter().all(|p| !p.message.is_empty()));
}

/// Arguments reach a policy through the scanner only.
fn own_arguments(arguments: &[u8], judge: impl FnOnce(Option<&[u8]>)) {
    if arguments.is_empty() {
        return;
    }
    let mut call =
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":"#
            .to_vec();
    call.extend_from_slice(arguments);
    call.extend_from_slice(b"}}");
    if let Ok(Body::One(Envelope { arguments, .. })) = read(&call, &Bounds::default(), From::Client)
    {
        judge(arguments);
    }
}

fn judge(policy: &Policy, tool: &str, arguments: Option<&[u8]>) {
    for session in [None, Some("session")] {
        let call = Call {
            tool,
            arguments,
            grant: "grant",
            keys: None,
            session,
            unix_ms: UNIX_MS,
        };
        for usage in [&Fresh as &dyn Usage, &UsedUp] {
            let verdict = policy.evaluate(&call, usage);
            let denial = match &verdict {
                Verdict::Admit { charges, shadow } => {
                    assert!(
                        policy.lists(tool) || policy.is_shadow(),
                        "an unlisted tool was admitted"
                    );
                    assert!(
                        charges
                            .iter()
                            .all(|c| policy.limits.iter().any(|l| Arc::ptr_eq(l, c.limit)))
                    );
                    shadow.as_ref()
                }
                Verdict::Deny(denial) => Some(denial),
            };
            for era in [Era::Modern, Era::Legacy] {
                let Some(denial) = denial else { continue };
                let said = denial.to_message(b"\"id\"", era, RequestId(1), policy.hides_detail());
                let Ok(Body::One(message)) = read(&said, &Bounds::default(), From::Server) else {
                    panic!("a denial that is no message");
                };
                assert!(message.is_tool_error && message.id == Some(b"\"id\""));
            }
        }
    }
}

/// No counter was ever used.
struct Fresh;

impl Usage for Fresh {
    fn used(&self, _: &Limit, _: CounterKey, _: u64) -> u64 {
        0
    }
    fn refused(&self, _: &Limit, _: CounterKey, _: u64, _: u64) -> Option<Option<u64>> {
        None
    }
}

/// Every counter is used up.
struct UsedUp;

impl Usage for UsedUp {
    fn used(&self, _: &Limit, _: CounterKey, _: u64) -> u64 {
        u64::MAX
    }
    fn refused(&self, _: &Limit, _: CounterKey, amount: u64, _: u64) -> Option<Option<u64>> {
        Some((amount % 2 == 1).then_some(41_000))
    }
}
