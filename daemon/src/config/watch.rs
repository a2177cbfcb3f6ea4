//! Watching files: whichever way one changes (written in place, renamed over, its directory's symlink swapped, taken
//! away and made again), a signal comes once its content has stayed the same for one interval.

use super::resolve::read_bounded;
use crate::clock;
use aws_lc_rs::digest::{SHA256, digest};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::mpsc, time::MissedTickBehavior};

/// Files up to this length are told apart by their content, bytes.
const CONTENT_BYTES: u64 = 8 << 20;
/// Within this time after a change a further one may not show in the file's times, milliseconds.
const RACY_MS: u64 = 2_000;
/// Shortest time between two looks.
const INTERVAL_LEAST: Duration = Duration::from_millis(10);

/// A file as it was read, or as it was found unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its absolute path, symlinks unresolved.
    pub path: PathBuf,
    look: Look,
}

impl Seen {
    /// A file whose content has just been read.
    pub(super) fn read(path: PathBuf, content: &[u8]) -> Self {
        let look = Look::content(content);
        Self { path, look }
    }
    /// A file that could not be read.
    pub(super) fn unread(path: PathBuf) -> Self {
        let look = Look::at(&path);
        Self { path, look }
    }
}

/// How a file looks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// It is not there, or cannot be read.
    Absent,
    /// The SHA-256 of its content: a touch, or a rename of the same bytes, is no change.
    Content([u8; 32]),
    /// Too long, or not a regular file: device, inode, length, time.
    Metadata(u64, u64, u64, (i64, i64)),
}

impl Look {
    fn content(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        let digest = digest(&SHA256, bytes);
        hash.iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        Look::Content(hash)
    }

    fn at(path: &Path) -> Self {
        if let Ok(bytes) = read_bounded(path, CONTENT_BYTES) {
            return Look::content(&bytes);
        }
        match fs::metadata(path) {
            Ok(meta) if !meta.is_file() || meta.len() > CONTENT_BYTES => {
                let modified = (meta.mtime(), meta.mtime_nsec());
                Look::Metadata(meta.dev(), meta.ino(), meta.len(), modified)
            }
            _ => Look::Absent,
        }
    }
}

/// A file's metadata and where symlinks lead: while it stays the same, the content need not be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    target: Option<PathBuf>,
    identity: Option<Identity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    /// Modification and change: seconds and nanoseconds.
    times: [(i64, i64); 2],
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let identity = fs::metadata(path).ok().map(|meta| {
            let times = [
                (meta.mtime(), meta.mtime_nsec()),
                (meta.ctime(), meta.ctime_nsec()),
            ];
            Identity {
                device: meta.dev(),
                inode: meta.ino(),
                length: meta.len(),
                times,
            }
        });
        Self {
            target: fs::canonicalize(path).ok(),
            identity,
        }
    }

    /// Whether the file changed so lately that its times cannot be trusted.
    fn is_racy(&self) -> bool {
        let now_ms = clock::now().unix_ms;
        self.identity.is_some_and(|identity| {
            identity
                .times
                .iter()
                .any(|(s, _)| now_ms < (*s).max(0).unsigned_abs() * 1_000 + RACY_MS)
        })
    }
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// `None`: look at the content next time, whatever the metadata says.
    stamp: Option<Stamp>,
    /// At the last look.
    look: Look,
    /// When it was loaded, or last told of.
    loaded: Look,
}

/// Remembers how files looked when they were loaded, and says when they look different.
#[derive(Debug)]
pub struct Watcher {
    files: Vec<File>,
}

impl Watcher {
    /// Starts from what was read: whatever changed since then is found.
    pub fn new(seen: Vec<Seen>) -> Self {
        let files = seen
            .into_iter()
            .map(|seen| File {
                path: seen.path,
                stamp: None,
                loaded: seen.look.clone(),
                look: seen.look,
            })
            .collect();
        Self { files }
    }

    /// Looks once; true when something differs from what was loaded and nothing moved since the look before. What is
    /// told counts as loaded, whether or not it can be: the next signal needs a further change.
    pub fn look(&mut self) -> bool {
        let mut moving = false;
        for file in &mut self.files {
            let stamp = Stamp::of(&file.path);
            if file.stamp.as_ref() == Some(&stamp) {
                continue;
            }
            file.stamp = (!stamp.is_racy()).then_some(stamp);
            let look = Look::at(&file.path);
            moving |= look != file.look;
            file.look = look;
        }
        if moving || self.files.iter().all(|file| file.look == file.loaded) {
            return false;
        }
        for file in &mut self.files {
            file.loaded = file.look.clone();
        }
        true
    }
}

