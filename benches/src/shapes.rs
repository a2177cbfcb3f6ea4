//! What the bodies are made of: JSON objects that grow, piece by piece, to nearly a size.

use crate::chance::Chance;
use std::fmt::Write;

const WORDS: &[&str] = &[
    "amount",
    "currency",
    "customer",
    "description",
    "email",
    "invoice",
    "kind",
    "limit",
    "name",
    "note",
    "order",
    "page",
    "path",
    "price",
    "query",
    "region",
    "state",
    "street",
    "title",
    "total",
    "user",
    "zone",
];

/// Text of exactly this many bytes.
fn text(chance: &mut Chance, bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(chance.pick(WORDS));
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

/// Appends pieces while they fit below `bytes`; a few that do not are thrown away.
fn grow(out: &mut String, bytes: usize, mut piece: impl FnMut(usize, &mut String)) {
    let (mut n, mut thrown) = (0, 0);
    while thrown < 20 {
        let start = out.len();
        piece(n, out);
        n += 1;
        if out.len() > bytes {
            out.truncate(start);
            thrown += 1;
        }
    }
}

/// What agents send most: a dozen members, short texts, numbers, a small list.
pub(crate) fn ordinary(chance: &mut Chance, bytes: usize) -> String {
    let mut out = String::from("{");
    grow(&mut out, bytes.saturating_sub(8), |n, out| {
        let word = chance.pick(WORDS);
        let _ = match n % 6 {
            0 => write!(out, r#""{word}{n}":{},"#, chance.below(100_000)),
            1 => write!(out, r#""{word}{n}":"{}","#, text(chance, 12)),
            2 => write!(out, r#""{word}{n}":true,"#),
            3 => {
                let (word, count) = (text(chance, 7), chance.below(90));
                write!(out, r#""{word}{n}":["{word}",{count}],"#)
            }
            4 => write!(out, r#""{word}{n}":"{}","#, text(chance, 40)),
            _ => {
                let id = chance.draw() as u32;
                write!(out, r#""{word}{n}":{{"id":"{id:08x}","n":null}},"#)
            }
        };
    });
    out.push_str(r#""end":0}"#);
    out
}

/// An object with one string, as long as there is room.
fn string(key: &str, bytes: usize, contents: impl FnOnce(usize) -> String) -> String {
    let room = bytes.saturating_sub(key.len() + r#"{"":""}"#.len());
    format!(r#"{{"{key}":"{}"}}"#, contents(room))
}

pub(crate) fn base64(chance: &mut Chance, bytes: usize) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    string("image", bytes, |room| {
        let letter = |_| char::from(letters[chance.below(64)]);
        (0..room).map(letter).collect()
    })
}

/// Source code: a line end, quotes or tabs every thirty bytes or so.
pub(crate) fn escaped(chance: &mut Chance, bytes: usize) -> String {
    string("source", bytes, |room| {
        let mut out = String::new();
        grow(&mut out, room, |_, out| {
            for _ in 0..2 + chance.below(5) {
                out.push_str(chance.pick(WORDS));
                out.push_str(chance.pick(&[" ", "(", ") ", " = ", ";", ".", r#"\""#, r"\t"]));
            }
            out.push_str(r"\n");
            if chance.below(40) == 0 {
                out.push_str(r"\u00e9\\");
            }
        });
        out
    })
}

pub(crate) fn cjk(chance: &mut Chance, bytes: usize) -> String {
    string("prompt", bytes, |room| {
        let character = |_| char::from_u32(0x4e00 + chance.below(0x5000) as u32).unwrap_or('世');
        (0..room / 3).map(character).collect()
    })
}

/// Short arrays and objects in one another, little else.
pub(crate) fn nested(chance: &mut Chance, bytes: usize) -> String {
    let mut out = String::from(r#"{"tree":["#);
    grow(&mut out, bytes.saturating_sub(3), |_, out| {
        let mut ends = Vec::new();
        for _ in 0..1 + chance.below(20) {
            if chance.below(2) == 0 {
                out.push('[');
                ends.push("]");
            } else {
                out.push_str(r#"[1,{"a":"#);
                ends.push("}]");
            }
        }
        out.push_str("[]");
        out.extend(ends.iter().rev().copied());
        out.push(',');
    });
    out.push_str("0]}");
    out
}

/// Printed for people: a line and an indent for every value.
pub(crate) fn spaced(chance: &mut Chance, bytes: usize) -> String {
    let mut out = String::from("{\n");
    grow(&mut out, bytes.saturating_sub(14), |n, out| {
        let (word, count) = (chance.pick(WORDS), chance.below(1_000));
        let _ = match chance.below(4) {
            0 => writeln!(out, "  \"{word}{n}\": {count},"),
            1 => writeln!(out, "  \"{word}{n}\": true,"),
            2 => writeln!(
                out,
                "  \"{word}{n}\": [\n    {count},\n    \"{word}\"\n  ],"
            ),
            _ => writeln!(
                out,
                "  \"{word}{n}\": {{\n    \"list\": [\n      {{\n        \"ok\": false\n      }}\n    ]\n  }},"
            ),
        };
    });
    out.push_str("  \"end\": 0\n}");
    out
}

/// Objects of up to 1,000 keys and hardly a value.
pub(crate) fn small_keys(chance: &mut Chance, bytes: usize) -> String {
    let mut out = String::from(r#"{"all":[{"#);
    let mut left = chance.below(1_000);
    grow(&mut out, bytes.saturating_sub(8), |n, out| {
        if left == 0 {
            left = chance.below(1_000);
            out.push_str(r#""":0},{"#);
        }
        // An object may be drawn to have room for none: it has one.
        left = left.saturating_sub(1);
        let _ = write!(out, r#""{}{n:x}":{},"#, &chance.pick(WORDS)[..2], n % 7);
    });
    out.push_str(r#""":0}]}"#);
    out
}

/// Values of every type, drawn one by one.
pub(crate) fn held_out(chance: &mut Chance, bytes: usize) -> String {
    let mut out = String::from(r#"{"data":["#);
    let room = (bytes / 4).clamp(20, 3_000);
    grow(&mut out, bytes.saturating_sub(6), |_, out| {
        let end = out.len() + room;
        value(chance, out, 0, end);
        out.push(',');
    });
    out.push_str("null]}");
    out
}

/// One value, which grows no more once `end` is passed.
fn value(chance: &mut Chance, out: &mut String, depth: usize, end: usize) {
    let room = end.saturating_sub(out.len());
    match chance.below(if depth < 6 { 9 } else { 6 }) {
        0 => out.push_str(chance.pick(&["true", "false", "null"])),
        1 => drop(write!(out, "{}", chance.draw() as i32)),
        2 => drop(write!(
            out,
            "{}.{}e-{}",
            chance.below(99),
            chance.below(1 << 20),
            chance.below(9)
        )),
        3 => drop(write!(out, "{:?}", text(chance, 3 + room.min(9)))),
        4 => {
            let bytes = chance.below(room.max(20));
            let _ = write!(out, "{:?}", text(chance, bytes));
        }
        5 => out.push_str(chance.pick(&[
            r#""naïve café""#,
            r#""\ud83d\ude00 \t""#,
            r#""C:\\dir\\file""#,
            r#""Größe: 世界""#,
        ])),
        6 => {
            out.push('[');
            for n in 0..chance.below(6) {
                if out.len() >= end {
                    break;
                }
                out.push_str(if n > 0 { ", " } else { "" });
                value(chance, out, depth + 1, end);
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for n in 0..chance.below(25) {
                if out.len() >= end {
                    break;
                }
                out.push_str(if n > 0 { "," } else { "" });
                let _ = write!(out, r#""{}_{n}":"#, chance.pick(WORDS));
                value(chance, out, depth + 1, end);
            }
            out.push('}');
        }
    }
}

/// A server's tools with their schemas.
pub(crate) fn tools_list(chance: &mut Chance, bytes: usize) -> Vec<u8> {
    let mut out = String::from(r#"{"jsonrpc":"2.0","id":1,"result":{"tools":["#);
    // The last one's description takes what room is left.
    let last = tool(chance, 0, "");
    grow(&mut out, bytes.saturating_sub(last.len() + 3), |n, out| {
        let description = text(chance, 90);
        out.push_str(&tool(chance, n + 1, &description));
        out.push(',');
    });
    let room = bytes.saturating_sub(out.len() + last.len() + 3);
    let description = text(chance, room);
    let (before, after) = last.split_once(r#""description":"""#).unwrap_or_default();
    let _ = write!(out, r#"{before}"description":"{description}"{after}]}}}}"#);
    out.into_bytes()
}

fn tool(chance: &mut Chance, n: usize, description: &str) -> String {
    let word = chance.pick(WORDS);
    format!(
        r#"{{"name":"{word}_{n}","description":"{description}","inputSchema":{{"type":"object","properties":{{"{word}":{{"type":"string","description":"What to {word}."}},"count":{{"type":"integer","minimum":1}}}},"required":["{word}"]}},"annotations":{{"readOnlyHint":true}}}}"#
    )
}
