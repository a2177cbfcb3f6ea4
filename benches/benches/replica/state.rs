//! The state of many counters: what a leader's loop pays for a snapshot, and what the snapshot is on the disk.

use crate::{ASKER, LIMIT, ask, batch, bounds};
use cluster::{
    machine::Machine,
    snapshot_file::{self, About},
};
use proto::command::{COMMANDS_MAX, Command, RULES_VERSION};
use proto::limit::ledger::{Counters, Session};
use std::time::Instant;

/// A machine in which the first session has the limit.
pub fn machine() -> Machine {
    let mut machine = Machine::found(7, bounds(), ASKER, "one", "one:1");
    let commands = vec![
        Command::Hello {
            node: ASKER,
            nonce: 1,
            secret_check: 0,
            rules_max: RULES_VERSION,
        },
        Command::Define {
            session: Session(1),
            revision: 1,
            definitions: vec![LIMIT],
            last: true,
        },
    ];
    let index = machine.index() + 1;
    let replies = machine.apply(index, &batch(commands));
    let replies = replies.expect("the machine takes a session and a limit");
    assert!(
        matches!(replies[0], proto::command::Reply::Session(Session(1))),
        "{replies:?}"
    );
    machine
}

/// Prints what the state of so many live counters with one holder each costs.
pub fn measure(counters: u64) {
    let before = resident();
    let mut machine = machine();
    let mut from = 0;
    while from < counters {
        let upto = (from + COMMANDS_MAX as u64).min(counters);
        let leases = (from..upto).map(|n| Command::Lease {
            session: Session(1),
            ask: ask(n),
        });
        let index = machine.index() + 1;
        let entry = batch(leases.collect());
        machine.apply(index, &entry).expect("the machine applies");
        from = upto;
    }
    assert_eq!(machine.ledger().counters() as u64, counters);
    let grown = resident().saturating_sub(before);
    println!("{counters} live counters, one holder each");
    let row = |what: &str, value: f64, unit: &str| println!("  {what:<44} {value:>10.1} {unit}");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    row("memory", mib(grown), "MiB");
    row("memory, a counter", grown as f64 / counters as f64, "bytes");
    let ms = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    let began = Instant::now();
    let hash = machine.hash();
    // It is kept as the state changes.
    row("hash of the state", ms(began) * 1e3, "µs");
    let began = Instant::now();
    let fullest = Counters {
        fullest: true,
        most: 20,
        ..Counters::default()
    };
    assert_eq!(machine.ledger().rows(&fullest).0.len(), 20);
    row("the fullest found, in the leader's loop", ms(began), "ms");
    let began = Instant::now();
    let image = machine.image();
    row(
        "frozen for a snapshot, in the leader's loop",
        ms(began),
        "ms",
    );
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("state");
    let began = Instant::now();
    snapshot_file::write_to(&path, &image, &About::of(&image, None)).expect("the disk takes it");
    row("written and synced", ms(began), "ms");
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    row("file", mib(bytes), "MiB");
    row("file, a counter", bytes as f64 / counters as f64, "bytes");
    let began = Instant::now();
    let (read, _) = snapshot_file::load_any(&path, bounds()).expect("it is read again");
    row("read again", ms(began), "ms");
    assert_eq!(read.hash(), hash);
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4_096
}
