//! A disk that is full: nothing that was acknowledged is lost, nothing more is acknowledged.

use crate::harness::{LIMIT, ask, begin, open, run};
use cluster::{
    handle::{Error, Failure},
    wire::Counters,
};
use proto::limit::CounterKey;
use std::{fs::File, io::Write, path::Path, process::Command};

/// Where the small disk is, for the test inside.
const DISK: &str = "TOLLGATE_IT_SMALL_DISK";
/// More leases than fit.
const LEASES_MAX: u128 = 50_000;

#[test]
fn what_was_acknowledged_before_the_disk_was_full_is_there_when_it_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    // A mount of its own, seen by nobody else, gone with the process.
    let mount = format!("mount -t tmpfs -o size=8m,mode=0700 none '{path}'");
    let may = Command::new("unshare")
        .args(["-m", "sh", "-c", &mount])
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no disk can be mounted here");
    }
    let script = format!("{mount} && exec \"$0\" --ignored --exact disk::inside --nocapture");
    let inside = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(DISK, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout).into_owned()
        + &String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}");
    assert!(said.contains("acknowledged"), "{said}");
    let line = said.lines().find(|line| line.contains("acknowledged"));
    eprintln!("{}", line.unwrap_or_default());
}

#[test]
#[ignore = "on the small disk that the test above mounts"]
fn inside() {
    let Some(disk) = std::env::var_os(DISK) else {
        return;
    };
    let disk = Path::new(&disk);
    run(async {
        let dir = disk.join("node");
        let handle = open(&dir).unwrap();
        let session = begin(&handle).await;
        fill(&disk.join("fill"));
        let mut acknowledged = 0;
        let ended = loop {
            assert!(acknowledged < LEASES_MAX, "a full disk took all of them");
            match handle.lease(session, ask(acknowledged, 1)).await {
                Ok(heard) => drop(heard.verdict.unwrap()),
                Err(error) => break error,
            }
            acknowledged += 1;
        };
        assert_eq!(ended, Error::Unreachable);
        let mut failed = handle.failed();
        let failure = failed.wait_for(Option::is_some).await.unwrap().clone();
        let failure = failure.unwrap();
        assert!(matches!(failure, Failure::Storage(_)), "{failure}");
        assert_eq!(failure.exit_code(), 74);
        drop((handle, failed));
        std::fs::remove_file(disk.join("fill")).unwrap();
        let handle = loop {
            // The former node's threads let go of the directory.
            match open(&dir) {
                Ok(handle) => break handle,
                Err(error) => eprintln!("{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        begin(&handle).await;
        for key in 0..acknowledged {
            let counters = Counters {
                key: Some(CounterKey(key)),
                most: 1,
                ..Counters::default()
            };
            let (rows, ..) = handle.counters(counters).await.unwrap();
            assert!(
                rows.first()
                    .is_some_and(|row| (1..=LIMIT.max.into()).contains(&row.used)),
                "{key}: {rows:?}"
            );
        }
        println!("acknowledged and found again: {acknowledged}");
    });
}

/// Leaves no byte of the disk free.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut size = 1 << 20;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}
