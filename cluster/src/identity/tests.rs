use super::*;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn an_identity_survives_and_only_its_owner_reads_it() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("a/b");
    let mut identity = Identity::alone("one", "127.0.0.1:1");
    identity.tls = Some(Certificates {
        ca: "ca".into(),
        certificate: "c".into(),
        key: "k".into(),
    });
    {
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(dir.identity().unwrap(), None);
        dir.save(&identity).unwrap();
    }
    let dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.identity().unwrap(), Some(identity.clone()));
    assert_eq!(identity.voters()[&identity.node], "127.0.0.1:1");
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&dir.path("identity")), 0o600);
    let shown = format!("{identity:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("key"),
        "{shown}"
    );
    fs::set_permissions(dir.path("identity"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(dir.identity(), Err(OpenError::Public { .. })));
}

#[test]
fn a_directory_serves_one_process_at_a_time() {
    let tmp = tempfile::tempdir().unwrap();
    let held = DataDir::open(tmp.path()).unwrap();
    assert!(matches!(
        DataDir::open(tmp.path()),
        Err(OpenError::InUse(_))
    ));
    drop(held);
    DataDir::open(tmp.path()).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let refused = DataDir::open(tmp.path()).unwrap_err().to_string();
    assert!(refused.contains("chmod 700"), "{refused}");
}

#[test]
fn the_nonce_grows_with_every_start() {
    let tmp = tempfile::tempdir().unwrap();
    for start in 1..=3 {
        let dir = DataDir::open(tmp.path()).unwrap();
        if start == 1 {
            assert!(dir.next_nonce().is_err(), "nobody starts yet");
            dir.save(&Identity::alone("one", "")).unwrap();
        }
        assert_eq!(dir.next_nonce().unwrap(), start);
    }
    let dir = DataDir::open(tmp.path()).unwrap();
    let identity = dir.identity().unwrap().unwrap();
    dir.save(&identity).unwrap();
    assert_eq!(dir.next_nonce().unwrap(), 4, "saving does not start anew");
}

#[test]
fn every_damaged_byte_of_an_identity_is_noticed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(tmp.path()).unwrap();
    dir.save(&Identity::alone("one", "")).unwrap();
    let path = dir.path("identity");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() - 1 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(dir.identity().is_err(), "byte {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert!(dir.identity().is_err(), "cut at {at}");
    }
}

#[test]
fn a_log_without_an_identity_is_no_new_node() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(tmp.path()).unwrap();
    fs::create_dir(dir.log_dir()).unwrap();
    let refused = dir.identity().unwrap_err().to_string();
    assert!(refused.contains("no identity"), "{refused}");
}

#[test]
fn a_damaged_nonce_stops_the_node() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(tmp.path()).unwrap();
    dir.save(&Identity::alone("one", "")).unwrap();
    fs::remove_file(dir.path("nonce")).unwrap();
    let refused = dir.next_nonce().unwrap_err().to_string();
    assert!(refused.contains("missing"), "{refused}");
}
