//! What changes when one policy takes another's place.

use super::{Loaded, hidden};
use crate::policy::{
    glob::Names,
    ir::{self, Limit, Step, What, scope_name},
};
use crate::{
    limit::{Kind, Scale},
    policy::text,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What the whole policy does with every call: default, mode, methods, what denials tell.
    Policy(String),
    /// How a tool stands, or what its rules say.
    Tool {
        /// The tool's name or glob; `*` = the rules over every tool.
        tool: String,
        /// Before and after.
        what: String,
    },
    /// A limit, and what becomes of its counter.
    Limit {
        /// The rule's id: the new one, or the old one of a limit that is gone.
        rule: String,
        /// What becomes of the counter.
        counter: Kept,
        /// Before and after.
        what: String,
    },
}

/// What becomes of a limit's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It keeps its count.
    Kept,
    /// It starts at zero.
    StartsOver,
    /// Nothing counts any more.
    Ends,
}

/// Everything that changes, the policy as a whole first, then tools by name, then limits.
pub fn against(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let (old, new) = (&old.policy, &new.policy);
    let mut changes = whole(old, new);
    tools(old, new, &mut changes);
    limits(old, new, &mut changes);
    changes
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Policy(what) => f.write_str(what),
            Change::Tool { tool, what } => write!(f, "tool {tool}: {what}"),
            Change::Limit {
                rule,
                counter,
                what,
            } => {
                let counter = match counter {
                    Kept::Kept => "its counter is kept",
                    Kept::StartsOver => "its counter starts at zero",
                    Kept::Ends => "its counter ends",
                };
                write!(f, "limit {rule}: {what}; {counter}")
            }
        }
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn whole(old: &ir::Policy, new: &ir::Policy) -> Vec<Change> {
    let word = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
    let mode = |p: &ir::Policy| word(p.shadow, "shadow", "enforce").to_owned();
    let listed = |p: &ir::Policy| word(p.list_denied, "show", "hide").to_owned();
    let detail = |p: &ir::Policy| word(p.terse, "code", "full").to_owned();
    let facts: [(&str, [String; 2]); 6] = [
        ("dialect", [old, new].map(|p| p.dialect.name().to_owned())),
        (
            "default",
            [old, new].map(|p| json(&p.unlisted).trim_matches('"').to_owned()),
        ),
        ("mode", [old, new].map(mode)),
        ("methods", [old, new].map(|p| json(&p.methods))),
        ("list_denied", [old, new].map(listed)),
        ("denial_detail", [old, new].map(detail)),
    ];
    facts
        .into_iter()
        .filter(|(_, [before, after])| before != after)
        .map(|(name, [before, after])| Change::Policy(format!("{name}: {before} → {after}")))
        .collect()
}

fn tools(old: &ir::Policy, new: &ir::Policy, changes: &mut Vec<Change>) {
    let names = |p: &ir::Policy| -> Vec<String> {
        p.tools
            .iter()
            .map(|t| t.name.clone())
            .chain(p.hide.iter().map(|h| h.name.clone()))
            .collect()
    };
    let all: BTreeSet<String> = names(old).into_iter().chain(names(new)).collect();
    let mut tell = |tool: &str, what: Option<String>| {
        changes.extend(what.map(|what| Change::Tool {
            tool: tool.to_owned(),
            what,
        }));
    };
    tell("*", rules_change(&old.all, &new.all));
    for tool in &all {
        let (before, after) = (Standing::of(old, tool), Standing::of(new, tool));
        if before.word() != after.word() {
            tell(tool, Some(format!("{} → {}", before.word(), after.word())));
        } else {
            tell(tool, rules_change(before.steps(), after.steps()));
        }
    }
}

/// How a tool stands before its arguments are looked at.
enum Standing<'p> {
    Hidden,
    Unlisted(ir::Unlisted),
    Listed(&'p [Step]),
}

impl<'p> Standing<'p> {
    fn of(policy: &'p ir::Policy, tool: &str) -> Self {
        if hidden(policy, tool) {
            return Standing::Hidden;
        }
        let tools = Names::new(policy.tools.iter().map(|t| (t.name.as_str(), t)));
        match tools.find(tool) {
            Some(tool) => Standing::Listed(&tool.steps),
            None => Standing::Unlisted(policy.unlisted),
        }
    }

