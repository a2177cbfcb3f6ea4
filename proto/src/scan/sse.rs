//! Server-sent events (WHATWG HTML, "Server-sent events"), fed in pieces, bounded.

/// One complete event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's bytes as they came, its closing blank line included.
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
pub struct Splitter {
    _event_bytes_max: usize,
}

impl Splitter {
    /// A splitter for events of at most this many bytes.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            _event_bytes_max: event_bytes_max,
        }
    }
    /// Feeds bytes; `each` gets every completed event.
    pub fn push(&mut self, _bytes: &[u8], _each: impl FnMut(Event)) -> Result<(), TooLong> {
        todo!()
    }
    /// Whether nothing of an unfinished event is held: between events another one may be injected.
    pub fn at_boundary(&self) -> bool {
        todo!()
    }
    /// Bytes of an unfinished event: at the stream's end they are passed on (no event: the client drops it too).
    pub fn rest(&self) -> &[u8] {
        todo!()
    }
}

/// Writes one `message` event with this data (no LF inside); `head` holds other field lines to keep, e.g. `id: 7\n`.
pub fn write_event(_out: &mut Vec<u8>, _head: &[u8], _data: &[u8]) {
    todo!()
}

/// Rewrites an event with other data: every other line of `raw` is kept as it came.
pub fn with_data(_event: &Event, _data: &[u8]) -> Vec<u8> {
    todo!()
}
