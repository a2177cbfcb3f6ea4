//! The judgements that `decide` asks for, one function each.

use super::{
    Gate,
    error::Answer,
    identify::Caller,
    inflight::{Full, Places},
    record::Recorder,
    session::Session,
};
use crate::view::{Binding, View};
use http::StatusCode;
use proto::{
    mcp::{self, Era},
    policy::{Code, Denial, Policy, Verdict, compile::Call},
    scan::Envelope,
    time::Now,
};
use std::sync::Arc;

/// Methods that pass without a policy (see the policies page of the book).
const UNJUDGED: &[&str] = &["initialize", "server/discover", "ping"];

/// Whether the method may be said at all: the closed table, then the policy.
pub fn judge_method(
    envelope: &Envelope<'_>,
    era: Era,
    version: Option<&str>,
    binding: &Binding,
    recorder: &mut Recorder,
    id: Option<&[u8]>,
) -> Result<(), Answer> {
    if envelope.method.is_empty() {
        return Ok(());
    }
    let table = match era {
        Era::Modern => envelope.meta_version.as_deref().unwrap_or(mcp::MODERN[0]),
        Era::Legacy => version.unwrap_or(mcp::LEGACY[0]),
    };
    let known = mcp::knows_method(table, envelope.method);
    if !known
        && !binding
            .server
            .extra_methods
            .iter()
            .any(|extra| extra == envelope.method)
    {
        return Err(Answer::unknown_method(id, era, envelope.method));
    }
    let Some(policy) = &binding.policy else {
        if id.is_none() || UNJUDGED.contains(&envelope.method) {
            return Ok(());
        }
        let denial = Denial::no_policy();
        return Err(match (envelope.method, id) {
            ("tools/call", Some(id)) => {
                Answer::denied_call(&denial, id, era, recorder.request(), false)
            }
            _ => Answer::denied_method(&denial, id, recorder.request()),
        });
    };
    if envelope.method == "tools/call" {
        return Ok(());
    }
    if let Some(denial) = policy.shadow_method(envelope.method) {
        recorder.shadow(&denial);
    }
    policy
        .judge_method(envelope.method)
        .map_err(|denial| Answer::denied_method(&denial, id, recorder.request()))
}

/// Judges a `tools/call` and takes its charges: they ride in the recorder from here on.
#[allow(
    clippy::too_many_arguments,
    reason = "the whole context of one judgement, used once"
)]
pub async fn judge_call(
    gate: &Arc<Gate>,
    caller: &Caller,
    envelope: &Envelope<'_>,
    session: Option<&Session>,
    binding: &Binding,
    recorder: &mut Recorder,
    era: Era,
    now: Now,
) -> Result<(), Answer> {
    let (Some(policy), Some(id)) = (&binding.policy, envelope.id) else {
        return Err(internal(envelope.id));
    };
    let Some(tool) = envelope.name.as_deref() else {
        let message = "tools/call needs params.name, a string";
        return Err(Answer::refuse(
            StatusCode::BAD_REQUEST,
            Some(id),
            -32602,
            "tool_name",
            message,
        ));
    };
    let call = Call {
        tool,
        arguments: envelope.arguments,
        grant: &caller.grant.id,
        keys: Some(&binding.keys),
        session: session.map(|session| &*session.audit_id),
        unix_ms: now.unix_ms,
    };
    let deny = |policy: &Policy, denial: &Denial<'_>, recorder: &Recorder| {
        Answer::denied_call(denial, id, era, recorder.request(), policy.hides_detail())
    };
    match policy.evaluate(&call, gate.limiter.usage()) {
        Verdict::Deny(denial) => Err(deny(policy, &denial, recorder)),
        Verdict::Admit { charges, shadow } => {
            if let Some(denial) = &shadow {
                recorder.shadow(denial);
            }
            match gate.limiter.reserve(&charges, now).await {
                Ok(tickets) => {
                    recorder.hold(tickets);
                    Ok(())
                }
                Err(refused) => {
                    let Some(charge) = charges.get(refused.index) else {
                        return Err(internal(Some(id)));
                    };
                    let denial = match refused.code {
                        Code::Limit => policy.limit_denial(
                            charge.limit,
                            refused.remaining,
                            refused.retry_after_ms,
                        ),
                        Code::Rule => policy.keys_denial(charge.limit),
                        Code::Unreachable => Denial::unreachable(charge.limit),
                        other => Denial::of(
                            other,
                            "(gateway)",
                            "The gateway keeps too many counters to begin another",
                        ),
                    };
                    Err(deny(policy, &denial, recorder))
                }
            }
        }
    }
}

fn internal(id: Option<&[u8]>) -> Answer {
    Answer::fail(
        StatusCode::INTERNAL_SERVER_ERROR,
        id,
        "internal",
        "internal",
        "The gateway could not judge this call",
    )
}

/// The answer where a bound or the audit turns a message away.
pub fn turned_away(
    envelope: &Envelope<'_>,
    id: Option<&[u8]>,
    era: Era,
    recorder: &Recorder,
    code: Code,
    message: &str,
) -> Answer {
    match (envelope.method, id) {
        ("tools/call", Some(id)) => Answer::turned_away(code, message, id, era, recorder.request()),
        _ => Answer::overloaded(
            StatusCode::SERVICE_UNAVAILABLE,
            id,
            code.as_str(),
            1,
            message,
        ),
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "the whole context of one judgement, used once"
)]
pub fn take_places(
    gate: &Gate,
    view: &View,
    caller: &Caller,
    envelope: &Envelope<'_>,
    id: Option<&[u8]>,
    era: Era,
    binding: &Binding,
    recorder: &Recorder,
) -> Result<Places, Answer> {
    if envelope.method == "subscriptions/listen" {
        let place = gate
            .inflight
            .stream(&caller.grant.id, view.bounds.streams_grant)
            .map_err(|_| {
                let message = "This grant has too many open streams (bounds.streams_grant)";
                Answer::overloaded(
                    StatusCode::TOO_MANY_REQUESTS,
                    id,
                    "streams_grant",
                    5,
                    message,
                )
            })?;
        return Ok(Places::from_iter([place]));
    }
    let max = (
        view.bounds.calls,
        binding.server.calls,
        view.bounds.calls_grant,
    );
    let full = match gate.inflight.call(&caller.load, max) {
        Ok(places) => return Ok(Places::from(places)),
        Err(full) => full,
    };
    let message = match full {
        Full::All => "The gateway has too many calls in flight (bounds.calls)",
        Full::Server => "This server has too many calls in flight (its `calls`)",
        Full::Grant => "This grant has too many calls in flight (bounds.calls_grant)",
    };
    Err(turned_away(
        envelope,
        id,
        era,
        recorder,
        Code::Overloaded,
        message,
    ))
}
