//! Policies of any size, and calls that they judge.

use proto::{
    limit::{CounterKey, HashKey, Limit},
    policy::{
        self, Policy,
        compile::{Call, Site, Usage},
    },
};
use std::fmt::Write;

/// Counters that have room for everything.
#[derive(Debug)]
pub struct Unused;

impl Usage for Unused {
    fn used(&self, _: &Limit, _: CounterKey, _: u64) -> u64 {
        0
    }
    fn refused(&self, _: &Limit, _: CounterKey, _: u64, _: u64) -> Option<Option<u64>> {
        None
    }
}

/// The arguments of every call here.
pub const ARGUMENTS: &[u8] =
    br#"{"customer":"c-1","note":"a cat on a mat","currency":"eur","amount":125.5,"items":[{"price":1},{"price":2}]}"#;

/// A call of this tool.
pub fn call(tool: &str) -> Call<'_> {
    Call {
        tool,
        arguments: Some(ARGUMENTS),
        grant: "agent-a",
        keys: None,
        session: Some("0123456789abcdef"),
        unix_ms: 1_785_230_400_125,
    }
}

/// A policy of `tools` tools: thirds with one limit, with two, and with conditions and a cost; a few globs.
pub fn of_tools(tools: usize) -> Policy {
    let mut text = head();
    for n in 0..tools.div_ceil(3) {
        let _ = writeln!(text, "  free_{n}: {{}}");
        let _ = writeln!(
            text,
            "  rate_{n}: {{limits: [{{counter: c, window: minute, max: 30}}]}}"
        );
        let _ = writeln!(
            text,
            "  full_{n}: {{require: [{{conditions: [{{path: args.currency, op: in, value: [usd, eur]}}]}}], \
             deny_if: [{{conditions: [{{path: args.amount, op: gt, value: 50000}}]}}], \
             limits: [{{counter: c, window: day, max: 1000000, increment_from: args.amount}}]}}"
        );
    }
    for n in 0..tools.div_ceil(100) {
        let _ = writeln!(text, "  glob_{n}_*: {{}}");
    }
    compile(&text)
}

/// A policy of one tool, `conditional`, with this many conditions that all must be read and hold.
pub fn of_conditions(conditions: usize) -> Policy {
    let mut text = head();
    let kinds = [
        "{path: args.currency, op: in, value: [usd, eur]}",
        "{path: args.amount, op: lte, value: 50000}",
        "{path: args.customer, op: exists, value: true}",
        "{path: args.note, op: contains, value: mat}",
        "{path: args.items.1.price, op: eq, value: 2}",
    ];
    let listed: Vec<&str> = kinds.iter().cycle().take(conditions).copied().collect();
    let _ = writeln!(
        text,
        "  conditional: {{require: [{{conditions: [{}]}}]}}",
        listed.join(", ")
    );
    compile(&text)
}

/// The paths of [`of_paths`].
pub const PATHS: &[&str] = &["currency", "amount", "customer", "note", "items.1.price"];

/// A policy of one tool, `reading`, with this many conditions that do nothing but find a value.
pub fn of_paths(paths: usize) -> Policy {
    let mut text = head();
    let condition = |path: &&str| format!("{{path: args.{path}, op: exists, value: true}}");
    let listed: Vec<String> = PATHS.iter().cycle().take(paths).map(condition).collect();
    let _ = writeln!(
        text,
        "  reading: {{require: [{{conditions: [{}]}}]}}",
        listed.join(", ")
    );
    compile(&text)
}

/// [`ARGUMENTS`] with a text of so many bytes beside them, as a call that sends a file has it.
pub fn arguments(text_bytes: usize) -> Vec<u8> {
    let text = format!(
        r#"{{"text":"{}","#,
        "a line of text ".repeat(text_bytes / 15)
    );
    [text.as_bytes(), ARGUMENTS.get(1..).unwrap_or_default()].concat()
}

fn head() -> String {
    String::from(
        "version: '1'\ndefault: deny\nall_tools: {limits: [{counter: calls, window: minute, max: 600}]}\ntools:\n",
    )
}

fn compile(text: &str) -> Policy {
    let loaded = policy::load(text).expect("invariant: the policy above is valid");
    let site = Site {
        server: "server",
        policy: "policy",
        secret: &HashKey([7; 16]),
        sessions_per_grant: 8,
    };
    policy::compile(&loaded.policy, site).expect("invariant: the policy above is valid")
}
