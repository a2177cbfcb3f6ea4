//! Why bytes are refused, in words for a client, codes for JSON-RPC and labels for metrics.

use std::num::NonZeroU64;

/// A range of bytes in the body that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub reason: Reason,
    /// Where, in bytes from the start of the body.
    pub at: usize,
    /// Where the message's id stands, if there is exactly one and it is well-formed: an error may echo it.
    pub id: Option<Span>,
}

/// A refusal of which nobody has asked yet what its id is, in one word: what is read or refused then fits into two
/// registers. (Answers that come through memory are read again before they are written: a stall for every key.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault(NonZeroU64);

impl Fault {
    #[inline(always)]
    pub(super) fn new(reason: Reason, at: usize) -> Self {
        Self(NonZeroU64::MIN | (at as u64) << 8 | (reason as u64) << 1)
    }

    pub(super) fn reason(self) -> Reason {
        let reason = (self.0.get() & 0xff) as usize >> 1;
        // There are fewer than 128, and what was packed is one of them.
        Reason::ALL.get(reason).copied().unwrap_or(Reason::Syntax)
    }

    pub(super) fn at(self) -> usize {
        (self.0.get() >> 8) as usize
    }
}

const _: () = assert!(Reason::ALL.len() < 128);

impl Refusal {
    pub(super) fn new(reason: Reason, at: usize) -> Self {
        Self {
            reason,
            at,
            id: None,
        }
    }

    /// The id to echo, as raw JSON, given the body that was refused.
    pub fn id_in<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.id.and_then(|span| body.get(span.start..span.end))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (at byte {})", self.reason.text(), self.at)
    }
}

