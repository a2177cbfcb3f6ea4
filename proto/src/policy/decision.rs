//! Verdicts, and the words in which an agent hears a denial.

use super::text;
use crate::{
    id::RequestId,
    limit::{Charge, Limit},
    mcp::Era,
};
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
#[allow(
    clippy::large_enum_variant,
    reason = "it is made once a call and taken apart at once: moving it costs less than allocating it"
)]
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
    /// The grant has no policy for this server.
    pub fn no_policy() -> Denial<'static> {
        Denial::of(
            Code::NoPolicy,
            "(no policy)",
            "This grant has no policy for this server, so every call is denied",
        )
    }

    /// Quota could not be had from the cluster.
    pub fn unreachable(limit: &Limit) -> Denial<'_> {
        Denial::of(
            Code::Unreachable,
            &limit.rule,
            "Quota could not be fetched; no limit was reached",
        )
    }

    /// A denial with a code, a rule and a sentence.
    pub fn of<'a>(code: Code, rule: &'a str, message: &'a str) -> Denial<'a> {
        Denial {
            code,
            rule: rule.into(),
            message: message.into(),
            retry_after_ms: None,
            max: None,
            remaining: None,
        }
    }

    /// What the agent reads: `[POLICY DENIED] Daily budget spent. Try again in 41 s.`
    pub fn text(&self) -> String {
        let said = match self.retry_after_ms {
            Some(ms) => text::join(
                &self.message,
                &format!("Try again in {} s.", ms.div_ceil(1000).max(1)),
            ),
            None => self.message.clone().into_owned(),
        };
        format!("[POLICY DENIED] {said}")
    }

    /// The denial as a tool result: a whole JSON-RPC message (policies.md §5). `id` is echoed byte for byte.
    pub fn to_message(
        &self,
        id: &[u8],
        era: Era,
        request: RequestId,
        hide_detail: bool,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        out.extend_from_slice(id);
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        put(",\"result\":{");
        if era == Era::Modern {
            put("\"resultType\":\"complete\",");
        }
        put("\"content\":[{\"type\":\"text\",\"text\":");
        put(&string(&self.text()));
        put("}],\"isError\":true,\"_meta\":{\"dev.tollgate/denial\":{\"code\":");
        put(&string(self.code.as_str()));
        if !hide_detail {
            put(",\"rule\":");
            put(&string(&self.rule));
        }
        if let Some(ms) = self.retry_after_ms {
            put(&format!(",\"retryAfterMs\":{ms}"));
        }
        for (name, number) in [("max", &self.max), ("remaining", &self.remaining)] {
            if let Some(number) = number.as_ref().filter(|_| !hide_detail) {
                put(&format!(",\"{name}\":{number}"));
            }
        }
        put(&format!(",\"requestId\":\"{request}\"}}}}}}}}"));
        out
    }
}

/// A JSON string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent() -> Denial<'static> {
        Denial {
            code: Code::Limit,
            rule: "/tools/create_charge/limits/daily_spend".into(),
            message: "Daily budget spent".into(),
            retry_after_ms: Some(40_001),
            max: Some("1000000".into()),
            remaining: Some("0.5".into()),
        }
    }

    #[test]
    fn a_denial_is_a_tool_result_that_says_what_to_do() {
        let id = RequestId(0x2a);
        let message = String::from_utf8(spent().to_message(b"7", Era::Legacy, id, false)).unwrap();
        assert_eq!(
            message,
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[{\"type\":\"text\",\
             \"text\":\"[POLICY DENIED] Daily budget spent. Try again in 41 s.\"}],\"isError\":true,\
             \"_meta\":{\"dev.tollgate/denial\":{\"code\":\"limit\",\"rule\":\"/tools/create_charge/limits/daily_spend\",\
             \"retryAfterMs\":40001,\"max\":1000000,\"remaining\":0.5,\"requestId\":\"0000000000000000000000000000002a\"}}}}"
        );
    }

    #[test]
    fn the_modern_era_says_that_the_result_is_complete_and_detail_can_be_hidden() {
        let message = spent().to_message(b"\"a\\u0041\"", Era::Modern, RequestId(1), true);
        let text = String::from_utf8(message.clone()).unwrap();
        assert!(
            text.starts_with(
                "{\"jsonrpc\":\"2.0\",\"id\":\"a\\u0041\",\"result\":{\"resultType\":\"complete\","
            ),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_slice(&message).unwrap();
        let detail = value.pointer("/result/_meta/dev.tollgate~1denial").unwrap();
        let keys: Vec<_> = detail
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["code", "retryAfterMs", "requestId"]);
    }

    #[test]
    fn a_point_is_never_doubled() {
        for (message, text) in [
            ("Over.", "[POLICY DENIED] Over. Try again in 41 s."),
            ("Over!", "[POLICY DENIED] Over! Try again in 41 s."),
            (
                "Over \"it\"\n",
                "[POLICY DENIED] Over \"it\". Try again in 41 s.",
            ),
            ("", "[POLICY DENIED] Try again in 41 s."),
        ] {
            let denial = Denial {
                message: message.into(),
                ..spent()
            };
            assert_eq!(denial.text(), text);
        }
        assert_eq!(
            Denial::of(Code::Rule, "/x", "Over $500").text(),
            "[POLICY DENIED] Over $500"
        );
        let json = Denial::of(Code::Rule, "/x", "\u{1}\"\u{2028}").to_message(
            b"1",
            Era::Modern,
            RequestId(0),
            false,
        );
        assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
    }
}
