//! The log's files as the standard library opens them: close-on-exec, so that no process that the gateway starts (a
//! server on stdio) inherits the ledger. The engine's own files are not.

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use rustix::fs::FallocateFlags;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

/// The engine knows a full disk by this word in the error's text: it then goes on in a new file, once.
const NO_SPACE: &str = "nospace";

/// Opens, renames and deletes the log's files.
pub struct Files;

/// An open file of the log.
pub struct Open(File);

/// An open file, read or written from where one stands.
pub struct Cursor {
    file: Arc<Open>,
    offset: u64,
}

impl FileSystem for Files {
    type Handle = Open;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        // Not truncated: what a file held before is cut where it is reused.
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).open(path).map(Open)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(permission == Permission::ReadWrite);
        options.open(path).map(Open)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn new_reader(&self, file: Arc<Open>) -> io::Result<Cursor> {
        Ok(Cursor { file, offset: 0 })
    }

    fn new_writer(&self, file: Arc<Open>) -> io::Result<Cursor> {
        Ok(Cursor { file, offset: 0 })
    }
}

impl Handle for Open {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.0.set_len(offset as u64)
    }

    fn file_size(&self) -> io::Result<usize> {
        let bytes = self.0.metadata()?.len();
        usize::try_from(bytes).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Read for Cursor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.0.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.0.write_at(bytes, self.offset).map_err(full)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let sought = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => (self.file.file_size()? as u64).checked_add_signed(by),
        };
        self.offset = sought.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(offset)?;
        self.offset = offset as u64;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        let flags = FallocateFlags::empty();
        match rustix::fs::fallocate(&self.file.0, flags, offset as u64, size as u64) {
            // Not every file system can.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(full(error.into())),
        }
    }
}

fn full(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::StorageFull {
        return io::Error::new(error.kind(), format!("{NO_SPACE}: {error}"));
    }
    error
}
