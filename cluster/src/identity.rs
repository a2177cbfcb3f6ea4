//! Who this node is: its data directory, the identity in it, and the nonce of each start.
//!
//! ```text
//! data_dir/       0700 when made here; one process at a time (flock on `lock`)
//!   identity      0600: cluster, node, name, role, address, voters, identity secret, certificates, key
//!   nonce         how often the node was started: a session of an older start never becomes current
//!   ca.key        0600, only where `tollgate cluster init` ran
//!   log/          raft-engine (voters)
//!   snapshots/    the machine's state (voters)
//! ```
//!
//! `identity` and `nonce` are one line with the SHA-256 of what follows, then JSON. They are replaced as a whole.

use crate::{disk, handle::OpenError};
use aws_lc_rs::{digest, rand};
use proto::{
    command::{NodeId, Role},
    limit::HashKey,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The first word of both files.
const MAGIC: &str = "tollgate-1";
/// Longest identity file, bytes.
const BYTES_MAX: u64 = 1 << 20;
/// Most bytes of a name for people.
pub const NAME_BYTES_MAX: usize = 64;
/// What to do about damage.
const REMEDY: &str = "restore the file from a backup, or remove this node from the cluster, \
    empty the directory and join again (a node that is alone: `tollgate cluster restore`)";

/// Who a node is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The cluster; every handshake checks it.
    #[serde(with = "hex")]
    pub cluster: u128,
    /// The node, never 0.
    #[serde(with = "hex")]
    pub node: NodeId,
    /// For people.
    pub name: String,
    /// What it joined as.
    pub role: Role,
    /// `host:port` where voters reach it; empty: nowhere.
    pub address: String,
    /// Voters as last known, this one among them where it votes.
    pub voters: BTreeMap<String, String>,
    /// The secret that identities of limits are hashed with, unless the configuration overrides it.
    #[serde(with = "hex")]
    pub secret: [u8; 16],
    /// How far a voter's log is.
    pub log: LogState,
    /// The node that has the key of the cluster's authority, where that is known.
    pub authority: Option<NodeId>,
    /// What it proves itself with to other nodes; `None`: it is alone and was never made ready for others.
    pub tls: Option<Certificates>,
}

/// How far a voter's log is. A log that was begun and is empty is damage: the node would vote a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// The node begins a cluster: the first start writes its first state.
    Founds,
    /// The node joined: the first start begins an empty log. Of lease clients always.
    Joins,
    /// There is one.
    Begun,
}

/// PEM texts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// The cluster's authority.
    pub ca: String,
    /// The node's certificate.
    pub certificate: String,
    /// The node's private key, PKCS #8.
    pub key: String,
}

impl fmt::Debug for Identity {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &format_args!("{:032x}", self.cluster))
            .field("node", &format_args!("{:016x}", self.node.0))
            .field("name", &self.name)
            .field("role", &self.role)
            .field("address", &self.address)
            .field("voters", &self.voters)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// A new cluster's first voter, alone.
    pub fn alone(name: &str, address: &str) -> Self {
        let node = new_node();
        let mut identity = Self {
            cluster: u128::from_le_bytes(random()),
            node,
            name: name.to_owned(),
            role: Role::Voter,
            address: address.to_owned(),
            voters: BTreeMap::new(),
            secret: random(),
            log: LogState::Founds,
            authority: None,
            tls: None,
        };
        identity.set_voters([(node, address.to_owned())]);
        identity
    }

    /// The secret as limits use it.
    pub fn secret(&self) -> HashKey {
        HashKey(self.secret)
    }

    /// Voters as last known.
    pub fn voters(&self) -> BTreeMap<NodeId, String> {
        let known = self.voters.iter();
        known
            .filter_map(|(node, address)| {
                let node = u64::from_str_radix(node, 16).ok()?;
                Some((NodeId(node), address.clone()))
            })
            .collect()
    }

    /// Notes the voters.
    pub fn set_voters(&mut self, voters: impl IntoIterator<Item = (NodeId, String)>) {
        let named = voters
            .into_iter()
            .map(|(node, address)| (format!("{:016x}", node.0), address));
        self.voters = named.collect();
    }
}

/// A node id that was never used: random, not 0.
pub fn new_node() -> NodeId {
    NodeId(u64::from_le_bytes(random()).max(1))
}

/// Bytes from the system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("invariant: the system's random generator answers");
    bytes
}

/// Who the node of a directory is, without taking hold of the directory: for its secret before it is opened.
pub fn peek(dir: &Path) -> Result<Option<Identity>, OpenError> {
    read(&dir.join("identity"))
}

