//! Paths into a call's arguments: `args.a.b`, `args.items.0`, `args.items[*].price`, `args["a.b"]`.

use std::fmt;

/// Most segments of a path; nothing deeper passes the scanner.
pub const SEGMENTS_MAX: usize = 64;

/// A path as written and as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: String,
    segments: Vec<Segment>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// An object's key, or the index of an array's element.
    Key(String),
    /// Every element of an array.
    Each,
}

impl Path {
    /// Parses a path that begins with `args`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments = segments(text)?;
        let named = matches!(segments.as_slice(), [Segment::Key(root), Segment::Key(_), ..] if root == "args");
        if !named || segments.len() > SEGMENTS_MAX {
            return Err(format!(
                "`{text}` is not a path: write args.amount, args.items.0, args.items[*].price or args[\"a.b\"]"
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            segments: segments.into_iter().skip(1).collect(),
        })
    }
    /// What follows `args`.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
    /// Whether it names every element of an array somewhere.
    pub fn has_each(&self) -> bool {
        self.segments.contains(&Segment::Each)
    }
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Splits a dotted path with `["quoted"]` and `[*]` parts.
pub(super) fn segments(text: &str) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("[*]") {
            segments.push(Segment::Each);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let mut keys = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let key = keys.next().and_then(Result::ok);
            let end = after
                .get(keys.byte_offset()..)
                .and_then(|r| r.strip_prefix(']'));
            let (Some(key), Some(after)) = (key, end) else {
                return Err(format!(
                    "`{text}`: only [*] and [\"quoted key\"] stand in brackets; an index is written .0"
                ));
            };
            segments.push(Segment::Key(key));
            rest = after;
        } else {
            // Right after the start or a dot: a plain key.
            let end = rest.find(['.', '[', ']', '"']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            if key.is_empty() || after.starts_with([']', '"']) {
                return Err(format!(
                    "`{text}`: a key is empty or needs brackets, as in args[\"a.b\"]"
                ));
            }
            segments.push(Segment::Key(key.to_owned()));
            rest = after;
        }
        rest = match rest.strip_prefix('.') {
            Some("") => return Err(format!("`{text}` ends with a dot")),
            Some(after) if after.starts_with('[') => {
                return Err(format!("`{text}`: no dot before a bracket"));
            }
            Some(after) => after,
            None if rest.is_empty() => return Ok(segments),
            None if rest.starts_with('[') => rest,
            None => return Err(format!("`{text}`: a dot is missing after a bracket")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        let path = Path::parse(text).unwrap();
        assert_eq!(path.as_str(), text);
        let show = |segment: &Segment| match segment {
            Segment::Key(key) => key.clone(),
            Segment::Each => "*each*".to_owned(),
        };
        path.segments().iter().map(show).collect()
    }

    #[test]
    fn paths_are_split_at_dots_and_brackets() {
        assert_eq!(keys("args.a.b"), ["a", "b"]);
        assert_eq!(keys("args.items.0"), ["items", "0"]);
        assert_eq!(keys("args.items[*].price"), ["items", "*each*", "price"]);
        assert_eq!(keys("args.m[*][*]"), ["m", "*each*", "*each*"]);
        assert_eq!(keys("args[\"a.b\"].c"), ["a.b", "c"]);
        assert_eq!(keys("args[\"say \\\"hi\\\"]\"]"), ["say \"hi\"]"]);
        assert_eq!(keys("args.a[\"\"]"), ["a", ""]);
        assert_eq!(keys("args.größe-1 x"), ["größe-1 x"]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            "args",
            "args.",
            "args..a",
            ".a",
            "a.b",
            "state.x.y",
            "args[*]",
            "args.a[0]",
            "args.a.[*]",
            "args.a[*]b",
            "args['a']",
            "args[\"a\"",
            "args.a]",
            "args.\"a\"",
            "ARGS.a",
            "args.a[*].",
            "args[",
            "args[\"a\"]b",
        ] {
            assert!(Path::parse(text).is_err(), "{text:?}");
        }
        assert!(Path::parse(&format!("args{}", ".a".repeat(65))).is_err());
    }
}
