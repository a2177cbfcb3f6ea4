//! One node, a cluster of its own.

use crate::harness::{LIMIT, back, begin, lease, now, open, run, settings};
use cluster::{
    handle::{Error, OpenError},
    wire::{Counters, Operate},
};
use proto::{
    control::{self, Kind},
    limit::{CounterKey, ledger::Refusal},
};
use std::{fs, time::Instant};

#[test]
fn an_empty_directory_becomes_a_cluster_of_one_at_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let handle = open(dir.path()).unwrap();
        let session = begin(&handle).await;
        let heard = lease(&handle, session, 1, 4).await;
        eprintln!("from nothing to a lease in {:?}", began.elapsed());
        assert!(began.elapsed().as_millis() < 2_000);
        assert_eq!(heard.verdict.unwrap().remaining, 6);
        let began = Instant::now();
        for n in 1..=100 {
            lease(&handle, session, 1_000 + n, 1).await;
        }
        eprintln!("a lease at a time takes {:?}", began.elapsed() / 100);
        handle.shutdown().await;
        let began = Instant::now();
        let handle = open(dir.path()).unwrap();
        begin(&handle).await;
        eprintln!("started again in {:?}", began.elapsed());
    });
}

#[test]
fn what_was_leased_before_a_crash_stays_used_and_what_was_returned_does_not() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let handle = open(dir.path()).unwrap();
        let session = begin(&handle).await;
        let standing = lease(&handle, session, 1, 7).await.verdict.unwrap();
        handle
            .give_back(session, &[back(1, standing.window, 3)])
            .await
            .unwrap();
        // As in a crash: no goodbye.
        handle.shutdown().await;
        let handle = open(dir.path()).unwrap();
        let fresh = begin(&handle).await;
        assert!(fresh > session);
        let refused = lease(&handle, fresh, 1, 7).await.verdict.unwrap_err();
        assert!(matches!(refused, Refusal::Exhausted(_)), "{refused:?}");
        let standing = lease(&handle, fresh, 1, 6).await.verdict.unwrap();
        assert_eq!((standing.used, standing.remaining), (10, 0));
        assert_eq!(
            handle.lease(session, crate::harness::ask(1, 1)).await,
            Err(Error::Refused(Refusal::UnknownSession))
        );
        // What the dead session held is shown as lost, and an operator may give it back.
        let counters = Counters {
            key: Some(CounterKey(1)),
            most: 10,
            ..Counters::default()
        };
        let (rows, total, _) = handle.counters(counters.clone()).await.unwrap();
        assert_eq!((total, rows[0].used, rows[0].lost), (1, 10, 4));
        let key = CounterKey(1);
        handle.operate(Operate::Credit { key }).await.unwrap();
        let (rows, ..) = handle.counters(counters).await.unwrap();
        assert_eq!((rows[0].used, rows[0].lost), (6, 0));
    });
}

#[test]
fn after_a_goodbye_nothing_is_lost() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let handle = open(dir.path()).unwrap();
        let session = begin(&handle).await;
        let standing = lease(&handle, session, 1, 10).await.verdict.unwrap();
        handle
            .bye(session, &[back(1, standing.window, 8)])
            .await
            .unwrap();
        handle.shutdown().await;
        let handle = open(dir.path()).unwrap();
        let session = begin(&handle).await;
        let standing = lease(&handle, session, 1, 8).await.verdict.unwrap();
        assert_eq!(standing.remaining, 0);
    });
}

#[test]
fn a_directory_is_not_shared_and_a_cluster_is_not_begun_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let mut joins = settings(dir.path());
    joins.bootstrap = false;
    let refused = cluster::handle::open(joins).unwrap_err();
    assert!(matches!(refused, OpenError::NoIdentity(_)), "{refused}");
    let _held = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
}

#[test]
fn a_log_that_is_gone_is_not_begun_again() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let handle = open(dir.path()).unwrap();
        begin(&handle).await;
        handle.shutdown().await;
        fs::remove_dir_all(dir.path().join("log")).unwrap();
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("it is gone"), "{refused}");
    });
}

#[test]
fn the_control_plane_survives_and_is_known_to_be_fresh() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let handle = open(dir.path()).unwrap();
        begin(&handle).await;
        let before = now();
        let change = control::Change {
            kind: Kind::Grant,
            name: "g".into(),
            body: Some((*b"{}").into()),
            expect: None,
            by: "test".into(),
        };
        handle.operate(Operate::Control(change)).await.unwrap();
        let mut control = handle.control();
        control
            .wait_for(|control| control.get(Kind::Grant, "g").is_some())
            .await
            .unwrap();
        handle.shutdown().await;
        let handle = open(dir.path()).unwrap();
        let mut control = handle.control();
        control
            .wait_for(|control| control.get(Kind::Grant, "g").is_some())
            .await
            .unwrap();
        while handle.fresh().asked_ns < before.boot_ns {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(handle.fresh().version, 1);
        assert_eq!(handle.node(), handle.status().await.unwrap().leader);
    });
}

#[test]
fn a_snapshot_starts_a_new_cluster_in_which_live_windows_are_used_up() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let file = dir.path().join("backup");
        let handle = open(dir.path()).unwrap();
        let (secret, old) = (handle.secret(), handle.cluster());
        let session = begin(&handle).await;
        lease(&handle, session, 1, 4).await.verdict.unwrap();
        handle.snapshot_to(file.clone()).await.unwrap();
        handle.shutdown().await;
        let bounds = settings(dir.path()).ledger;
        cluster::setup::restore(other.path(), &file, "restored", None, bounds, now()).unwrap();
        let handle = open(other.path()).unwrap();
        assert_eq!(handle.secret().0, secret.0);
        assert_ne!(handle.cluster(), old);
        let session = begin(&handle).await;
        assert!(lease(&handle, session, 1, 1).await.verdict.is_err());
        handle.shutdown().await;
        // And so does what is left of a log.
        cluster::setup::recover(dir.path(), bounds, now()).unwrap();
        let handle = open(dir.path()).unwrap();
        assert_eq!(handle.secret().0, secret.0);
        let session = begin(&handle).await;
        assert!(lease(&handle, session, 1, 1).await.verdict.is_err());
        assert_eq!(LIMIT.max, 10);
    });
}
