//! JSON-RPC 2.0 messages, read once and strictly (RFC 8259; MCP `basic`; MCP transports, "Sending Messages").
//!
//! Real parsers disagree about duplicate keys, escapes in keys, upper and lower case, and more; whatever two of them
//! could understand differently is refused here, so that the judged message is the one that every server sees.

use super::{
    Bounds, From,
    plain::{Kernel, Plain},
    reader::Reader,
    reason::Fault,
    routing::{Level, META_CAPABILITIES, META_VERSION, check_key, check_proto},
    simd::Simd,
    value::{Type, Value},
};
pub use super::{
    envelope::{Body, Envelope, Kind},
    reason::{Reason, Refusal, Span},
};
use crate::mcp;
use std::{borrow::Cow, collections::HashSet};

/// Longest id and progress token, in bytes as written.
pub const ID_BYTES_MAX: usize = 256;

/// Reads a whole body.
///
/// Bytes from a server may carry unknown top-level keys and freer `params`; all else is demanded of both sides.
pub fn read<'a>(body: &'a [u8], bounds: &Bounds, from: From) -> Result<Body<'a>, Refusal> {
    read_by::<Simd>(body, bounds, from)
}

/// The same without vector instructions: what [`read`] is tested and fuzzed against. Slower; the answers are equal.
pub fn read_plain<'a>(body: &'a [u8], bounds: &Bounds, from: From) -> Result<Body<'a>, Refusal> {
    read_by::<Plain>(body, bounds, from)
}

fn read_by<'a, K: Kernel>(
    body: &'a [u8],
    bounds: &Bounds,
    from: From,
) -> Result<Body<'a>, Refusal> {
    // Filled where it stands: it is large, and every move of it would be paid for by every message.
    let mut one = Envelope::default();
    let read = match from {
        From::Client => read_body::<K>(body, bounds, from, &mut one),
        From::Server => read_body::<K>(body, &bounds.of_server(), from, &mut one),
    };
    match read {
        Ok(None) => Ok(Body::One(one)),
        Ok(Some(batch)) => Ok(Body::Batch(batch)),
        Err(fault) => Err(refused(body, fault)),
    }
}

/// What is not UTF-8 is refused for that, wherever else it is wrong too; other refusals learn the id to echo.
#[cold]
fn refused(body: &[u8], fault: Fault) -> Refusal {
    let refusal = Refusal::new(fault.reason(), fault.at());
    if refusal.reason == Reason::Bom {
        return refusal;
    }
    if let Err(e) = std::str::from_utf8(body) {
        return Refusal::new(Reason::Encoding, e.valid_up_to());
    }
    // JSON in UTF-16 or UTF-32 without accents is valid UTF-8 with zero bytes: say what it is.
    if body.iter().take(4).any(|&b| b == 0) {
        return Refusal::new(Reason::Encoding, 0);
    }
    Refusal {
        id: echo(body),
        ..refusal
    }
}

/// Reads one message, or returns the messages of a batch.
fn read_body<'a, K: Kernel>(
    body: &'a [u8],
    bounds: &Bounds,
    from: From,
    one: &mut Envelope<'a>,
) -> Result<Option<Vec<Envelope<'a>>>, Fault> {
    let mut r = Reader::<K>::new(body, bounds)?;
    let mut all = None;
    match r.kind()? {
        Type::Object => message(&mut r, from, one)?,
        Type::Array => all = Some(batch(&mut r, from)?),
        _ => {
            r.value(false)?;
            return Err(Fault::new(Reason::NotAnObject, 0));
        }
    }
    r.finish()?;
    Ok(all)
}

fn batch<'a, K: Kernel>(r: &mut Reader<'a, K>, from: From) -> Result<Vec<Envelope<'a>>, Fault> {
    let start = r.at();
    let mut messages = Vec::new();
    let mut ids = HashSet::new();
    r.array(|r| {
        let at = r.at();
        if r.kind()? != Type::Object {
            return Err(Fault::new(Reason::NotAnObject, at));
        }
        let mut read = Envelope::default();
        message(r, from, &mut read)?;
        if read.kind == Kind::Request && !ids.insert(read.id) {
            return Err(Fault::new(Reason::DuplicateId, at));
        }
        messages.push(read);
        Ok(())
    })?;
    if messages.is_empty() {
        return Err(Fault::new(Reason::EmptyBatch, start));
    }
    Ok(messages)
}

/// What stands at the top level of a message and is no part of what it means.
#[derive(Default)]
struct Top {
    version: bool,
    method: bool,
    id_null: bool,
    params: bool,
    error: Option<i64>,
}

