//! What machines and networks do to a cluster, for some windows; the limit holds in each of them. Then all is mended, and
//! the limit is reached again, exactly.

use super::{
    drive::{next_window, while_calling},
    judge::{Judged, judge},
    *,
};
use rustix::process::Signal;
use std::{process::Command, time::Duration};

const WINDOW_MS: u64 = 10_000;
const MAX: u64 = 30;

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Calls from everywhere to everywhere while `storm` does its worst; judges every window, and demands `MAX` of those that
/// follow a whole quiet one.
fn weather(
    name: &str,
    clients: usize,
    prepare: impl FnOnce(&mut Fleet),
    storm: impl FnOnce(&Net, &mut Fleet),
) {
    if skipped() {
        return;
    }
    let net = Net::new(3 + clients);
    let upstream = record(&net);
    let set = grants("g", 2);
    let told = Told {
        upstream: upstream.url(),
        policies: vec![("p".into(), limited(MAX, "10s"))],
        grants: set
            .iter()
            .map(|(id, token)| (id.clone(), token.clone(), "p".into()))
            .collect(),
    };
    let mut fleet = Fleet::form(&net, &told, 3, clients);
    prepare(&mut fleet);
    let nodes = fleet.addresses();
    let plan = Plan {
        name,
        nodes: &nodes,
        grants: &set,
        callers: 8,
        pause: Duration::from_millis(25),
        tool: "echo",
        amount: 1,
    };
    let tally = Tally::default();
    let mut quiet = 0;
    while_calling(&net, &[(&plan, &tally)], || {
        pause(2_000);
        storm(&net, &mut fleet);
        net.heal();
        // One window to find each other again, then one that counts.
        next_window(WINDOW_MS);
        next_window(WINDOW_MS);
        quiet = daemon::clock::now().unix_ms / WINDOW_MS;
        next_window(WINDOW_MS);
    });
    let (_dir, audits) = fleet.end();
    let found = judge(
        upstream.recorder(),
        &audits,
        &Judged {
            grants: "g",
            window_ms: WINDOW_MS,
            max: MAX,
        },
    );
    println!(
        "{name}: {}; {} executed, {} of them without an audit line",
        tally.text(),
        found.executed,
        found.unwritten
    );
    for ((grant, window), charged) in &found.charged {
        if *charged < MAX {
            println!(
                "{name}: {grant} in window {window}: {charged} of {MAX}, {} short",
                MAX - charged
            );
        }
    }
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    for (grant, _) in &set {
        let charged = found.charged.get(&(grant.clone(), quiet)).copied();
        assert_eq!(
            charged,
            Some(MAX),
            "{grant} in the quiet window {quiet} of {:?}",
            found.charged
        );
    }
}

#[test]
fn partitions_of_every_kind_admit_nothing_beyond_max() {
    weather(
        "parted",
        2,
        |_| {},
        |net, fleet| {
            let leader = fleet.leader();
            let others: Vec<usize> = (0..fleet.nodes.len())
                .filter(|node| *node != leader)
                .collect();
            // The leader alone, and the clients with the majority.
            net.part(&[leader], &others);
            pause(7_000);
            net.heal();
            pause(2_000);
            // A minority of one voter and one client.
            let leader = fleet.leader();
            let voter = (0..3).find(|node| *node != leader).unwrap();
            let rest: Vec<usize> = (0..4).filter(|node| *node != voter).collect();
            net.part(&[voter, 4], &rest);
            pause(7_000);
            net.heal();
            // The leader is heard and hears nothing; then the other way round.
            for deaf in [true, false] {
                let leader = fleet.leader();
                let others = (0..fleet.nodes.len()).filter(|node| *node != leader);
                net.cut(others.map(|node| if deaf { (node, leader) } else { (leader, node) }));
                pause(5_000);
                net.heal();
                pause(2_000);
            }
            // Flapping.
            for _ in 0..8 {
                net.part(&[0], &[1, 2, 3]);
                pause(400);
                net.part(&[1], &[0, 2, 4]);
                pause(400);
                net.heal();
                pause(300);
            }
            // Nobody hears anybody.
            net.cut((0..5).flat_map(|a| (0..5).filter(move |b| *b != a).map(move |b| (a, b))));
            pause(5_000);
        },
    );
}

#[test]
fn killed_leaders_and_clients_admit_nothing_beyond_max() {
    weather(
        "killed",
        2,
        |_| {},
        |_, fleet| {
            for round in 0..6 {
                let leader = fleet.leader();
                fleet.nodes[leader].kill();
                pause(1_500 + 500 * round);
                fleet.nodes[leader].start();
                let client = 3 + (round as usize % 2);
                fleet.nodes[client].kill();
                pause(700);
                fleet.nodes[client].start();
                pause(1_500);
            }
            // All at once.
            for node in &mut fleet.nodes {
                node.kill();
            }
            pause(1_000);
            for node in &mut fleet.nodes {
                node.launch();
            }
            pause(3_000);
        },
    );
}