/// Watches until the receiver of `changed` is gone: one signal a settled change. What a reload has read comes over
/// `seen`, be the reload a success or not, and replaces what is watched.
pub async fn watch(
    mut watcher: Watcher,
    interval: Duration,
    changed: mpsc::Sender<()>,
    mut seen: mpsc::Receiver<Vec<Seen>>,
) {
    let mut tick = tokio::time::interval(interval.max(INTERVAL_LEAST));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = changed.closed() => return,
            seen = seen.recv() => match seen {
                Some(seen) => watcher = Watcher::new(seen),
                None => return,
            },
            _ = tick.tick() => {
                // Files are read on another thread: a slow file system must not hold up connections.
                let looked = tokio::task::spawn_blocking(move || {
                    let settled = watcher.look();
                    (watcher, settled)
                });
                let Ok((back, settled)) = looked.await else { return };
                watcher = back;
                // A full channel means that a signal is waiting already.
                if settled && let Err(mpsc::error::TrySendError::Closed(())) = changed.try_send(()) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn watcher(path: &Path) -> Watcher {
        let content = fs::read(path).unwrap();
        Watcher::new(vec![Seen::read(path.to_owned(), &content)])
    }

    /// Looks until told, at most four times.
    fn told(watcher: &mut Watcher) -> bool {
        (0..4).any(|_| watcher.look())
    }

    #[test]
    fn every_way_of_changing_a_file_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        fs::write(&path, "one").unwrap();
        let mut watcher = watcher(&path);
        assert!(!told(&mut watcher));

        fs::write(&path, "two").unwrap();
        assert!(!watcher.look(), "not while it moves");
        assert!(watcher.look(), "written in place");
        assert!(!told(&mut watcher), "once");

        let other = dir.path().join(".policy.yaml.swp");
        fs::write(&other, "six").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(told(&mut watcher), "renamed over, same length");

        fs::remove_file(&path).unwrap();
        assert!(told(&mut watcher), "taken away");
        fs::write(&path, "ten").unwrap();
        assert!(told(&mut watcher), "made again");

        fs::write(&path, "ten").unwrap();
        assert!(!told(&mut watcher), "the same bytes are no change");
    }

    #[test]
    fn a_swapped_symlink_of_the_directory_is_told() {
        // The layout of a mounted ConfigMap: file → ..data/file, ..data → a dated directory.
        let dir = tempfile::tempdir().unwrap();
        let version = |name: &str, text: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("grants.yaml"), text).unwrap();
            symlink(name, dir.path().join("..data_tmp")).unwrap();
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        };
        version("..2027_01", "old");
        let path = dir.path().join("grants.yaml");
        symlink("..data/grants.yaml", &path).unwrap();
        let mut watcher = watcher(&path);
        assert!(!told(&mut watcher));
        version("..2027_02", "new");
        fs::remove_dir_all(dir.path().join("..2027_01")).unwrap();
        assert!(told(&mut watcher));
    }

    #[test]
    fn what_changed_between_reading_and_watching_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "new").unwrap();
        assert!(told(&mut Watcher::new(vec![Seen::read(path, b"old")])));
        let missing = dir.path().join("b");
        let mut watcher = Watcher::new(vec![Seen::unread(missing.clone())]);
        assert!(!told(&mut watcher));
        fs::write(&missing, "there now").unwrap();
        assert!(told(&mut watcher));
    }

    #[tokio::test]
    async fn the_task_signals_and_ends_with_its_receiver() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let (changed, mut on_change) = mpsc::channel(1);
        let (_seen, seen) = mpsc::channel(1);
        let interval = Duration::from_millis(10);
        let task = tokio::spawn(watch(watcher(&path), interval, changed, seen));
        fs::write(&path, "two").unwrap();
        let signal = tokio::time::timeout(Duration::from_secs(10), on_change.recv()).await;
        assert_eq!(signal, Ok(Some(())));
        drop(on_change);
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    }
}
