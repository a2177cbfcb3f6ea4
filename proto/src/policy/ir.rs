//! The one meaning of the three dialects, as written: names are not yet hashed, nothing is resolved.
//!
//! `Serialize` writes the meaning alone, without places: two documents that serialise alike mean the same.

use super::{dialect::Dialect, number::Decimal, path::Path};
use crate::{
    doc::Pos,
    limit::{Kind, OnUnreachable, RefundOn, Scale, Scope},
};
use serde::{Serialize, Serializer};

/// Most distinct `key` values of a limit, grant and window where the document names no other bound.
pub const KEYS_MAX: u32 = 1_000;

/// A policy.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    /// The form it was written in: it fixes the order of judgement.
    pub dialect: Dialect,
    /// What happens to a tool that is not listed.
    pub unlisted: Unlisted,
    /// Tools that do not exist for the agent; names or globs.
    pub hide: Vec<Hidden>,
    /// Rules over every tool call (`all_tools`, `"*"`).
    pub all: Vec<Step>,
    /// Whether `all` stands before the tools in the document.
    pub all_first: bool,
    /// Tools in document order; names or globs.
    pub tools: Vec<Tool>,
    /// Records what would be denied, and forwards.
    pub shadow: bool,
    /// What passes besides `tools/call`.
    pub methods: Methods,
    /// `list_denied: show`: tools that the default denies stay in `tools/list`.
    pub list_denied: bool,
    /// `denial_detail: code`: rule, max and remaining are hidden from the agent.
    pub terse: bool,
}

/// Where something stands: nothing of it is part of the meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line and column.
    pub at: Pos,
    /// JSON Pointer into the document as written.
    pub pointer: String,
}

/// What happens to a tool that is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlisted {
    /// It may be called.
    Allow,
    /// It is refused.
    Deny,
}

/// An entry of `hide`.
#[derive(Clone, Debug, Serialize)]
pub struct Hidden {
    /// Where.
    #[serde(skip)]
    pub place: Place,
    /// A name or a glob.
    pub name: String,
}

/// A tool's rules.
#[derive(Clone, Debug, Serialize)]
pub struct Tool {
    /// Where.
    #[serde(skip)]
    pub place: Place,
    /// A name or a glob.
    pub name: String,
    /// In document order.
    pub steps: Vec<Step>,
}

/// Which methods besides `tools/call` pass; names or globs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Methods {
    /// All that the protocol knows.
    All,
    /// These and what a connection cannot do without.
    Allow {
        /// Where.
        #[serde(skip)]
        place: Place,
        /// Names or globs.
        names: Vec<String>,
    },
    /// All but these.
    Deny {
        /// Where.
        #[serde(skip)]
        place: Place,
        /// Names or globs.
        names: Vec<String>,
    },
}

/// One thing to judge, or to count, in a call's way.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Where.
    #[serde(skip)]
    pub place: Place,
    /// The rule's id as an agent and the audit see it.
    #[serde(skip)]
    pub rule: String,
    /// What the author called it.
    pub name: Option<String>,
    /// What the author says when it refuses.
    pub message: Option<String>,
    /// What is judged.
    pub what: What,
}

/// What a step judges.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Refuses always.
    Deny,
    /// Refuses unless all hold.
    Require(Vec<Condition>),
    /// Refuses when all hold.
    DenyIf(Vec<Condition>),
    /// Counts, and refuses beyond a bound.
    Limit(Limit),
}

/// A condition.
#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    /// Where.
    #[serde(skip)]
    pub place: Place,
    /// What is looked at.
    pub subject: Subject,
    /// What must be true of it.
    pub test: Test,
}

/// What a condition looks at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A part of the arguments.
    Args(Path),
    /// A counter of this policy: of a tool's rules, or (`None`) of the rules over every tool.
    Counter {
        /// The tool's name as written.
        tool: Option<String>,
        /// The counter's name.
        counter: String,
    },
}

/// What must be true of a value.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// `eq`, `in` (any of them equals).
    In(Vec<Literal>),
    /// `neq`, `not_in` (none of them equals).
    NotIn(Vec<Literal>),
    /// `lt`
    Lt(Decimal),
    /// `lte`
    Lte(Decimal),
    /// `gt`
    Gt(Decimal),
    /// `gte`
    Gte(Decimal),
    /// `regex`
    Regex(String),
    /// `contains`
    Contains(Literal),
    /// `exists`
    Exists(bool),
}

/// A value that a policy compares with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Literal {
    /// Text.
    String(String),
    /// A number.
    Number(Decimal),
    /// `true` or `false`.
    Bool(bool),
}

/// A limit.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// The counter's name.
    pub counter: String,
    /// What is counted.
    #[serde(serialize_with = "kind")]
    pub kind: Kind,
    /// Over what.
    #[serde(serialize_with = "scope")]
    pub scope: Scope,
    /// Fixed point of amounts and `max`.
    #[serde(serialize_with = "scale")]
    pub scale: Scale,
    /// Units, or calls in flight; `None` counts and never refuses.
    pub max: Option<u64>,
    /// What one call counts.
    pub amount: Amount,
    /// Splits the counter by an argument's value.
    pub key: Option<Path>,
    /// Most distinct keys.
    pub keys_max: u32,
    /// What to do without the cluster.
    #[serde(serialize_with = "on_unreachable")]
    pub on_unreachable: OnUnreachable,
    /// Outcomes that give back.
    #[serde(serialize_with = "refund_on")]
    pub refund_on: RefundOn,
    /// Most units given back in a window; `None` = `max`.
    pub refund_max: Option<u64>,
}

/// What one call counts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// Units.
    Fixed(u64),
    /// A number in the arguments.
    From(Path),
}

impl Place {
    /// A place.
    pub fn new(at: Pos, pointer: impl Into<String>) -> Self {
        Self {
            at,
            pointer: pointer.into(),
        }
    }
}

impl Policy {
    /// All steps with the tool they stand under; `None` = over every tool.
    pub fn steps(&self) -> impl Iterator<Item = (Option<&str>, &Step)> {
        let tools = self
            .tools
            .iter()
            .flat_map(|tool| tool.steps.iter().map(|step| (Some(&*tool.name), step)));
        self.all.iter().map(|step| (None, step)).chain(tools)
    }
}

/// A scope's name in documents and for people.
pub fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Session => "session",
        Scope::Grant => "grant",
        Scope::Server => "server",
        Scope::All => "all",
    }
}

fn kind<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    match kind {
        Kind::Rate(window) => serializer.serialize_str(&window.name()),
        Kind::InFlight => serializer.serialize_none(),
    }
}

fn scope<S: Serializer>(scope: &Scope, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(scope_name(*scope))
}

fn scale<S: Serializer>(scale: &Scale, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(*scale == Scale::Micro)
}

fn on_unreachable<S: Serializer>(what: &OnUnreachable, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(*what == OnUnreachable::Allow)
}

fn refund_on<S: Serializer>(on: &RefundOn, serializer: S) -> Result<S::Ok, S::Error> {
    (on.rpc_error, on.http_5xx, on.tool_error).serialize(serializer)
}
