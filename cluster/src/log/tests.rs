use super::*;
use raft::eraftpb::SnapshotMetadata;
use tempfile::TempDir;

const CLUSTER: u128 = 7;
const NODE: NodeId = NodeId(9);

fn open(dir: &TempDir) -> Result<Log, OpenError> {
    let path = dir.path();
    Log::open(&path.join("log"), &path.join("snapshots"), CLUSTER, NODE)
}

fn begun(dir: &TempDir) -> Log {
    let mut log = open(dir).unwrap();
    assert!(!log.is_begun());
    log.begin(None).unwrap();
    log
}

fn entries(from: u64, upto: u64, term: u64) -> Vec<Entry> {
    (from..=upto)
        .map(|index| Entry {
            index,
            term,
            data: vec![term as u8; 100].into(),
            ..Entry::default()
        })
        .collect()
}

fn write(entries: Vec<Entry>, term: u64, commit: u64) -> Persist {
    Persist {
        entries,
        hard_state: Some(HardState {
            term,
            commit,
            ..HardState::default()
        }),
        must_sync: true,
        ..Persist::default()
    }
}

fn snapshot(index: u64, term: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.set_metadata(SnapshotMetadata {
        index,
        term,
        ..SnapshotMetadata::default()
    });
    snapshot
}

/// Index and term of what is found.
fn found(log: &mut Log) -> Vec<(u64, u64)> {
    let recovered = log.recover(Bounds::default()).unwrap();
    recovered
        .entries
        .iter()
        .map(|e| (e.index, e.term))
        .collect()
}

#[test]
fn what_was_written_is_found_and_later_terms_replace_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = begun(&dir);
    log.write(&[write(entries(1, 5, 1), 1, 2)]).unwrap();
    // Two writes in one batch, the second over the first.
    log.write(&[write(entries(6, 7, 1), 1, 3), write(entries(4, 6, 2), 2, 3)])
        .unwrap();
    drop(log);
    let mut log = open(&dir).unwrap();
    assert!(log.is_begun());
    let wanted = [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)];
    assert_eq!(found(&mut log), wanted);
    let state = log.recover(Bounds::default()).unwrap().hard_state;
    assert_eq!((state.term, state.commit), (2, 3));
}

#[test]
fn compaction_forgets_entries_and_only_those() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = begun(&dir);
    log.write(&[write(entries(1, 9, 1), 1, 9)]).unwrap();
    log.write(&[Persist {
        compact: Some((Snapshot::default(), 6)),
        must_sync: true,
        ..Persist::default()
    }])
    .unwrap();
    log.write(&[write(entries(10, 10, 1), 1, 10)]).unwrap();
    assert_eq!(log.engine.first_index(GROUP), Some(7));
    drop(log);
    let log = open(&dir).unwrap();
    assert_eq!(log.engine.first_index(GROUP), Some(7));
    assert_eq!(log.engine.last_index(GROUP), Some(10));
}

#[test]
fn an_installed_snapshot_starts_the_log_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = begun(&dir);
    log.write(&[write(entries(1, 90, 1), 1, 50)]).unwrap();
    log.write(&[Persist {
        install: Some(snapshot(70, 2)),
        must_sync: true,
        ..write(Vec::new(), 2, 70)
    }])
    .unwrap();
    assert_eq!(log.engine.last_index(GROUP), None);
    log.write(&[write(entries(71, 72, 2), 2, 71)]).unwrap();
    for _ in 0..2 {
        drop(log);
        log = open(&dir).unwrap();
        assert!(log.is_begun());
        assert_eq!(log.engine.first_index(GROUP), Some(71));
        assert_eq!(log.engine.last_index(GROUP), Some(72));
        assert_eq!(
            log.message::<Snapshot>(SNAPSHOT).unwrap(),
            Some(snapshot(70, 2))
        );
    }
}

#[test]
fn another_nodes_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(begun(&dir));
    let path = dir.path();
    let other = Log::open(&path.join("log"), &path.join("s"), CLUSTER, NodeId(10));
    let refused = other.err().unwrap().to_string();
    assert!(refused.contains("another node"), "{refused}");
}

#[test]
fn a_log_that_lost_committed_entries_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = begun(&dir);
    log.write(&[write(entries(1, 5, 1), 1, 6)]).unwrap();
    let refused = log.recover(Bounds::default()).err().unwrap().to_string();
    assert!(refused.contains("committed"), "{refused}");
}

#[test]
fn a_torn_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = begun(&dir);
    for index in 1..=20 {
        log.write(&[write(entries(index, index, 1), 1, index)])
            .unwrap();
    }
    drop(log);
    let file = fs::read_dir(dir.path().join("log")).unwrap();
    let file = file
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "raftlog"))
        .unwrap();
    let whole = fs::read(&file).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Torn: the last write is not whole.
    fs::write(&file, &whole[..used - 7]).unwrap();
    let mut log = open(&dir).unwrap();
    assert_eq!(found(&mut log).last(), Some(&(19, 1)));
}

#[test]
fn no_child_inherits_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = begun(&dir);
    log.write(&[write(entries(1, 5, 1), 1, 5)]).unwrap();
    let mut open = 0;
    for descriptor in fs::read_dir("/proc/self/fd").unwrap() {
        let descriptor = descriptor.unwrap().path();
        // Other tests' descriptors come and go.
        let Ok(file) = fs::read_link(&descriptor) else {
            continue;
        };
        if !file.starts_with(dir.path()) {
            continue;
        }
        open += 1;
        let number = descriptor.file_name().unwrap();
        let about = fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap();
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(
            flags & 0o2_000_000,
            0,
            "{} has no O_CLOEXEC",
            file.display()
        );
    }
    assert!(open >= 2, "the log and its lock are open, {open} found");
}
