//! Closed files: `<path>.<time>` beside the open one, oldest removed first. Nothing else is ever touched.

use proto::time::rfc3339;
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Shape of the time in a closed file's name, `0` for any digit.
const SHAPE: &[u8] = b"00000000T000000.000Z";

/// The closed files of one audit file.
pub(super) struct Closed {
    directory: PathBuf,
    /// Name of the open file and a dot.
    prefix: OsString,
}

impl Closed {
    pub(super) fn beside(path: &Path) -> Self {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        Self {
            directory: parent.unwrap_or(Path::new(".")).to_owned(),
            prefix,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Renames the open file to the first free name from this time on.
    pub(super) fn take_in(&self, open: &Path, unix_ms: u64) -> io::Result<()> {
        let mut at_ms = unix_ms;
        while self.name(at_ms).try_exists()? {
            at_ms += 1;
        }
        fs::rename(open, self.name(at_ms))?;
        // The new name survives a power cut where the file system lets directories be synced.
        let _ = File::open(&self.directory).and_then(|directory| directory.sync_all());
        Ok(())
    }

    /// Removes all but the newest `keep`.
    pub(super) fn keep_newest(&self, keep: usize) {
        let Ok(files) = self.list() else { return };
        for file in files.iter().take(files.len().saturating_sub(keep)) {
            remove(file);
        }
    }

    /// Removes the oldest; whether there was one and it could be.
    pub(super) fn remove_oldest(&self) -> bool {
        let files = self.list().unwrap_or_default();
        files.first().is_some_and(|file| remove(file))
    }

    /// Oldest first.
    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| self.is_closed_file(path))
            .collect();
        files.sort();
        Ok(files)
    }

    fn name(&self, unix_ms: u64) -> PathBuf {
        let mut name = self.prefix.clone();
        name.push(rfc3339(unix_ms).replace(['-', ':'], ""));
        self.directory.join(name)
    }

    fn is_closed_file(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let Some(time) = name.strip_prefix(self.prefix.as_encoded_bytes()) else {
            return false;
        };
        let fits = |(byte, shape): (&u8, &u8)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        };
        time.len() == SHAPE.len() && time.iter().zip(SHAPE).all(fits)
    }
}

fn remove(file: &Path) -> bool {
    match fs::remove_file(file) {
        Ok(()) => {
            tracing::info!(file = %file.display(), "audit: a closed file was removed");
            true
        }
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "audit: a closed file cannot be removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_the_exact_shape_of_a_name_are_ever_removed() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("audit.jsonl");
        let closed = Closed::beside(&open);
        let others = [
            "audit.jsonl",
            "audit.jsonl.1",
            "audit.jsonl.20260728T092000.125Z.gz",
            "audit.jsonl.2026x728T092000.125Z",
            "other.jsonl.20260728T092000.125Z",
        ];
        for name in others {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert!(!closed.remove_oldest());
        for at_ms in [1_785_230_400_125, 1_785_230_400_125, 1_785_230_399_000] {
            fs::write(&open, "x").unwrap();
            closed.take_in(&open, at_ms).unwrap();
        }
        let names = |closed: &Closed| -> Vec<String> {
            let name = |p: PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
            closed.list().unwrap().into_iter().map(name).collect()
        };
        assert_eq!(
            names(&closed),
            [
                "audit.jsonl.20260728T091959.000Z",
                "audit.jsonl.20260728T092000.125Z",
                "audit.jsonl.20260728T092000.126Z"
            ]
        );
        closed.keep_newest(2);
        assert!(closed.remove_oldest());
        assert_eq!(names(&closed), ["audit.jsonl.20260728T092000.126Z"]);
        closed.keep_newest(0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), others.len() - 1);
    }
}
