//! Event streams: no line is lost, and how the bytes are cut does not matter.

use proto::scan::sse::{Event, Splitter, TooLong, with_data};

const EVENT_BYTES_MAX: usize = 256;

/// Splits bytes whole and in pieces, the first byte saying how large.
pub fn sse(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else {
        return;
    };
    let piece = usize::from(first % 16) + 1;
    let (whole, outcome) = split(stream, stream.len().max(1), EVENT_BYTES_MAX);
    let (pieces, outcome_of_pieces) = split(stream, piece, EVENT_BYTES_MAX);
    assert_eq!(outcome.is_ok(), outcome_of_pieces.is_ok());
    let data = |events: &[Event]| {
        events
            .iter()
            .map(|e| (e.data.clone(), e.event.clone()))
            .collect::<Vec<_>>()
    };
    let told = |events: &[Event]| {
        data(events)
            .into_iter()
            .filter(|(data, _)| data.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&whole), told(&pieces));
    for event in whole.iter().filter(|event| event.data.is_some()) {
        let (again, _) = split(&with_data(event, b"{\n}"), 1, 2 * EVENT_BYTES_MAX);
        let found = again
            .iter()
            .any(|e| e.data.as_deref() == Some(b"{\n}") && e.event == event.event);
        assert!(
            found,
            "{:?} became {again:?}",
            String::from_utf8_lossy(&event.raw)
        );
    }
}

fn split(stream: &[u8], piece: usize, bound: usize) -> (Vec<Event>, Result<(), TooLong>) {
    let mut splitter = Splitter::new(bound);
    let mut events = Vec::new();
    for part in stream.chunks(piece) {
        if let Err(e) = splitter.push(part, |event| events.push(event)) {
            return (events, Err(e));
        }
    }
    let mut all: Vec<u8> = events.iter().flat_map(|e| e.raw.iter().copied()).collect();
    all.extend_from_slice(splitter.rest());
    let marked = stream.windows(3).any(|three| three == b"\xef\xbb\xbf");
    assert!(marked || same_lines(&all, stream));
    (events, Ok(()))
}

/// Whether two streams differ in their line ends alone.
fn same_lines(a: &[u8], b: &[u8]) -> bool {
    let plain = |bytes: &[u8]| {
        let text: String = bytes.iter().copied().map(char::from).collect();
        text.replace("\r\n", "\n").replace('\r', "\n")
    };
    plain(a) == plain(b)
}
