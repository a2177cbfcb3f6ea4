//! Files and log together: what is in force, what is refused, and that nothing takes another's place unseen.

use super::{
    assemble::{Assembler, conflicts},
    judge::{Objection, judge},
};
use crate::{
    config::{self, Loaded},
    view::{Grant, Origin, View},
};
use proto::{
    control::{Change, Control, Kind},
    grant::TokenHash,
};
use std::{path::Path, sync::Arc, time::Instant};

const FILES: &str = r#"
servers:
  mine: { url: "http://127.0.0.1:1/mcp" }
policies:
  all: { inline: { version: "1", default: allow, tools: {} } }
grants:
  - id: of-file
    token_sha256: "sha256:0101010101010101010101010101010101010101010101010101010101010101"
    servers: { mine: all }
"#;

fn files(text: &str) -> Loaded {
    config::load_text(text, Path::new("/"), 1).unwrap_or_else(|found| panic!("{found:?}"))
}

fn change(kind: Kind, name: &str, body: Option<&str>) -> Change {
    Change {
        kind,
        name: name.to_owned(),
        body: body.map(|body| body.as_bytes().into()),
        expect: None,
        by: "test".into(),
    }
}

fn put(control: &mut Control, kind: Kind, name: &str, body: &str) -> u64 {
    let change = change(kind, name, Some(body));
    control.apply(&change, 1_000).unwrap()
}

fn hash(byte: u8) -> TokenHash {
    TokenHash([byte; 32])
}

fn grant(byte: u8, servers: &str) -> String {
    format!(
        r#"{{"token_sha256": "{}", "servers": {servers}}}"#,
        hash(byte)
    )
}

/// A server, a policy and a grant of the log.
fn log() -> Control {
    let mut control = Control::default();
    let url = r#"{"url": "http://127.0.0.1:2/mcp"}"#;
    put(&mut control, Kind::Server, "theirs", url);
    let policy = "version: '1'\ndefault: deny\ntools: {a: {limits: [{counter: n, window: minute, max: 5}]}}\n";
    put(&mut control, Kind::Policy, "some", policy);
    let both = r#"{"theirs": "some", "mine": "all"}"#;
    put(&mut control, Kind::Grant, "of-log", &grant(2, both));
    control
}

fn held(view: &View, byte: u8) -> Option<&Arc<Grant>> {
    view.grants.get(&hash(byte))
}

/// Everything that is not in force, as `kind name: why`.
fn told(view: &View) -> Vec<String> {
    let told = view.unresolved.iter();
    told.map(|found| {
        let kind = config::log::kind_word(found.kind);
        format!("{kind} {}: {}", found.name, found.why.join("; "))
    })
    .collect()
}

#[test]
fn a_grant_of_the_log_may_use_servers_and_policies_of_both() {
    let (files, control) = (files(FILES), log());
    let view = Assembler::default().assemble(&files, &control, 7);
    assert_eq!(told(&view), Vec::<String>::new());
    assert_eq!((view.revision, view.control), (7, control.version()));
    let grant = held(&view, 2).unwrap();
    assert_eq!((grant.origin, grant.servers.len()), (Origin::Log, 2));
    let theirs = &grant.servers["theirs"];
    assert_eq!(theirs.server.origin, Origin::Log);
    assert_eq!(theirs.policy.as_ref().unwrap().limits.len(), 1);
    assert_eq!(held(&view, 1).unwrap().origin, Origin::File);
    let used: Vec<_> = view
        .policies
        .iter()
        .map(|((policy, server), used)| format!("{policy} on {server}: {}", used.origin.as_str()))
        .collect();
    assert_eq!(used, ["all on mine: file", "some on theirs: log"]);
}

