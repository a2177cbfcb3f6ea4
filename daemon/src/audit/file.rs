//! The file sink: append, rotate, keep disk free, and never write into a file that is no longer there.

use super::{FileSettings, batch::Batch, closed::Closed, sink};
use anyhow::Context as _;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::UNIX_EPOCH,
};

/// How often the file system's free space, and whether the path still leads to the open file, are looked at, ms.
const CHECK_MS: u64 = 1_000;
/// How long a rotation that failed is left alone, ms; lines go on into the open file.
const ROTATE_RETRY_MS: u64 = 60_000;

/// Free bytes of a path's file system, as an unprivileged writer sees them.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Asks for the free bytes of a path's file system; tests give their own.
pub(super) type FreeBytes = Box<dyn FnMut(&Path) -> io::Result<u64> + Send>;

/// The file sink.
pub(super) struct FileSink {
    settings: FileSettings,
    closed: Closed,
    free: FreeBytes,
    /// `None` after an open that failed: it is tried again with the next line.
    open: Option<Open>,
    next_check_ms: u64,
    next_rotate_ms: u64,
    /// Below `min_free` while nothing may be removed.
    short: bool,
}

struct Open {
    file: File,
    bytes: u64,
    born_ms: u64,
}

impl FileSink {
    /// Opens the file, makes it if need be. Errors: no directory, no right, no regular file, another writer.
    pub(super) fn open(
        settings: FileSettings,
        free: impl FnMut(&Path) -> io::Result<u64> + Send + 'static,
        unix_ms: u64,
    ) -> anyhow::Result<Self> {
        let path = &settings.path;
        let open = Open::append(path, unix_ms)
            .with_context(|| format!("audit: {} cannot be opened", path.display()))?;
        let mut sink = Self {
            closed: Closed::beside(path),
            free: Box::new(free),
            open: Some(open),
            next_check_ms: 0,
            next_rotate_ms: 0,
            short: false,
            settings,
        };
        sink.check(unix_ms);
        Ok(sink)
    }

    fn is_due(&self, open: &Open, next_line: u64, unix_ms: u64) -> bool {
        let too_long = open.bytes.saturating_add(next_line) > self.settings.rotate_bytes;
        let age = self.settings.rotate_age.map(|age| age.as_millis() as u64);
        let too_old = age.is_some_and(|age| unix_ms.saturating_sub(open.born_ms) >= age);
        open.bytes > 0 && (too_long || too_old) && unix_ms >= self.next_rotate_ms
    }

    /// Closes the file under a name of its own and opens a new one. Whatever fails, lines have somewhere to go.
    fn rotate(&mut self, unix_ms: u64) {
        let Some(open) = &self.open else { return };
        let moved = open
            .file
            .sync_data()
            .and_then(|()| self.closed.take_in(&self.settings.path, unix_ms));
        if let Err(error) = moved {
            tracing::warn!(%error, "audit: the file cannot be rotated");
            self.next_rotate_ms = unix_ms.saturating_add(ROTATE_RETRY_MS);
            return;
        }
        self.open = None;
        if !self.settings.retain_required {
            self.closed.keep_newest(self.settings.keep);
        }
    }

    fn ensure_open(&mut self, unix_ms: u64) -> io::Result<&mut Open> {
        match &mut self.open {
            Some(open) => Ok(open),
            none => Ok(none.insert(Open::append(&self.settings.path, unix_ms)?)),
        }
    }

    /// Looks at the disk and at the path.
    fn check(&mut self, unix_ms: u64) {
        self.next_check_ms = unix_ms.saturating_add(CHECK_MS);
        let moved = |open: &Open| !open.is_at(&self.settings.path);
        if self.open.as_ref().is_some_and(moved) {
            self.open = None;
        }
        if self.settings.min_free > 0 {
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        let directory = self.closed.directory().to_owned();
        let mut is_short = || match (self.free)(&directory) {
            Ok(free) => free < self.settings.min_free,
            Err(error) => {
                tracing::warn!(%error, "audit: the free space cannot be read");
                false
            }
        };
        if self.settings.retain_required {
            self.short = is_short();
            return;
        }
        while is_short() {
            if !self.closed.remove_oldest() {
                tracing::warn!("audit: less than min_free is left and no closed file to remove");
                return;
            }
        }
    }
}

impl sink::Out for FileSink {
    fn write(&mut self, batch: &mut Batch, unix_ms: u64) -> io::Result<()> {
        if unix_ms >= self.next_check_ms {
            self.check(unix_ms);
        }
        while !batch.is_empty() {
            if self.open.is_none() {
                // The rest of a line must not stand at the start of a file.
                batch.rewind();
            }
            let next_line = batch.line().map_or(0, |line| line.len() as u64 + 1);
            self.ensure_open(unix_ms)?;
            let due = self
                .open
                .as_ref()
                .is_some_and(|open| self.is_due(open, next_line, unix_ms));
            if due && batch.at_line_start() {
                self.rotate(unix_ms);
            }
            let rotate_bytes = self.settings.rotate_bytes;
            let open = self.ensure_open(unix_ms)?;
            let room = rotate_bytes.saturating_sub(open.bytes);
            open.bytes += sink::write_some(&mut open.file, batch, room)? as u64;
        }
        Ok(())
    }

    fn tick(&mut self, unix_ms: u64) -> bool {
        if unix_ms >= self.next_check_ms {
            self.check(unix_ms);
            let due = |open: &Open| self.is_due(open, 0, unix_ms);
            if self.open.as_ref().is_some_and(due) {
                self.rotate(unix_ms);
            }
        }
        !self.short
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn sync(&mut self) -> io::Result<()> {
        self.open
            .as_ref()
            .map_or(Ok(()), |open| open.file.sync_all())
    }
}

impl Open {
    fn append(path: &Path, unix_ms: u64) -> io::Result<Self> {
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process writes to it"));
            }
            // A file system without locks is no reason not to write.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let found = file.metadata()?;
        let mut bytes = found.len();
        if ends_inside_a_line(&mut file, bytes)? {
            // An earlier process ended in the middle of a line.
            io::Write::write_all(&mut file, b"\n")?;
            bytes += 1;
        }
        let born = found.created().or_else(|_| found.modified()).ok();
        let born_ms = born
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .map_or(unix_ms, |d| d.as_millis() as u64);
        let born_ms = if bytes == 0 { unix_ms } else { born_ms };
        Ok(Self {
            file,
            bytes,
            born_ms,
        })
    }

    fn is_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), path.metadata()) {
            (Ok(open), Ok(found)) => open.dev() == found.dev() && open.ino() == found.ino(),
            _ => false,
        }
    }
}

fn ends_inside_a_line(file: &mut File, bytes: u64) -> io::Result<bool> {
    if bytes == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(bytes - 1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests;
