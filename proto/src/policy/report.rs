//! What `tollgate check` says: of a document, of one call, of the difference between two documents.
//!
//! Text comes in, a structured answer goes out, and each answer can be written for people.

mod against;

pub use against::{Change, Kept, against};

use super::{
    Loaded, Verdict,
    compile::{Call, Policy, Site, Usage, companion_counter, companion_max, compile},
    dialect::{self, Dialect},
    glob::Glob,
    ir::{self, Amount, Unlisted, What, scope_name},
    text,
};
use crate::{
    doc::{Pos, Problem, Severity},
    limit::{CounterKey, HashKey, Kind, Limit, Scope},
    scan::{self, Body, Bounds},
};
use std::fmt::Write;

/// A site for questions: nothing is counted on it.
const NOWHERE: Site<'static> = Site {
    server: "server",
    policy: "policy",
    secret: &HashKey([0; 16]),
    sessions_per_grant: 1,
};

/// What is said of one document.
#[derive(Debug)]
pub struct Report {
    /// Everything that was found, in document order.
    pub problems: Vec<Problem>,
    /// What the policy does; `None` when it cannot be used.
    pub summary: Option<Summary>,
    /// The policy itself, for [`call`] and [`against`].
    pub loaded: Option<Loaded>,
}

/// What a policy does, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its dialect.
    pub dialect: Dialect,
    /// See [`Policy::revision`].
    pub revision: String,
    /// What happens to tools that are not listed.
    pub unlisted: Unlisted,
    /// Listed names and globs.
    pub tools: usize,
    /// Hidden names and globs.
    pub hidden: usize,
    /// Records and never denies.
    pub shadow: bool,
    /// Each limit: its rule's id and what it says; a session limit's companion is named with it.
    pub limits: Vec<(String, String)>,
    /// What passes without a tool's rules being asked.
    pub methods: String,
}

/// Reads a document and says everything about it. `sessions_per_grant` sizes the companions of session limits.
pub fn check(document: &str, sessions_per_grant: u32) -> Report {
    let loaded = match dialect::load(document) {
        Ok(loaded) => loaded,
        Err(problems) => {
            return Report {
                problems,
                summary: None,
                loaded: None,
            };
        }
    };
    match compile(&loaded.policy, NOWHERE) {
        Ok(policy) => Report {
            problems: loaded.remarks.clone(),
            summary: Some(summary(&loaded.policy, &policy, sessions_per_grant)),
            loaded: Some(loaded),
        },
        Err(mut problems) => {
            problems.extend(loaded.remarks);
            Report {
                problems,
                summary: None,
                loaded: None,
            }
        }
    }
}

impl Report {
    /// Whether the policy can be used.
    pub fn is_usable(&self) -> bool {
        self.summary.is_some()
    }

    /// For people: `FILE:LINE:COLUMN: error: POINTER: MESSAGE` for each problem, then what the policy does.
    pub fn to_text(&self, file: &str) -> String {
        let mut out = problems_text(&self.problems, file);
        if let Some(summary) = &self.summary {
            let _ = write!(out, "{file}: {summary}");
        }
        out
    }
}

/// One line a problem: `FILE:LINE:COLUMN: error: POINTER: MESSAGE`.
pub fn problems_text(problems: &[Problem], file: &str) -> String {
    let mut out = String::new();
    for problem in problems {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let _ = write!(out, "{file}:{}: {severity}: ", problem.at);
        if !problem.pointer.is_empty() {
            let _ = write!(out, "{}: ", problem.pointer);
        }
        let _ = writeln!(out, "{}", problem.message);
    }
    out
}