#[test]
fn what_did_not_change_is_the_same_in_the_next_view() {
    let (files, mut control) = (files(FILES), log());
    let mut assembler = Assembler::default();
    let before = assembler.assemble(&files, &control, 1);
    let more = grant(3, r#"{"theirs": "some"}"#);
    put(&mut control, Kind::Grant, "another", &more);
    let after = assembler.assemble(&files, &control, 2);
    assert!(Arc::ptr_eq(
        held(&before, 2).unwrap(),
        held(&after, 2).unwrap()
    ));
    let url = r#"{"url": "http://127.0.0.1:3/mcp"}"#;
    put(&mut control, Kind::Server, "theirs", url);
    let moved = assembler.assemble(&files, &control, 3);
    let server = &held(&moved, 2).unwrap().servers["theirs"].server;
    assert!(Arc::ptr_eq(server, &moved.servers["theirs"]));
    assembler.files_changed();
    let reread = assembler.assemble(&files, &control, 4);
    assert_eq!(told(&reread), Vec::<String>::new());
}

#[test]
fn what_cannot_be_resolved_is_refused_and_everything_else_goes_on() {
    let files = files(FILES);
    let missing = r#"{"url": "https://h/", "headers": {"x-key": {"env": "TOLLGATE_NOT_SET"}}}"#;
    let wrong = "version: '1'\ndefault: perhaps\n";
    let newer = |byte| {
        grant(byte, r#"{"mine": "all"}"#).replace("\"servers\"", "\"later\": 1, \"servers\"")
    };
    // Each: what is put after the good state, whether the grant still has `mine`, and what is told.
    for (kind, name, body, mine, wanted) in [
        (
            Kind::Server,
            "theirs",
            missing.to_owned(),
            true,
            &["TOLLGATE_NOT_SET", "`theirs` is not in force"][..],
        ),
        (
            Kind::Policy,
            "some",
            wrong.to_owned(),
            true,
            &["perhaps", "the policy `some` is not in force"],
        ),
        (Kind::Grant, "of-log", newer(2), false, &["later"]),
        (
            Kind::Grant,
            "of-log",
            grant(2, r#"{"mine": "all", "gone": "all"}"#),
            true,
            &["there is no server `gone`"],
        ),
    ] {
        let mut control = log();
        let good = r#"{"theirs": "some"}"#;
        put(
            &mut control,
            Kind::Grant,
            "bystander",
            &grant(9, r#"{"mine": "all"}"#),
        );
        put(&mut control, Kind::Grant, "other", &grant(8, good));
        let mut assembler = Assembler::default();
        assembler.assemble(&files, &control, 1);
        put(&mut control, kind, name, &body);
        let view = assembler.assemble(&files, &control, 2);
        let told = told(&view).join("\n");
        for part in wanted {
            assert!(told.contains(part), "{name}: {part} in {told}");
        }
        let grant = held(&view, 2).unwrap();
        assert_eq!(grant.barred, !mine, "{name}");
        let works = |name: &str| grant.servers.contains_key(name) && !grant.barred;
        assert_eq!(works("mine"), mine, "{name}: {told}");
        if kind != Kind::Grant {
            assert!(!works("theirs"), "{name}: the older one must not stay");
            assert_eq!(&*grant.unresolved[0], "theirs");
        }
        assert!(!held(&view, 9).unwrap().barred, "{name}");
        assert_eq!(held(&view, 9).unwrap().servers.len(), 1, "{name}");
        assert!(held(&view, 1).is_some(), "{name}");
    }
}

#[test]
fn a_name_that_stands_in_both_is_in_force_for_the_files_alone() {
    let mut control = log();
    let url = r#"{"url": "http://127.0.0.1:9/mcp"}"#;
    put(&mut control, Kind::Server, "mine", url);
    put(
        &mut control,
        Kind::Policy,
        "all",
        "version: '1'\ndefault: allow\ntools: {}\n",
    );
    put(
        &mut control,
        Kind::Grant,
        "of-file",
        &grant(3, r#"{"theirs": "some"}"#),
    );
    let files = files(FILES);
    assert_eq!(conflicts(&files, &control).len(), 3);
    let view = Assembler::default().assemble(&files, &control, 1);
    assert_eq!(view.servers["mine"].origin, Origin::File);
    assert!(!held(&view, 1).unwrap().barred, "the files' grant goes on");
    assert!(held(&view, 3).unwrap().barred);
    let of_log = held(&view, 2).unwrap();
    assert_eq!(
        &*of_log.unresolved[0], "mine",
        "which one it means is not known"
    );
    assert!(of_log.servers.contains_key("theirs"));
    assert_eq!(told(&view).len(), 4, "{:#?}", told(&view));
}

#[test]
fn a_token_of_two_grants_is_refused_but_the_log_takes_none_from_the_files_unless_it_revokes_it() {
    let files = files(FILES);
    let mut control = log();
    let mine = r#"{"mine": "all"}"#;
    put(&mut control, Kind::Grant, "twin", &grant(2, mine));
    put(&mut control, Kind::Grant, "taker", &grant(1, mine));
    let view = Assembler::default().assemble(&files, &control, 1);
    assert!(held(&view, 2).unwrap().barred);
    let of_file = held(&view, 1).unwrap();
    assert_eq!((&*of_file.id, of_file.barred), ("of-file", false));
    assert_eq!(told(&view).len(), 3, "{:#?}", told(&view));
    let revoked = grant(1, mine).replace("\"servers\"", "\"revoked\": true, \"servers\"");
    put(&mut control, Kind::Grant, "taker", &revoked);
    let view = Assembler::default().assemble(&files, &control, 2);
    assert!(held(&view, 1).unwrap().revoked);
}

#[test]
fn a_revoked_grant_is_refused_whatever_else_is_wrong_with_it() {
    let files = files(FILES);
    let mut control = log();
    let mut assembler = Assembler::default();
    assembler.assemble(&files, &control, 1);
    let body = grant(2, r#"{"gone": "gone"}"#);
    let body = body.replace("\"servers\"", "\"revoked\": true, \"servers\"");
    put(&mut control, Kind::Grant, "of-log", &body);
    let view = assembler.assemble(&files, &control, 2);
    assert!(held(&view, 2).unwrap().revoked);
    assert_eq!(told(&view), Vec::<String>::new(), "nobody waits for it");
    control
        .apply(&change(Kind::Grant, "of-log", None), 2_000)
        .unwrap();
    let view = assembler.assemble(&files, &control, 3);
    assert!(held(&view, 2).is_none());
}

#[test]
fn a_former_token_ends_before_its_grant() {
    let files = files(FILES);
    let mut control = Control::default();
    let body = format!(
        r#"{{"token_sha256": "{}", "expires": "2030-01-01T00:00:00Z", "servers": {{"mine": "all"}},
            "former_tokens": [{{"token_sha256": "{}", "until": "2029-01-01T00:00:00Z"}},
                              {{"token_sha256": "{}", "until": "2031-01-01T00:00:00Z"}}]}}"#,
        hash(2),
        hash(3),
        hash(4)
    );
    put(&mut control, Kind::Grant, "g", &body);
    let view = Assembler::default().assemble(&files, &control, 1);
    let ends: Vec<_> = [2, 3, 4]
        .map(|byte| held(&view, byte).unwrap())
        .map(|grant| (grant.former, grant.expires_ms.unwrap()))
        .to_vec();
    let (y2029, y2030) = (1_861_920_000_000, 1_893_456_000_000);
    assert_eq!(ends, [(false, y2030), (true, y2029), (true, y2030)]);
}

#[test]
fn limits_that_the_ledger_refuses_bar_their_policy_and_nothing_else() {
    let (files, control) = (files(FILES), log());
    let mut assembler = Assembler::default();
    let view = assembler.assemble(&files, &control, 1);
    let new = view.policies.keys().filter(|(name, _)| &**name == "some");
    let new: Vec<_> = new
        .map(|(name, server)| (name.to_string(), server.clone()))
        .collect();
    assembler.refuse(new, "too many limits");
    let view = assembler.assemble(&files, &control, 2);
    let grant = held(&view, 2).unwrap();
    assert!(grant.servers.contains_key("mine") && !grant.servers.contains_key("theirs"));
    assert!(told(&view).join("\n").contains("too many limits"));
    assembler.accept();
    let view = assembler.assemble(&files, &control, 3);
    assert_eq!(told(&view), Vec::<String>::new());
}

#[test]
fn a_change_is_judged_by_the_view_that_it_would_make() {
    let (files, control) = (files(FILES), log());
    let judged = |kind, name: &str, body: Option<&str>| {
        let change = change(kind, name, body);
        judge(Assembler::default(), &files, &control, None, &change)
    };
    let url = r#"{"url": "http://127.0.0.1:2/mcp"}"#;
    assert_eq!(judged(Kind::Server, "new", Some(url)), Ok(Vec::new()));
    let good = grant(3, r#"{"theirs": "some"}"#);
    assert_eq!(judged(Kind::Grant, "new", Some(&good)), Ok(Vec::new()));
    assert_eq!(judged(Kind::Grant, "of-log", None), Ok(Vec::new()));

    let unreadable = |judged: Result<_, Objection>, part: &str| match judged {
        Err(Objection::Unreadable(why)) => assert!(why.contains(part), "{part} in {why}"),
        other => panic!("{part}: {other:?}"),
    };
    unreadable(
        judged(Kind::Server, "a b", Some(url)),
        "the name of a server",
    );
    unreadable(judged(Kind::Server, "new", Some("{}")), "needs a `url`");
    unreadable(judged(Kind::Policy, "new", Some("version: 1")), "default");
    let nowhere = grant(3, r#"{"nowhere": "some"}"#);
    unreadable(judged(Kind::Grant, "new", Some(&nowhere)), "nowhere");
    let twin = grant(2, r#"{"theirs": "some"}"#);
    unreadable(judged(Kind::Grant, "new", Some(&twin)), "its token is also");

    let taken = judged(Kind::Server, "mine", Some(url));
    assert!(matches!(taken, Err(Objection::Taken(_))), "{taken:?}");
    for (kind, name) in [(Kind::Server, "theirs"), (Kind::Policy, "some")] {
        match judged(kind, name, None) {
            Err(Objection::Needed(why)) => assert!(why.contains("the grant `of-log`"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        judged(Kind::Policy, "unheard", None),
        Err(Objection::Refused(proto::control::Refusal::Unknown))
    );
}

/// Not a benchmark: a bound that a debug build on a busy machine still keeps.
#[test]
fn twenty_thousand_grants_are_assembled_in_seconds_and_one_more_in_less_than_one() {
    let (files, mut control) = (files(FILES), log());
    let both = r#"{"theirs": "some", "mine": "all"}"#;
    for i in 0..20_000_u32 {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&i.to_le_bytes());
        let body = grant(0, both).replace(&hash(0).to_string(), &TokenHash(bytes).to_string());
        put(&mut control, Kind::Grant, &format!("g{i}"), &body);
    }
    let mut assembler = Assembler::default();
    let began = Instant::now();
    let view = assembler.assemble(&files, &control, 1);
    let first = began.elapsed();
    assert_eq!(view.grants.len(), 20_002);
    put(&mut control, Kind::Grant, "more", &grant(5, both));
    let began = Instant::now();
    let view = assembler.assemble(&files, &control, 2);
    let next = began.elapsed();
    assert_eq!(view.grants.len(), 20_003);
    eprintln!("first {first:?}, next {next:?}");
    assert!(
        first.as_secs() < 60 && next.as_secs() < 5,
        "{first:?} {next:?}"
    );
}
