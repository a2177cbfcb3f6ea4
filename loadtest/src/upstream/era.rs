//! Which era a message over HTTP belongs to, and whether its headers allow it.

use super::{
    Eras, LEGACY, MODERN,
    core::{Answer, Context, Core, VERSION_KEY},
    session::Session,
};
use http::HeaderMap;
use serde_json::Value;
use std::sync::Arc;

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The session that a legacy request names.
pub(super) fn session(
    core: &Core,
    headers: &HeaderMap,
    id: &Value,
) -> Result<Arc<Session>, Answer> {
    if !core.options.sessions {
        return Ok(core.common.clone());
    }
    let Some(name) = text(headers, "mcp-session-id") else {
        return Err(Answer::error(400, id, -32000, "Bad Request: no session id"));
    };
    core.session(name)
        .ok_or_else(|| Answer::error(404, id, -32001, "Session not found"))
}

/// The era and session of a message, where its headers allow it.
pub(super) fn context(
    core: &Core,
    headers: &HeaderMap,
    seen: Vec<(String, String)>,
    message: &Value,
) -> Result<Context, Answer> {
    let null = Value::Null;
    let id = message.get("id").unwrap_or(&null);
    let version = message
        .pointer("/params/_meta")
        .and_then(|meta| meta.get(VERSION_KEY))
        .and_then(Value::as_str);
    let mut context = Context {
        modern: version.is_some(),
        session: core.common.clone(),
        headers: Arc::new(seen),
    };
    match (version, core.options.eras) {
        (Some(_), Eras::Legacy) => {
            return Err(Answer::error(
                400,
                id,
                -32000,
                "Bad Request: Server not initialized",
            ));
        }
        (Some(version), _) => {
            modern(core, headers, id, version, message)?;
            return Ok(context);
        }
        (None, Eras::Modern) => {
            return Err(Answer::error(
                400,
                id,
                -32602,
                "Missing protocolVersion in _meta",
            ));
        }
        (None, _) => {}
    }
    if message.get("method").and_then(Value::as_str) != Some("initialize") {
        let known = text(headers, "mcp-protocol-version").is_none_or(|v| LEGACY.contains(&v));
        if !known {
            return Err(Answer::error(
                400,
                id,
                -32000,
                "Bad Request: Unsupported protocol version",
            ));
        }
        context.session = session(core, headers, id)?;
    }
    Ok(context)
}

/// The checks of 2026-07-28 on a POST's headers.
fn modern(
    core: &Core,
    headers: &HeaderMap,
    id: &Value,
    version: &str,
    message: &Value,
) -> Result<(), Answer> {
    if version != MODERN {
        let mut answer = Answer::error(400, id, -32022, "Unsupported protocol version");
        if let Some(body) = &mut answer.body {
            body["error"]["data"] =
                serde_json::json!({"supported": [MODERN], "requested": version});
        }
        return Err(answer);
    }
    if !core.options.check_headers {
        return Ok(());
    }
    let differs = |name: &str| {
        Err(Answer::error(
            400,
            id,
            -32020,
            &format!("Header mismatch: {name}"),
        ))
    };
    let method = message
        .get("method")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if text(headers, "mcp-protocol-version") != Some(version) {
        return differs("MCP-Protocol-Version");
    }
    if text(headers, "mcp-method") != Some(method) {
        return differs("Mcp-Method");
    }
    let named = match method {
        "tools/call" | "prompts/get" => message.pointer("/params/name"),
        "resources/read" => message.pointer("/params/uri"),
        _ => return Ok(()),
    };
    // A base64 value is not decoded here: every name that this server knows is plain ASCII.
    if text(headers, "mcp-name") != named.and_then(Value::as_str) {
        return differs("Mcp-Name");
    }
    Ok(())
}
