//! The rows.

use proto::scan::Reason::{self, *};

/// A body whose `params` are these.
fn params(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{text}}}"#)
}

/// A call with one more member in `params`.
fn call(member: &str) -> String {
    params(&format!(r#"{{"name":"allowed",{member}}}"#))
}

/// A call with these arguments.
fn arguments(text: &str) -> String {
    call(&format!(r#""arguments":{text}"#))
}

/// A request with this id.
fn id(text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{text},"method":"tools/call","params":{{"name":"allowed"}}}}"#
    )
}

/// A request with one more top-level member.
fn top(member: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list",{member}}}"#)
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn utf16(text: &str, little: bool) -> Vec<u8> {
    let bytes = |unit: u16| {
        if little {
            unit.to_le_bytes()
        } else {
            unit.to_be_bytes()
        }
    };
    text.encode_utf16().flat_map(bytes).collect()
}

fn utf32(text: &str) -> Vec<u8> {
    text.chars()
        .flat_map(|c| (c as u32).to_le_bytes())
        .collect()
}

/// Name, body, why it is refused.
pub fn refused() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let mut rows: Vec<(&str, Vec<u8>, Reason)> = Vec::new();
    let texts: Vec<(&str, String, Reason)> = vec![
        // One object, one key twice.
        ("duplicate name", call(r#""name":"denied""#), DuplicateKey),
        (
            "duplicate params",
            top(r#""params":{},"params":{"name":"denied"}"#),
            DuplicateKey,
        ),
        (
            "duplicate method",
            top(r#""method":"tools/call""#),
            DuplicateKey,
        ),
        ("duplicate id", top(r#""id":2"#), DuplicateKey),
        ("duplicate jsonrpc", top(r#""jsonrpc":"2.0""#), DuplicateKey),
        (
            "duplicate in _meta",
            call(r#""_meta":{"a":1,"a":2}"#),
            DuplicateKey,
        ),
        (
            "duplicate deep in _meta",
            call(r#""_meta":{"a":[{"b":{"c":1,"d":2,"c":3}}]}"#),
            DuplicateKey,
        ),
        (
            "duplicate in arguments",
            arguments(r#"{"amount":1,"amount":2}"#),
            DuplicateKey,
        ),
        (
            "duplicate deep in arguments",
            arguments(r#"{"a":{"b":[0,{"c":1,"c":1}]}}"#),
            DuplicateKey,
        ),
        (
            "duplicate after unescaping",
            arguments(r#"{"amount":1,"am\u006funt":2}"#),
            DuplicateKey,
        ),
        (
            "duplicate after a surrogate pair",
            arguments(r#"{"😀":1,"\ud83d\ude00":2}"#),
            DuplicateKey,
        ),
        (
            "duplicate empty key",
            arguments(r#"{"":1,"":2}"#),
            DuplicateKey,
        ),
        (
            "duplicate protocol version",
            call(
                r#""_meta":{"io.modelcontextprotocol/protocolVersion":"a","io.modelcontextprotocol\/protocolVersion":"b"}"#,
            ),
            DuplicateKey,
        ),
        (
            "duplicate name by escape",
            call(r#""n\u0061me":"denied""#),
            DuplicateKey,
        ),
        (
            "duplicate beyond the short list",
            arguments(&format!(
                "{{{}\"k3\":1}}",
                (0..40).map(|n| format!("\"k{n}\":0,")).collect::<String>()
            )),
            DuplicateKey,
        ),
        // Routing keys spelled with escapes.
        (
            "escaped name",
            params(r#"{"n\u0061me":"denied"}"#),
            EscapedKey,
        ),
        (
            "escaped params",
            top(r#""par\u0061ms":{"name":"denied"}"#),
            EscapedKey,
        ),
        (
            "escaped arguments",
            call(r#""argument\u0073":{}"#),
            EscapedKey,
        ),
        (
            "escaped id",
            r#"{"jsonrpc":"2.0","\u0069d":1,"method":"ping"}"#.into(),
            EscapedKey,
        ),
        // Keys that fold to routing keys.
        ("Name", call(r#""Name":"denied""#), FoldedKey),
        ("Params", top(r#""Params":{"name":"denied"}"#), FoldedKey),
        ("paramſ", top(r#""paramſ":{"name":"denied"}"#), FoldedKey),
        (
            "escaped paramſ",
            top(r#""param\u017f":{"name":"denied"}"#),
            FoldedKey,
        ),
        (
            "tasK with the Kelvin sign",
            call("\"tas\u{212a}\":{}"),
            FoldedKey,
        ),
        ("METHOD", top(r#""METHOD":"tools/call""#), FoldedKey),
        ("Arguments", call(r#""Arguments":{}"#), FoldedKey),
        ("_Meta", call(r#""_Meta":{}"#), FoldedKey),
        ("requeststate", call(r#""requeststate":"x""#), FoldedKey),
        (
            "protocolversion",
            call(r#""_meta":{"io.modelcontextprotocol/protocolversion":"2026-07-28"}"#),
            FoldedKey,
        ),
        ("Name alone", params(r#"{"Name":"denied"}"#), FoldedKey),
        // Keys that have no business there.
        ("extra top-level key", top(r#""extra":1"#), UnknownKey),
        (
            "params on the top level",
            top(r#""name":"denied""#),
            UnknownKey,
        ),
        (
            "__proto__ in params",
            call(r#""__proto__":{"name":"denied"}"#),
            ProtoKey,
        ),
        (
            "escaped __proto__ in params",
            call(r#""__pr\u006fto__":{"name":"denied"}"#),
            ProtoKey,
        ),
        (
            "__proto__ on the top level",
            top(r#""__proto__":{}"#),
            ProtoKey,
        ),
        (
            "__proto__ in _meta",
            call(r#""_meta":{"__proto__":{}}"#),
            ProtoKey,
        ),
        (
            "__proto__ deep in params",
            call(r#""x":[{"a":{"__proto__":{}}}]"#),
            ProtoKey,
        ),
        (
            "__proto__ instead of a name",
            params(r#"{"__proto__":{"name":"denied"}}"#),
            ProtoKey,
        ),
        ("U+0000 in a key", call(r#""name\u0000":"denied""#), NulKey),
        (
            "U+0000 in a key of the arguments",
            arguments(r#"{"amount\u0000":1}"#),
            NulKey,
        ),
        (
            "U+0000 in the name",
            params(r#"{"name":"denied\u0000allowed"}"#),
            NulName,
        ),
        // Two documents, half a document.
        ("trailing document", format!("{PING}{PING}"), Trailing),
        ("trailing line", format!("{PING}\n{PING}\n"), Trailing),
        ("trailing NUL", format!("{PING}\0"), Trailing),
        ("trailing comma behind", format!("{PING},"), Trailing),
        ("trailing bracket", format!("{PING}}}"), Trailing),
        ("truncated object", PING[..PING.len() - 1].into(), Truncated),
        ("truncated string", r#"{"jsonrpc":"2.0"#.into(), Truncated),
        ("truncated word", r#"{"jsonrpc":tru"#.into(), Truncated),
        ("truncated number", r#"{"id":-"#.into(), Truncated),
        ("nothing", String::new(), Empty),
        ("white space", " \r\n\t".into(), Empty),
        // No JSON, though some parsers say it is.
        ("NaN", arguments(r#"{"a":NaN}"#), Syntax),
        ("Infinity", arguments(r#"{"a":Infinity}"#), Syntax),
        ("-Infinity", arguments(r#"{"a":-Infinity}"#), Syntax),
        (
            "trailing comma in an object",
            arguments(r#"{"a":1,}"#),
            Syntax,
        ),
        (
            "trailing comma in an array",
            arguments(r#"{"a":[1,]}"#),
            Syntax,
        ),
        ("missing comma", arguments(r#"{"a":1 "b":2}"#), Syntax),
        ("single quotes", "{'jsonrpc':'2.0'}".into(), Syntax),
        ("unquoted key", arguments("{a:1}"), Syntax),
        ("comment", arguments("{/* */}"), Syntax),
        ("leading zero", arguments(r#"{"a":01}"#), Syntax),
        ("leading plus", arguments(r#"{"a":+1}"#), Syntax),
        ("leading point", arguments(r#"{"a":.5}"#), Syntax),
        ("trailing point", arguments(r#"{"a":5.}"#), Syntax),
        ("empty exponent", arguments(r#"{"a":5e}"#), Syntax),
        ("hexadecimal", arguments(r#"{"a":0x10}"#), Syntax),
        ("True", arguments(r#"{"a":True}"#), Syntax),
        ("nul", arguments(r#"{"a":nul}"#), Syntax),
        ("wrong escape", arguments(r#"{"a":"\x41"}"#), Syntax),
        (
            "wrong hexadecimal escape",
            arguments(r#"{"a":"\u00zz"}"#),
            Syntax,
        ),
        ("form feed as white space", format!("\u{c}{PING}"), Syntax),
        (
            "no-break space as white space",
            format!("\u{a0}{PING}"),
            Syntax,
        ),
        ("brackets crossed", arguments(r#"{"a":[1}]"#), Syntax),
        (
            "raw line break in a string",
            arguments("{\"a\":\"x\ny\"}"),
            ControlCharacter,
        ),
        (
            "raw tab in a key",
            arguments("{\"a\t\":1}"),
            ControlCharacter,
        ),
        (
            "raw NUL in the name",
            params("{\"name\":\"a\0b\"}"),
            ControlCharacter,
        ),
        (
            "lone high surrogate",
            arguments(r#"{"a":"\ud800"}"#),
            LoneSurrogate,
        ),
        (
            "lone low surrogate",
            arguments(r#"{"a":"\udc00"}"#),
            LoneSurrogate,
        ),
        (
            "surrogates the wrong way round",
            arguments(r#"{"a":"\udc00\ud800"}"#),
            LoneSurrogate,
        ),
        (
            "lone surrogate in a key",
            arguments(r#"{"\ud83d":1}"#),
            LoneSurrogate,
        ),
        // No message.
        ("a string", r#""tools/call""#.into(), NotAnObject),
        ("a number", "1".into(), NotAnObject),
        ("null", "null".into(), NotAnObject),
        ("empty batch", "[]".into(), EmptyBatch),
        ("batch in a batch", format!("[[{PING}]]"), NotAnObject),
        ("batch with a number", format!("[{PING},1]"), NotAnObject),
        (
            "batch with an id twice",
            format!("[{PING},{PING}]"),
            DuplicateId,
        ),
        (
            "batch with a bad element",
            format!("[{PING},{}]", call(r#""name":"denied""#)),
            DuplicateKey,
        ),
        ("no jsonrpc", r#"{"id":1,"method":"ping"}"#.into(), Version),
        (
            "jsonrpc 1.0",
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.into(),
            Version,
        ),
        (
            "jsonrpc as a number",
            r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#.into(),
            Version,
        ),
        ("request with a result", top(r#""result":{}"#), Shape),
        (
            "request with an error",
            top(r#""error":{"code":1,"message":""}"#),
            Shape,
        ),
        (
            "result with an error",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}"#.into(),
            Shape,
        ),
        (
            "result with params",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#.into(),
            Shape,
        ),
        ("neither", r#"{"jsonrpc":"2.0","id":1}"#.into(), Shape),
        (
            "result that is a list",
            r#"{"jsonrpc":"2.0","id":1,"result":[]}"#.into(),
            ResultType,
        ),
        (
            "error without a code",
            r#"{"jsonrpc":"2.0","id":1,"error":{"message":""}}"#.into(),
            ErrorType,
        ),
        (
            "error that is a string",
            r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#.into(),
            ErrorType,
        ),
        // Ids.
        (
            "call without an id",
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"denied"}}"#.into(),
            CallWithoutId,
        ),
        ("null id", id("null"), IdType),
        ("boolean id", id("true"), IdType),
        ("float id", id("1.0"), IdType),
        ("id with an exponent", id("1e3"), IdType),
        ("id that is an object", id("{}"), IdType),
        (
            "result without an id",
            r#"{"jsonrpc":"2.0","result":{}}"#.into(),
            IdType,
        ),
        (
            "long id",
            id(&format!("\"{}\"", "x".repeat(255))),
            IdTooLong,
        ),
        ("long integer id", id(&"9".repeat(257)), IdTooLong),
        (
            "long progress token",
            call(&format!(
                r#""_meta":{{"progressToken":"{}"}}"#,
                "x".repeat(255)
            )),
            IdTooLong,
        ),
        // Types.
        (
            "method that is a number",
            r#"{"jsonrpc":"2.0","id":1,"method":1}"#.into(),
            MethodType,
        ),
        (
            "method with an escape",
            r#"{"jsonrpc":"2.0","id":1,"method":"t\u006fols/other"}"#.into(),
            EscapedMethod,
        ),
        ("params an array", params(r#"["denied"]"#), ParamsType),
        ("params null", params("null"), ParamsType),
        ("params a string", params(r#""denied""#), ParamsType),
        ("name a number", params(r#"{"name":1}"#), NameType),
        ("name an array", params(r#"{"name":["denied"]}"#), NameType),
        ("name null", params(r#"{"name":null}"#), NameType),
        ("no name", params("{}"), MissingName),
        (
            "no params",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#.into(),
            MissingName,
        ),
        (
            "name inside arguments only",
            params(r#"{"arguments":{"name":"denied"}}"#),
            MissingName,
        ),
        ("uri a number", top(r#""params":{"uri":1}"#), UriType),
        ("arguments an array", arguments("[]"), ArgumentsType),
        ("arguments a string", arguments(r#""{}""#), ArgumentsType),
        ("_meta an array", call(r#""_meta":[]"#), MetaType),
        (
            "version a number",
            call(r#""_meta":{"io.modelcontextprotocol/protocolVersion":20260728}"#),
            MetaType,
        ),
        (
            "version null",
            call(r#""_meta":{"io.modelcontextprotocol/protocolVersion":null}"#),
            MetaType,
        ),
        (
            "capabilities a list",
            call(r#""_meta":{"io.modelcontextprotocol/clientCapabilities":[]}"#),
            MetaType,
        ),
        (
            "progress token an object",
            call(r#""_meta":{"progressToken":{}}"#),
            MetaType,
        ),
        (
            "progress token a float",
            call(r#""_meta":{"progressToken":1.5}"#),
            MetaType,
        ),
        // Bounds.
        (
            "nested 65 deep",
            arguments(&format!(r#"{{"a":{}1{}}}"#, "[".repeat(62), "]".repeat(62))),
            TooDeep,
        ),
        (
            "1,025 keys",
            arguments(&format!(
                "{{{}\"x\":0}}",
                (0..1024).map(|n| format!("\"{n}\":0,")).collect::<String>()
            )),
            TooManyKeys,
        ),
    ];
    rows.extend(
        texts
            .into_iter()
            .map(|(name, text, reason)| (name, text.into_bytes(), reason)),
    );
    let call = call(r#""arguments":{}"#);
    rows.extend([
        ("BOM", format!("\u{feff}{call}").into_bytes(), Bom),
        ("UTF-16 little endian", utf16(&call, true), Encoding),
        ("UTF-16 big endian", utf16(&call, false), Encoding),
        (
            "UTF-16 with a BOM",
            utf16(&format!("\u{feff}{call}"), true),
            Encoding,
        ),
        ("UTF-32", utf32(&call), Encoding),
        (
            "Latin-1",
            b"{\"jsonrpc\":\"2.0\",\"id\":\"\xe9\"}".to_vec(),
            Encoding,
        ),
        ("overlong UTF-8", b"{\"\xc0\xaf\":1}".to_vec(), Encoding),
        (
            "surrogate in UTF-8",
            b"{\"\xed\xa0\x80\":1}".to_vec(),
            Encoding,
        ),
        ("cut UTF-8", b"{\"\xe4\xb8".to_vec(), Encoding),
    ]);
    rows
}

/// Name and body.
pub fn accepted() -> Vec<(&'static str, Vec<u8>)> {
    let texts: Vec<(&str, String)> = vec![
        ("ping", PING.into()),
        ("white space everywhere", " \t\r\n{ \"jsonrpc\" : \"2.0\" , \"id\" : 1 , \"method\" : \"ping\" , \"params\" : { } } \n".into()),
        ("any order", r#"{"params":{},"method":"tools/list","id":"a","jsonrpc":"2.0"}"#.into()),
        ("method with escaped slashes", r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"name":"a\/b"}}"#.into()),
        ("keys with escaped slashes in _meta", call(r#""_meta":{"io.modelcontextprotocol\/protocolVersion":"2026-07-28"}"#)),
        ("Name and __proto__ inside arguments", arguments(r#"{"Name":1,"name":2,"__proto__":{"Method":3},"method":4}"#)),
        ("Name inside input responses", call(r#""inputResponses":{"a":{"content":{"Name":"Bob","name":"bob"}}}"#)),
        ("null arguments", arguments("null")),
        ("null _meta", call(r#""_meta":null"#)),
        ("null progress token", call(r#""_meta":{"progressToken":null}"#)),
        ("null cursor", top(r#""params":{"cursor":null}"#)),
        ("empty cursor", top(r#""params":{"cursor":""}"#)),
        ("numbers that parsers round", arguments(r#"{"a":1e400,"b":9007199254740993,"c":0.10000000000000000555,"d":-0,"e":1E+2}"#)),
        ("escapes in values", arguments(r#"{"a":"\u0000\ud83d\ude00\/\"\\ſ"}"#)),
        ("equal keys in different objects", arguments(r#"{"a":{"a":[{"a":1},{"a":2}]},"b":{"a":1}}"#)),
        ("64 deep", arguments(&format!(r#"{{"a":{}1{}}}"#, "[".repeat(61), "]".repeat(61)))),
        ("1,024 keys", arguments(&format!("{{{}\"x\":0}}", (0..1023).map(|n| format!("\"{n}\":0,")).collect::<String>()))),
        ("longest id", id(&format!("\"{}\"", "x".repeat(254)))),
        ("negative id", id("-5")),
        ("empty id", id(r#""""#)),
        ("unknown method", r#"{"jsonrpc":"2.0","id":1,"method":"vendor/thing","params":{"task":null}}"#.into()),
        ("notification", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into()),
        ("client's result", r#"{"jsonrpc":"2.0","id":"s1","result":{"role":"assistant"}}"#.into()),
        ("client's error", r#"{"jsonrpc":"2.0","id":4,"error":{"code":-1,"message":"rejected"}}"#.into()),
        ("error without an id", r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":""}}"#.into()),
        ("batch", format!(r#"[{PING},{{"jsonrpc":"2.0","method":"notifications/initialized"}},{{"jsonrpc":"2.0","id":"1","method":"ping"}}]"#)),
        ("DEL and other odd characters", arguments("{\"a\":\"\u{7f}\u{2028}\u{feff}\u{fffe}\"}")),
    ];
    texts
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect()
}

/// Name, message of a server, why it is refused if it is.
pub fn from_server() -> Vec<(&'static str, String, Option<Reason>)> {
    let result = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
    vec![
        (
            "unknown top-level key",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"extra":{}}"#.into(),
            None,
        ),
        (
            "folded top-level key",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"Result":{}}"#.into(),
            Some(FoldedKey),
        ),
        (
            "escaped top-level key",
            r#"{"jsonrpc":"2.0","id":1,"resul\u0074":{}}"#.into(),
            Some(EscapedKey),
        ),
        (
            "duplicate deep down",
            result(r#"{"content":[{"a":1,"a":2}]}"#),
            Some(DuplicateKey),
        ),
        ("result that is a list", result("[]"), None),
        (
            "__proto__ in a tool's data",
            result(r#"{"structuredContent":{"__proto__":1}}"#),
            None,
        ),
        (
            "__proto__ in the result itself",
            result(r#"{"__proto__":{"tools":[]}}"#),
            Some(ProtoKey),
        ),
        (
            "null params",
            r#"{"jsonrpc":"2.0","method":"notifications/x","params":null}"#.into(),
            None,
        ),
        (
            "params that look like a call's",
            r#"{"jsonrpc":"2.0","id":9,"method":"x","params":{"name":1,"Name":2}}"#.into(),
            None,
        ),
        (
            "call without a name",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#.into(),
            None,
        ),
        (
            "float id",
            r#"{"jsonrpc":"2.0","id":1.0,"result":{}}"#.into(),
            Some(IdType),
        ),
        (
            "no id",
            r#"{"jsonrpc":"2.0","result":{}}"#.into(),
            Some(IdType),
        ),
        (
            "2,000 keys",
            result(&format!(
                "{{{}\"x\":0}}",
                (0..2000).map(|n| format!("\"{n}\":0,")).collect::<String>()
            )),
            None,
        ),
        ("no JSON", "Server listening on stdio".into(), Some(Syntax)),
    ]
}