    fn word(&self) -> &'static str {
        let always = |step: &Step| match &step.what {
            What::Deny => true,
            What::DenyIf(conditions) => conditions.is_empty(),
            What::Require(_) | What::Limit(_) => false,
        };
        match self {
            Standing::Hidden => "hidden",
            Standing::Unlisted(ir::Unlisted::Deny) => "denied by default",
            Standing::Unlisted(ir::Unlisted::Allow) => "allowed",
            Standing::Listed([]) => "allowed",
            Standing::Listed(steps) if steps.iter().any(always) => "always denied",
            Standing::Listed(_) => "allowed under rules",
        }
    }

    fn steps(&self) -> &'p [Step] {
        match self {
            Standing::Listed(steps) => steps,
            Standing::Hidden | Standing::Unlisted(_) => &[],
        }
    }
}

/// Which rules (limits apart) came, went or moved.
fn rules_change(old: &[Step], new: &[Step]) -> Option<String> {
    let rules = |steps: &'_ [Step]| -> Vec<(String, String)> {
        let rules = steps
            .iter()
            .filter(|step| !matches!(step.what, What::Limit(_)));
        rules.map(|step| (step.rule.clone(), json(step))).collect()
    };
    let (old, new) = (rules(old), rules(new));
    let lacking = |these: &[(String, String)], those: &[(String, String)]| -> Vec<String> {
        let lacks =
            |(_, meaning): &&(String, String)| !those.iter().any(|(_, other)| other == meaning);
        these
            .iter()
            .filter(lacks)
            .map(|(rule, _)| rule.clone())
            .collect()
    };
    let (gone, come) = (lacking(&old, &new), lacking(&new, &old));
    let mut parts = Vec::new();
    if !gone.is_empty() {
        parts.push(format!("gone or changed: {}", gone.join(", ")));
    }
    if !come.is_empty() {
        parts.push(format!("new or changed: {}", come.join(", ")));
    }
    let order = |rules: &[(String, String)]| -> Vec<String> {
        rules.iter().map(|(_, meaning)| meaning.clone()).collect()
    };
    if parts.is_empty() && order(&old) != order(&new) {
        parts.push("the same rules in another order".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// A limit's identity within a policy on a server (limits.md §1).
type Identity = (String, String, &'static str, String, bool, bool);

fn identities(policy: &ir::Policy) -> BTreeMap<Identity, (&Step, &Limit)> {
    let limits = policy.steps().filter_map(|(tool, step)| match &step.what {
        What::Limit(limit) => Some((tool, step, limit)),
        _ => None,
    });
    limits
        .map(|(tool, step, limit)| {
            let identity = (
                tool.unwrap_or("*").to_owned(),
                limit.counter.clone(),
                scope_name(limit.scope),
                window(limit),
                limit.scale == Scale::Micro,
                policy.shadow,
            );
            (identity, (step, limit))
        })
        .collect()
}

fn window(limit: &Limit) -> String {
    match limit.kind {
        Kind::Rate(window) => window.name(),
        Kind::InFlight => String::new(),
    }
}

fn limits(old: &ir::Policy, new: &ir::Policy, changes: &mut Vec<Change>) {
    let (before, after) = (identities(old), identities(new));
    let mut tell = |rule: &str, counter, what| {
        changes.push(Change::Limit {
            rule: rule.to_owned(),
            counter,
            what,
        });
    };
    for (identity, (step, limit)) in &after {
        let Some((was_step, was)) = before.get(identity) else {
            // The same counter's name in another form: the author may take it for the same counter.
            let other = before
                .iter()
                .find(|(other, _)| (&other.0, &other.1) == (&identity.0, &identity.1));
            let what = match other {
                Some((_, (_, was))) => format!("{} → {}", short(was), short(limit)),
                None => format!("new: {}", short(limit)),
            };
            tell(&step.rule, Kept::StartsOver, what);
            continue;
        };
        if short(was) != short(limit) {
            tell(
                &step.rule,
                Kept::Kept,
                format!("{} → {}", short(was), short(limit)),
            );
        } else if json(was) != json(limit) || was_step.message != step.message {
            tell(
                &step.rule,
                Kept::Kept,
                "its message, amount, key or refunds change".to_owned(),
            );
        }
    }
    for (_, (step, limit)) in before
        .iter()
        .filter(|(identity, _)| !after.contains_key(*identity))
    {
        tell(&step.rule, Kept::Ends, format!("gone: {}", short(limit)));
    }
}

fn short(limit: &Limit) -> String {
    let max = limit
        .max
        .map_or("unbounded".to_owned(), |max| limit.scale.show(max));
    let per = match limit.kind {
        Kind::Rate(window) => text::per(&window.name()),
        Kind::InFlight => "in flight".to_owned(),
    };
    format!("{max} {per} and {}", scope_name(limit.scope))
}