fn message<'a, K: Kernel>(
    r: &mut Reader<'a, K>,
    from: From,
    e: &mut Envelope<'a>,
) -> Result<(), Fault> {
    let start = r.at();
    let mut top = Top::default();
    r.object(|r, key| {
        // With an escape it is spelt otherwise than these.
        match key.raw {
            b"jsonrpc" => top.version = r.value(false)? == br#""2.0""#,
            b"id" => match r.kind()? {
                Type::Null => {
                    r.value(false)?;
                    top.id_null = true;
                }
                _ => e.id = Some(id(r)?),
            },
            b"method" => {
                e.method = method(r)?;
                top.method = true;
            }
            b"params" => top.params = params(r, from, e)?,
            b"result" => result(r, from, e)?,
            b"error" => top.error = Some(error(r)?),
            _ => {
                check_key(&key, Level::Top)?;
                if from == From::Client {
                    return Err(Fault::new(Reason::UnknownKey, key.at));
                }
                r.value(false)?;
            }
        }
        Ok(())
    })?;
    e.raw = r.since(start);
    assemble(&top, from, e).map_err(|reason| Fault::new(reason, start))
}

/// What the message is, now that all of its keys are known, whatever their order.
fn assemble(top: &Top, from: From, e: &mut Envelope<'_>) -> Result<(), Reason> {
    if !top.version {
        return Err(Reason::Version);
    }
    e.kind = match (top.method, e.result, top.error) {
        (true, None, None) if top.id_null => return Err(Reason::IdType),
        (true, None, None) if e.id.is_some() => Kind::Request,
        (true, None, None) => Kind::Notification,
        (false, Some(_), None) if !top.params => {
            e.id.ok_or(Reason::IdType)?;
            Kind::Result
        }
        (false, None, Some(code)) if !top.params => Kind::Error(code),
        _ => return Err(Reason::Shape),
    };
    if e.method == "tools/call" && from == From::Client {
        if e.kind != Kind::Request {
            return Err(Reason::CallWithoutId);
        }
        if e.name.is_none() {
            return Err(Reason::MissingName);
        }
    }
    if e.id.is_none() && top.id_null {
        e.id = Some(b"null");
    }
    Ok(())
}

/// Whether there are any.
fn params<'a, K: Kernel>(
    r: &mut Reader<'a, K>,
    from: From,
    e: &mut Envelope<'a>,
) -> Result<bool, Fault> {
    let start = r.at();
    match r.kind()? {
        Type::Object => {}
        // Some servers write it so; no client of theirs sees a parameter in it.
        Type::Null if from == From::Server => {
            r.value(false)?;
            return Ok(false);
        }
        _ => return Err(Fault::new(Reason::ParamsType, start)),
    }
    r.object(|r, key| {
        let decoded;
        let mut meant = key.raw;
        if !Level::Params.has(meant) {
            // What servers send is judged by no policy: their own keys may look like ours.
            match from {
                From::Client => check_key(&key, Level::Params)?,
                From::Server => check_proto(&key)?,
            }
            decoded = key.meaning();
            meant = &decoded;
        }
        let kind = r.kind()?;
        match (meant, kind) {
            (b"name", Type::String) => e.name = Some(name(r)?),
            (b"uri", Type::String) => e.uri = Some(name(r)?),
            (b"arguments", Type::Object) => e.arguments = Some(r.value(true)?),
            (b"_meta", Type::Object) => meta(r, e)?,
            (b"task", _) => {
                e.task = kind != Type::Null;
                r.value(false)?;
            }
            (b"arguments" | b"_meta", Type::Null) => drop(r.value(false)?),
            (b"name", _) if from == From::Client => return Err(misfit(r, Reason::NameType)),
            (b"uri", _) if from == From::Client => return Err(misfit(r, Reason::UriType)),
            (b"arguments", _) if from == From::Client => {
                return Err(misfit(r, Reason::ArgumentsType));
            }
            (b"_meta", _) if from == From::Client => return Err(misfit(r, Reason::MetaType)),
            _ => drop(r.value(false)?),
        }
        Ok(())
    })?;
    e.params = Some(r.since(start));
    Ok(true)
}

