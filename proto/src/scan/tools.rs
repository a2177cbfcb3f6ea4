//! Filtering the tools of a `tools/list` reply by splicing the original bytes.

use super::{
    Body, Bounds, From, Kind, Reason, Refusal, Value,
    jsonrpc::read,
    splice::{Edit, apply, first_inside, offset},
    text,
    value::Type,
};

/// A filtered reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Filtered {
    /// Nothing was removed or changed: forward the bytes as they came.
    Unchanged,
    /// The reply without the removed tools; all else is kept byte for byte.
    Spliced {
        /// The whole new message.
        bytes: Vec<u8>,
        /// How many tools were removed.
        removed: usize,
    },
}

/// Filters the reply to `tools/list`: a result's `tools` whose `name` is refused by `keep` are cut out.
///
/// An error reply is `Unchanged`. A result without a `tools` array, a tool without a string name, or anything that
/// [`super::read`] refuses is a refusal: the caller fails closed. The result's `cacheScope` becomes `"private"` (MCP
/// 2026-07-28, caching: a list that differs by caller) if it is there or if `modern`.
pub fn filter(
    reply: &[u8],
    bounds: &Bounds,
    modern: bool,
    mut keep: impl FnMut(&str) -> bool,
) -> Result<Filtered, Refusal> {
    let not_a_list = Refusal::new(Reason::NotAToolList, 0);
    let Body::One(message) = read(reply, bounds, From::Server)? else {
        return Err(not_a_list);
    };
    let result = match (message.kind, message.result) {
        (Kind::Error(_), _) => return Ok(Filtered::Unchanged),
        (Kind::Result, Some(raw)) => Value::new(raw),
        _ => return Err(not_a_list),
    };
    let tools = member(result, "tools")?.ok_or(not_a_list)?;
    if tools.kind() != Type::Array {
        return Err(not_a_list);
    }

    let (mut edits, removed) = removals(reply, tools, &mut keep)?;
    match member(result, "cacheScope")? {
        Some(scope) if scope.as_str().as_deref() == Some("private") => {}
        Some(scope) => edits.extend(Edit::replace(reply, scope.raw(), br#""private""#)),
        None if modern => {
            let start = first_inside(reply, result).ok_or(not_a_list)?;
            edits.push(Edit {
                start,
                end: start,
                new: br#""cacheScope":"private","#,
            });
        }
        None => {}
    }
    if edits.is_empty() {
        return Ok(Filtered::Unchanged);
    }
    let bytes = apply(reply, &mut edits);
    read(&bytes, bounds, From::Server)?;
    Ok(Filtered::Spliced { bytes, removed })
}

/// Cuts out the refused tools, each with the comma before it; before the first one that stays there is none.
fn removals(
    reply: &[u8],
    tools: Value<'_>,
    keep: &mut impl FnMut(&str) -> bool,
) -> Result<(Vec<Edit<'static>>, usize), Refusal> {
    let mut edits = Vec::new();
    let mut removed = 0;
    let mut kept_any = false;
    // Where the tool before this one ends; the first tool has the bracket before it.
    let mut previous_end = None;
    for tool in tools.elements() {
        let start = offset(reply, tool.raw()).ok_or(Refusal::new(Reason::NotAToolList, 0))?;
        let end = start + tool.raw().len();
        let with_comma = previous_end.unwrap_or(start);
        let name = member(tool, "name")?.and_then(|name| name.as_str());
        let name = name.ok_or(Refusal::new(Reason::NotAToolList, start))?;
        let mut cut = |start, end| {
            edits.push(Edit {
                start,
                end,
                new: b"",
            });
        };
        match (keep(&name), kept_any) {
            (false, _) => {
                removed += 1;
                cut(with_comma, end);
            }
            (true, false) => {
                kept_any = true;
                cut(with_comma, start);
            }
            (true, true) => {}
        }
        previous_end = Some(end);
    }
    // The cut before the first tool is empty when that tool stays.
    edits.retain(|edit| edit.start < edit.end);
    Ok((edits, removed))
}

/// A member by its exact key; a key that a lenient parser would take for it is refused.
fn member<'a>(object: Value<'a>, key: &str) -> Result<Option<Value<'a>>, Refusal> {
    let mut found = None;
    for (name, value) in object.members() {
        if name == key {
            found = Some(value);
        } else if text::folds_to(name.as_bytes(), key) {
            return Err(Refusal::new(Reason::FoldedKey, 0));
        }
    }
    Ok(found)
}
