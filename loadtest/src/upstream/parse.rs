//! Bytes to a message, as carelessly as real servers do it (mcp.md §5 names them).

use super::Parser;
use serde_json::{Map, Value};

/// The message, or `None` where even a careless parser gives up (serde_json stops at 128 levels, JavaScript later).
pub(super) fn parse(parser: Parser, bytes: &[u8]) -> Option<Value> {
    let text = decode(parser, bytes);
    let text = text.trim_start_matches('\u{feff}');
    match parser {
        Parser::JavaScript => serde_json::from_str(text)
            .or_else(|_| serde_json::from_str(&repair(text, false)))
            .ok(),
        Parser::Lax => {
            let text = repair(text, true);
            let first = serde_json::Deserializer::from_str(&text)
                .into_iter()
                .next()?
                .ok()?;
            Some(fold(first))
        }
    }
}

fn decode(parser: Parser, bytes: &[u8]) -> String {
    let wide = |to: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| to(*pair))
            .collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, ..] | [_, 0, ..] if parser == Parser::Lax => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, _, ..] if parser == Parser::Lax => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Rewrites what JavaScript reads and serde_json does not: lone surrogates, numbers past the range; with `lax` also `NaN`
/// and `Infinity`.
fn repair(text: &str, lax: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if c == '"' {
            string(rest, &mut out)
        } else if c == '-' || c.is_ascii_digit() {
            number(rest, &mut out)
        } else if let Some(word) = ["NaN", "Infinity"]
            .iter()
            .find(|w| lax && rest.starts_with(**w))
        {
            out.push_str("null");
            word.len()
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

fn number(text: &str, out: &mut String) -> usize {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)))
        .unwrap_or(text.len());
    let token = text.get(..end).unwrap_or_default();
    match token.parse::<f64>() {
        Ok(n) if n.is_infinite() => out.push_str(if n > 0.0 { "1e308" } else { "-1e308" }),
        // "-Infinity": the sign goes with the word.
        Err(_) if token == "-" => {}
        _ => out.push_str(token),
    }
    end
}

/// Copies one string, lone surrogate escapes replaced.
fn string(text: &str, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    let unit = |at: usize| -> Option<u32> {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(escape, 16).ok()
    };
    let mut at = 1;
    out.push('"');
    while let Some(&byte) = bytes.get(at) {
        let len = match byte {
            b'"' => {
                out.push('"');
                return at + 1;
            }
            b'\\' => match (unit(at), unit(at + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => {
                    out.push_str("\\ufffd");
                    at += 6;
                    continue;
                }
                _ => 2,
            },
            _ => 1,
        };
        // A step never ends inside a character: only ASCII steps are longer than one byte, and this one is widened.
        let mut end = (at + len).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        out.push_str(text.get(at..end).unwrap_or_default());
        at = end;
    }
    text.len()
}

/// Keys that fold to a routing key become it, the last one wins: as Go's structs read them.
fn fold(message: Value) -> Value {
    match message {
        Value::Array(items) => Value::Array(items.into_iter().map(fold).collect()),
        Value::Object(fields) => {
            let mut folded = fold_keys(fields, &["jsonrpc", "id", "method", "params"]);
            if let Some(Value::Object(params)) = folded.get_mut("params") {
                let taken = std::mem::take(params);
                *params = fold_keys(taken, &["name", "arguments", "uri", "cursor", "_meta"]);
            }
            Value::Object(folded)
        }
        other => other,
    }
}

fn fold_keys(fields: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let mut folded = Map::new();
    for (key, value) in fields {
        let plain: String = key
            .chars()
            .map(|c| match c {
                'ſ' => 's',
                '\u{212a}' => 'k',
                c => c.to_ascii_lowercase(),
            })
            .collect();
        let key = if known.contains(&plain.as_str()) {
            plain
        } else {
            key
        };
        folded.insert(key, value);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn careless_parsers_read_what_a_strict_one_refuses() {
        let js = |text: &str| parse(Parser::JavaScript, text.as_bytes());
        let lax = |text: &str| parse(Parser::Lax, text.as_bytes());
        let call = json!({"method": "b"});
        assert_eq!(js(r#"{"method":"a","method":"b"}"#), Some(call.clone()));
        assert_eq!(js(r#"{"m\u0065thod":"b"}"#), Some(call.clone()));
        assert_eq!(js("\u{feff}{\"method\":\"b\"}"), Some(call.clone()));
        assert_eq!(
            js(r#"["\ud800x\ud83d\ude00é\\"]"#),
            Some(json!(["\u{fffd}x😀é\\"]))
        );
        assert_eq!(js("[1e400,-1e400,1.5]"), Some(json!([1e308, -1e308, 1.5])));
        assert_eq!(js("[NaN]"), None);
        assert_eq!(js("{} {}"), None);
        assert_eq!(lax("[NaN,-Infinity]"), Some(json!([null, null])));
        assert_eq!(lax(r#"{"method":"b"} {"method":"c"}"#), Some(call.clone()));
        assert_eq!(
            lax(r#"{"method":"a","METHOD":"b","paramſ":{"Name":"x"}}"#),
            Some(json!({"method": "b", "params": {"name": "x"}}))
        );
        let wide: Vec<u8> = r#"{"method":"b"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(parse(Parser::Lax, &wide), Some(call));
        for broken in [
            "",
            "\"",
            "\"\\",
            "\"\\u",
            "\"\\ud800",
            "-",
            "\"é",
            "{\"a\":",
        ] {
            assert_eq!(js(broken), None, "{broken:?}");
        }
    }
}
