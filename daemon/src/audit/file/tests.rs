//! Rotation, retention and what else happens to files.

use super::{sink::Out as _, *};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

const T0: u64 = 1_785_230_400_000;

struct Bench {
    dir: tempfile::TempDir,
    free: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            free: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }
    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.jsonl")
    }
    fn settings(&self) -> FileSettings {
        FileSettings {
            path: self.path(),
            rotate_bytes: 1 << 20,
            rotate_age: None,
            keep: 100,
            min_free: 0,
            retain_required: false,
        }
    }
    fn sink(&self, settings: FileSettings) -> FileSink {
        let free = self.free.clone();
        FileSink::open(settings, move |_| Ok(free.load(Relaxed)), T0).unwrap()
    }
    /// Contents of the closed files, oldest first, and of the open one.
    fn files(&self) -> Vec<String> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        // The open file has the shortest name.
        paths.sort_by_key(|path| (*path == self.path(), path.clone()));
        paths
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect()
    }
}

#[test]
fn the_file_is_private_and_appended_to() {
    let bench = Bench::new();
    fs::write(bench.path(), "before\n").unwrap();
    bench
        .sink(bench.settings())
        .write(&mut Batch::of(&["after"]), T0)
        .unwrap();
    assert_eq!(bench.files(), ["before\nafter\n"]);

    fs::remove_file(bench.path()).unwrap();
    bench.sink(bench.settings());
    let mode = fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_is_closed_before_a_line_would_make_it_too_long() {
    let bench = Bench::new();
    let settings = FileSettings {
        rotate_bytes: 8,
        ..bench.settings()
    };
    let mut sink = bench.sink(settings);
    let mut batch = Batch::of(&["111", "222", "333", "a line longer than a file", "4"]);
    sink.write(&mut batch, T0).unwrap();
    sink.write(&mut Batch::of(&["5"]), T0).unwrap();
    assert_eq!(
        bench.files(),
        [
            "111\n222\n",
            "333\n",
            "a line longer than a file\n",
            "4\n5\n"
        ]
    );
}

#[test]
fn an_old_file_is_closed_even_without_traffic_and_an_empty_one_is_not() {
    let bench = Bench::new();
    let hour = Duration::from_secs(3_600);
    let mut sink = bench.sink(FileSettings {
        rotate_age: Some(hour),
        ..bench.settings()
    });
    let later = T0 + hour.as_millis() as u64;
    assert!(sink.tick(later));
    assert_eq!(bench.files(), [""]);
    sink.write(&mut Batch::of(&["1"]), T0).unwrap();
    sink.tick(later - 1);
    assert_eq!(bench.files(), ["1\n"]);
    sink.tick(later + 2 * CHECK_MS);
    sink.write(&mut Batch::of(&["2"]), later + 2 * CHECK_MS)
        .unwrap();
    assert_eq!(bench.files(), ["1\n", "2\n"]);
}

#[test]
fn only_the_newest_closed_files_are_kept_unless_retaining_is_required() {
    for (retain_required, left) in [(false, 3), (true, 6)] {
        let bench = Bench::new();
        let settings = FileSettings {
            rotate_bytes: 2,
            keep: 2,
            retain_required,
            ..bench.settings()
        };
        let mut sink = bench.sink(settings);
        sink.write(&mut Batch::of(&["1", "2", "3", "4", "5", "6"]), T0)
            .unwrap();
        assert_eq!(bench.files().len(), left);
        assert_eq!(bench.files().last().unwrap(), "6\n");
    }
}

#[test]
fn free_space_is_kept_by_removing_the_oldest_closed_files_and_never_the_open_one() {
    let bench = Bench::new();
    let (free, dir) = (bench.free.clone(), bench.dir.path().to_owned());
    let settings = FileSettings {
        rotate_bytes: 2,
        min_free: 100,
        ..bench.settings()
    };
    // Every file that is removed frees 30 bytes.
    let mut sink = FileSink::open(
        settings,
        move |_| {
            let files = fs::read_dir(&dir)?.count() as u64;
            Ok(free.load(Relaxed).saturating_sub(30 * files))
        },
        T0,
    )
    .unwrap();
    sink.write(&mut Batch::of(&["1", "2", "3", "4", "5"]), T0)
        .unwrap();
    assert_eq!(bench.files().len(), 5);
    bench.free.store(100 + 3 * 30, Relaxed);
    assert!(sink.tick(T0 + CHECK_MS));
    assert_eq!(bench.files(), ["3\n", "4\n", "5\n"]);
    bench.free.store(0, Relaxed);
    assert!(
        sink.tick(T0 + 2 * CHECK_MS),
        "calls go on: nothing must be retained"
    );
    assert_eq!(bench.files(), ["5\n"]);
}

#[test]
fn calls_are_refused_while_space_is_short_and_retaining_is_required_but_held_lines_are_written() {
    let bench = Bench::new();
    let settings = FileSettings {
        rotate_bytes: 2,
        min_free: 100,
        retain_required: true,
        ..bench.settings()
    };
    let mut sink = bench.sink(settings);
    sink.write(&mut Batch::of(&["1", "2"]), T0).unwrap();
    bench.free.store(99, Relaxed);
    assert!(!sink.tick(T0 + CHECK_MS));
    sink.write(&mut Batch::of(&["3"]), T0 + CHECK_MS).unwrap();
    assert_eq!(bench.files(), ["1\n", "2\n", "3\n"]);
    bench.free.store(100, Relaxed);
    assert!(sink.tick(T0 + 2 * CHECK_MS));
}

#[test]
fn a_file_that_was_moved_or_removed_is_made_again() {
    let bench = Bench::new();
    let mut sink = bench.sink(bench.settings());
    sink.write(&mut Batch::of(&["1"]), T0).unwrap();
    fs::rename(bench.path(), bench.dir.path().join("audit.jsonl.1")).unwrap();
    sink.tick(T0 + CHECK_MS);
    sink.write(&mut Batch::of(&["2"]), T0 + CHECK_MS).unwrap();
    assert_eq!(bench.files(), ["1\n", "2\n"]);
    fs::remove_file(bench.path()).unwrap();
    sink.reopen();
    sink.write(&mut Batch::of(&["3"]), T0 + CHECK_MS).unwrap();
    assert_eq!(bench.files(), ["1\n", "3\n"]);
}

#[test]
fn a_line_that_a_dead_process_left_open_is_ended_first() {
    let bench = Bench::new();
    fs::write(bench.path(), "{\"torn\":").unwrap();
    bench
        .sink(bench.settings())
        .write(&mut Batch::of(&["{}"]), T0)
        .unwrap();
    assert_eq!(bench.files(), ["{\"torn\":\n{}\n"]);
}

#[test]
fn a_second_writer_and_what_is_no_file_are_refused_at_the_start() {
    let bench = Bench::new();
    let open = |settings| FileSink::open(settings, free_bytes, T0).map(drop);
    let _first = bench.sink(bench.settings());
    let error = format!("{:#}", open(bench.settings()).unwrap_err());
    assert!(error.contains("another process writes to it"), "{error}");
    for path in [
        bench.dir.path().to_owned(),
        bench.dir.path().join("no/such/dir"),
    ] {
        assert!(
            open(FileSettings {
                path,
                ..bench.settings()
            })
            .is_err()
        );
    }
}

#[test]
fn an_open_that_fails_holds_the_line_until_it_works() {
    let bench = Bench::new();
    let mut sink = bench.sink(bench.settings());
    let mut batch = Batch::of(&["1"]);
    fs::remove_file(bench.path()).unwrap();
    fs::create_dir(bench.path()).unwrap();
    sink.reopen();
    assert!(sink.write(&mut batch, T0).is_err());
    assert_eq!(batch.len(), 1);
    fs::remove_dir(bench.path()).unwrap();
    sink.write(&mut batch, T0).unwrap();
    assert_eq!(bench.files(), ["1\n"]);
}

#[test]
fn the_free_space_of_a_real_file_system_can_be_read() {
    assert!(free_bytes(&std::env::temp_dir()).is_ok());
}
