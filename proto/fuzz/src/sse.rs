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
    assert!(told(&whole).eq(told(&pieces)));
    for event in whole.iter().filter(|event| event.data.is_some()) {
        let (again, _) = split(&with_data(event, b"{\n}"), 7, 2 * EVENT_BYTES_MAX);
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

/// What a client is told.
fn told(events: &[Event]) -> impl Iterator<Item = (&[u8], Option<&str>)> {
    let with_data = |event: &'_ Event| event.data.is_some();
    let events = events.iter().filter(move |event| with_data(event));
    events.map(|event| {
        (
            event.data.as_deref().unwrap_or_default(),
            event.event.as_deref(),
        )
    })
}

fn split(stream: &[u8], piece: usize, bound: usize) -> (Vec<Event>, Result<(), TooLong>) {
    let mut splitter = Splitter::new(bound);
    let mut events = Vec::new();
    for part in stream.chunks(piece) {
        if let Err(e) = splitter.push(part, |event| events.push(event)) {
            return (events, Err(e));
        }
    }
    let marked = stream.windows(3).any(|three| three == b"\xef\xbb\xbf");
    assert!(marked || same_lines(&events, splitter.rest(), stream));
    (events, Ok(()))
}

/// Whether what came out differs from what went in by its line ends alone.
fn same_lines(events: &[Event], rest: &[u8], stream: &[u8]) -> bool {
    let raws = events.iter().map(|event| event.raw.as_slice());
    let all = raws.chain([rest]).flatten().copied();
    plain(all).eq(plain(stream.iter().copied()))
}

/// Bytes whose line ends are all LF.
fn plain(bytes: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    let mut after_cr = false;
    bytes.filter_map(move |byte| {
        let joined = std::mem::replace(&mut after_cr, byte == b'\r') && byte == b'\n';
        (!joined).then_some(if byte == b'\r' { b'\n' } else { byte })
    })
}
