use super::*;
use crate::{audit, view::Transport};
use proto::grant::TokenHash;
use std::time::Duration;

const TOKEN: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

fn env(name: &str) -> Option<String> {
    match name {
        "UPSTREAM_TOKEN" => Some("s3cret".into()),
        "EMPTY" => Some(String::new()),
        "NEWLINE" => Some("a\nb".into()),
        "PATH" => Some("/bin:/usr/bin".into()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Loaded, Vec<FileProblem>> {
    let dir = tempfile::tempdir().unwrap();
    let sources = Sources {
        env: &env,
        builtin: &[("open.yaml", "version: \"1\"\ndefault: allow\ntools: {}\n")],
    };
    load_with(text, dir.path(), &sources, 1)
}

fn errors(text: &str) -> Vec<String> {
    match load(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .filter(|p| p.is_error())
            .map(|p| format!("{} {}", p.problem.at, p.problem.message))
            .collect(),
    }
}

/// Asserts that each row's text has exactly the problems that start so.
fn all_told(rows: &[(&str, &[&str])]) {
    let fits = |found: &[String], expected: &[&str]| {
        found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.starts_with(e))
    };
    let wrong: Vec<_> = rows
        .iter()
        .map(|(text, expected)| (text, expected, errors(text)))
        .filter(|(_, expected, found)| !fits(found, expected))
        .map(|(text, expected, found)| format!("{text}\nexpected {expected:#?}\nfound {found:#?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_empty_file_is_a_configuration_of_defaults() {
    let loaded = load("").unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.listeners.len(), 1);
    assert!(settings.listeners[0].address.ip().is_loopback());
    assert_eq!(
        settings.listeners[0].serve,
        Serve {
            mcp: true,
            health: true,
            metrics: true
        }
    );
    assert_eq!(settings.audit.sink, audit::Sink::Stdout);
    assert_eq!(settings.reload_interval, Some(Duration::from_secs(1)));
    assert!(settings.runtimes >= 1 && settings.admin.unix.is_some());
    assert!(!settings.secret.configured);
    assert_eq!(*loaded.view.bounds, crate::bounds::Bounds::default());
    assert!(load("servers:\nbounds:\naudit: # nothing\ngrants:\nlisteners:\n").is_ok());
}

#[test]
fn problems_of_the_top_are_told_with_their_places() {
    all_told(&[
        ("- a\n", &["1:1 expected a mapping, found a list"]),
        (
            "listener: []\n",
            &["1:1 unknown key `listener`; did you mean `listeners`?"],
        ),
        (
            "runtimes: 2000\n",
            &["1:11 `runtimes` goes from 0 to 1024, not 2000"],
        ),
        (
            "runtimes: two\n",
            &["1:11 expected a whole number from 0, found text"],
        ),
        (
            "reload_interval: 5ms\n",
            &["1:18 `reload_interval` goes from 100ms to 366d, not 5ms"],
        ),
        (
            "reload_interval: 5\n",
            &["1:18 expected a duration such as"],
        ),
        (
            "log: {level: daemon=loud, format: xml}\n",
            &[
                "1:14 log level `daemon=loud` cannot be read",
                "1:35 `xml` is none of human, json",
            ],
        ),
        (
            "hosts: ['gate:80', 'a/b', '']\norigins: [app.example.com, 'https://a.example/x', 'https://ok.example']\n",
            &[
                "1:9 expected a host's name",
                "1:20 expected a host's name",
                "1:27 expected a host's name",
                "2:11 expected an origin",
                "2:28 expected an origin",
            ],
        ),
        (
            "bounds: {body_bytes: 1B, headers: 5, depth: -1, session_idle: 30, calls: 3}\n",
            &[
                "1:22 `body_bytes` goes from 1KiB to 1GiB, not 1B",
                "1:35 `headers` goes from 16 to 10000, not 5",
                "1:45 expected a whole number from 0, found -1",
                "1:63 expected a duration such as",
            ],
        ),
        (
            "bounds: {body_byte: 1KiB}\n",
            &["1:10 unknown key `body_byte`; did you mean `body_bytes`?"],
        ),
        (
            "identity_secret: {env: NOT_SET}\n",
            &["1:18 the environment variable `NOT_SET` is not set"],
        ),
        (
            "identity_secret: {env: UPSTREAM_TOKEN}\n",
            &["1:18 the identity secret is shorter than 16 bytes"],
        ),
        (
            "identity_secret: {}\n",
            &["1:18 give exactly one of `file` and `env`"],
        ),
        (
            "identity_secret: {file: a, env: b}\n",
            &["1:18 give exactly one of `file` and `env`"],
        ),
    ]);
}

#[test]
fn problems_of_listeners_are_told_with_their_places() {
    all_told(&[
        ("listeners: []\n", &["1:12 at least one listener"]),
        ("listeners: [{}]\n", &["1:13 `address` is missing"]),
        (
            "listeners: [{address: localhost}]\n",
            &["1:23 expected an IP address and a port"],
        ),
        (
            "listeners: [{address: '0.0.0.0:80'}]\n",
            &["1:23 0.0.0.0:80 is off loopback and without `tls`"],
        ),
        ("listeners: [{address: '[::]:80', insecure: true}]\n", &[]),
        (
            "listeners: [{address: '127.0.0.1:0', serve: []}]\n",
            &["1:45 `serve` is empty"],
        ),
        (
            "listeners: [{address: '127.0.0.1:0', serve: [mpc]}]\n",
            &["1:46 `mpc` is none of mcp, health, metrics; did you mean `mcp`?"],
        ),
        (
            "listeners:\n- address: 127.0.0.1:1\n- address: 127.0.0.1:1\n",
            &["3:12 a second listener at 127.0.0.1:1"],
        ),
        (
            "listeners:\n- address: 127.0.0.1:1\n  tls: {cert: c.pem, client_auth: optional}\n",
            &[
                "3:8 `key` is missing",
                "3:15 ",
                "3:35 `client_auth` needs `client_ca`",
            ],
        ),
    ]);
}

#[test]
fn problems_of_audit_and_admin_are_told_with_their_places() {
    all_told(&[
        (
            "audit: {queue: 0}\n",
            &["1:16 `queue` goes from 1 to 1048576, not 0"],
        ),
        (
            "audit: {sink: printer}\n",
            &["1:15 `printer` is none of stdout, file, syslog"],
        ),
        (
            "audit: {sink: file}\n",
            &["1:15 `file` needs a mapping: `file: …`"],
        ),
        ("audit: {sink: {file: {}}}\n", &["1:22 `path` is missing"]),
        (
            "audit:\n  sink:\n    file: {path: a, rotate_bytes: 1KiB, rotate_age: 1s, keep: 99999, retain: never}\n",
            &[
                "3:35 `rotate_bytes` is at least 64KiB",
                "3:53 `rotate_age` goes from 1m to 366d, not 1s",
                "3:63 `keep` goes from 0 to 10000, not 99999",
                "3:78 `never` is none of best_effort, required",
            ],
        ),
        (
            "audit: {sink: {syslog: {}}}\n",
            &["1:24 give exactly one of `socket`, `udp` and `tcp`"],
        ),
        (
            "audit: {sink: {syslog: {udp: '10.0.0.1:514'}}}\n",
            &["1:30 syslog is not encrypted"],
        ),
        (
            "admin: {tcp: {address: '127.0.0.1:1'}}\n",
            &["1:14 the admin plane over TCP needs `tls`, `token_sha256`"],
        ),
        (
            "admin: {tcp: {address: '10.0.0.1:1', token_sha256: abc}}\n",
            &[
                "1:24 without `tls` the admin plane stays on loopback",
                "1:52 expected `sha256:`",
            ],
        ),
    ]);
    let long = format!("admin: {{socket: /{}}}\n", "x".repeat(120));
    assert_eq!(
        errors(&long),
        ["1:17 a socket's path has at most 100 bytes"]
    );
}

#[test]
fn problems_of_servers_are_told_with_their_places() {
    all_told(&[
        (
            "servers: {a/b: {url: 'http://localhost'}}\n",
            &["1:11 the name of a server is 1 to 64"],
        ),
        (
            "servers: {a: {}}\n",
            &["1:11 `a` needs a `url` or a `command`"],
        ),
        (
            "servers: {a: {url: 'http://x', command: y}}\n",
            &["1:41 `a` has a `url` and a `command`"],
        ),
        (
            "servers: {a: {url: 'ftp://x'}}\n",
            &["1:20 expected a URL that starts with http"],
        ),
        (
            "servers: {a: {url: 'https://u:p@x'}}\n",
            &["1:20 credentials do not belong into a URL"],
        ),
        ("servers: {a: {url: 'https://x/#y'}}\n", &["1:20 "]),
        ("servers: {a: {url: 'x y'}}\n", &["1:20 not a URL"]),
        (
            "servers: {a: {url: 'http://localhost', args: [x], user: {uid: 1, gid: 1}, ca_file: ca.pem}}\n",
            &[
                "1:46 `args` is for servers with a `command`",
                "1:57 `user` is for servers with a `command`",
                "1:84 ",
                "1:84 `ca_file` is for https",
            ],
        ),
        (
            "servers: {a: {command: cat, headers: {X: y}}}\n",
            &["1:38 `headers` is for servers with a `url`"],
        ),
        (
            "servers:\n  a:\n    url: https://x.example\n    headers:\n      Authorization: {env: NOT_SET}\n      \
             Bad Name: x\n      Host: y\n      Mcp-Method: z\n      X-A: \"a\\nb\"\n      x-a: b\n      X-B: {evn: Y}\n      \
             X-C: 5\n      X-D: {env: NEWLINE}\n",
            &[
                "5:22 the environment variable `NOT_SET` is not set",
                "6:7 `Bad Name` is not the name of a header",
                "7:7 the gateway sets `Host` itself",
                "8:7 the gateway sets `Mcp-Method` itself",
                "9:12 the value holds characters",
                "11:13 unknown key `evn`",
                "12:12 expected text in quotes, `{file: …}` or `{env: …}`, found 5",
                "13:12 the value holds characters",
            ],
        ),
        (
            "servers:\n  a:\n    command: cat\n    env: {'A=B': x, EMPTY: {env: EMPTY}, UPSTREAM_TOKEN: x}\n    \
             pass_env: [UPSTREAM_TOKEN]\n    processes: shared\n    processes_max: 0\n    memory: 1MiB\n    cpu: 1500ms\n    \
             files: 1\n    timeout: 1ms\n    calls: 0\n    extra_methods: ['']\n    user: {uid: -1, gid: 0}\n",
            &[
                "4:11 not the name of an environment variable",
                "4:28 the environment variable `EMPTY` is empty",
                "4:42 `UPSTREAM_TOKEN` is also under `pass_env`",
                "6:16 `shared` is none of session",
                "7:20 `processes_max` goes from 1 to 65536",
                "8:13 `memory` is at least 16MiB",
                "9:10 `cpu` is in whole seconds",
                "10:12 `files` goes from 16",
                "11:14 `timeout` goes from 100ms to 366d, not 1ms",
                "12:12 `calls` goes from 1",
                "13:21 a method's name has 1 to 128 bytes",
                "14:17 expected a whole number from 0 to 4294967295, found -1",
            ],
        ),
    ]);
}

#[test]
fn problems_of_grants_and_policies_are_told_with_their_places() {
    let two = format!(
        "grants:\n- {{id: a, token_sha256: '{TOKEN}', servers: {{x: p}}}}\n- {{id: a, token_sha256: ['{TOKEN}'], expires: soon}}\n"
    );
    all_told(&[
        (
            "policies: {p: {}, q: {file: a, inline: {}}}\n",
            &[
                "1:12 `p` needs exactly one of `file` and `inline`",
                "1:19 `q` needs exactly one of `file` and `inline`",
            ],
        ),
        ("policies: {p: {file: nowhere.yaml}}\n", &["1:22 "]),
        ("grants_files: [nowhere.yaml]\n", &["1:16 "]),
        (
            "grants:\n- {}\n",
            &["2:3 `id` is missing", "2:3 `token_sha256` is missing"],
        ),
        (
            "grants: [{id: 'a b', token_sha256: []}]\n",
            &[
                "1:15 the name of a grant is 1 to 64",
                "1:15 the grant `a b` has no token",
            ],
        ),
        (
            "grants: [{id: a, token_sha256: 'tg_plain', label: \"a\\nb\"}]\n",
            &[
                "1:32 expected `sha256:` and 64 hexadecimal digits",
                "1:51 `label` has at most 128 bytes",
            ],
        ),
        (
            &two,
            &[
                "2:110 there is no server `x`",
                "2:113 there is no policy `p`",
                "3:8 the grant `a` is already at configuration:2:8",
                "3:26 the same token is already at configuration:2:25",
                "3:111 not a date and time",
            ],
        ),
        // What is there but cannot be read is not also unknown.
        (
            "servers: {files: {url: 5}}\ngrants: [{id: a, token_sha256: [], servers: {files: null, flies: null}}]\n",
            &[
                "1:24 expected text (in quotes if it is meant: \"5\"), found a number",
                "2:15 the grant `a` has no token",
                "2:59 there is no server `flies`; did you mean `files`?",
            ],
        ),
    ]);
}

#[test]
fn a_secret_at_a_wrong_place_is_not_repeated() {
    for text in [
        "identity_secret: hunter2hunter2\n",
        "servers: {a: {url: 'https://x', headers: hunter2}}\n",
        "servers: {a: {url: 'https://x', headers: {A: {file: {x: hunter2}}}}}\n",
        "grants: hunter2\n",
    ] {
        let told = errors(text).join("\n");
        assert!(!told.is_empty() && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_configuration_becomes_settings_and_a_view() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token.txt"), "abc\n").unwrap();
    std::fs::write(
        dir.path().join("grants.json"),
        format!(
            "[{{\"id\": \"b\", \"token_sha256\": \"{}b\", \"servers\": {{\"files\": null}}}}]",
            &TOKEN[..70]
        ),
    )
    .unwrap();
    let text = format!(
        "listeners:\n- address: 127.0.0.1:0\n- address: 0.0.0.0:8443\n  insecure: true\nservers:\n  web:\n    url: https://mcp.example.com/mcp\n    \
         headers:\n      Authorization: {{file: token.txt, prefix: 'Bearer '}}\n      X-Team: blue\n    timeout: 9s\n  files:\n    command: cat\n    \
         args: [-u]\n    env: {{API: {{env: UPSTREAM_TOKEN}}, MODE: fast}}\n    processes_max: 3\n    memory: 1GiB\ngrants:\n- id: a\n  label: Ada\n  \
         token_sha256: ['{TOKEN}', '{}c']\n  expires: 2030-01-01T00:00:00Z\n  servers: {{web: null, files: null}}\ngrants_files: [grants.json]\n\
         bounds: {{calls_server: 7}}\naudit:\n  queue: 5\n  sink: {{file: {{path: audit.jsonl, rotate_age: 1d, retain: required}}}}\nadmin: {{socket: none}}\n\
         hosts: [Gate.Example.com]\nreload_interval: 0s\n",
        &TOKEN[..70]
    );
    let sources = Sources {
        env: &env,
        builtin: &[],
    };
    let loaded = load_with(&text, dir.path(), &sources, 7).unwrap_or_else(|p| panic!("{p:#?}"));
    let view = &loaded.view;
    assert_eq!(view.revision, 7);
    assert_eq!(view.hosts, ["gate.example.com"]);
    assert_eq!(view.grants.len(), 3);
    let ada = &view.grants[&TokenHash::parse(TOKEN).unwrap()];
    assert_eq!((&*ada.id, ada.label.as_deref()), ("a", Some("Ada")));
    assert_eq!(ada.expires_ms, Some(1_893_456_000_000));
    assert_eq!(ada.servers.len(), 2);
    let web = &view.servers["web"];
    assert_eq!((web.timeout, web.calls), (Duration::from_secs(9), 7));
    let Transport::Http(http) = &web.transport else {
        panic!("not HTTP")
    };
    assert_eq!(http.headers[0].1, "Bearer abc");
    assert!(http.headers.iter().all(|(_, value)| value.is_sensitive()));
    let Transport::Stdio(stdio) = &view.servers["files"].transport else {
        panic!("not stdio")
    };
    assert_eq!(stdio.command, ["cat", "-u"]);
    assert_eq!(
        stdio.env,
        [
            ("API".into(), "s3cret".into()),
            ("MODE".into(), "fast".into())
        ]
    );
    assert_eq!(
        (stdio.processes_max, stdio.rlimits.memory_bytes),
        (3, Some(1 << 30))
    );
    let settings = &loaded.settings;
    assert_eq!(
        settings.listeners[1].serve,
        Serve {
            mcp: true,
            health: true,
            metrics: false
        }
    );
    assert_eq!(
        (settings.reload_interval, settings.admin.unix.as_ref()),
        (None, None)
    );
    let audit::Sink::File(file) = &settings.audit.sink else {
        panic!("not a file")
    };
    assert_eq!(
        file.path,
        std::path::absolute(dir.path().join("audit.jsonl")).unwrap()
    );
    assert!(file.retain_required && file.rotate_age == Some(Duration::from_secs(86_400)));
    let read: Vec<_> = loaded
        .files
        .iter()
        .filter_map(|f| f.file_name()?.to_str())
        .collect();
    assert_eq!(read, ["grants.json", "token.txt"]);
    let told = format!("{loaded:?} {:?}", loaded.remarks);
    assert!(!told.contains("s3cret") && !told.contains("abc"), "{told}");
}

#[test]
fn problems_in_other_files_name_those_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("more.yaml"),
        "- id: a\n  tokens: []\n- id: b\n",
    )
    .unwrap();
    let path = dir.path().join("tollgate.yaml");
    std::fs::write(&path, "grants_files: [more.yaml]\nserver: {}\n").unwrap();
    let attempt = attempt(&path, 1, None);
    let told: Vec<_> = attempt
        .outcome
        .unwrap_err()
        .iter()
        .filter(|p| p.is_error())
        .map(|p| {
            p.to_string()
                .replace(&format!("{}/", dir.path().display()), "")
        })
        .collect();
    assert_eq!(
        told,
        [
            "tollgate.yaml:2:1: error: unknown key `server`; did you mean `servers`?",
            "more.yaml:1:3: error: `token_sha256` is missing",
            "more.yaml:2:3: error: unknown key `tokens`; known here: id, label, token_sha256, former_tokens, expires, revoked, servers",
            "more.yaml:3:3: error: `token_sha256` is missing",
        ]
    );
    assert_eq!(attempt.seen.len(), 2);
}

#[test]
fn what_needs_a_restart_is_named() {
    let old = load("").unwrap().settings;
    let new =
        load("runtimes: 3\naudit: {queue: 9}\nlog: {format: json}\nbounds: {calls: 2}\n").unwrap();
    assert_eq!(
        needs_restart(&old, &new.settings),
        ["runtimes", "audit", "log"]
    );
    assert!(needs_restart(&old, &load("").unwrap().settings).is_empty());
}

#[test]
fn what_is_printed_loads_to_the_same_and_prints_the_same() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t"), "abcdefghijklmnopqrstuvw").unwrap();
    std::fs::write(
        dir.path().join("g.yaml"),
        format!(
            "- {{id: other, token_sha256: '{}d', servers: {{cat: null}}}}\n",
            &TOKEN[..70]
        ),
    )
    .unwrap();
    let text = format!(
        "listeners:\n- {{address: '0.0.0.0:1', insecure: true}}\nservers:\n  web: {{url: 'https://x.example/a?b=c', headers: {{X: y, \
         Authorization: {{file: t, prefix: 'Bearer '}}}}}}\n  cat: {{command: cat, args: [-u, '1'], env: {{A: {{env: UPSTREAM_TOKEN}}, \
         B: 'no'}}, pass_env: [PATH], dir: ., memory: 64MiB, cpu: 9s, files: 99, user: {{uid: 1, gid: 2}}, \
         extra_methods: [x/y], timeout: 3s, calls: 4, processes_max: 5}}\ngrants:\n- {{id: a, label: 'A: b', token_sha256: '{TOKEN}', \
         expires: 2030-01-01T00:00:00Z, revoked: true, servers: {{web: null}}}}\ngrants_files: [g.yaml]\nhosts: [h.example]\n\
         origins: ['https://o.example']\nbounds: {{body_bytes: 1MiB, session_idle: 90s, upstream_idle: 0}}\naudit: {{sink: {{file: {{path: log, \
         rotate_age: 2h, keep: 0, min_free: 0B, retain: required}}}}, queue: 7}}\nadmin: {{socket: s, tcp: {{address: '127.0.0.1:2', \
         token_sha256: '{TOKEN}'}}}}\ncluster: {{data_dir: d, name: n, listen: '0.0.0.0:7', advertise: 'h:7', \
         join: {{peers: ['p:7'], token: {{file: t}}}}, freshness_max: 9s}}\nlog: {{format: json, level: 'info,daemon=debug'}}\nidentity_secret: {{file: t}}\nruntimes: 2\n\
         reload_interval: 250ms\n"
    );
    let sources = Sources {
        env: &env,
        builtin: &[],
    };
    let load = |text: &str, base: &Path| {
        load_with(text, base, &sources, 1).unwrap_or_else(|p| panic!("{text}\n{p:#?}"))
    };
    let first = load(&text, dir.path());
    let printed = print_config(&first);
    assert!(
        !printed.contains("abcdefgh") && !printed.contains("s3cret"),
        "{printed}"
    );
    // Nothing in it is relative, so it loads anywhere.
    let second = load(&printed, Path::new("/nowhere"));
    let without_files = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(
        without_files(&print_config(&second)),
        without_files(&printed)
    );
    assert_eq!(second.view.servers, first.view.servers);
    assert_eq!(second.view.bounds, first.view.bounds);
    assert!(needs_restart(&first.settings, &second.settings).is_empty());
    let mut grants: Vec<_> = second
        .view
        .grants
        .keys()
        .map(|hash| hash.to_string())
        .collect();
    grants.sort();
    assert_eq!(grants, [TOKEN.to_owned(), format!("{}d", &TOKEN[..70])]);
}

#[test]
fn literal_secrets_are_not_printed() {
    let loaded =
        load("servers: {a: {command: cat, env: {API_KEY: hunter2, MODE: fast}}}\n").unwrap();
    let printed = print_config(&loaded);
    assert!(
        !printed.contains("hunter2") && printed.contains("fast"),
        "{printed}"
    );
    assert!(
        loaded
            .remarks
            .iter()
            .any(|r| r.problem.message.contains("looks like a secret"))
    );
}

#[test]
fn certificates_are_tried_before_they_are_needed() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        write(&format!("{name}.pem"), made.cert.pem());
        write(&format!("{name}.key"), made.signing_key.serialize_pem());
    }
    write("none.pem", "nothing\n".into());
    let errors = |tls: &str| -> Vec<String> {
        let text = format!("listeners:\n- address: 0.0.0.0:1\n  tls: {tls}\n");
        let outcome = load_text(&text, dir.path(), 1);
        let problems = outcome
            .map(|_| Vec::new())
            .unwrap_or_else(|problems| problems);
        let errors = problems.iter().filter(|p| p.is_error());
        errors
            .map(|p| format!("{} {}", p.problem.at, p.problem.message))
            .collect()
    };
    assert!(errors("{cert: a.pem, key: a.key, client_ca: b.pem}").is_empty());
    for (tls, expected) in [
        ("{cert: a.pem, key: b.key}", "3:15 "),
        ("{cert: a.pem, key: a.pem}", "3:15 "),
        (
            "{cert: none.pem, key: a.key}",
            "3:15 none.pem: holds no PEM certificate",
        ),
        ("{cert: a.pem, key: no.key}", "3:27 "),
        (
            "{cert: a.pem, key: a.key, client_ca: a.key}",
            "3:45 a.key: holds no PEM certificate",
        ),
    ] {
        let found = errors(tls);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{tls}: {found:?}"
        );
    }
}