/// A node's data directory, held by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes hold of a directory, made with mode 0700 if it is missing. One process at a time.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        disk::make_dir(path).map_err(disk::at(path))?;
        let meta = fs::metadata(path).map_err(disk::at(path))?;
        if meta.mode() & 0o022 != 0 {
            return Err(OpenError::Public {
                path: path.to_owned(),
                mode: 0o700,
            });
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(disk::at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(disk::at(&lock_path)(error)),
        }
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory of the log.
    pub fn log_dir(&self) -> PathBuf {
        self.path("log")
    }

    /// The directory of snapshots.
    pub fn snapshot_dir(&self) -> PathBuf {
        self.path("snapshots")
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// Who the node is; `None`: it is nobody yet. A log without an identity is damage, not a new node.
    pub fn identity(&self) -> Result<Option<Identity>, OpenError> {
        let path = self.path("identity");
        let Some(identity) = read::<Identity>(&path)? else {
            if self.log_dir().exists() {
                return Err(damaged(&path, "there is a log, but no identity"));
            }
            return Ok(None);
        };
        if identity.node == NodeId(0) {
            return Err(damaged(&path, "the node id is 0"));
        }
        Ok(Some(identity))
    }

    /// Writes who the node is.
    pub fn save(&self, identity: &Identity) -> Result<(), OpenError> {
        let nonce = self.path("nonce");
        if !nonce.exists() {
            write(&nonce, &0_u64)?;
        }
        write(&self.path("identity"), identity)
    }

    /// Counts a start: greater than at every start before, on the disk before it is answered. Of a saved identity.
    pub fn next_nonce(&self) -> Result<u64, OpenError> {
        let path = self.path("nonce");
        let last: u64 = read(&path)?.ok_or_else(|| damaged(&path, "it is missing"))?;
        let next = last
            .checked_add(1)
            .ok_or_else(|| damaged(&path, "it is at its end"))?;
        write(&path, &next)?;
        Ok(next)
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), OpenError> {
    let json = serde_json::to_vec_pretty(value)
        .map_err(io::Error::from)
        .map_err(disk::at(path))?;
    let head = format!("{MAGIC} {}\n", sha256_hex(&json));
    disk::replace(path, &[head.as_bytes(), &json, b"\n"]).map_err(disk::at(path))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, OpenError> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk::at(path)(error)),
    };
    if meta.mode() & 0o077 != 0 {
        return Err(OpenError::Public {
            path: path.to_owned(),
            mode: 0o600,
        });
    }
    if meta.len() > BYTES_MAX {
        return Err(damaged(path, "it is too long"));
    }
    let text = fs::read_to_string(path).map_err(disk::at(path))?;
    let (head, json) = text
        .split_once('\n')
        .ok_or_else(|| damaged(path, "it has no first line"))?;
    let hash = head
        .strip_prefix(MAGIC)
        .ok_or_else(|| damaged(path, "it was not written by this version"))?;
    let json = json.trim_end();
    if hash.trim() != sha256_hex(json.as_bytes()) {
        return Err(damaged(path, "its hash does not fit"));
    }
    serde_json::from_str(json)
        .map(Some)
        .map_err(|error| damaged(path, &error.to_string()))
}

fn damaged(path: &Path, why: &str) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        why: why.to_owned(),
        remedy: REMEDY,
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Numbers and bytes as hexadecimal text.
mod hex {
    use super::NodeId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) trait Hex: Sized {
        fn text(&self) -> String;
        fn parse(text: &str) -> Option<Self>;
    }
    impl Hex for u128 {
        fn text(&self) -> String {
            format!("{self:032x}")
        }
        fn parse(text: &str) -> Option<Self> {
            u128::from_str_radix(text, 16).ok()
        }
    }
    impl Hex for NodeId {
        fn text(&self) -> String {
            format!("{:016x}", self.0)
        }
        fn parse(text: &str) -> Option<Self> {
            u64::from_str_radix(text, 16).ok().map(NodeId)
        }
    }
    impl Hex for [u8; 16] {
        fn text(&self) -> String {
            u128::from_be_bytes(*self).text()
        }
        fn parse(text: &str) -> Option<Self> {
            u128::parse(text).map(u128::to_be_bytes)
        }
    }

    pub(super) fn serialize<S: Serializer>(value: &impl Hex, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.text())
    }
    pub(super) fn deserialize<'de, T: Hex, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        T::parse(&text).ok_or_else(|| D::Error::custom("expected a hexadecimal number"))
    }
}

#[cfg(test)]
mod tests;
