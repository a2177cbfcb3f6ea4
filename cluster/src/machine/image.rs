//! A machine's state as a stream of records, written and read piece by piece.

use super::{Error, Machine, members::Members};
use crate::codec;
use bytes::BytesMut;
use proto::{
    command::RULES_VERSION,
    control::{self, Control},
    limit::ledger::{self, Bounds, Frozen, Ledger},
};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// A state, frozen: it is written while its machine goes on.
#[derive(Clone, Debug)]
pub struct Image {
    manifest: Manifest,
    head: Head,
    ledger: Frozen,
    control: Control,
}

/// Which state it is: the data of a raft snapshot. The state itself is a file, or a stream of its bytes.
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

    /// Names it.
    pub fn manifest(&self) -> Manifest {
        self.manifest
    }

    /// Writes it, record by record.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut scratch = BytesMut::new();
        let mut put = |piece: &Piece| codec::write_record(out, piece, &mut scratch);
        put(&Piece::Head(self.manifest, self.head.clone()))?;
        for record in self.ledger.records() {
            put(&Piece::Ledger(record))?;
        }
        for record in self.control.records() {
            put(&Piece::Control(record))?;
        }
        put(&Piece::End)
    }
}

impl Machine {
    /// Reads what [`Image::write`] wrote; any bytes are survived. `expected`: only this state will do.
    pub fn read(input: &mut impl Read, bounds: Bounds, expected: Option<Manifest>) -> Result<Self, Error> {
        let mut pieces = Pieces::new(input);
        let Some(Piece::Head(manifest, head)) = pieces.take(|piece| matches!(piece, Piece::Head(..))) else {
            return Err(pieces.error("it does not begin with a head"));
        };
        if head.rules_version > RULES_VERSION {
            return Err(Error::Rules(head.rules_version));
        }
        let records = std::iter::from_fn(|| match pieces.take(|p| matches!(p, Piece::Ledger(_)))? {
            Piece::Ledger(record) => Some(record),
            _ => None,
        });
        let ledger = Ledger::load(bounds, records).map_err(|e| Error::Damaged(e.to_string()))?;
        let records = std::iter::from_fn(|| match pieces.take(|p| matches!(p, Piece::Control(_)))? {
            Piece::Control(record) => Some(record),
            _ => None,
        });
        let control = Control::load(records).map_err(|e| Error::Damaged(e.to_string()))?;
        if pieces.take(|piece| matches!(piece, Piece::End)).is_none() {
            return Err(pieces.error("it does not end"));
        }
        let machine = Self {
            rules_max: RULES_VERSION,
            index: manifest.index,
            cluster: head.cluster,
            rules_version: head.rules_version,
            members: head.members.complete(),
            ledger,
            control,
        };
        if machine.hash() != manifest.hash || expected.is_some_and(|expected| expected != manifest) {
            return Err(pieces.error("it is another state than it says"));
        }
        Ok(machine)
    }
}

/// Records with one looked at ahead.
struct Pieces<'a, R> {
    input: &'a mut R,
    scratch: Vec<u8>,
    next: Option<Piece>,
    failed: Option<io::Error>,
}

impl<'a, R: Read> Pieces<'a, R> {
    fn new(input: &'a mut R) -> Self {
        Self {
            input,
            scratch: Vec::new(),
            next: None,
            failed: None,
        }
    }

    /// The next record, if it is of this kind.
    fn take(&mut self, is_kind: impl Fn(&Piece) -> bool) -> Option<Piece> {
        if self.next.is_none() && self.failed.is_none() {
            match codec::read_record(self.input, &mut self.scratch) {
                Ok(next) => self.next = next,
                Err(error) => self.failed = Some(error),
            }
        }
        self.next.take_if(|piece| is_kind(piece))
    }

    fn error(&self, what: &str) -> Error {
        Error::Damaged(match &self.failed {
            Some(error) => error.to_string(),
            None => what.to_owned(),
        })
    }
}
