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
    let read = match from {
        From::Client => read_body::<K>(body, bounds, from),
        From::Server => read_body::<K>(body, &bounds.of_server(), from),
    };
    read.map_err(|fault| refused(body, fault))
}

/// What is not UTF-8 is refused for that, wherever else it is wrong too; other refusals learn the id to echo.
#[cold]
fn refused(body: &[u8], fault: Fault) -> Refusal {
    let refusal = Refusal::new(fault.reason, fault.at);
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

fn read_body<'a, K: Kernel>(
    body: &'a [u8],
    bounds: &Bounds,
    from: From,
) -> Result<Body<'a>, Fault> {
    let mut r = Reader::<K>::new(body, bounds)?;
    let read = match r.kind()? {
        Type::Object => Body::One(message(&mut r, from)?),
        Type::Array => Body::Batch(batch(&mut r, from)?),
        _ => {
            r.value(false)?;
            return Err(Fault::new(Reason::NotAnObject, 0));
        }
    };
    r.finish()?;
    Ok(read)
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
        let read = message(r, from)?;
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

/// What stands at the top level of a message.
#[derive(Default)]
struct Top<'a> {
    version: bool,
    id: Option<&'a [u8]>,
    id_null: bool,
    method: Option<&'a str>,
    params: Option<Params<'a>>,
    result: Option<&'a [u8]>,
    error: Option<i64>,
}

/// What stands in `params`.
#[derive(Default)]
struct Params<'a> {
    raw: &'a [u8],
    name: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    arguments: Option<&'a [u8]>,
    task: bool,
    meta: Meta<'a>,
}

/// What stands in `params._meta`.
#[derive(Default)]
struct Meta<'a> {
    version: Option<Cow<'a, str>>,
    capabilities: bool,
    progress_token: Option<&'a [u8]>,
}

fn message<'a, K: Kernel>(r: &mut Reader<'a, K>, from: From) -> Result<Envelope<'a>, Fault> {
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
                _ => top.id = Some(id(r)?),
            },
            b"method" => top.method = Some(method(r)?),
            b"params" => top.params = params(r, from)?,
            b"result" => top.result = Some(result(r, from)?),
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
    assemble(top, r.since(start), from).map_err(|reason| Fault::new(reason, start))
}

/// What the message is, now that all of its keys are known, whatever their order.
fn assemble<'a>(top: Top<'a>, raw: &'a [u8], from: From) -> Result<Envelope<'a>, Reason> {
    if !top.version {
        return Err(Reason::Version);
    }
    let kind = match (top.method, top.result, top.error) {
        (Some(_), None, None) if top.id_null => return Err(Reason::IdType),
        (Some(_), None, None) if top.id.is_some() => Kind::Request,
        (Some(_), None, None) => Kind::Notification,
        (None, Some(_), None) if top.params.is_none() => {
            top.id.ok_or(Reason::IdType)?;
            Kind::Result
        }
        (None, None, Some(code)) if top.params.is_none() => Kind::Error(code),
        _ => return Err(Reason::Shape),
    };
    let params = top.params.unwrap_or_default();
    let method = top.method.unwrap_or_default();
    if method == "tools/call" && from == From::Client {
        if kind != Kind::Request {
            return Err(Reason::CallWithoutId);
        }
        if params.name.is_none() {
            return Err(Reason::MissingName);
        }
    }
    Ok(Envelope {
        raw,
        kind,
        id: top.id.or(top.id_null.then_some(b"null")),
        method,
        params: Some(params.raw).filter(|raw| !raw.is_empty()),
        name: params.name,
        uri: params.uri,
        arguments: params.arguments,
        task: params.task,
        meta_version: params.meta.version,
        meta_capabilities: params.meta.capabilities,
        progress_token: params.meta.progress_token,
        result: top.result,
    })
}

fn params<'a, K: Kernel>(r: &mut Reader<'a, K>, from: From) -> Result<Option<Params<'a>>, Fault> {
    let start = r.at();
    match r.kind()? {
        Type::Object => {}
        // Some servers write it so; no client of theirs sees a parameter in it.
        Type::Null if from == From::Server => {
            r.value(false)?;
            return Ok(None);
        }
        _ => return Err(Fault::new(Reason::ParamsType, start)),
    }
    let mut p = Params::default();
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
            (b"name", Type::String) => p.name = Some(name(r)?),
            (b"uri", Type::String) => p.uri = Some(name(r)?),
            (b"arguments", Type::Object) => p.arguments = Some(r.value(true)?),
            (b"_meta", Type::Object) => p.meta = meta(r)?,
            (b"task", _) => {
                p.task = kind != Type::Null;
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
    p.raw = r.since(start);
    Ok(Some(p))
}

fn meta<'a, K: Kernel>(r: &mut Reader<'a, K>) -> Result<Meta<'a>, Fault> {
    let mut m = Meta::default();
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
            (META_VERSION, Type::String) => m.version = Some(name(r)?),
            (META_CAPABILITIES, Type::Object) => {
                r.value(false)?;
                m.capabilities = true;
            }
            (b"progressToken", Type::Null) => drop(r.value(false)?),
            (b"progressToken", _) => {
                m.progress_token = Some(id(r).map_err(|fault| match fault.reason {
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
    })?;
    Ok(m)
}

fn result<'a, K: Kernel>(r: &mut Reader<'a, K>, from: From) -> Result<&'a [u8], Fault> {
    let start = r.at();
    if r.kind()? == Type::Object {
        // What a tool returns may hold any key further down; the protocol's own level may not.
        r.object(|r, key| {
            check_proto(&key)?;
            r.value(from == From::Server).map(drop)
        })?;
    } else if from == From::Client {
        return Err(misfit(r, Reason::ResultType));
    } else {
        r.value(false)?;
    }
    Ok(r.since(start))
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
