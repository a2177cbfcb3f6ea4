//! The encoding of everything that leaves this process or its memory: what nodes say to each other, and what lies in the
//! log and in snapshots. The only place that names bincode.
//!
//! A frame is `length u32 LE | version u8 | body`, the length counting version and body. Bodies are bincode: integers as
//! little-endian varints, fields in the order of their declaration, so **any change of a type that is encoded here is a
//! change of the version** (a test holds the bytes). Raft's messages go through mirrors of their own (`raft.rs`): a peer's
//! bytes never reach protobuf.

mod frames;
#[cfg(test)]
mod golden;
mod raft;
#[cfg(test)]
mod tests;

pub use frames::Frames;

use crate::wire::{DEFINITIONS_MAX, Extra, Push, RETURNS_MAX, ROWS_MAX, Request, Response};
use ::raft::eraftpb::Message;
use bincode::{
    config::{Configuration, Limit, LittleEndian, Varint},
    enc::write::Writer,
    error::EncodeError,
};
use bytes::{Bytes, BytesMut};
use proto::{
    command::{BATCH_BYTES_MAX, Batch, COMMANDS_MAX},
    control::BODY_BYTES_MAX,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// The version of every body. Peers of another one are not understood.
pub const VERSION: u8 = 1;
/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 5;
/// Longest encoded batch, bytes: full of small commands, or one control-plane command with its document.
pub const BATCH_ENCODED_MAX: usize = BODY_BYTES_MAX + BATCH_BYTES_MAX;
/// Bytes of one chunk of a snapshot on its way.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Decoding counts integers at their full width and may allocate as much for a text before it sees that it is not there.
const MEMORY_MAX: usize = 64 << 20;
const CONFIG: Configuration<LittleEndian, Varint, Limit<MEMORY_MAX>> =
    bincode::config::standard().with_limit::<MEMORY_MAX>();

/// What a stream carries, and so how long its frames may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Votes, heartbeats, answers to appends, [`Extra`].
    Beat,
    /// Entries.
    Append,
    /// A snapshot in chunks.
    Snapshot,
    /// Requests.
    Request,
    /// Responses and pushes.
    Answer,
    /// Joining.
    Join,
}

impl Class {
    /// Longest frame, bytes, without its length.
    pub const fn bytes_max(self) -> usize {
        match self {
            Class::Beat | Class::Join => 64 << 10,
            // `max_size_per_msg` and one entry that alone is larger.
            Class::Append => (1 << 20) + BATCH_ENCODED_MAX + (64 << 10),
            Class::Snapshot => CHUNK_BYTES + (64 << 10),
            Class::Request => BODY_BYTES_MAX + (64 << 10),
            Class::Answer => 2 * BODY_BYTES_MAX,
        }
    }

    /// The byte that opens a stream.
    pub const fn byte(self) -> u8 {
        match self {
            Class::Beat => b'B',
            Class::Append => b'A',
            Class::Snapshot => b'S',
            Class::Request => b'Q',
            Class::Answer => b'R',
            Class::Join => b'J',
        }
    }
}

/// Why bytes were not understood, or not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than its class may be.
    #[error("too large")]
    TooLarge,
    /// Another version.
    #[error("version {0} is not known here")]
    Version(u8),
    /// Not what it should be.
    #[error("unreadable: {0}")]
    Unreadable(String),
}

impl From<bincode::error::DecodeError> for Error {
    fn from(error: bincode::error::DecodeError) -> Self {
        Error::Unreadable(error.to_string())
    }
}
impl From<EncodeError> for Error {
    fn from(_: EncodeError) -> Self {
        // A writer here fails for its bound alone, and the types that are encoded have nothing that cannot be.
        Error::TooLarge
    }
}

/// What voters say to each other.
#[derive(Debug)]
pub enum FromPeer {
    /// Raft.
    Raft(Box<Message>),
    /// The rest.
    Extra(Extra),
}

/// What a voter says to an asker.
#[derive(Debug, Deserialize)]
pub enum FromVoter {
    /// An answer.
    Response(u64, Response),
    /// By itself.
    Push(Push),
}

/// As [`FromVoter`], to be written.
#[derive(Debug, Serialize)]
pub enum ToAsker<'a> {
    /// An answer.
    Response(u64, &'a Response),
    /// By itself.
    Push(&'a Push),
}

/// On which stream a raft message goes.
pub fn class_of(message: &Message) -> Class {
    use ::raft::eraftpb::MessageType::*;
    match message.get_msg_type() {
        MsgAppend | MsgPropose => Class::Append,
        MsgSnapshot => Class::Snapshot,
        _ => Class::Beat,
    }
}

/// Appends a frame with a raft message.
pub fn put_raft(buffer: &mut BytesMut, message: &Message) -> Result<(), Error> {
    put(
        buffer,
        class_of(message),
        &raft::Peer::Raft(raft::mirror(message)?),
    )
}

/// Appends a frame with what voters say beside Raft.
pub fn put_extra(buffer: &mut BytesMut, extra: &Extra) -> Result<(), Error> {
    put(buffer, Class::Beat, &raft::Peer::Extra(*extra))
}

/// Reads a frame that [`put_raft`] or [`put_extra`] wrote. Entries share the frame's memory.
pub fn take_peer(frame: &Bytes) -> Result<FromPeer, Error> {
    Ok(match take(frame)? {
        raft::Peer::Raft(mirror) => FromPeer::Raft(Box::new(raft::message(mirror, frame)?)),
        raft::Peer::Extra(extra) => FromPeer::Extra(extra),
    })
}

/// Appends a frame with a request.
pub fn put_request(buffer: &mut BytesMut, id: u64, request: &Request) -> Result<(), Error> {
    put(buffer, Class::Request, &(id, request))
}

/// Reads a frame that [`put_request`] wrote.
pub fn take_request(frame: &[u8]) -> Result<(u64, Request), Error> {
    let (id, request): (u64, Request) = take(frame)?;
    let within = match &request {
        Request::Return { returns, .. } => returns.len() <= RETURNS_MAX,
        Request::Define { definitions, .. } => definitions.len() <= DEFINITIONS_MAX,
        Request::Counters(counters) => counters.most <= ROWS_MAX,
        _ => true,
    };
    within.then_some((id, request)).ok_or(Error::TooLarge)
}

/// Appends a frame with a response or a push.
pub fn put_answer(buffer: &mut BytesMut, answer: &ToAsker<'_>) -> Result<(), Error> {
    put(buffer, Class::Answer, answer)
}

/// Reads a frame that [`put_answer`] wrote.
pub fn take_answer(frame: &[u8]) -> Result<FromVoter, Error> {
    take(frame)
}

/// A batch as it lies in the log.
pub fn encode_batch(batch: &Batch) -> Result<Vec<u8>, Error> {
    encode(batch, BATCH_ENCODED_MAX)
}

/// Reads what [`encode_batch`] wrote.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, Error> {
    let batch: Batch = decode(bytes)?;
    if batch.commands.len() > COMMANDS_MAX {
        return Err(Error::TooLarge);
    }
    Ok(batch)
}

