//! Server-sent events (WHATWG HTML, "Server-sent events"), fed in pieces, bounded.

/// One complete event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's bytes as they came, its closing blank line included; without byte order marks before it. (Where only a
    /// CR has come of the last line end, it is made CRLF: what is passed on next cannot become a part of it.)
    pub raw: Vec<u8>,
    /// `data` lines joined by LF; `None` when the event has none (comments, `retry:` alone).
    pub data: Option<Vec<u8>>,
    /// The `event` field; `None` means `message`.
    pub event: Option<String>,
}

/// An event was larger than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Splitter {
    event_bytes_max: usize,
    /// The bytes of the event that is not complete yet.
    held: Vec<u8>,
    /// Where the line that is being read starts in `held`.
    line: usize,
    /// Up to where `held` has been searched for line ends.
    searched: usize,
    /// The byte before `searched` is a CR that ended a line: an LF that follows belongs to that line's end.
    after_cr: bool,
}

impl Splitter {
    /// A splitter for events of at most this many bytes.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            held: Vec::new(),
            line: 0,
            searched: 0,
            after_cr: false,
        }
    }

    /// Feeds bytes; `each` gets every completed event. After an error the stream cannot be read on.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Event)) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some(&next) = rest.first() {
            if self.held.is_empty() && std::mem::take(&mut self.after_cr) && next == b'\n' {
                // The last event did not wait for this half of its line end: it was given one.
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            // However large the piece is, no more than the bound and a line end is ever held.
            let room = self.event_bytes_max.saturating_sub(self.held.len()) + 1;
            let (piece, later) = rest.split_at(room.min(rest.len()));
            self.held.extend_from_slice(piece);
            rest = later;
            self.complete(&mut each)?;
            if counted(&self.held) > self.event_bytes_max {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// Whether nothing of an unfinished event is held: between events another one may be injected.
    pub fn at_boundary(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of an unfinished event: at the stream's end they are passed on (no event: the client drops it too).
    pub fn rest(&self) -> &[u8] {
        &self.held
    }

    /// Hands over every event that is complete in `held`.
    fn complete(&mut self, each: &mut impl FnMut(Event)) -> Result<(), TooLong> {
        let mut event = 0;
        while let Some((start, end)) = self.next_line() {
            if start < end {
                continue;
            }
            let raw = self.held.get(event..self.line).unwrap_or_default();
            if counted(raw) > self.event_bytes_max {
                return Err(TooLong);
            }
            let mut raw = without_marks(raw).to_vec();
            if self.after_cr {
                raw.push(b'\n');
            }
            each(parse(raw));
            event = self.line;
        }
        self.held.drain(..event);
        self.line -= event;
        self.searched -= event;
        Ok(())
    }

    /// Where the next line's contents are, if its end has come; `self.line` is behind it then.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        if self.after_cr {
            let next = *self.held.get(self.searched)?;
            self.after_cr = false;
            if next == b'\n' {
                self.searched += 1;
                self.line = self.searched;
            }
        }
        let unsearched = self.held.get(self.searched..)?;
        let Some(found) = memchr::memchr2(b'\n', b'\r', unsearched) else {
            self.searched = self.held.len();
            return None;
        };
        let (start, end) = (self.line, self.searched + found);
        self.searched = end + 1;
        if self.held.get(end) == Some(&b'\r') {
            match self.held.get(end + 1) {
                Some(b'\n') => self.searched += 1,
                Some(_) => {}
                // An event must not wait for the byte that may follow.
                None => self.after_cr = true,
            }
        }
        self.line = self.searched;
        Some((start, end))
    }
}

/// The bytes of an event that the bound counts: the LF of a last CRLF may come too late to be counted, so it never is.
fn counted(raw: &[u8]) -> usize {
    raw.len() - usize::from(raw.ends_with(b"\r\n"))
}

