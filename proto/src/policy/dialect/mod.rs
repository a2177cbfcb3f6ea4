//! Reading the three dialects into one intermediate form.
//!
//! ```text
//! Node ──detect──► form ──native | intercept | catalogue──► ir::Policy ──remarks──► Loaded
//! ```

mod catalogue;
mod condition;
mod detect;
mod intercept;
mod limit;
mod native;
mod prune;
mod remarks;

use super::{ir, validate};
use crate::doc::{self, Node, Pos, Problem, Severity};
use serde::Serialize;

/// Which form a document has; told from its keys, never from the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `policy.json`
    Native,
    /// Intercept's YAML
    Intercept,
    /// The catalogue's YAML
    Catalogue,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 3] = [Dialect::Native, Dialect::Intercept, Dialect::Catalogue];

    /// `native`, `intercept` or `catalogue`: also the name of its JSON Schema's file.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Native => "native",
            Dialect::Intercept => "intercept",
            Dialect::Catalogue => "catalogue",
        }
    }
}

/// A document that was read.
#[derive(Debug)]
pub struct Loaded {
    /// Its dialect.
    pub dialect: Dialect,
    /// Its meaning.
    pub policy: ir::Policy,
    /// Warnings and notes, in document order.
    pub remarks: Vec<Problem>,
}

/// The JSON Schema of a dialect, made from the types that read it.
pub fn schema(dialect: Dialect) -> schemars::Schema {
    match dialect {
        Dialect::Native => schemars::schema_for!(native::Document),
        Dialect::Intercept => schemars::schema_for!(intercept::Document),
        Dialect::Catalogue => schemars::schema_for!(catalogue::Document),
    }
}

/// Reads a policy document of any dialect. On failure every problem is returned, at least one of them an error.
pub fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_node(&doc::parse(text)?)
}

/// The same for a policy written inline in another document: positions are those of that document, pointers begin at
/// the policy.
pub fn load_node(node: &Node) -> Result<Loaded, Vec<Problem>> {
    let mut told = Told::default();
    let Some(form) = detect::detect(node, &mut told) else {
        return Err(told.0);
    };
    let policy = match read(&form, &form.node, &mut told) {
        Ok(policy) => policy,
        Err(problems) => return Err(rest(&form, problems, told)),
    };
    told.0.extend(validate::problems(&policy));
    let mut problems = remarked(&policy, told);
    tidy(&mut problems);
    match problems.iter().all(|p| p.severity != Severity::Error) {
        true => Ok(Loaded {
            dialect: policy.dialect,
            policy,
            remarks: problems,
        }),
        false => Err(problems),
    }
}

fn read(form: &detect::Form, node: &Node, told: &mut Told) -> Result<ir::Policy, Vec<Problem>> {
    Ok(match form.dialect {
        Dialect::Native => native::policy(doc::from_node(node)?, form.all_first, told),
        Dialect::Intercept => intercept::policy(doc::from_node(node)?, told),
        Dialect::Catalogue => catalogue::policy(doc::from_node(node)?, form.tools_pointer(), told),
    })
}

/// The problems of a document that is not built as its form demands, and those of the rest of it.
fn rest(form: &detect::Form, mut problems: Vec<Problem>, told: Told) -> Vec<Problem> {
    let pruned = prune::Pruned::new(form.dialect, &form.node, &problems);
    let mut also = Told::default();
    if let Ok(policy) = read(form, &pruned.node, &mut also) {
        also.0.extend(validate::of_parts(&policy));
    }
    for problem in &mut problems {
        problem.pointer = form.as_written(&problem.pointer);
    }
    // What was told already (not supported yet) is not also an unknown key.
    problems.retain(|p| !told.0.iter().any(|known| known.pointer == p.pointer));
    problems.extend(told.0);
    for mut problem in also.0 {
        let inner = form.as_read(&problem.pointer);
        problem.pointer = form.as_written(&pruned.whole(&inner));
        problems.push(problem);
    }
    if problems.iter().all(|p| p.severity != Severity::Error) {
        problems.push(Problem::error(
            form.node.at,
            "",
            "this policy cannot be read",
        ));
    }
    tidy(&mut problems);
    problems
}

/// Adds the remarks, but none about a tool of which a part could not be read.
fn remarked(policy: &ir::Policy, told: Told) -> Vec<Problem> {
    let mut problems = told.0;
    let tool =
        |p: &Problem| -> String { p.pointer.split('/').take(3).collect::<Vec<_>>().join("/") };
    let wrong: Vec<String> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(tool)
        .collect();
    let mut remarks = Told::default();
    remarks::add(policy, &mut remarks);
    problems.extend(remarks.0.into_iter().filter(|p| !wrong.contains(&tool(p))));
    problems
}

fn tidy(problems: &mut Vec<Problem>) {
    problems.sort_by_key(|problem| (problem.at, problem.severity));
    problems.dedup();
}

/// What was found so far, of every severity.
#[derive(Default)]
struct Told(Vec<Problem>);

impl Told {
    fn error(&mut self, at: Pos, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::error(at, pointer, message));
    }
    fn warning(&mut self, at: Pos, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::warning(at, pointer, message));
    }
    fn note(&mut self, at: Pos, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::note(at, pointer, message));
    }
}

/// A pointer with one more token.
fn below(pointer: &str, token: impl ToString) -> String {
    let mut pointer = pointer.to_owned();
    doc::pointer_token(&mut pointer, &token.to_string());
    pointer
}

/// Names of tools and of hidden tools: an empty one is a slip of the pen.
fn check_name(name: &str, at: Pos, pointer: &str, told: &mut Told) {
    if name.trim() != name || name.is_empty() {
        told.error(
            at,
            pointer,
            "a tool's name is empty or has spaces around it",
        );
    }
}

fn check_version(version: &doc::Spanned<String>, told: &mut Told) {
    if version.value != "1" {
        told.error(version.at, "/version", "the only version is \"1\"");
    }
}

/// A message that says nothing counts as none.
fn message(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}