#[test]
fn stopped_processes_admit_nothing_beyond_max() {
    weather(
        "stopped",
        2,
        |_| {},
        |_, fleet| {
            for (seconds, who) in [(3, None), (12, Some(3)), (5, None), (30, Some(4))] {
                let node = who.unwrap_or_else(|| fleet.leader());
                fleet.nodes[node].signal(Signal::STOP);
                pause(seconds * 1_000);
                fleet.nodes[node].signal(Signal::CONT);
                pause(2_000);
            }
        },
    );
}

#[test]
fn a_voter_whose_disk_is_full_ends_and_the_quorum_goes_on() {
    weather(
        "full",
        1,
        |_| {},
        |_, fleet| {
            let victim = (fleet.leader() + 1) % 3;
            fleet.nodes[victim].terminate();
            let disk = fleet.nodes[victim].dir().join("data");
            let beside = fleet.nodes[victim].dir().join("beside");
            std::fs::rename(&disk, &beside).unwrap();
            std::fs::create_dir(&disk).unwrap();
            let mounted = |words: &[&str]| {
                Command::new(words[0])
                    .args(&words[1..])
                    .status()
                    .unwrap()
                    .success()
            };
            let path = disk.to_str().unwrap().to_owned();
            assert!(mounted(&[
                "mount",
                "-t",
                "tmpfs",
                "-o",
                "size=160m,mode=0700",
                "tmpfs",
                &path
            ]));
            let ballast = disk.join("ballast");
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert!(mounted(&[
                    "cp",
                    "-a",
                    &format!("{}/.", beside.display()),
                    &path
                ]));
                fleet.nodes[victim].start();
                pause(2_000);
                // Everything that is left, in small steps: nothing but the log can grow now.
                let _ = Command::new("dd")
                    .args([
                        "if=/dev/zero",
                        &format!("of={}", ballast.display()),
                        "bs=4k",
                    ])
                    .stderr(std::process::Stdio::null())
                    .status();
                // The log takes room in steps of some megabytes: large documents use up the step that it has.
                let document = fleet.nodes[victim].dir().join("large.yaml");
                let text = format!(
                    "{{\"version\": \"1\", \"default\": \"allow\"}}{}",
                    " ".repeat(900 << 10)
                );
                std::fs::write(&document, text).unwrap();
                let other = (victim + 1) % 3;
                for number in 0..6 {
                    let name = format!("large{number}");
                    fleet.nodes[other].tollgate(&[
                        "policy",
                        "put",
                        &name,
                        document.to_str().unwrap(),
                    ]);
                }
                let until = std::time::Instant::now() + Duration::from_secs(40);
                let code = loop {
                    if let Some(code) = fleet.nodes[victim].ended() {
                        break code;
                    }
                    assert!(
                        std::time::Instant::now() < until,
                        "it goes on, on a full disk"
                    );
                    pause(100);
                };
                assert_eq!(code, Some(74), "{}", fleet.nodes[victim].log());
                std::fs::remove_file(&ballast).unwrap();
                fleet.nodes[victim].start();
                pause(1_000);
                fleet.nodes[victim].terminate();
                assert!(mounted(&[
                    "sh",
                    "-c",
                    &format!("cp -a {path}/. {}/", beside.display())
                ]));
            }));
            fleet.nodes[victim].kill();
            let unmounted = mounted(&["umount", &path]);
            if let Err(why) = outcome {
                std::panic::resume_unwind(why);
            }
            assert!(unmounted);
            std::fs::remove_dir(&disk).unwrap();
            std::fs::rename(&beside, &disk).unwrap();
            fleet.nodes[victim].start();
        },
    );
}

#[test]
fn a_voter_with_another_wall_clock_neither_leads_nor_moves_windows() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ]
    .into_iter()
    .find(|path| std::path::Path::new(path).exists());
    let Some(library) = library else {
        assert!(
            std::env::var_os("CI").is_none(),
            "libfaketime is missing (Debian: libfaketime)"
        );
        eprintln!("skipped: libfaketime is missing (Debian: libfaketime)");
        return;
    };
    let skewed = 2;
    let skew = |fleet: &mut Fleet| {
        let node = &mut fleet.nodes[skewed];
        node.terminate();
        node.env = vec![
            ("LD_PRELOAD".into(), library.into()),
            ("FAKETIME".into(), "+40s".into()),
            ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ];
        node.start();
    };
    weather("skewed", 1, skew, |_, fleet| {
        for _ in 0..3 {
            let leader = fleet.leader();
            assert_ne!(leader, skewed, "a voter whose clock is 40 s ahead leads");
            fleet.nodes[leader].kill();
            pause(4_000);
            fleet.nodes[leader].start();
            pause(3_000);
        }
    });
}
