//! The bytes of version 1. If this test fails, what is written has changed: either take the change back, or raise
//! [`VERSION`](super::VERSION), keep what reads the old one where logs and peers still have it, and write the new bytes
//! down with `BLESS=1 cargo test -p tollgate-cluster golden`.

use super::*;
use crate::wire::{At, Counters, Holding, MemberAddress, Operate, Row};
use ::raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, MessageType,
};
use proto::{
    command::{Command, Member, MemberRefusal, NodeId, Role},
    control::{Change, Kind, Page, Position, Resource},
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
        ledger::{Definition, Group, Refusal, Session, Standing},
    },
};
use protobuf::Message as _;
use std::fmt::Write as _;

const BYTES: &str = include_str!("golden.txt");

const KEY: CounterKey = CounterKey(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const IDENTITY: Identity = Identity(7);
const SESSION: Session = Session(42);
const AT: At = At {
    now_ms: 1_785_230_400_000,
    term: 3,
};
const STANDING: Standing = Standing {
    window: 29_753_840,
    end_ms: 1_785_230_460_000,
    granted_total: 100,
    returned_total: 4,
    used: 96,
    remaining: 904,
    ttl_ms: 5_000,
    generation: 2,
};

fn ask() -> Ask {
    Ask {
        identity: IDENTITY,
        key: KEY,
        window_hint: 29_753_840,
        want: 40,
        min: 1,
        seen_granted: 60,
        returned_total: 4,
        group: Some(Group {
            key: KEY,
            keys_max: 1_000,
        }),
        waiting: true,
    }
}

fn back() -> GiveBack {
    GiveBack {
        key: KEY,
        window: 29_753_840,
        returned_total: 4,
    }
}

fn change() -> Change {
    Change {
        kind: Kind::Policy,
        name: "images".to_owned(),
        body: Some(b"version: 1".as_slice().into()),
        expect: Some(0),
        by: "ops".to_owned(),
    }
}

fn definition() -> Definition {
    Definition {
        identity: IDENTITY,
        window: Window::Duration(60_000),
        max: 1_000,
    }
}

fn append() -> Message {
    let mut normal = Entry {
        term: 3,
        index: 1_000,
        data: Bytes::from_static(b"batch"),
        ..Entry::default()
    };
    normal.set_entry_type(EntryType::EntryNormal);
    let mut single = ConfChangeSingle {
        node_id: 9,
        ..ConfChangeSingle::default()
    };
    single.set_change_type(ConfChangeType::AddLearnerNode);
    let mut changes = ConfChangeV2::default();
    changes.mut_changes().push(single);
    let mut joint = Entry {
        term: 3,
        index: 1_001,
        data: changes.write_to_bytes().expect("written").into(),
        ..Entry::default()
    };
    joint.set_entry_type(EntryType::EntryConfChangeV2);
    let mut message = Message {
        to: 2,
        from: 1,
        term: 3,
        log_term: 2,
        index: 999,
        entries: vec![normal, joint].into(),
        commit: 998,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    message
}

fn requests() -> Vec<Request> {
    let session = SESSION;
    vec![
        Request::Hello {
            nonce: 1,
            secret_check: 2,
            rules_max: 1,
        },
        Request::Define {
            session,
            revision: 5,
            definitions: vec![definition()],
            last: true,
        },
        Request::Lease {
            session,
            ask: ask(),
        },
        Request::Return {
            session,
            returns: vec![back()],
            bye: true,
        },
        Request::Fresh {
            have: Position { upto: 12, since: 3 },
        },
        Request::Counters(Counters {
            key: Some(KEY),
            identity: None,
            fullest: true,
            most: 10,
        }),
        Request::Status,
        Request::Members,
        Request::Operate(Operate::Credit { key: KEY }),
        Request::Operate(Operate::AcceptClock),
        Request::Operate(Operate::Control(change())),
        Request::Operate(Operate::Token {
            hash: [6; 32],
            role: Role::Client,
            ttl_ms: 600_000,
        }),
        Request::Operate(Operate::Address {
            address: "127.0.0.1:7001".to_owned(),
        }),
        Request::Operate(Operate::Remove {
            nodes: vec![NodeId(9)],
        }),
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::NotLeader {
            leader: Some(NodeId(3)),
        },
        Response::Unknown,
        Response::Session {
            session: SESSION,
            at: AT,
        },
        Response::Done { at: AT },
        Response::Lease {
            verdict: Ok(STANDING),
            at: AT,
        },
        Response::Lease {
            verdict: Err(Refusal::Exhausted(STANDING)),
            at: AT,
        },
        Response::Fresh {
            at: AT,
            page: Page {
                after: Position { upto: 12, since: 3 },
                resources: vec![Resource {
                    kind: Kind::Grant,
                    name: "ci".to_owned(),
                    version: 13,
                    changed_ms: 1_785_230_400_000,
                    by: "ops".to_owned(),
                    body: None,
                }],
                upto: 13,
                newest: 13,
            },
            members_version: 4,
        },
        Response::Members {
            members: vec![MemberAddress {
                node: NodeId(8),
                role: Role::Voter,
                address: "127.0.0.1:7000".to_owned(),
            }],
            members_version: 4,
            leader: None,
        },
        Response::Counters {
            rows: vec![Row {
                key: KEY,
                identity: IDENTITY,
                window: 29_753_840,
                end_ms: 1_785_230_460_000,
                max: 1_000,
                used: 96,
                lost: 1,
                holders: vec![Holding {
                    node: NodeId(8),
                    granted: 100,
                    returned: 4,
                    lost: 1,
                }],
            }],
            total: 1,
            at: AT,
        },
        Response::Credited(5),
        Response::Version(13),
        Response::Refused(Refusal::Undefined),
        Response::Member(MemberRefusal::Token),
        Response::Forbidden,
        Response::Removed,
    ]
}

fn commands() -> Vec<Command> {
    let session = SESSION;
    vec![
        Command::Hello {
            node: NodeId(8),
            nonce: 1,
            secret_check: 2,
            rules_max: 1,
        },
        Command::Define {
            session,
            revision: 5,
            definitions: vec![definition()],
            last: false,
        },
        Command::Lease {
            session,
            ask: ask(),
        },
        Command::Return {
            session,
            back: back(),
        },
        Command::Bye { session },
        Command::Gone { session },
        Command::Credit { key: KEY },
        Command::Reset { key: KEY },
        Command::SetClock { now_ms: 1 },
        Command::SetRules { version: 1 },
        Command::Control(change()),
        Command::Member(Member::Join {
            token: Some([5; 32]),
            node: NodeId(u64::MAX),
            name: "b".to_owned(),
            address: "127.0.0.1:7000".to_owned(),
            role: Role::Voter,
        }),
    ]
}

/// What is written, by name, from the version on.
pub(super) fn samples() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |name: String, put: &dyn Fn(&mut BytesMut) -> Result<(), Error>| {
        let mut buffer = BytesMut::new();
        put(&mut buffer).expect("it is small");
        all.push((name, buffer.split_off(4).to_vec()));
    };
    add("raft append".to_owned(), &|b| put_raft(b, &append()));
    let clock = Extra::Clock {
        asked_ns: 1_000,
        unix_ms: AT.now_ms,
    };
    add("extra clock".to_owned(), &|b| put_extra(b, &clock));
    for (number, request) in requests().iter().enumerate() {
        add(format!("request {number}"), &|b| {
            put_request(b, 300, request)
        });
    }
    for (number, response) in responses().iter().enumerate() {
        add(format!("answer {number}"), &|b| {
            put_answer(b, &ToAsker::Response(300, response))
        });
    }
    let push = Push::Recall {
        session: SESSION,
        key: KEY,
        window: 29_753_840,
        granted_total: 100,
    };
    add("answer push".to_owned(), &|b| {
        put_answer(b, &ToAsker::Push(&push))
    });
    let batch = Batch {
        now_ms: AT.now_ms,
        rules_version: 1,
        commands: commands(),
    };
    all.push((
        "batch".to_owned(),
        encode_batch(&batch).expect("it is small"),
    ));
    all
}

#[test]
fn what_is_written_is_what_version_1_wrote() {
    let mut now = String::new();
    for (name, bytes) in samples() {
        let _ = write!(now, "{name}:");
        for (at, byte) in bytes.iter().enumerate() {
            let gap = if at % 32 == 0 { "\n  " } else { "" };
            let _ = write!(now, "{gap}{byte:02x}");
        }
        now.push('\n');
    }
    if std::env::var_os("BLESS").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/codec/golden.txt");
        std::fs::write(file, &now).expect("written");
    } else if let Some((was, is)) = BYTES.lines().zip(now.lines()).find(|(was, is)| was != is) {
        panic!("the encoding has changed: `{was}` is now `{is}`");
    } else {
        assert_eq!(BYTES.len(), now.len(), "samples came or went");
    }
}

#[test]
fn what_version_1_wrote_is_read() {
    for (name, bytes) in samples() {
        let frame = Bytes::from(bytes);
        let read = match name.split(' ').next() {
            Some("raft" | "extra") => take_peer(&frame).is_ok(),
            Some("request") => take_request(&frame).is_ok(),
            Some("answer") => take_answer(&frame).is_ok(),
            _ => decode_batch(&frame).is_ok_and(|batch| batch.commands == commands()),
        };
        assert!(read, "{name}");
    }
}
