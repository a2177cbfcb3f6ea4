//! A snapshot on its way: a header with raft's message, the file in chunks, its hash. What breaks begins anew.

use super::{SnapshotFile, endpoint::preamble, streams::Reader};
use crate::codec::{self, CHUNK_BYTES, Class, FromPeer};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use quinn::{SendStream, VarInt};
use raft::eraftpb::{Message, MessageType};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

/// How long the other side may say nothing in the midst of a snapshot.
const STALL: Duration = Duration::from_secs(20);
/// How long it may take to read one that has come in.
const LOAD: Duration = Duration::from_secs(120);
/// How the receiver of a snapshot that it could use stops the stream.
pub(super) const TAKEN: VarInt = VarInt::from_u32(1);
/// Files of snapshots that have not come in whole begin with this.
const PREFIX: &str = "incoming-";

/// What comes after the message.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    bytes: u64,
}

/// What comes after the chunks.
#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    sha256: [u8; 32],
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Sends a message and its file.
pub(super) async fn send(mut stream: SendStream, message: &Message, file: &Path) -> io::Result<()> {
    let mut file = File::open(file).await?;
    let bytes = file.metadata().await?.len();
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&preamble(Class::Snapshot));
    codec::put_raft(&mut buffer, message).map_err(invalid)?;
    codec::put(&mut buffer, Class::Snapshot, &Header { bytes }).map_err(invalid)?;
    write(&mut stream, &mut buffer).await?;
    let mut hash = Context::new(&SHA256);
    let mut left = bytes;
    while left > 0 {
        let chunk = left.min(CHUNK_BYTES as u64) as usize;
        let place = codec::put_chunk(&mut buffer, chunk);
        file.read_exact(place).await?;
        hash.update(place);
        write(&mut stream, &mut buffer).await?;
        left -= chunk as u64;
    }
    let sha256 = finish(hash);
    codec::put(&mut buffer, Class::Snapshot, &Trailer { sha256 }).map_err(invalid)?;
    write(&mut stream, &mut buffer).await?;
    // The stream stays open: how the receiver stops it says what became of the snapshot.
    match timeout(LOAD, stream.stopped()).await? {
        Ok(Some(TAKEN)) => Ok(()),
        Ok(_) => Err(invalid("the receiver has no use for it")),
        Err(error) => Err(error.into()),
    }
}

async fn write(stream: &mut SendStream, buffer: &mut BytesMut) -> io::Result<()> {
    let bytes = buffer.split().freeze();
    timeout(STALL, stream.write_chunk(bytes)).await??;
    Ok(())
}

fn finish(hash: Context) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    sha256
}

/// Where snapshots come in, and how large they may be.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) dir: PathBuf,
    pub(super) bytes_max: u64,
}

impl Inbox {
    /// Takes away what an earlier run left behind.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Takes in one snapshot. Who has it in hand is done when the last value comes or its sender goes.
    pub(super) async fn receive(
        &self,
        reader: &mut Reader,
        number: u64,
    ) -> io::Result<(Message, SnapshotFile, oneshot::Receiver<()>)> {
        let message = match codec::take_peer(&next(reader).await?).map_err(invalid)? {
            FromPeer::Raft(message) if message.get_msg_type() == MessageType::MsgSnapshot => {
                message
            }
            _ => return Err(invalid("not a snapshot's message")),
        };
        let Header { bytes } = codec::decode(&next(reader).await?).map_err(invalid)?;
        if bytes > self.bytes_max {
            return Err(invalid(format!(
                "{bytes} bytes, {} allowed",
                self.bytes_max
            )));
        }
        // From here on the file goes with this value, whatever happens.
        let (_done, done) = oneshot::channel();
        let mut snapshot = SnapshotFile {
            path: self.dir.join(format!("{PREFIX}{number}")),
            bytes,
            sha256: [0; 32],
            _done,
        };
        // Made here and now: made behind our back, it could appear after this value has gone.
        let file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&snapshot.path)?;
        let mut file = File::from_std(file);
        let mut hash = Context::new(&SHA256);
        let mut left = bytes;
        while left > 0 {
            let frame = next(reader).await?;
            let chunk = codec::take_chunk(&frame).map_err(invalid)?;
            left = match left.checked_sub(chunk.len() as u64) {
                Some(left) if !chunk.is_empty() => left,
                _ => return Err(invalid("chunks of another size than announced")),
            };
            hash.update(chunk);
            file.write_all(chunk).await?;
        }
        let Trailer { sha256 } = codec::decode(&next(reader).await?).map_err(invalid)?;
        snapshot.sha256 = finish(hash);
        if snapshot.sha256 != sha256 {
            return Err(invalid("its hash is another one"));
        }
        file.sync_all().await?;
        Ok((*message, snapshot, done))
    }
}

async fn next(reader: &mut Reader) -> io::Result<Bytes> {
    match timeout(STALL, reader.next()).await? {
        Ok(Some((frame, _))) => Ok(frame),
        Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
