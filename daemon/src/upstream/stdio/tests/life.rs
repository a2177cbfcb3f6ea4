//! How children are started, bounded and ended.

use super::*;

/// A server that says and opens nothing by itself.
fn silent() -> StdioTarget {
    StdioTarget {
        command: vec!["cat".into()],
        ..target("")
    }
}

#[tokio::test]
async fn a_child_sees_only_inherited_and_named_variables() {
    let mut target = silent();
    target.env = vec![("API_TOKEN".into(), "dummy=1".into())];
    let pool = pool();
    let process = pool
        .start(&name(), &target, &Bounds::default())
        .await
        .unwrap();
    let seen = std::fs::read_to_string(format!("/proc/{}/environ", process.pid())).unwrap();
    let mut seen: Vec<&str> = seen.split_terminator('\0').collect();
    let mut expected: Vec<String> = ["PATH", "HOME", "LANG", "TMPDIR"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .chain(["API_TOKEN=dummy=1".to_owned()])
        .collect();
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_child_has_three_descriptors_and_its_own_process_group() {
    let _file = std::fs::File::open("/dev/null").unwrap();
    let _socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Whoever started the tests may have left descriptors open in them that are not close-on-exec.
    let inherited = |fd: &std::ffi::OsString| {
        let info = std::path::Path::new("/proc/self/fdinfo").join(fd);
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|octal| {
            i64::from_str_radix(octal.trim(), 8).is_ok_and(|flags| flags & 0o2_000_000 == 0)
        })
    };
    let mut expected: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(inherited)
        .collect();
    expected.sort_unstable();
    assert!(expected.len() < 8, "ours are close-on-exec: {expected:?}");
    let pool = pool();
    let bounds = Bounds::default();
    let first = pool.start(&name(), &silent(), &bounds).await.unwrap();
    let second = pool.start(&name(), &silent(), &bounds).await.unwrap();
    for process in [&first, &second] {
        let pid = process.pid();
        // Its loader opens libraries for a moment.
        until(|| {
            let mut open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            open.sort_unstable();
            open == expected
        })
        .await;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = stat.rsplit(") ").next().unwrap().split(' ').nth(2);
        assert_eq!(group, Some(pid.to_string().as_str()));
    }
    assert_eq!(pool.processes(), 2);
    first.end().await;
    second.end().await;
    assert_eq!(pool.processes(), 0);
}

#[tokio::test]
async fn resource_limits_and_directory_are_the_childs() {
    let script = r#"
def handle(m):
    limits = dict((l[:25].strip(), l[25:].split()[:2]) for l in open("/proc/self/limits"))
    reply(m, [limits["Max address space"], limits["Max cpu time"], limits["Max open files"], os.getcwd()])"#;
    let mut target = target(script);
    target.rlimits = Rlimits {
        memory_bytes: Some(1 << 30),
        cpu_seconds: Some(7),
        files: Some(50),
    };
    target.dir = Some("/".into());
    let pool = pool();
    let process = pool
        .start(&name(), &target, &Bounds::default())
        .await
        .unwrap();
    assert_eq!(
        result(&process, 1, "limits").await,
        json!([["1073741824", "1073741824"], ["7", "7"], ["50", "50"], "/"])
    );
}

#[tokio::test]
async fn a_child_runs_as_the_named_user_without_other_groups() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let script = "def handle(m): reply(m, [os.getuid(), os.getgid(), os.getgroups()])";
    let mut target = target(script);
    target.user = Some((65_534, 65_533));
    let pool = pool();
    let process = pool
        .start(&name(), &target, &Bounds::default())
        .await
        .unwrap();
    let seen = result(&process, 1, "user").await;
    assert_eq!(seen, json!([65_534, 65_533, []]));
}

#[tokio::test]
async fn ending_a_session_ends_its_child_and_what_that_started() {
    let script = r#"
def handle(m):
    quiet = subprocess.Popen(["sleep", "1000"], stdin=-3, stdout=-3, stderr=-3)
    loud = subprocess.Popen(["sleep", "1000"])
    reply(m, [quiet.pid, loud.pid, os.getpid()])"#;
    let pool = pool();
    for by_drop in [false, true] {
        let process = start(&pool, script).await;
        let pids = result(&process, 1, "spawn").await;
        let pids: Vec<u64> = serde_json::from_value(pids).unwrap();
        assert!(pids.iter().all(|&pid| runs(pid)));
        let began = Instant::now();
        if by_drop {
            drop(process);
        } else {
            within(5, process.end()).await;
            assert!(process.has_ended());
        }
        until(|| pool.processes() == 0 && !pids.iter().any(|&pid| runs(pid))).await;
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "nobody had to wait"
        );
    }
}

#[tokio::test]
async fn a_child_that_ignores_the_end_of_its_input_and_sigterm_is_killed() {
    let script = r#"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def handle(m):
    reply(m, os.getpid())
    while True: time.sleep(1)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let pid = result(&process, 1, "pid").await.as_u64().unwrap();
    let began = Instant::now();
    within(10, process.end()).await;
    assert!(!runs(pid));
    let took = began.elapsed().as_millis();
    assert!((3_900..5_500).contains(&took), "{took} ms");
}

