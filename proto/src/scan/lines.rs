//! Lines of stdio servers, fed in pieces, bounded.

/// Splits a byte stream into lines without their line ends.
pub struct Splitter {
    _line_bytes_max: usize,
}

/// A line was longer than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Splitter {
    /// A splitter for lines of at most this many bytes.
    pub fn new(line_bytes_max: usize) -> Self {
        Self {
            _line_bytes_max: line_bytes_max,
        }
    }
    /// Feeds bytes; `each` gets every completed line (LF or CRLF removed, empty lines skipped).
    pub fn push(&mut self, _bytes: &[u8], _each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        todo!()
    }
}
