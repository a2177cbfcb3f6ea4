//! Arguments with holes: a JSON object whose strings may hold `{{…}}`, filled anew for every request.
//!
//! | hole | becomes |
//! |---|---|
//! | `{{seq}}` | the request's number |
//! | `{{text:N}}`, `{{text:A..B}}` | that many random letters and digits |
//! | `{{int:A..B}}` | a random integer, both ends included; alone in its string it becomes a JSON number |
//! | `{{pick:a\|b\|c}}` | one of them |

use super::rng::Rng;
use serde_json::Value;
use std::sync::OnceLock;

/// Most bytes that one hole may become: the largest bodies that are asked for.
pub const TEXT_BYTES_MAX: u64 = 8 << 20;

/// Arguments of a call.
#[derive(Clone, Debug)]
pub enum Arguments {
    /// The same bytes every time.
    Fixed(Vec<u8>),
    /// Holes between fixed bytes.
    Template(Vec<Piece>),
    /// One line of a file after the other.
    Lines(Vec<Vec<u8>>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Bytes as they stand.
    Fixed(Vec<u8>),
    /// The request's number.
    Seq,
    /// Random letters.
    Text(u64, u64),
    /// A random integer.
    Int(i64, i64),
    /// One of these.
    Pick(Vec<Vec<u8>>),
}

impl Arguments {
    /// Reads `{…}` with holes, or `@FILE` with one JSON object a line.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix('@') {
            let file = std::fs::read_to_string(path)
                .map_err(|e| format!("cannot read the arguments' file {path}: {e}"))?;
            let mut lines = Vec::new();
            for (number, line) in file.lines().enumerate() {
                if !line.trim().is_empty() {
                    let object =
                        object(line).map_err(|e| format!("{path}, line {}: {e}", number + 1))?;
                    lines.push(object.into_bytes());
                }
            }
            if lines.is_empty() {
                return Err(format!("{path} has no line: write one JSON object a line"));
            }
            return Ok(Self::Lines(lines));
        }
        let text = object(text)?;
        let pieces = pieces(&text)?;
        Ok(match pieces.as_slice() {
            [Piece::Fixed(bytes)] => Self::Fixed(bytes.clone()),
            _ => Self::Template(pieces),
        })
    }

    /// Appends the arguments of request `seq`.
    pub fn render(&self, seq: u64, rng: &mut Rng, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(bytes) => out.extend_from_slice(bytes),
            Self::Lines(lines) => {
                let at = (seq % lines.len().max(1) as u64) as usize;
                out.extend_from_slice(lines.get(at).map_or(b"{}", Vec::as_slice));
            }
            Self::Template(pieces) => {
                for piece in pieces {
                    piece.render(seq, rng, out);
                }
            }
        }
    }
}

impl Piece {
    fn render(&self, seq: u64, rng: &mut Rng, out: &mut Vec<u8>) {
        use std::io::Write as _;
        // Writing to a vector cannot fail.
        match self {
            Piece::Fixed(bytes) => out.extend_from_slice(bytes),
            Piece::Seq => drop(write!(out, "{seq}")),
            Piece::Int(from, to) => {
                let span = from.abs_diff(*to).saturating_add(1);
                let n = from.wrapping_add_unsigned(rng.below(span));
                drop(write!(out, "{n}"));
            }
            Piece::Pick(choices) => {
                let at = rng.below(choices.len() as u64) as usize;
                out.extend_from_slice(choices.get(at).map_or(b"", Vec::as_slice));
            }
            Piece::Text(from, to) => {
                let mut left = from.saturating_add(rng.below(to - from + 1)) as usize;
                let pool = pool();
                while left > 0 {
                    let at = rng.below(pool.len() as u64) as usize;
                    let piece = pool
                        .get(at..(at + left).min(pool.len()))
                        .unwrap_or_default();
                    out.extend_from_slice(piece);
                    left -= piece.len();
                }
            }
        }
    }
}

/// Random letters to cut from: made once, the same in every run.
fn pool() -> &'static [u8] {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    POOL.get_or_init(|| {
        const LETTERS: &[u8; 64] =
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        let mut rng = Rng::new(0x7e47);
        (0..1 << 20)
            .map(|_| LETTERS[(rng.next() >> 58) as usize])
            .collect()
    })
}