/// A value with its version, at most this many bytes.
pub fn encode<T: Serialize>(value: &T, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = BytesMut::with_capacity(256);
    body(&mut bytes, value, bytes_max)?;
    Ok(bytes.into())
}

/// Reads what [`encode`] wrote; all of it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    take(bytes)
}

/// How many bytes a value takes in a body.
pub fn encoded_bytes<T: Serialize>(value: &T) -> usize {
    struct Count(usize);
    impl Writer for Count {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail; if encoding does, nothing that large is ever sent.
    match bincode::serde::encode_into_writer(value, &mut count, CONFIG) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// Writes one record of a snapshot: a frame of at most [`BATCH_ENCODED_MAX`] bytes. `scratch` is reused memory.
pub fn write_record<T: Serialize>(
    out: &mut impl Write,
    value: &T,
    scratch: &mut BytesMut,
) -> io::Result<()> {
    scratch.clear();
    frame(scratch, BATCH_ENCODED_MAX, value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    out.write_all(scratch)
}

/// Reads the next record that [`write_record`] wrote; `None` at the end.
pub fn read_record<T: DeserializeOwned>(
    input: &mut impl Read,
    scratch: &mut Vec<u8>,
) -> io::Result<Option<T>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut length = [0; 4];
    match input.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => input.read_exact(&mut length[1..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > BATCH_ENCODED_MAX {
        return Err(invalid(Error::TooLarge));
    }
    scratch.clear();
    // As much as is there: a length that lies costs nothing.
    if input.by_ref().take(length as u64).read_to_end(scratch)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    take(scratch).map(Some).map_err(invalid)
}

/// Appends a frame of so many bytes as they are, at most [`CHUNK_BYTES`], and gives the place where they belong.
pub(crate) fn put_chunk(buffer: &mut BytesMut, bytes: usize) -> &mut [u8] {
    buffer.extend_from_slice(&(1 + bytes as u32).to_le_bytes());
    buffer.extend_from_slice(&[VERSION]);
    let start = buffer.len();
    buffer.resize(start + bytes, 0);
    &mut buffer[start..]
}

/// The bytes of a frame that [`put_chunk`] made.
pub(crate) fn take_chunk(frame: &[u8]) -> Result<&[u8], Error> {
    match frame.split_first() {
        Some((&VERSION, bytes)) => Ok(bytes),
        Some((version, _)) => Err(Error::Version(*version)),
        None => Err(Error::TooLarge),
    }
}

/// Appends a frame of a class; on an error nothing is appended.
pub(crate) fn put<T: Serialize>(
    buffer: &mut BytesMut,
    class: Class,
    value: &T,
) -> Result<(), Error> {
    frame(buffer, class.bytes_max(), value)
}

/// Reads a frame's content, from the version on.
pub(crate) fn take<'a, T: Deserialize<'a>>(frame: &'a [u8]) -> Result<T, Error> {
    let (version, body) = frame.split_first().ok_or(Error::TooLarge)?;
    if *version != VERSION {
        return Err(Error::Version(*version));
    }
    let (value, read) = bincode::serde::borrow_decode_from_slice(body, CONFIG)?;
    if read != body.len() {
        return Err(Error::Unreadable("bytes are left over".to_owned()));
    }
    Ok(value)
}

fn frame<T: Serialize>(buffer: &mut BytesMut, bytes_max: usize, value: &T) -> Result<(), Error> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    if let Err(error) = body(buffer, value, bytes_max) {
        buffer.truncate(start);
        return Err(error);
    }
    let length = (buffer.len() - start - 4) as u32;
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Version and content.
fn body<T: Serialize>(buffer: &mut BytesMut, value: &T, bytes_max: usize) -> Result<(), Error> {
    struct Bounded<'a> {
        buffer: &'a mut BytesMut,
        end: usize,
    }
    impl Writer for Bounded<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            if self.buffer.len().saturating_add(bytes.len()) > self.end {
                return Err(EncodeError::Other("too large"));
            }
            self.buffer.extend_from_slice(bytes);
            Ok(())
        }
    }
    let end = buffer.len().saturating_add(bytes_max);
    buffer.extend_from_slice(&[VERSION]);
    bincode::serde::encode_into_writer(value, Bounded { buffer, end }, CONFIG)?;
    Ok(())
}
