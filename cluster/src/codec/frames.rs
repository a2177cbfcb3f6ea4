//! Bytes of a stream → frames.

use super::{Class, Error, HEADER_BYTES};
use bytes::{Bytes, BytesMut};

/// Memory is taken in pieces of at least this, which the frames in them share.
const PIECE_BYTES: usize = 16 << 10;

/// Bytes of a stream that are not frames yet. A frame's length is believed only as far as bytes have come in.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    bytes_max: usize,
}

impl Frames {
    /// For a stream of a class.
    pub fn new(class: Class) -> Self {
        Self {
            buffer: BytesMut::new(),
            bytes_max: class.bytes_max(),
        }
    }

    /// More bytes have come in.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(PIECE_BYTES.max(bytes.len()));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their frame.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole frame, from its version on. After an error the stream is of no use.
    pub fn pop(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.bytes_max {
            return Err(Error::TooLarge);
        }
        if length < HEADER_BYTES - 4 {
            return Err(Error::Unreadable("an empty frame".to_owned()));
        }
        if self.buffer.len() - 4 < length {
            return Ok(None);
        }
        let frame = self.buffer.split_to(4 + length).freeze();
        Ok(Some(frame.slice(4..)))
    }
}
