//! `run`, against the recording server: what it says is what happened.

use crate::client::start;
use loadtest::{
    result::{Class, Document, Round},
    upstream::{Eras, Options, Running},
};
use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

/// Runs the program and returns what it wrote to `--out -`.
pub fn run(arguments: &[&str]) -> (Output, Option<Document>) {
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate-loadtest"))
        .args(["run", "--out", "-"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let document = (!text.is_empty()).then(|| Document::from_json(&text).unwrap());
    (output, document)
}

pub fn measured(server: &Running, arguments: &[&str]) -> Round {
    let url = server.url();
    let (output, document) = run(&[&[url.as_str(), "--warm-up", "0s"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let document = document.unwrap_or_else(|| panic!("{said}"));
    document.rounds.into_iter().next().unwrap()
}

pub fn count(round: &Round, class: Class) -> u64 {
    let of_class = round.classes.iter().filter(|c| c.class == class);
    of_class.map(|c| c.count).sum()
}

fn refused(arguments: &[&str]) -> String {
    let (output, document) = run(arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(document.is_none());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_request_is_counted_once_and_reached_the_upstream_once() {
    for (eras, arguments) in [
        (Eras::Modern, &["--workers", "8"][..]),
        (Eras::Legacy, &["--workers", "8"]),
        (Eras::Both, &["--rate", "2000"]),
        (Eras::Both, &["--workers", "4", "--churn"]),
        (
            Eras::Both,
            &["--rate", "2000", "--poisson", "--connections", "3"],
        ),
        (Eras::Both, &["--rate", "2000", "--busy-poll"]),
    ] {
        let server = start(Options {
            eras,
            ..Options::default()
        });
        let round = measured(
            &server,
            &[&["--count", "500", "--threads", "2"], arguments].concat(),
        );
        assert_eq!(
            count(&round, Class::Ok),
            500,
            "{arguments:?} {:?}",
            round.samples
        );
        assert_eq!((round.due, round.unsent), (500, 0));
        assert_eq!(server.recorder().count("echo"), 500);
        let seconds: u64 = round.series.iter().map(|s| s.total()).sum();
        assert_eq!(seconds, 500);
        assert_eq!(round.latency.count, 500);
        if arguments.contains(&"--churn") {
            assert_eq!(round.connects, 500);
        }
    }
}

#[test]
fn a_planted_stall_is_fully_visible_in_the_percentiles() {
    let server = start(Options::default());
    let stall = Duration::from_millis(200);
    let round = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            measured(
                &server,
                &[
                    "--rate",
                    "500",
                    "--duration",
                    "2s",
                    "--connections",
                    "256",
                    "--threads",
                    "1",
                ],
            )
        });
        // In the midst of it.
        while server.recorder().total() < 400 {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.stall(stall);
        measuring.join().unwrap()
    });
    assert_eq!(count(&round, Class::Ok), 1000, "{:?}", round.samples);
    // Whoever was due while it slept waited for what was left of the 200 ms: a tenth of all requests, spread evenly
    // from 200 ms down. A loop that waits for its replies would have one such request.
    let ms = |quantile: f64| round.latency.quantile(quantile) as f64 / 1e6;
    let slow = |over_ms: u64| -> u64 {
        let over = round
            .latency
            .buckets
            .iter()
            .filter(|b| b.0 > over_ms * 1_000_000);
        over.map(|b| b.1).sum()
    };
    assert!(ms(1.0) >= 199.0, "longest {} ms", ms(1.0));
    assert!(ms(0.99) >= 175.0, "p99 {} ms", ms(0.99));
    assert!(ms(0.95) >= 95.0, "p95 {} ms", ms(0.95));
    // 75 requests are due in the first 150 ms of the stall, and none of them can be answered in less than 50.
    assert!(slow(50) >= 74, "{} over 50 ms", slow(50));
}

#[test]
fn an_interrupt_ends_a_run_with_what_was_measured_even_when_it_is_passed_on_twice() {
    let server = start(Options::default());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-loadtest"))
        .args(["run", &server.url(), "--rate", "200", "--warm-up", "0s"])
        .args(["--duration", "60s", "--out"])
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while server.recorder().total() < 100 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let document = Document::from_json(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert!(document.interrupted);
    let ok = count(&document.rounds[0], Class::Ok);
    assert!((100..10_000).contains(&ok), "{ok}");
}

#[test]
fn sessions_are_opened_kept_replaced_and_deleted() {
    let server = start(Options {
        eras: Eras::Legacy,
        ..Options::default()
    });
    let arguments = ["--count", "100", "--threads", "1", "--workers", "4"];
    let kept = measured(&server, &arguments);
    assert_eq!((kept.sessions, count(&kept, Class::Ok)), (1, 100));
    let replaced = measured(
        &server,
        &[&arguments[..], &["--session-calls", "10"]].concat(),
    );
    assert_eq!((replaced.sessions, count(&replaced, Class::Ok)), (10, 100));
    assert!(server.sessions().is_empty(), "{:?}", server.sessions());
}

#[test]
fn a_session_that_the_server_forgot_is_replaced() {
    let server = start(Options {
        eras: Eras::Legacy,
        ..Options::default()
    });
    let round = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            measured(
                &server,
                &["--rate", "300", "--duration", "1s", "--threads", "1"],
            )
        });
        while server.recorder().total() < 100 {
            std::thread::sleep(Duration::from_millis(2));
        }
        server.forget_sessions();
        measuring.join().unwrap()
    });
    assert_eq!(round.sessions, 2);
    let (ok, lost) = (count(&round, Class::Ok), count(&round, Class::Rejected));
    assert!(lost >= 1 && ok >= 250 && ok + lost == 300, "{ok} {lost}");
}

#[test]
fn a_mix_is_drawn_by_weight_and_streams_are_read() {
    let server = start(Options::default());
    let round = measured(
        &server,
        &[
            "--count",
            "1000",
            "--progress",
            "--call",
            r#"echo*6 {"message":"{{text:1..2000}}"}"#,
            "--call",
            r#"progress*3 {"steps":2}"#,
            "--call",
            "tools/list",
            "--listens",
            "3",
        ],
    );
    assert_eq!(count(&round, Class::Ok), 1000, "{:?}", round.samples);
    let (echo, progress) = (
        server.recorder().count("echo"),
        server.recorder().count("progress"),
    );
    assert!((540..660).contains(&echo), "{echo}");
    assert!((250..350).contains(&progress), "{progress}");
    assert_eq!(round.progress_events, 2 * progress as u64);
    assert_eq!(round.first_event.unwrap().count, progress as u64);
}

#[test]
fn bodies_may_have_eight_megabytes_and_come_back_as_they_were() {
    let server = start(Options::default());
    let round = measured(
        &server,
        &[
            "--count",
            "2",
            "--workers",
            "1",
            "--call",
            r#"echo {"message":"{{text:8388608}}"}"#,
        ],
    );
    assert_eq!(count(&round, Class::Ok), 2, "{:?}", round.samples);
    assert!(round.bytes_sent > 16 << 20 && round.bytes_received > 16 << 20);
}

#[test]
fn errors_say_what_to_do() {
    let server = start(Options::default());
    let url = server.url();
    for (arguments, part) in [
        (&["http://127.0.0.1:1/mcp"][..], "is the server running"),
        (&[url.as_str(), "--call", "ecko"], "Did you mean `echo`?"),
        (&[&url, "--call", "echo {"], "are no JSON"),
        (&[&url, "--grants", "/no/such/file"], "NAME TOKEN"),
        (&[&url, "--slo", "p99"], "p99<5ms"),
        (&[&url, "--connections", "4"], "say --workers"),
        (&[&url, "--busy-poll"], "say --rate"),
        (&[&url, "--protocol", "2031-01-01"], "2026-07-28"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    server.fault("*", Some(loadtest::upstream::Fault::Unauthorized));
    assert!(refused(&[&url]).contains("wants a token"));
    let file = std::env::temp_dir().join(format!("grants-{}", std::process::id()));
    std::fs::write(&file, "agent-a secret\n").unwrap();
    let said = refused(&[&url, "--grants", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(
        said.contains("`agent-a`") && !said.contains("secret"),
        "{said}"
    );
}
