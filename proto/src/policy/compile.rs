//! From meaning to something that decides quickly: exact names in a map, globs by length, regexes built, limits hashed.

use super::{
    decision::{Denial, Verdict},
    ir,
};
use crate::limit::{HashKey, Limit};
use std::sync::Arc;

/// Where a policy is put to work: a policy is compiled once for every server it is used on.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The server's name.
    pub server: &'a str,
    /// The policy's name.
    pub policy: &'a str,
    /// The cluster's secret.
    pub secret: &'a HashKey,
    /// For the companion of session limits: sessions that one grant may hold.
    pub sessions_per_grant: u32,
}

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    /// The policy's name.
    pub name: Arc<str>,
    /// First 16 hexadecimal digits of a hash of its meaning: changes whenever the document's meaning does.
    pub revision: Arc<str>,
    /// Every limit, companions included.
    pub limits: Vec<Arc<Limit>>,
}

/// Compiles. Problems found only here (regex too large, equal identities, …) come back with their places.
pub fn compile(_policy: &ir::Policy, _site: Site<'_>) -> Result<Policy, Vec<crate::doc::Problem>> {
    todo!()
}

/// One `tools/call` as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The tool's name, decoded.
    pub tool: &'a str,
    /// `params.arguments` as validated by the scanner; `None` counts as `{}`.
    pub arguments: Option<&'a [u8]>,
    /// The caller's grant id.
    pub grant: &'a str,
    /// The caller's session id, where there is one.
    pub session: Option<&'a str>,
    /// Wall clock of the request.
    pub unix_ms: u64,
}

/// What this node knows of counters without asking anybody.
pub trait Usage {
    /// Units used in the counter's present window, leased counted as used; 0 when unknown.
    fn used(&self, limit: &Limit, key: crate::limit::CounterKey, unix_ms: u64) -> u64;
    /// If a charge of this amount is known to be refused now: the retry hint in milliseconds (`None` inside = never).
    fn refused(
        &self,
        limit: &Limit,
        key: crate::limit::CounterKey,
        amount: u64,
        unix_ms: u64,
    ) -> Option<Option<u64>>;
}

impl Policy {
    /// Judges one call. Total: every input has a verdict.
    pub fn evaluate<'a>(&'a self, _call: &Call<'a>, _usage: &dyn Usage) -> Verdict<'a> {
        todo!()
    }
    /// Judges a method other than `tools/call`.
    pub fn judge_method(&self, _method: &str) -> Result<(), Denial<'_>> {
        todo!()
    }
    /// Whether `tools/list` shows this tool (hidden and default-denied ones are removed, unless `list_denied: show`).
    pub fn lists(&self, _tool: &str) -> bool {
        todo!()
    }
    /// Whether anything is ever removed from `tools/list`: if not, lists stream through untouched.
    pub fn filters_lists(&self) -> bool {
        todo!()
    }
    /// The denial for a limit that the limiter refused (`retry_after_ms: None` = can never fit).
    pub fn limit_denial<'a>(
        &'a self,
        _limit: &'a Limit,
        _remaining: u64,
        _retry_after_ms: Option<u64>,
    ) -> Denial<'a> {
        todo!()
    }
    /// Whether `denial_detail: code` hides rule, max and remaining from the agent.
    pub fn hides_detail(&self) -> bool {
        todo!()
    }
}