fn summary(policy: &ir::Policy, compiled: &Policy, sessions_per_grant: u32) -> Summary {
    let limits = policy.steps().filter_map(|(_, step)| match &step.what {
        What::Limit(limit) => Some((step.rule.clone(), limit_text(limit, sessions_per_grant))),
        _ => None,
    });
    Summary {
        dialect: policy.dialect,
        revision: compiled.revision.to_string(),
        unlisted: policy.unlisted,
        tools: policy.tools.len(),
        hidden: policy.hide.len(),
        shadow: policy.shadow,
        limits: limits.collect(),
        methods: match &policy.methods {
            ir::Methods::All => {
                "all methods that the protocol version knows pass unjudged, but for tools/call"
                    .to_owned()
            }
            ir::Methods::Allow { names, .. } => {
                let always = super::evaluate::METHODS_ALWAYS.join(", ");
                let also = if names.is_empty() {
                    String::new()
                } else {
                    format!(", {}", names.join(", "))
                };
                format!("only {always}, notifications{also} pass unjudged")
            }
            ir::Methods::Deny { names, .. } => {
                format!(
                    "all methods that the protocol version knows pass unjudged, but for tools/call, {}",
                    names.join(", ")
                )
            }
        },
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unlisted = match self.unlisted {
            Unlisted::Allow => "allows",
            Unlisted::Deny => "denies",
        };
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        writeln!(
            f,
            "{} policy, {} listed, {} hidden; {unlisted} tools that are not listed; revision {}{}",
            self.dialect.name(),
            count(self.tools, "tool"),
            count(self.hidden, "name"),
            self.revision,
            if self.shadow {
                "; shadow: nothing is denied"
            } else {
                ""
            },
        )?;
        writeln!(f, "  methods: {}", self.methods)?;
        for (rule, limit) in &self.limits {
            writeln!(f, "  {rule}: {limit}")?;
        }
        Ok(())
    }
}

/// `30 per minute and session; with it goes 240 per minute and grant over all of its sessions`.
fn limit_text(limit: &ir::Limit, sessions_per_grant: u32) -> String {
    let Kind::Rate(window) = limit.kind else {
        let max = limit.max.unwrap_or_default();
        return format!(
            "{max} in flight on each node for every {}",
            scope_name(limit.scope)
        );
    };
    let per = text::per(&window.name());
    let Some(max) = limit.max else {
        return format!(
            "counts {per} and {}, never refuses",
            scope_name(limit.scope)
        );
    };
    let of = match &limit.amount {
        Amount::From(path) => format!(" of {path}"),
        Amount::Fixed(_) => String::new(),
    };
    let key = match &limit.key {
        Some(path) => format!(" and value of {path} (at most {})", limit.keys_max),
        None => String::new(),
    };
    let mut out = format!(
        "{}{of} {per} and {}{key}",
        limit.scale.show(max),
        scope_name(limit.scope)
    );
    if limit.scope == Scope::Session {
        let all = limit.scale.show(companion_max(max, sessions_per_grant));
        let _ = write!(
            out,
            "; its companion `{}`: {all} {per} and grant, over all of its sessions",
            companion_counter(&limit.counter)
        );
    }
    out
}

/// What a policy says of one call while nothing is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// Whether it is forwarded.
    pub admitted: bool,
    /// `admit`, or the denial's code.
    pub code: &'static str,
    /// The rule that decided, where one did, and its place in the document.
    pub rule: Option<(String, Pos)>,
    /// What the agent would read.
    pub message: Option<String>,
    /// What is charged: the rule's id, the amount, and how it is counted.
    pub charges: Vec<String>,
}

/// Judges one call as the gateway does, its arguments read as strictly. An error says why they would not be read.
pub fn call(
    loaded: &Loaded,
    tool: &str,
    arguments: &str,
    unix_ms: u64,
) -> Result<CallReport, String> {
    let name = serde_json::Value::from(tool);
    let head = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":{name},\"arguments\":"
    );
    let body = format!("{head}{arguments}}}}}");
    let read = scan::read(body.as_bytes(), &Bounds::default(), scan::From::Client);
    let message = match &read {
        // What was given is the whole of them: nothing else of the message came out of it.
        Ok(Body::One(message)) if message.arguments == Some(arguments.trim_ascii().as_bytes()) => {
            message
        }
        Ok(_) => return Err("the arguments are not one JSON object".to_owned()),
        Err(refusal) => {
            let at = refusal.at.saturating_sub(head.len());
            return Err(format!(
                "the gateway refuses these arguments at byte {at}: {}",
                refusal.reason.text()
            ));
        }
    };
    let policy =
        compile(&loaded.policy, NOWHERE).map_err(|problems| problems_text(&problems, "policy"))?;
    let call = Call {
        tool,
        arguments: message.arguments,
        grant: "grant",
        keys: None,
        session: None,
        unix_ms,
    };
    Ok(match policy.evaluate(&call, &Unused) {
        Verdict::Deny(denial) => denied(loaded, &denial, false),
        Verdict::Admit {
            shadow: Some(denial),
            ..
        } => denied(loaded, &denial, true),
        Verdict::Admit {
            charges,
            shadow: None,
        } => CallReport {
            admitted: true,
            code: "admit",
            rule: listed(loaded, tool),
            message: None,
            charges: charges.iter().map(charge_text).collect(),
        },
    })
}

