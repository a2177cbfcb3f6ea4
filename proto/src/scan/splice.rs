//! The only code that changes a message, over spans that the gateway owns; what comes out is scanned again.

use super::{
    Body, Bounds, Envelope, From, Kind, Reason, Refusal, Value, jsonrpc::read, value::Type,
};

/// Replaces the message's id with `id` (raw JSON) and, where there is one, its progress token; scanned again.
///
/// Without `token` the progress token stays; a notification has no id to replace.
pub fn with_id_and_token(
    message: &Envelope<'_>,
    id: &[u8],
    token: Option<&[u8]>,
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let edits = [
        message.id.map(|old| (old, id)),
        message.progress_token.zip(token),
    ];
    rewritten(message, &edits, bounds, from)
}

/// Replaces `params.progressToken` of `notifications/progress` with `token` (raw JSON); scanned again.
pub fn with_progress_of(
    message: &Envelope<'_>,
    token: &[u8],
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let edit = message.progress_of().map(|old| (old, token));
    rewritten(message, &[edit], bounds, from)
}

/// Replaces `params.requestId` of `notifications/cancelled` with `id` (raw JSON); scanned again.
pub fn with_cancelled_id(
    message: &Envelope<'_>,
    id: &[u8],
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let edit = message.cancelled_request_id().map(|old| (old, id));
    rewritten(message, &[edit], bounds, from)
}

/// Replaces `params.name` with another name, for tools that the gateway shows under a name of its own; scanned again.
pub fn with_name(
    message: &Envelope<'_>,
    name: &str,
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let name = serde_json::Value::from(name).to_string();
    let edit = message
        .param("name")
        .filter(|old| old.kind() == Type::String)
        .map(|old| (old.raw(), name.as_bytes()));
    rewritten(message, &[edit], bounds, from)
}

/// Replaces `params.protocolVersion` of `initialize` with another version; scanned again.
pub fn with_initialize_version(
    message: &Envelope<'_>,
    version: &str,
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let version = serde_json::Value::from(version).to_string();
    let edit = message
        .param("protocolVersion")
        .filter(|old| old.kind() == Type::String)
        .map(|old| (old.raw(), version.as_bytes()));
    rewritten(message, &[edit], bounds, from)
}

/// A batch of these messages in this order; scanned again.
pub fn batch<'a>(
    messages: impl IntoIterator<Item = &'a Envelope<'a>>,
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let mut out = vec![b'['];
    for message in messages {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(message.raw);
    }
    out.push(b']');
    read(&out, bounds, from)?;
    Ok(out)
}

fn rewritten(
    message: &Envelope<'_>,
    edits: &[Option<(&[u8], &[u8])>],
    bounds: &Bounds,
    from: From,
) -> Result<Vec<u8>, Refusal> {
    let mut edits: Vec<Edit<'_>> = edits
        .iter()
        .flatten()
        .filter_map(|&(old, new)| Edit::replace(message.raw, old, new))
        .collect();
    let out = apply(message.raw, &mut edits);
    match read(&out, bounds, from)? {
        Body::One(after) if kind_without_code(after.kind) == kind_without_code(message.kind) => {}
        _ => return Err(Refusal::new(Reason::Shape, 0)),
    }
    Ok(out)
}

fn kind_without_code(kind: Kind) -> Kind {
    match kind {
        Kind::Error(_) => Kind::Error(0),
        other => other,
    }
}

/// Bytes `start..end` become `new`.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    pub start: usize,
    pub end: usize,
    pub new: &'a [u8],
}

impl<'a> Edit<'a> {
    /// Replaces `old`, a piece of `whole`.
    pub(super) fn replace(whole: &[u8], old: &[u8], new: &'a [u8]) -> Option<Self> {
        let start = offset(whole, old)?;
        Some(Self {
            start,
            end: start + old.len(),
            new,
        })
    }
}

/// Applies edits that do not overlap.
pub(super) fn apply(whole: &[u8], edits: &mut [Edit<'_>]) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.start);
    let grown: usize = edits.iter().map(|edit| edit.new.len()).sum();
    let mut out = Vec::with_capacity(whole.len() + grown);
    let mut kept = 0;
    for edit in edits.iter() {
        out.extend_from_slice(whole.get(kept..edit.start).unwrap_or_default());
        out.extend_from_slice(edit.new);
        kept = edit.end;
    }
    out.extend_from_slice(whole.get(kept..).unwrap_or_default());
    out
}

/// Where `piece`, borrowed from `whole`, starts in it. `None` if it lies elsewhere.
pub(super) fn offset(whole: &[u8], piece: &[u8]) -> Option<usize> {
    let start = piece.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (start + piece.len() <= whole.len()).then_some(start)
}

/// The place right behind the opening bracket of `container`, borrowed from `whole`.
pub(super) fn first_inside(whole: &[u8], container: Value<'_>) -> Option<usize> {
    offset(whole, container.raw()).map(|start| start + 1)
}
