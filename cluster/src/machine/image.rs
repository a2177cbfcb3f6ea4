//! A machine's state as chunks of records, each chunk made when it is wanted.

use super::{Error, Machine, members::Members};
use crate::codec;
use bytes::BytesMut;
use proto::{
    command::RULES_VERSION,
    control::{self, Control},
    limit::ledger::{self, Bounds, Frozen, Ledger},
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of one chunk of an [`Image`], unless one record alone is larger.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A state, frozen: its chunks are made while its machine goes on, and read back by a [`Loader`].
#[derive(Clone, Debug)]
pub struct Image {
    /// Names it.
    pub manifest: Manifest,
    head: Head,
    ledger: Frozen,
    control: Control,
}

/// Which state it is: the data of a raft snapshot. The state itself is a file of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The last index that is in it.
    pub index: u64,
    /// Its hash, as [`Machine::hash`].
    pub hash: u64,
}

/// What is written of a machine before ledger and control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    cluster: u128,
    rules_version: u32,
    members: Members,
}

/// One record of the stream.
#[derive(Serialize, Deserialize)]
enum Piece {
    Head(Manifest, Head),
    Ledger(ledger::Record),
    Control(control::Record),
    End,
}

impl Manifest {
    /// As a snapshot's data.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self, 64).unwrap_or_default()
    }
    /// From a snapshot's data, a peer's or the log's.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        codec::decode(bytes).map_err(|error| Error::Damaged(error.to_string()))
    }
}

impl Image {
    pub(super) fn new(machine: &Machine) -> Self {
        Self {
            manifest: Manifest {
                index: machine.index,
                hash: machine.hash(),
            },
            head: Head {
                cluster: machine.cluster,
                rules_version: machine.rules_version,
                members: machine.members.clone(),
            },
            ledger: machine.ledger.freeze(),
            control: machine.control.clone(),
        }
    }

    /// The chunks in order, each made when it is asked for.
    pub fn chunks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let head = std::iter::once(Piece::Head(self.manifest, self.head.clone()));
        let ledger = self.ledger.records().map(Piece::Ledger);
        let control = self.control.records().map(Piece::Control);
        let pieces = head.chain(ledger).chain(control);
        let mut pieces = pieces.chain(std::iter::once(Piece::End));
        let mut scratch = BytesMut::new();
        std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            while chunk.len() < CHUNK_BYTES {
                let Some(piece) = pieces.next() else { break };
                // Writing to memory fails for the size alone, which the owners of records keep within bounds; a chunk
                // that lacked one would be refused when it is read.
                if codec::write_record(&mut chunk, &piece, &mut scratch).is_err() {
                    return None;
                }
            }
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

/// Puts an image's chunks together again.
pub struct Loader {
    manifest: Manifest,
    bounds: Bounds,
    rules_max: u32,
    chunks: Vec<Vec<u8>>,
}

impl Loader {
    /// For the image that the manifest describes.
    pub fn new(manifest: Manifest, bounds: Bounds) -> Self {
        Self {
            manifest,
            bounds,
            rules_max: RULES_VERSION,
            chunks: Vec::new(),
        }
    }

    /// With other rules than this build's as the highest that are known: for tests of upgrades.
    pub fn knowing(self, rules_max: u32) -> Self {
        Self { rules_max, ..self }
    }

    /// The next chunk; any bytes are survived.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.chunks.push(bytes.to_vec());
        Ok(())
    }

    /// The machine, if every chunk came and the hash is as promised.
    pub fn finish(self) -> Result<Machine, Error> {
        let mut pieces = Pieces {
            chunks: self.chunks.into_iter(),
            chunk: Vec::new().into(),
            scratch: Vec::new(),
            next: None,
            failed: None,
        };
        let Some(Piece::Head(manifest, head)) = pieces.take(|p| matches!(p, Piece::Head(..)))
        else {
            return Err(pieces.error("it does not begin with a head"));
        };
        if head.rules_version > self.rules_max {
            return Err(Error::Rules(head.rules_version));
        }
        let records =
            std::iter::from_fn(|| match pieces.take(|p| matches!(p, Piece::Ledger(_)))? {
                Piece::Ledger(record) => Some(record),
                _ => None,
            });
        let ledger = Ledger::load(self.bounds, records);
        let ledger = ledger.map_err(|error| Error::Damaged(error.to_string()))?;
        let records =
            std::iter::from_fn(|| match pieces.take(|p| matches!(p, Piece::Control(_)))? {
                Piece::Control(record) => Some(record),
                _ => None,
            });
        let control = Control::load(records);
        let control = control.map_err(|error| Error::Damaged(error.to_string()))?;
        if pieces.take(|piece| matches!(piece, Piece::End)).is_none() {
            return Err(pieces.error("it does not end"));
        }
        let machine = Machine {
            rules_max: self.rules_max,
            index: manifest.index,
            cluster: head.cluster,
            rules_version: head.rules_version,
            members: head.members,
            ledger,
            control,
        };
        if machine.hash() != manifest.hash || self.manifest != manifest {
            return Err(pieces.error("it is another state than was promised"));
        }
        Ok(machine)
    }
}

/// Records with one looked at ahead.
struct Pieces {
    chunks: std::vec::IntoIter<Vec<u8>>,
    chunk: VecDeque<u8>,
    scratch: Vec<u8>,
    next: Option<Piece>,
    failed: Option<String>,
}

impl Pieces {
    /// The next record, if it is of this kind.
    fn take(&mut self, is_kind: impl Fn(&Piece) -> bool) -> Option<Piece> {
        while self.next.is_none() && self.failed.is_none() {
            match codec::read_record(&mut self.chunk, &mut self.scratch) {
                Ok(Some(piece)) => self.next = Some(piece),
                Ok(None) => self.chunk = self.chunks.next()?.into(),
                Err(error) => self.failed = Some(error.to_string()),
            }
        }
        self.next.take_if(|piece| is_kind(piece))
    }

    fn error(&self, what: &str) -> Error {
        Error::Damaged(self.failed.clone().unwrap_or_else(|| what.to_owned()))
    }
}
