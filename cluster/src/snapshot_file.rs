//! SHELL. The machine's state as a file, as it lies on the disk and goes to other voters.
//!
//! ```text
//! "TGSTATE1" · (length u32 LE, > 0 · chunk)* · 0 u32 · SHA-256 of all before it
//! ```
//!
//! The first chunk says what the file is about, in JSON; what the others mean is the machine's business. A file is named by
//! its index, written beside, synced, renamed. An operator's snapshot also holds the identity secret, without which its
//! counters would be nobody's: it is as secret as the data directory.

use crate::{
    disk,
    machine::{Image, Loader, Machine, Manifest},
};
use aws_lc_rs::digest::{self, Context, SHA256};
use proto::limit::ledger::Bounds;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"TGSTATE1";
/// Longest chunk that is read: a resource of the control plane may be larger than a usual one.
const CHUNK_BYTES_MAX: usize = 16 << 20;
const BUFFER_BYTES: usize = 256 << 10;
const ENDING: &str = "state";

/// What a file is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The encoded [`Manifest`].
    manifest: Vec<u8>,
    /// The secret that identities of limits are hashed with; in an operator's snapshot only.
    pub secret: Option<[u8; 16]>,
}

impl About {
    /// Of a state.
    pub fn of(image: &Image, secret: Option<[u8; 16]>) -> Self {
        Self {
            manifest: image.manifest.encode(),
            secret,
        }
    }
}

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(&'static str),
    /// The chunks make no machine.
    #[error(transparent)]
    Machine(#[from] crate::machine::Error),
}

/// Where the state of an index lies.
pub fn path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:020}.{ENDING}"))
}

/// Writes a state's file in a directory; its name is on the disk when this returns.
pub fn write(dir: &Path, image: &Image) -> io::Result<PathBuf> {
    let path = path(dir, image.manifest.index);
    write_to(&path, image, &About::of(image, None))?;
    Ok(path)
}

/// Writes a state's file under a name of the caller's.
pub fn write_to(path: &Path, image: &Image, about: &About) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = disk::create(&beside)?;
    let mut out = Hashed {
        to: BufWriter::with_capacity(BUFFER_BYTES, file),
        hash: Context::new(&SHA256),
    };
    out.write(MAGIC)?;
    let about = serde_json::to_vec(about)?;
    for chunk in std::iter::once(about).chain(image.chunks()) {
        let length = u32::try_from(chunk.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        out.write(&length.to_le_bytes())?;
        out.write(&chunk)?;
    }
    out.write(&0_u32.to_le_bytes())?;
    let Hashed { mut to, hash } = out;
    to.write_all(hash.finish().as_ref())?;
    let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    disk::sync_parent(path)
}

/// Reads the machine that a manifest describes.
pub fn load(path: &Path, manifest: Manifest, bounds: Bounds) -> Result<Machine, LoadError> {
    let (machine, about) = load_any(path, bounds)?;
    if about.manifest != manifest.encode() {
        return Err(LoadError::Damaged("it is another state"));
    }
    Ok(machine)
}

/// Reads the machine that is in a file.
pub fn load_any(path: &Path, bounds: Bounds) -> Result<(Machine, About), LoadError> {
    let mut found: Option<(Loader, About)> = None;
    read(path, |chunk| {
        match &mut found {
            Some((loader, _)) => loader.chunk(chunk)?,
            None => {
                let about: About = serde_json::from_slice(chunk)
                    .map_err(|_| LoadError::Damaged("it does not say what it is about"))?;
                let manifest = Manifest::decode(&about.manifest)?;
                found = Some((Loader::new(manifest, bounds), about));
            }
        }
        Ok(())
    })?;
    let (loader, about) = found.ok_or(LoadError::Damaged("it is empty"))?;
    Ok((loader.finish()?, about))
}

/// Reads a file's chunks, each whole; that the file is whole is known when this returns.
fn read(
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let mut hash = Context::new(&SHA256);
    let mut magic = [0; 8];
    from.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(LoadError::Damaged("it is not a state of Tollgate's"));
    }
    hash.update(&magic);
    let mut chunk = Vec::new();
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        hash.update(&length);
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            break;
        }
        if length > CHUNK_BYTES_MAX {
            return Err(LoadError::Damaged("a chunk is too long"));
        }
        chunk.clear();
        if from.by_ref().take(length as u64).read_to_end(&mut chunk)? < length {
            return Err(LoadError::Damaged("it ends too early"));
        }
        hash.update(&chunk);
        each(&chunk)?;
    }
    let mut said = [0; digest::SHA256_OUTPUT_LEN];
    from.read_exact(&mut said)?;
    if said != hash.finish().as_ref() {
        return Err(LoadError::Damaged("its hash does not fit"));
    }
    Ok(())
}

/// Removes the states in a directory that are older than the newest one, but those to keep, and what was left
/// half-written.
pub fn tidy(dir: &Path, newest: u64, keep: &[u64]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let index: Option<u64> = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let is_state = path.extension().is_some_and(|ending| ending == ENDING);
        let is_half = path.extension().is_some_and(|ending| ending == "new");
        let is_old = index.is_none_or(|index| index < newest && !keep.contains(&index));
        if is_half || (is_state && is_old) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Writes and hashes.
struct Hashed {
    to: BufWriter<File>,
    hash: Context,
}

impl Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.to.write_all(bytes)
    }
}