impl std::error::Error for Refusal {}

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const INVALID_PARAMS: i64 = -32602;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $code:ident $label:literal $text:literal,)*) => {
        /// What is wrong with refused bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The JSON-RPC error code: -32700 where the bytes are no JSON, -32602 where only `params` misfits, else
            /// -32600 (JSON-RPC 2.0 §5.1).
            pub fn code(self) -> i64 {
                match self { $(Reason::$name => $code,)* }
            }
            /// A sentence for the client: what is wrong and what would be right.
            pub fn text(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
            /// A short fixed word for metrics and audit lines, e.g. `duplicate_key`.
            pub fn label(self) -> &'static str {
                match self { $(Reason::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// Nothing but white space.
    Empty PARSE_ERROR "empty" "The body is empty: send one JSON-RPC message.",
    /// A byte order mark.
    Bom PARSE_ERROR "bom" "The body starts with a byte order mark: send UTF-8 without one.",
    /// Not UTF-8: another encoding, or broken bytes.
    Encoding PARSE_ERROR "encoding" "The body is not valid UTF-8: send UTF-8 alone.",
    /// Not RFC 8259 JSON.
    Syntax PARSE_ERROR "syntax" "The body is not JSON as RFC 8259 defines it (no NaN, Infinity, comments or trailing commas).",
    /// The body ends inside a value.
    Truncated PARSE_ERROR "truncated" "The body ends in the middle of a JSON value: send the whole message.",
    /// Something follows the value.
    Trailing PARSE_ERROR "trailing" "Something follows the JSON value: send exactly one value in a body.",
    /// An unescaped control character in a string.
    ControlCharacter PARSE_ERROR "control_character" "A string holds a bare control character: write it as an escape, such as \\n.",
    /// Half a surrogate pair.
    LoneSurrogate PARSE_ERROR "lone_surrogate" "A string holds half a surrogate pair: write whole characters.",
    /// Nested too deeply.
    TooDeep INVALID_REQUEST "too_deep" "The message is nested too deeply: nest fewer arrays and objects in one another.",
    /// Too many keys in one object, or in the body.
    TooManyKeys INVALID_REQUEST "too_many_keys" "The message has too many keys: send fewer in one object and in one body.",
    /// One object has one key twice.
    DuplicateKey INVALID_REQUEST "duplicate_key" "An object has the same key twice: write every key once.",
    /// A key that holds U+0000.
    NulKey INVALID_REQUEST "nul_key" "A key holds the character U+0000: leave it out.",
    /// A routing key with an escape.
    EscapedKey INVALID_REQUEST "escaped_key" "A key that decides the message's meaning is written with escapes: spell it plainly.",
    /// A key that some parsers take for a routing key.
    FoldedKey INVALID_REQUEST "folded_key" "A key differs from a JSON-RPC or MCP key only in upper and lower case: spell it exactly.",
    /// A top-level key that JSON-RPC does not have.
    UnknownKey INVALID_REQUEST "unknown_key" "The message has a top-level key that JSON-RPC does not define: use jsonrpc, id, method and params only.",
    /// `__proto__` outside the arguments.
    ProtoKey INVALID_REQUEST "proto_key" "The key __proto__ is allowed only inside arguments: leave it out.",
    /// The body, or an element of a batch, is no object.
    NotAnObject INVALID_REQUEST "not_an_object" "A JSON-RPC message is an object: send one.",
    /// A batch of nothing.
    EmptyBatch INVALID_REQUEST "empty_batch" "The batch is empty: send at least one message.",
    /// Two requests of a batch share an id.
    DuplicateId INVALID_REQUEST "duplicate_id" "Two requests of the batch have the same id: give each its own.",
    /// `jsonrpc` is missing or not `"2.0"`.
    Version INVALID_REQUEST "jsonrpc_version" "The key jsonrpc is missing or is not the string \"2.0\": send \"jsonrpc\": \"2.0\".",
    /// The id has another type than JSON-RPC over MCP allows.
    IdType INVALID_REQUEST "id_type" "The id is neither a string nor an integer: send one of these.",
    /// The id or progress token is longer than [`super::ID_BYTES_MAX`].
    IdTooLong INVALID_REQUEST "id_too_long" "The id or progress token is longer than 256 bytes: send a shorter one.",
    /// `tools/call` as a notification.
    CallWithoutId INVALID_REQUEST "call_without_id" "tools/call has no id: send one, a string or an integer.",
    /// The method is no string.
    MethodType INVALID_REQUEST "method_type" "The method is not a string: send its name as one.",
    /// An unknown method with escapes.
    EscapedMethod INVALID_REQUEST "escaped_method" "The method is written with escapes: spell it plainly.",
    /// A request with a result or error, a result with an error, or none of them.
    Shape INVALID_REQUEST "shape" "The message is not exactly one of a request (method), a result (result and id) and an error (error).",
    /// The error has no integer code.
    ErrorType INVALID_REQUEST "error_type" "The error is not an object with an integer code: send code and message.",
    /// The result is no object.
    ResultType INVALID_REQUEST "result_type" "The result is not an object: send one.",
    /// `params` is no object.
    ParamsType INVALID_REQUEST "params_type" "The params are not an object: send named parameters.",
    /// `params.name` is no string.
    NameType INVALID_PARAMS "name_type" "params.name is not a string: send the name as one.",
    /// `params.uri` is no string.
    UriType INVALID_PARAMS "uri_type" "params.uri is not a string: send the URI as one.",
    /// A name, URI or method with U+0000.
    NulName INVALID_PARAMS "nul_name" "A name, URI or method holds the character U+0000: leave it out.",
    /// `tools/call` without `params.name`.
    MissingName INVALID_PARAMS "missing_name" "tools/call has no params.name: send the tool's name.",
    /// `params.arguments` is no object.
    ArgumentsType INVALID_PARAMS "arguments_type" "params.arguments is not an object: send named arguments.",
    /// `params._meta` or one of its protocol fields has another type than the specification says.
    MetaType INVALID_PARAMS "meta_type" "params._meta is not an object, or one of its protocol fields has the wrong type.",
    /// A reply to `tools/list` that is no list of named tools.
    NotAToolList INVALID_REQUEST "not_a_tool_list" "The reply to tools/list is not a result with an array of tools that each have a name.",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_label_and_a_sentence_of_its_own() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        let texts: HashSet<_> = Reason::ALL.iter().map(|r| r.text()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert_eq!(texts.len(), Reason::ALL.len());
        for r in Reason::ALL {
            assert!(
                r.label()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_')
            );
            assert!(r.text().ends_with('.'), "{}", r.text());
        }
    }
}