/// The text of a JSON object, written compactly: as servers write it that echo.
fn object(text: &str) -> Result<String, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => Ok(value.to_string()),
        Ok(_) => Err(format!("arguments must be a JSON object: {text}")),
        Err(error) => Err(format!("arguments are no JSON ({error}): {text}")),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut fixed = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((hole, after)) = behind.split_once("}}") else {
            break;
        };
        let piece = hole_of(hole)?;
        fixed.push_str(before);
        rest = after;
        // `"{{int:1..9}}"` as a whole string is a number.
        if matches!(piece, Piece::Int(..) | Piece::Seq)
            && fixed.ends_with([':', '[', ',', '"'])
            && fixed.ends_with('"')
            && opens_string(&fixed)
            && after.starts_with('"')
        {
            fixed.pop();
            rest = after.get(1..).unwrap_or_default();
        }
        pieces.push(Piece::Fixed(std::mem::take(&mut fixed).into_bytes()));
        pieces.push(piece);
    }
    fixed.push_str(rest);
    pieces.push(Piece::Fixed(fixed.into_bytes()));
    Ok(pieces)
}

/// Whether the quote at the end of this JSON text opens a value.
fn opens_string(text: &str) -> bool {
    let before = text.strip_suffix('"').unwrap_or(text);
    before.ends_with([':', '[', ','])
}

fn hole_of(hole: &str) -> Result<Piece, String> {
    let bad = || {
        format!(
            "unknown placeholder {{{{{hole}}}}}: write {{{{seq}}}}, {{{{text:10..200}}}}, {{{{int:1..100}}}} or {{{{pick:a|b}}}}"
        )
    };
    let (kind, rest) = hole.split_once(':').unwrap_or((hole, ""));
    let range = || -> Option<(&str, &str)> { Some(rest.split_once("..").unwrap_or((rest, rest))) };
    match kind {
        "seq" => Ok(Piece::Seq),
        "text" => {
            let (from, to) = range().ok_or_else(bad)?;
            let from: u64 = from.parse().map_err(|_| bad())?;
            let to: u64 = to.parse().map_err(|_| bad())?;
            if from > to || to > TEXT_BYTES_MAX {
                return Err(format!(
                    "{{{{{hole}}}}}: sizes go up, to at most {TEXT_BYTES_MAX} bytes"
                ));
            }
            Ok(Piece::Text(from, to))
        }
        "int" => {
            let (from, to) = range().ok_or_else(bad)?;
            let from: i64 = from.parse().map_err(|_| bad())?;
            let to: i64 = to.parse().map_err(|_| bad())?;
            if from > to {
                return Err(format!(
                    "{{{{{hole}}}}}: the first number must be the smaller one"
                ));
            }
            Ok(Piece::Int(from, to))
        }
        "pick" if !rest.is_empty() => Ok(Piece::Pick(
            rest.split('|').map(|s| s.as_bytes().to_vec()).collect(),
        )),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, seq: u64) -> Value {
        let arguments = Arguments::parse(text).unwrap();
        let mut out = Vec::new();
        arguments.render(seq, &mut Rng::new(seq), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn holes_become_what_they_say() {
        let mut lengths = std::collections::BTreeSet::new();
        for seq in 0..200 {
            let value = render(
                r#"{"n":"{{seq}}","s":"no {{seq}}","t":"{{text:3..5}}","i":"{{int:-2..2}}","p":"{{pick:a|b}}!"}"#,
                seq,
            );
            assert_eq!(value["n"], seq);
            assert_eq!(value["s"], format!("no {seq}"));
            lengths.insert(value["t"].as_str().unwrap().len());
            assert!((-2..=2).contains(&value["i"].as_i64().unwrap()));
            assert!(["a!", "b!"].contains(&value["p"].as_str().unwrap()));
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(
            render(r#"{"t":"{{text:3000000}}"}"#, 1)["t"]
                .as_str()
                .unwrap()
                .len(),
            3_000_000
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("[]", "must be a JSON object"),
            ("{", "are no JSON"),
            (r#"{"a":"{{word}}"}"#, "unknown placeholder {{word}}"),
            (r#"{"a":"{{text:9..1}}"}"#, "sizes go up"),
            (r#"{"a":"{{int:9..1}}"}"#, "must be the smaller"),
            ("@/no/such/file", "cannot read"),
        ] {
            let error = Arguments::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
