//! What stands beside the scanner: each reads the envelope of a message and validates as much of the rest as it ever does.

use jiter::{Jiter, JiterResult};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sonic_rs::LazyValue;
use std::{borrow::Cow, cell::RefCell, hint::black_box};

use proto::scan::{Bounds, From, read};

/// A reader's name, and whether it takes a body for a message from such a sender.
pub(crate) type Reader = (&'static str, fn(&[u8], From, &Bounds) -> bool);

/// All readers, ours first.
pub(crate) const READERS: &[Reader] = &[
    ("tollgate", |body, from, bounds| {
        black_box(read(body, bounds, from)).is_ok()
    }),
    ("serde_json Value", |body, _, _| {
        black_box(serde_json::from_slice::<serde_json::Value>(body)).is_ok()
    }),
    ("serde_json RawValue", |body, _, _| {
        black_box(serde_json::from_slice::<Raw<'_>>(body)).is_ok()
    }),
    ("simd-json tape", |body, _, _| tape(body)),
    ("sonic-rs lazy", |body, _, _| {
        black_box(sonic_rs::from_slice::<Lazy<'_>>(body)).is_ok()
    }),
    ("jiter skip", |body, _, _| skip(body).is_ok()),
];

/// A message whose parts stay as they are written.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "jsonrpc")]
    _version: Cow<'a, str>,
    #[serde(borrow, rename = "id")]
    _id: Option<&'a RawValue>,
    #[serde(borrow, rename = "method")]
    _method: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "params")]
    _params: Option<RawParams<'a>>,
    #[serde(borrow, rename = "result")]
    _result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawParams<'a> {
    #[serde(borrow, rename = "name")]
    _name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "arguments")]
    _arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    _meta: Option<RawMeta<'a>>,
}

#[derive(Deserialize)]
struct RawMeta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    _version: Option<Cow<'a, str>>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    _capabilities: Option<IgnoredAny>,
    #[serde(borrow, rename = "progressToken")]
    _token: Option<&'a RawValue>,
}

/// The same with that library's own lazy values.
#[derive(Deserialize)]
struct Lazy<'a> {
    #[serde(borrow, rename = "jsonrpc")]
    _version: Cow<'a, str>,
    #[serde(borrow, rename = "id")]
    _id: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "method")]
    _method: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "params")]
    _params: Option<LazyParams<'a>>,
    #[serde(borrow, rename = "result")]
    _result: Option<LazyValue<'a>>,
}

#[derive(Deserialize)]
struct LazyParams<'a> {
    #[serde(borrow, rename = "name")]
    _name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "arguments")]
    _arguments: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "_meta")]
    _meta: Option<LazyValue<'a>>,
}

thread_local! {
    /// The tape is read in place, so that the body must be copied; the copy's memory is used again.
    static COPY: RefCell<(Vec<u8>, simd_json::Buffers)> =
        RefCell::new((Vec::new(), simd_json::Buffers::default()));
}

fn tape(body: &[u8]) -> bool {
    COPY.with_borrow_mut(|(copy, buffers)| {
        copy.clear();
        copy.extend_from_slice(body);
        let Ok(tape) = simd_json::to_tape_with_buffers(copy, buffers) else {
            return false;
        };
        let message = tape.as_value();
        black_box(message.get("method").is_some());
        let params = message.get("params");
        black_box(params.and_then(|params| params.get("name")).is_some());
        message.get("jsonrpc").is_some()
    })
}

fn skip(body: &[u8]) -> JiterResult<()> {
    let mut jiter = Jiter::new(body);
    let mut next = jiter.next_object()?.map(|key| key == "params");
    while let Some(params) = next {
        if params {
            let mut key = jiter.next_object()?.map(|key| key == "name");
            while let Some(name) = key {
                if name {
                    black_box(jiter.next_str()?);
                } else {
                    jiter.next_skip()?;
                }
                key = jiter.next_key()?.map(|key| key == "name");
            }
        } else {
            jiter.next_skip()?;
        }
        next = jiter.next_key()?.map(|key| key == "params");
    }
    jiter.finish()
}
