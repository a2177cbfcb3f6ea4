//! Lines of stdio servers, fed in pieces, bounded (MCP transports, stdio: messages are delimited by newlines).

/// Splits a byte stream into lines without their line ends.
#[derive(Debug)]
pub struct Splitter {
    line_bytes_max: usize,
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
    /// Inside a line that is too long: its rest is dropped.
    dropping: bool,
}

/// A line was longer than the bound: it was dropped, the lines around it were handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// It began like a JSON object, not like the noise that some servers print.
    pub object: bool,
}

impl TooLong {
    fn of(first: Option<&u8>) -> Self {
        let object = first == Some(&b'{');
        Self { object }
    }
}

impl Splitter {
    /// A splitter for lines of at most this many bytes, the line end not counted.
    pub fn new(line_bytes_max: usize) -> Self {
        Self {
            line_bytes_max,
            held: Vec::new(),
            dropping: false,
        }
    }

    /// Feeds bytes; `each` gets every completed line (LF or CRLF removed, empty lines skipped).
    ///
    /// An error says that a line of these bytes became too long; the splitter goes on with the line after it.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let mut outcome = Ok(());
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.dropping) {
                continue;
            }
            let whole = if self.held.is_empty() {
                line
            } else {
                self.held.extend_from_slice(line);
                &self.held
            };
            let whole = whole.strip_suffix(b"\r").unwrap_or(whole);
            if whole.len() > self.line_bytes_max {
                outcome = Err(TooLong::of(whole.first()));
            } else if !whole.is_empty() {
                each(whole);
            }
            self.held.clear();
        }
        // One byte more than the bound may be held: it may be the CR of the line end.
        if !self.dropping {
            if self.held.len() + rest.len() > self.line_bytes_max + 1 {
                outcome = Err(TooLong::of(self.held.first().or(rest.first())));
                self.held = Vec::new();
                self.dropping = true;
            } else {
                self.held.extend_from_slice(rest);
            }
        }
        outcome
    }

    /// The bytes of a line that has not ended: at the stream's end they are no message.
    pub fn rest(&self) -> &[u8] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(splitter: &mut Splitter, bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let mut lines = Vec::new();
        let outcome = splitter.push(bytes, |line| lines.push(line.to_vec()));
        (lines, outcome.is_err())
    }

    #[test]
    fn lines_come_out_whole_however_the_bytes_arrive() {
        let mut s = Splitter::new(100);
        assert_eq!(
            split(&mut s, b"one\r\ntwo\n\n\r\nth"),
            (vec![b"one".to_vec(), b"two".to_vec()], false)
        );
        assert_eq!(s.rest(), b"th");
        assert_eq!(split(&mut s, b"ree\r"), (vec![], false));
        assert_eq!(
            split(&mut s, b"\na\rb\n"),
            (vec![b"three".to_vec(), b"a\rb".to_vec()], false)
        );
    }

    #[test]
    fn a_line_at_the_bound_passes_and_one_byte_more_is_dropped() {
        let mut s = Splitter::new(4);
        assert_eq!(
            split(&mut s, b"1234\r\n12345\nok\n"),
            (vec![b"1234".to_vec(), b"ok".to_vec()], true)
        );
        assert_eq!(split(&mut s, b"1234"), (vec![], false));
        assert_eq!(split(&mut s, b"56"), (vec![], true));
        assert_eq!(split(&mut s, b"7890123456789"), (vec![], false));
        assert_eq!(split(&mut s, b"x\nnext\n"), (vec![b"next".to_vec()], false));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x')], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let whole = split(&mut Splitter::new(8), &bytes).0;
            let mut s = Splitter::new(8);
            let mut lines = Vec::new();
            let mut cuts = cuts.iter().map(|&c| c.min(bytes.len())).collect::<Vec<_>>();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                lines.extend(split(&mut s, &bytes[pair[0]..pair[1]]).0);
            }
            prop_assert_eq!(lines, whole);
        }
    }
}