fn meta<'a, K: Kernel>(r: &mut Reader<'a, K>, e: &mut Envelope<'a>) -> Result<(), Fault> {
    r.object(|r, key| {
        let decoded;
        let mut meant = key.raw;
        if !Level::Meta.has(meant) {
            check_key(&key, Level::Meta)?;
            decoded = key.meaning();
            meant = &decoded;
        }
        let kind = r.kind()?;
        match (meant, kind) {
            (META_VERSION, Type::String) => e.meta_version = Some(name(r)?),
            (META_CAPABILITIES, Type::Object) => {
                r.value(false)?;
                e.meta_capabilities = true;
            }
            (b"progressToken", Type::Null) => drop(r.value(false)?),
            (b"progressToken", _) => {
                e.progress_token = Some(id(r).map_err(|fault| match fault.reason() {
                    Reason::IdType => misfit(r, Reason::MetaType),
                    _ => fault,
                })?);
            }
            (META_VERSION | META_CAPABILITIES, _) => {
                return Err(misfit(r, Reason::MetaType));
            }
            _ => drop(r.value(false)?),
        }
        Ok(())
    })
}

fn result<'a, K: Kernel>(
    r: &mut Reader<'a, K>,
    from: From,
    e: &mut Envelope<'a>,
) -> Result<(), Fault> {
    let start = r.at();
    if r.kind()? == Type::Object {
        // What a tool returns may hold any key further down; the protocol's own level may not.
        r.object(|r, key| {
            check_proto(&key)?;
            let value = r.value(from == From::Server)?;
            if *key.meaning() == *b"isError" {
                e.is_tool_error = value == b"true";
            }
            Ok(())
        })?;
    } else if from == From::Client {
        return Err(misfit(r, Reason::ResultType));
    } else {
        r.value(false)?;
    }
    e.result = Some(r.since(start));
    Ok(())
}

fn error<K: Kernel>(r: &mut Reader<'_, K>) -> Result<i64, Fault> {
    let start = r.at();
    if r.kind()? != Type::Object {
        return Err(misfit(r, Reason::ErrorType));
    }
    let mut code = None;
    r.object(|r, key| {
        check_proto(&key)?;
        let raw = r.value(true)?;
        if *key.meaning() == *b"code" {
            code = std::str::from_utf8(raw).ok().and_then(|t| t.parse().ok());
        }
        Ok(())
    })?;
    code.ok_or(Fault::new(Reason::ErrorType, start))
}

/// A string or integer of bounded length, as written.
fn id<'a, K: Kernel>(r: &mut Reader<'a, K>) -> Result<&'a [u8], Fault> {
    let start = r.at();
    let fits = match r.kind()? {
        Type::String => {
            r.string()?;
            true
        }
        Type::Number => r.number()?,
        _ => false,
    };
    let raw = r.since(start);
    if !fits {
        return Err(Fault::new(Reason::IdType, start));
    }
    if raw.len() > ID_BYTES_MAX {
        return Err(Fault::new(Reason::IdTooLong, start));
    }
    Ok(raw)
}

fn method<'a, K: Kernel>(r: &mut Reader<'a, K>) -> Result<&'a str, Fault> {
    if r.kind()? != Type::String {
        return Err(misfit(r, Reason::MethodType));
    }
    let at = r.at();
    match name(r)? {
        Cow::Borrowed(method) => Ok(method),
        // Written with escapes (`tools\/call`): as long as the specification has it, its meaning is beyond doubt.
        Cow::Owned(method) => {
            mcp::known_method(&method).ok_or(Fault::new(Reason::EscapedMethod, at))
        }
    }
}

/// A string that names something: U+0000 would end it early in some servers.
fn name<'a, K: Kernel>(r: &mut Reader<'a, K>) -> Result<Cow<'a, str>, Fault> {
    let text = r.string()?;
    let decoded = text.decoded()?;
    if text.escaped && decoded.contains('\0') {
        return Err(Fault::new(Reason::NulName, text.at));
    }
    Ok(decoded)
}

fn misfit<K: Kernel>(r: &Reader<'_, K>, reason: Reason) -> Fault {
    Fault::new(reason, r.at())
}

/// The id of a refused single message: exactly one at the top level, and well-formed. Clients often write it last, so
/// it is looked for beyond the place of the refusal, by the reader that needs no valid bytes.
fn echo(body: &[u8]) -> Option<Span> {
    let mut found = None;
    for (key, value) in Value::new(body).members() {
        if key == "id" && found.replace(value.raw()).is_some() {
            return None;
        }
    }
    let raw = found?;
    let mut r = Reader::<Plain>::new(raw, &Bounds::default()).ok()?;
    id(&mut r).ok()?;
    r.finish().ok()?;
    let start = super::splice::offset(body, raw)?;
    let end = start + raw.len();
    // At the very end of the body it may be a part of a number only.
    (end < body.len()).then_some(Span { start, end })
}