#[tokio::test]
async fn a_child_that_dies_ends_its_session_and_fails_what_was_in_flight() {
    let script = r#"
def handle(m):
    if m["method"] == "die": os._exit(3)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let waits = call(&process, 1, "wait");
    let dies = call(&process, 2, "die");
    let (waits, dies) = within(5, async { tokio::join!(waits, dies) }).await;
    for outcome in [waits, dies] {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert!(!error.unsent);
    }
    within(1, process.ended()).await;
    let error = call(&process, 3, "late").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::SessionGone);
    assert!(error.unsent);
    assert_eq!(process.stream().unwrap_err().kind, ErrorKind::SessionGone);
    until(|| pool.processes() == 0).await;
    assert_eq!(pool.counters(&name()).died.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_reply_written_with_the_last_breath_arrives() {
    let script = "def handle(m):\n    reply(m, 1)\n    os._exit(0)";
    let pool = pool();
    let process = start(&pool, script).await;
    assert_eq!(result(&process, 1, "last").await, 1);
}

#[tokio::test]
async fn a_command_that_keeps_dying_must_pause() {
    let pool = pool();
    let bounds = Bounds::default();
    let mut dead = target("");
    dead.command = vec!["false".into()];
    for round in 1..=2u64 {
        let process = pool.start(&name(), &dead, &bounds).await.unwrap();
        within(5, process.ended()).await;
        until(|| pool.processes() == 0).await;
        let error = pool.start(&name(), &dead, &bounds).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Connect);
        assert!(error.unsent);
        let detail = error.detail;
        assert!(
            detail.contains(&format!("{round} failed starts in a row")),
            "{detail}"
        );
        tokio::time::sleep(Duration::from_millis(510 * round)).await;
    }
    let mut missing = target("");
    missing.command = vec!["/nowhere/to/be/found".into()];
    let error = pool.start(&name(), &missing, &bounds).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Connect);
    assert!(error.detail.contains("/nowhere"), "{}", error.detail);
    let error = pool.start(&name(), &missing, &bounds).await.unwrap_err();
    assert!(error.detail.contains("keeps dying"), "{}", error.detail);
    // Another command for the same name owes nothing for the old one.
    let process = pool.start(&name(), &target(""), &bounds).await.unwrap();
    process.end().await;
    assert_eq!(pool.processes(), 0);
}

#[tokio::test]
async fn processes_are_bounded_for_a_server_and_in_all() {
    let pool = pool();
    let mut one = target("");
    one.processes_max = 1;
    let bounds = Bounds {
        processes: 2,
        ..Bounds::default()
    };
    let (a, b, c) = (
        ServerName::new("a"),
        ServerName::new("b"),
        ServerName::new("c"),
    );
    let first = pool.start(&a, &one, &bounds).await.unwrap();
    let kind = |outcome: Result<Arc<Process>, Error>| outcome.unwrap_err().kind;
    assert_eq!(
        kind(pool.start(&a, &one, &bounds).await),
        ErrorKind::Overloaded
    );
    let _second = pool.start(&b, &one, &bounds).await.unwrap();
    assert_eq!(
        kind(pool.start(&c, &one, &bounds).await),
        ErrorKind::Overloaded
    );
    first.end().await;
    let _third = pool.start(&c, &one, &bounds).await.unwrap();
    within(7, pool.close()).await;
    assert_eq!(pool.processes(), 0);
    assert_eq!(
        kind(pool.start(&a, &one, &bounds).await),
        ErrorKind::Overloaded
    );
}

#[tokio::test]
async fn a_child_that_reads_nothing_is_given_up() {
    let pool = pool();
    let bounds = Bounds {
        body_timeout: Duration::from_millis(300),
        ..Bounds::default()
    };
    let mut deaf = target("");
    deaf.command = vec!["sleep".into(), "1000".into()];
    let process = pool.start(&name(), &deaf, &bounds).await.unwrap();
    let long = json!({"text": "x".repeat(1 << 20)});
    let first = process.post(request(json!(1), "echo", long.clone(), 10_000));
    let second = process.post(request(json!(2), "echo", long, 10_000));
    let (first, second) = within(5, async { tokio::join!(first, second) }).await;
    let (first, second) = (first.unwrap_err(), second.unwrap_err());
    assert_eq!((first.kind, first.unsent), (ErrorKind::Protocol, false));
    assert!(first.detail.contains("read none"), "{}", first.detail);
    assert!(second.unsent, "nothing of the second was written");
    assert!(process.has_ended());
}

#[test]
fn a_process_serves_other_runtimes_than_its_own() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (send, receive) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let home = std::thread::spawn(move || {
        runtime().block_on(async {
            let pool = pool();
            send.send(start(&pool, "").await).unwrap();
            let _ = stopped.await;
        });
    });
    let process = receive.recv().unwrap();
    let pid = u64::from(process.pid());
    runtime().block_on(async {
        assert_eq!(result(&process, 1, "echo").await, json!({}));
        let quiet = call(&process, 2, "quiet").await.unwrap();
        assert!(is_stream(&quiet));
        assert!(runs(pid));
        // The runtime that it lives on stops: the child must not outlive it.
        stop.send(()).unwrap();
        until(|| !runs(pid)).await;
        within(1, process.end()).await;
    });
    home.join().unwrap();
}
