//! The thread that writes and reads the machine's states, which may be large.

use crate::{
    machine::{Image, Machine, Manifest},
    snapshot_file,
    transport::SnapshotFile,
};
use proto::limit::ledger::Bounds;
use raft::eraftpb::Message;
use std::{
    fs, io,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// Jobs that wait.
const JOBS_MAX: usize = 16;

/// What is to be done.
pub(crate) enum Job {
    /// Write a state beside the log.
    Write(Image),
    /// Write a state under a name of the operator's, with the identity secret.
    Export {
        image: Image,
        secret: [u8; 16],
        path: PathBuf,
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// Read a peer's state, and move it beside the log.
    Load(Box<Message>, SnapshotFile),
    /// Remove states older than the newest one, but those that are being sent.
    Tidy { newest: u64, sending: Vec<u64> },
}

/// What was done.
pub(crate) enum Done {
    /// A state is on the disk, or not.
    Written(Manifest, Result<(), String>),
    /// A peer's state was read, or is of no use.
    Loaded(Box<Message>, Result<Box<Machine>, String>),
}

/// The loop's side.
pub(crate) struct States {
    to: SyncSender<Job>,
}

impl States {
    /// Starts the thread.
    pub(crate) fn start(dir: PathBuf, bounds: Bounds) -> io::Result<(Self, mpsc::Receiver<Done>)> {
        let (to, from) = sync_channel(JOBS_MAX);
        let (say, said) = mpsc::channel(JOBS_MAX);
        thread::Builder::new()
            .name("states".into())
            .spawn(move || serve(&dir, bounds, &from, &say))?;
        Ok((Self { to }, said))
    }

    /// Queues a job; `false`: there are too many.
    pub(crate) fn queue(&self, job: Job) -> bool {
        self.to.try_send(job).is_ok()
    }
}

fn serve(dir: &std::path::Path, bounds: Bounds, from: &Receiver<Job>, say: &mpsc::Sender<Done>) {
    while let Ok(job) = from.recv() {
        let done = match job {
            Job::Write(image) => {
                let written = snapshot_file::write(dir, &image).map(|_| ());
                Done::Written(image.manifest, written.map_err(|error| error.to_string()))
            }
            Job::Export {
                image,
                secret,
                path,
                answer,
            } => {
                let about = snapshot_file::About::of(&image, Some(secret));
                let written = snapshot_file::write_to(&path, &image, &about);
                let written = written.map_err(|error| format!("{}: {error}", path.display()));
                let _ = answer.send(written.map(|()| image.manifest.index));
                continue;
            }
            Job::Load(message, file) => {
                let loaded = load(dir, bounds, &message, &file).map(Box::new);
                Done::Loaded(message, loaded)
            }
            Job::Tidy { newest, sending } => {
                if let Err(error) = snapshot_file::tidy(dir, newest, &sending) {
                    tracing::warn!(%error, "old states cannot be cleared away");
                }
                continue;
            }
        };
        if say.blocking_send(done).is_err() {
            return;
        }
    }
}

fn load(
    dir: &std::path::Path,
    bounds: Bounds,
    message: &Message,
    file: &SnapshotFile,
) -> Result<Machine, String> {
    let snapshot = message.get_snapshot();
    let manifest = Manifest::decode(&snapshot.data).map_err(|error| error.to_string())?;
    if manifest.index != snapshot.get_metadata().index {
        return Err("its manifest is of another index".into());
    }
    let machine = snapshot_file::load(&file.path, manifest, bounds).map_err(|e| e.to_string())?;
    let path = snapshot_file::path(dir, manifest.index);
    fs::rename(&file.path, &path)
        .and_then(|()| crate::disk::sync_parent(&path))
        .map_err(|error| error.to_string())?;
    Ok(machine)
}
