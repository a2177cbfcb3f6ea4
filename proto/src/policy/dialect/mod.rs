//! Reading the three dialects into one intermediate form.

use super::ir;
use crate::doc::Problem;

/// Which form a document has; told from its keys, never from the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `policy.json`
    Native,
    /// Intercept's YAML
    Intercept,
    /// The catalogue's YAML
    Catalogue,
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

/// Reads a policy document of any dialect. On failure every problem is returned, at least one of them an error.
pub fn load(_text: &str) -> Result<Loaded, Vec<Problem>> {
    todo!()
}

/// The same for a policy written inline in another document: positions are those of that document.
pub fn load_node(_node: &crate::doc::Node) -> Result<Loaded, Vec<Problem>> {
    todo!()
}