fn denied(loaded: &Loaded, denial: &super::Denial<'_>, shadow: bool) -> CallReport {
    CallReport {
        admitted: shadow,
        code: denial.code.as_str(),
        rule: Some((denial.rule.to_string(), place(loaded, &denial.rule))),
        message: Some(denial.text()),
        charges: Vec::new(),
    }
}

/// The entry that lets a tool through.
fn listed(loaded: &Loaded, tool: &str) -> Option<(String, Pos)> {
    let names = super::glob::Names::new(
        loaded
            .policy
            .tools
            .iter()
            .map(|t| (t.name.as_str(), &t.place)),
    );
    names
        .find(tool)
        .map(|place| (place.pointer.clone(), place.at))
}

/// Where a rule stands; its document's start for rules that are no part of it.
fn place(loaded: &Loaded, rule: &str) -> Pos {
    let start = Pos { line: 1, column: 1 };
    let policy = &loaded.policy;
    // The longest: `…/limits/a/key` belongs to `…/limits/a`.
    let steps = policy
        .steps()
        .filter(|(_, step)| rule.starts_with(&step.rule));
    let step = steps
        .max_by_key(|(_, step)| step.rule.len())
        .map(|(_, step)| step.place.at);
    let methods = match &policy.methods {
        ir::Methods::Allow { place, .. } | ir::Methods::Deny { place, .. } => {
            rule.starts_with(&place.pointer).then_some(place.at)
        }
        ir::Methods::All => None,
    };
    step.or(methods).unwrap_or(start)
}

fn charge_text(charge: &crate::limit::Charge<'_>) -> String {
    let limit: &Limit = charge.limit;
    let amount = limit.scale.show(charge.amount);
    let key = charge
        .key_text
        .as_ref()
        .map(|key| format!(", key {key}"))
        .unwrap_or_default();
    let of = match limit.kind {
        Kind::Rate(window) => format!(
            "{} {}",
            limit.scale.show(limit.max),
            text::per(&window.name())
        ),
        Kind::InFlight => format!("{} in flight", limit.max),
    };
    let bound = if limit.counts_only {
        "counted only".to_owned()
    } else {
        format!("of {of}")
    };
    format!(
        "{}: {amount} {bound}, {}{key}",
        limit.rule,
        scope_name(limit.scope)
    )
}

impl CallReport {
    /// For people.
    pub fn to_text(&self, file: &str) -> String {
        let mut out = match (self.admitted, self.code) {
            (true, "admit") => "admitted".to_owned(),
            (true, code) => format!("admitted in shadow mode; would be denied ({code})"),
            (false, code) => format!("denied ({code})"),
        };
        if let Some((rule, at)) = &self.rule {
            let _ = write!(out, " by {rule} at {file}:{at}");
        }
        out.push('\n');
        for line in self.message.iter().chain(&self.charges) {
            let _ = writeln!(out, "  {line}");
        }
        out
    }
}

/// Nothing is used up.
struct Unused;

impl Usage for Unused {
    fn used(&self, _: &Limit, _: CounterKey, _: u64) -> u64 {
        0
    }
    fn refused(&self, _: &Limit, _: CounterKey, _: u64, _: u64) -> Option<Option<u64>> {
        None
    }
}

/// How a name stands before its arguments are looked at.
fn hidden(policy: &ir::Policy, tool: &str) -> bool {
    policy
        .hide
        .iter()
        .any(|hidden| Glob::new(&hidden.name).matches(tool))
}