/// Takes byte order marks off an event. A client takes one off the stream's first event alone; what that is for the
/// client depends on what was passed on before, so no event may begin with one. A line of marks alone goes as a whole:
/// the blank line that it would become ends an event.
fn without_marks(mut raw: &[u8]) -> &[u8] {
    while let Some(rest) = raw.strip_prefix(b"\xef\xbb\xbf") {
        raw = match rest {
            [b'\r', b'\n', rest @ ..] | [b'\r' | b'\n', rest @ ..] => rest,
            _ => rest,
        };
    }
    raw
}

/// The lines of an event, without their ends.
fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, behind) = rest.split_at(length);
        let end = match behind {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        rest = behind.get(end..).unwrap_or_default();
        Some(line)
    })
}

/// A line's field name and value; a comment has an empty name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        None => (line, b""),
        Some(colon) => {
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default();
            (name, value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

fn parse(raw: Vec<u8>) -> Event {
    let mut data: Option<Vec<u8>> = None;
    let mut event = None;
    for line in lines(&raw) {
        match field(line) {
            (b"data", value) => match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            (b"event", value) => event = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    Event {
        raw,
        data,
        event: event.filter(|name| !name.is_empty()),
    }
}

/// Writes one `message` event with this data; `head` holds other field lines to keep, e.g. `id: 7\n`.
pub fn write_event(out: &mut Vec<u8>, head: &[u8], data: &[u8]) {
    out.extend_from_slice(b"event: message\n");
    out.extend_from_slice(head);
    write_data(out, data);
    out.push(b'\n');
}

/// Rewrites an event with other data: every other line of `raw` is kept. An event without data stays as it is.
///
/// All line ends become LF: a kept CR before a kept LF would be one line end where there were two.
pub fn with_data(event: &Event, data: &[u8]) -> Vec<u8> {
    if event.data.is_none() {
        return event.raw.clone();
    }
    let mut out = Vec::with_capacity(event.raw.len() + data.len());
    let mut written = false;
    for line in lines(&event.raw) {
        if field(line).0 != b"data" {
            out.extend_from_slice(line);
            out.push(b'\n');
        } else if !std::mem::replace(&mut written, true) {
            write_data(&mut out, data);
        }
    }
    out
}

/// A line break in the data becomes another `data` line: white space to JSON, and never an end of the event.
fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    let mut wrote = false;
    for line in lines(data) {
        wrote = true;
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    if !wrote {
        out.extend_from_slice(b"data:\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(splitter: &mut Splitter, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        splitter.push(bytes, |event| events.push(event)).unwrap();
        events
    }

    fn event(raw: &str, data: Option<&str>, name: Option<&str>) -> Event {
        Event {
            raw: raw.into(),
            data: data.map(|d| d.as_bytes().to_vec()),
            event: name.map(str::to_owned),
        }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (stream, expected) in [
            ("data: a\n\n", vec![event("data: a\n\n", Some("a"), None)]),
            (
                "data:a\r\n\r\n",
                vec![event("data:a\r\n\r\n", Some("a"), None)],
            ),
            (
                "data:  a\r\r",
                vec![event("data:  a\r\r\n", Some(" a"), None)],
            ),
            (": ping\n\n", vec![event(": ping\n\n", None, None)]),
            (
                "retry: 5\nid: 1\ndata\n\n",
                vec![event("retry: 5\nid: 1\ndata\n\n", Some(""), None)],
            ),
            (
                "event: endpoint\ndata: x\ndata: y\n\ndata: z\n\n",
                vec![
                    event(
                        "event: endpoint\ndata: x\ndata: y\n\n",
                        Some("x\ny"),
                        Some("endpoint"),
                    ),
                    event("data: z\n\n", Some("z"), None),
                ],
            ),
            (
                "event:\ndata: x\n\n",
                vec![event("event:\ndata: x\n\n", Some("x"), None)],
            ),
            (
                "Data: x\ndatax: y\n\n",
                vec![event("Data: x\ndatax: y\n\n", None, None)],
            ),
            ("\n", vec![event("\n", None, None)]),
            (
                "\u{feff}\u{feff}data: x\n\n\u{feff}data: y\n\n",
                vec![
                    event("data: x\n\n", Some("x"), None),
                    event("data: y\n\n", Some("y"), None),
                ],
            ),
            (
                "\u{feff}\n\u{feff}\u{feff}\r\n\u{feff}data: x\n\n\u{feff}\n\n",
                vec![
                    event("data: x\n\n", Some("x"), None),
                    event("\n", None, None),
                ],
            ),
            ("data: unfinished\n", vec![]),
        ] {
            assert_eq!(
                split(&mut Splitter::new(100), stream.as_bytes()),
                expected,
                "{stream:?}"
            );
        }
    }

    #[test]
    fn an_event_ended_by_cr_is_not_held_back_for_the_lf() {
        let mut s = Splitter::new(100);
        assert_eq!(
            split(&mut s, b"data: a\r\n\r"),
            [event("data: a\r\n\r\n", Some("a"), None)]
        );
        assert!(s.at_boundary());
        assert_eq!(split(&mut s, b"\n"), []);
        assert!(s.at_boundary());
        assert_eq!(split(&mut s, b"data: b\r"), []);
        assert!(!s.at_boundary());
        assert_eq!(
            split(&mut s, b"\n\r\n"),
            [event("data: b\r\n\r\n", Some("b"), None)]
        );
        assert!(s.at_boundary() && s.rest().is_empty());
    }

    #[test]
    fn an_event_at_the_bound_passes_and_one_byte_more_is_an_error() {
        let mut s = Splitter::new(11);
        assert_eq!(split(&mut s, b"data: 123\n\ndata: 456\n\n").len(), 2);
        assert_eq!(s.push(b"data: 1234\n\n", |_| {}), Err(TooLong));
        let mut s = Splitter::new(11);
        assert_eq!(s.push(&[b'x'; 12], |_| {}), Err(TooLong));
    }

    #[test]
    fn new_data_leaves_the_other_lines_alone() {
        let old = split(
            &mut Splitter::new(100),
            b"id: 7\r\ndata: a\r\n: c\r\ndata: b\r\nretry: 1\r\n\r\n",
        );
        assert_eq!(
            with_data(&old[0], b"{}"),
            b"id: 7\ndata: {}\n: c\nretry: 1\n\n"
        );
        assert_eq!(
            with_data(&old[0], b"{\r\n}"),
            b"id: 7\ndata: {\ndata: }\n: c\nretry: 1\n\n"
        );
        let mixed = split(&mut Splitter::new(100), b"id: 1\rdata: a\r\n\n");
        assert_eq!(with_data(&mixed[0], b"1"), b"id: 1\ndata: 1\n\n");
        let none = event(": c\r\n\r\n", None, None);
        assert_eq!(with_data(&none, b"1"), none.raw);
        let mut out = Vec::new();
        write_event(&mut out, b"id: 7\n", b"{}");
        assert_eq!(out, b"event: message\nid: 7\ndata: {}\n\n");
        assert_eq!(
            split(&mut Splitter::new(100), &out)[0].data.as_deref(),
            Some(&b"{}"[..])
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_no_line_is_lost(
            bytes in proptest::collection::vec(
                prop_oneof![Just(&b"\n"[..]), Just(&b"\r"[..]), Just(&b"\r\n"[..]), Just(&b"data: x"[..]), Just(&b": c"[..])],
                0..40,
            ),
            piece in 1usize..9,
        ) {
            let bytes = bytes.concat();
            let mut whole = Splitter::new(1000);
            let expected = split(&mut whole, &bytes);
            let mut s = Splitter::new(1000);
            let mut events = Vec::new();
            for part in bytes.chunks(piece) {
                events.extend(split(&mut s, part));
            }
            let data = |events: &[Event]| events.iter().filter_map(|e| e.data.clone()).collect::<Vec<_>>();
            prop_assert_eq!(data(&events), data(&expected));
            let mut all: Vec<u8> = events.iter().flat_map(|e| e.raw.clone()).collect();
            all.extend_from_slice(s.rest());
            prop_assert!(lines(&all).eq(lines(&bytes)));
        }
    }
}
