//! Verdicts, and the words in which an agent hears a denial.

use crate::{id::RequestId, limit::Charge, mcp::Era};
use smallvec::SmallVec;
use std::borrow::Cow;

/// Why a call was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The tool is hidden.
    Hidden,
    /// The tool is not listed and the default is to deny.
    Default,
    /// A rule says no.
    Rule,
    /// A limit is used up.
    Limit,
    /// The grant has no policy for this server.
    NoPolicy,
    /// Quota could not be had from the cluster: no limit was reached.
    Unreachable,
    /// The call could not be recorded.
    Audit,
    /// A bound of the gateway is reached.
    Overloaded,
}

impl Code {
    /// The word in answers, audit lines and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Hidden => "hidden",
            Code::Default => "default",
            Code::Rule => "rule",
            Code::Limit => "limit",
            Code::NoPolicy => "no_policy",
            Code::Unreachable => "unreachable",
            Code::Audit => "audit",
            Code::Overloaded => "overloaded",
        }
    }
}

/// A denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    /// Why.
    pub code: Code,
    /// JSON Pointer into the document as written, or `(no policy)`, `(hidden)`, `(default deny)`.
    pub rule: Cow<'a, str>,
    /// The sentence behind `[POLICY DENIED] `, without a retry hint.
    pub message: Cow<'a, str>,
    /// When a retry may succeed.
    pub retry_after_ms: Option<u64>,
    /// The limit's max, as a decimal number.
    pub max: Option<String>,
    /// What is left of it, as a decimal number.
    pub remaining: Option<String>,
}

/// The judgement of one call.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Forward it once every charge is taken (narrowest scope first, as ordered here).
    Admit {
        /// What to take.
        charges: SmallVec<[Charge<'a>; 4]>,
        /// In shadow mode: what would have been said.
        shadow: Option<Denial<'a>>,
    },
    /// Answer with this.
    Deny(Denial<'a>),
}

impl Denial<'_> {
    /// The denial as a tool result: a whole JSON-RPC message (policies.md §5). `id` is echoed byte for byte.
    pub fn to_message(
        &self,
        _id: &[u8],
        _era: Era,
        _request: RequestId,
        _hide_detail: bool,
    ) -> Vec<u8> {
        todo!()
    }
}