fn shipped() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// Removes the `#` before keys (comments have a space there), and the keys that these replace.
fn with_commented_keys(text: &str) -> String {
    let lines = text.lines().filter(|line| *line != "  sink: stdout");
    let uncommented = lines.map(|line| {
        let bare = line.trim_start();
        match bare.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                line.replacen('#', "", 1)
            }
            _ => line.to_owned(),
        }
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_quick_start_loads() {
    let loaded =
        super::load(&shipped().join("tollgate.yaml"), 1).unwrap_or_else(|p| panic!("{p:#?}"));
    assert!(loaded.view.servers.contains_key("everything"));
}

#[test]
fn the_nodes_of_the_shipped_cluster_load_and_do_not_get_in_each_others_way() {
    let nodes = ["a", "b", "c", "client"].map(|name| {
        let path = shipped().join(format!("cluster/{name}.yaml"));
        super::load(&path, 1).unwrap_or_else(|p| panic!("{p:#?}"))
    });
    let distinct = |of: &dyn Fn(&Settings) -> String| {
        let all: std::collections::BTreeSet<String> =
            nodes.iter().map(|loaded| of(&loaded.settings)).collect();
        assert_eq!(all.len(), nodes.len(), "{all:?}");
    };
    distinct(&|s| s.listeners[0].address.to_string());
    distinct(&|s| format!("{:?}", s.admin.unix));
    distinct(&|s| format!("{:?}", s.cluster.data_dir));
    distinct(&|s| format!("{:?}", s.cluster.listen));
    for loaded in &nodes {
        let cluster = &loaded.settings.cluster;
        // An empty data directory never becomes a cluster of its own.
        let join = cluster.join.as_ref().unwrap();
        assert!(!join.peers.contains(&format!("{:?}", cluster.listen)));
        let warned = loaded
            .remarks
            .iter()
            .find(|r| !r.problem.message.contains("identity_secret"));
        assert_eq!(warned, None);
    }
}

#[test]
fn the_full_example_loads_and_its_values_are_the_defaults() {
    let path = shipped().join("full.yaml");
    let loaded = super::load(&path, 1).unwrap_or_else(|p| panic!("{p:#?}"));
    let plain = load("").unwrap();
    assert_eq!(loaded.view.bounds, plain.view.bounds);
    let changed = needs_restart(&plain.settings, &loaded.settings);
    assert!(changed.is_empty(), "{changed:?}");
    let printed = print_config(&loaded);
    assert!(load_text(&printed, Path::new("/"), 1).is_ok(), "{printed}");
}

#[test]
fn the_full_example_has_every_key_and_commented_ones_fit() {
    let text = std::fs::read_to_string(shipped().join("full.yaml")).unwrap();
    let whole = with_commented_keys(&text);
    let node = proto::doc::parse(&whole).unwrap_or_else(|p| panic!("{p:#?}\n{whole}"));
    proto::doc::from_node::<raw::Config>(&node).unwrap_or_else(|p| panic!("{p:#?}"));
    let schema = schemars::schema_for!(raw::Config);
    let mut absent = Vec::new();
    let mut pending = vec![schema.as_value()];
    while let Some(value) = pending.pop() {
        if let Some(properties) = value["properties"].as_object() {
            let here = properties
                .keys()
                .filter(|key| !whole.contains(&format!("{key}:")));
            absent.extend(here);
        }
        pending.extend(value.as_object().into_iter().flat_map(|map| map.values()));
        pending.extend(value.as_array().into_iter().flatten());
    }
    assert!(absent.is_empty(), "not in config/full.yaml: {absent:?}");
}

#[test]
fn problems_inside_policies_are_told_with_their_places() {
    all_told(&[
        (
            "policies:\n  p:\n    inline: {version: '2', default: maybe, tols: {}}\n",
            &[
                "3:23 ",
                "3:37 `maybe` is none of allow, deny",
                "3:44 unknown key `tols`; did you mean `tools`?",
            ],
        ),
        // A policy that no grant uses is compiled all the same.
        (
            "policies:\n  p:\n    inline:\n      version: '1'\n      default: allow\n      tools:\n        a: {limits: [\n          \
             {counter: x, window: minute, max: 1},\n          {counter: x, window: minute, max: 2}]}\n",
            &["9:11 "],
        ),
    ]);
    let problems = load("policies: {p: {inline: {version: '1', default: maybe}}}\n").unwrap_err();
    let pointers: Vec<_> = problems
        .iter()
        .filter(|p| p.is_error())
        .map(|p| p.problem.pointer.as_str())
        .collect();
    assert_eq!(pointers, ["/policies/p/inline/default"]);
    let remarks = load("policies: {open: {file: open.yaml}}\n")
        .unwrap()
        .remarks;
    assert!(
        remarks
            .iter()
            .any(|r| r.problem.message.contains("no grant uses")),
        "{remarks:#?}"
    );
}

#[test]
fn more_problems_than_anybody_reads_are_counted() {
    let grants: String = (0..500)
        .map(|i| format!("- {{id: g{i}, token_sha256: x, servers: {{}}}}\n"))
        .collect();
    let problems = load(&format!("grants:\n{grants}")).unwrap_err();
    assert_eq!(problems.len(), 201);
    assert!(problems.iter().all(FileProblem::is_error));
    assert!(
        problems[200].problem.message.starts_with("and 80"),
        "{:?}",
        problems[200]
    );
}
