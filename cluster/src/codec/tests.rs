use super::{golden::samples, *};
use ::raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
    MessageType, Snapshot, SnapshotMetadata,
};
use proptest::{collection::vec, prelude::*};
use protobuf::Message as _;

/// The one frame in these bytes, and nothing behind it.
fn only_frame(class: Class, bytes: &[u8]) -> Result<Bytes, Error> {
    let mut frames = Frames::new(class);
    frames.extend(bytes);
    let frame = frames.pop()?.expect("a whole frame");
    assert_eq!(frames.waiting(), 0);
    Ok(frame)
}

fn through(message: &Message) -> Message {
    let mut buffer = BytesMut::new();
    put_raft(&mut buffer, message).unwrap();
    match take_peer(&only_frame(class_of(message), &buffer).unwrap()).unwrap() {
        FromPeer::Raft(message) => *message,
        other => panic!("not a raft message: {other:?}"),
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn entry() -> impl Strategy<Value = Entry> {
    let change = prop_oneof![
        Just(ConfChangeType::AddNode),
        Just(ConfChangeType::RemoveNode),
        Just(ConfChangeType::AddLearnerNode)
    ];
    let content = prop_oneof![
        bytes().prop_map(|data| (EntryType::EntryNormal, data)),
        (any::<u64>(), change.clone(), bytes()).prop_map(|(node, kind, context)| {
            let mut change = ConfChange {
                id: node / 2,
                node_id: node,
                context,
                ..ConfChange::default()
            };
            change.set_change_type(kind);
            let data = change.write_to_bytes().unwrap();
            (EntryType::EntryConfChange, data.into())
        }),
        (vec((any::<u64>(), change), 0..4), bytes()).prop_map(|(changes, context)| {
            let mut all = ConfChangeV2 {
                context,
                ..ConfChangeV2::default()
            };
            for (node_id, kind) in changes {
                let mut single = ConfChangeSingle {
                    node_id,
                    ..ConfChangeSingle::default()
                };
                single.set_change_type(kind);
                all.mut_changes().push(single);
            }
            let data = all.write_to_bytes().unwrap();
            (EntryType::EntryConfChangeV2, data.into())
        }),
    ];
    (any::<u64>(), any::<u64>(), content, bytes()).prop_map(
        |(term, index, (kind, data), context)| {
            let mut entry = Entry {
                term,
                index,
                data,
                context,
                ..Entry::default()
            };
            entry.set_entry_type(kind);
            entry
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let nodes = || vec(any::<u64>(), 0..5);
    (
        bytes(),
        any::<(u64, u64, bool)>(),
        nodes(),
        nodes(),
        nodes(),
        nodes(),
    )
        .prop_map(
            |(
                data,
                (index, term, auto_leave),
                voters,
                learners,
                voters_outgoing,
                learners_next,
            )| {
                let state = ConfState {
                    voters,
                    learners,
                    voters_outgoing,
                    learners_next,
                    auto_leave,
                    ..ConfState::default()
                };
                let metadata = SnapshotMetadata {
                    conf_state: Some(state).into(),
                    index,
                    term,
                    ..SnapshotMetadata::default()
                };
                Snapshot {
                    data,
                    metadata: Some(metadata).into(),
                    ..Snapshot::default()
                }
            },
        )
}

fn message() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![
        Just(MessageType::MsgAppend),
        Just(MessageType::MsgAppendResponse),
        Just(MessageType::MsgHeartbeat),
        Just(MessageType::MsgRequestPreVote),
        Just(MessageType::MsgTimeoutNow),
    ];
    let numbers = any::<(u64, u64, u64, u64, u64, u64, u64, u64)>();
    let rest = any::<(u64, i64, bool)>();
    (
        kind,
        numbers,
        rest,
        vec(entry(), 0..8),
        bytes(),
        prop::option::of(snapshot()),
    )
        .prop_map(
            |(kind, numbers, (request_snapshot, priority, reject), entries, context, snapshot)| {
                let (to, from, term, log_term, index, commit, commit_term, reject_hint) = numbers;
                let mut message = Message {
                    to,
                    from,
                    term,
                    log_term,
                    index,
                    entries: entries.into(),
                    commit,
                    commit_term,
                    snapshot: snapshot.into(),
                    request_snapshot,
                    reject,
                    reject_hint,
                    context,
                    priority,
                    ..Message::default()
                };
                message.set_msg_type(kind);
                message
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn raft_messages_come_out_as_they_went_in(message in message()) {
        prop_assert_eq!(through(&message), message);
    }

    #[test]
    fn random_bytes_are_errors_at_worst(mut bytes in vec(any::<u8>(), 0..300), versioned: bool) {
        if versioned && let Some(version) = bytes.first_mut() {
            *version = VERSION;
        }
        let frame = Bytes::from(bytes);
        let _ = take_peer(&frame);
        let _ = take_request(&frame);
        let _ = take_answer(&frame);
        let _ = decode_batch(&frame);
        let mut frames = Frames::new(Class::Beat);
        frames.extend(&frame);
        while let Ok(Some(_)) = frames.pop() {}
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_another_value(which: prop::sample::Index, at: prop::sample::Index, bit in 0_u32..8) {
        let samples = samples();
        let (name, bytes) = &samples[which.index(samples.len())];
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let frame = Bytes::from(bytes);
        match name.split(' ').next() {
            Some("raft" | "extra") => drop(take_peer(&frame)),
            Some("request") => drop(take_request(&frame)),
            Some("answer") => drop(take_answer(&frame)),
            _ => drop(decode_batch(&frame)),
        }
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_come_in(sizes in vec(0_usize..4_000, 1..20), pieces in vec(1_usize..5_000, 1..50)) {
        let mut sent = BytesMut::new();
        for size in &sizes {
            put(&mut sent, Class::Beat, &vec![7_u8; *size]).unwrap();
        }
        let mut frames = Frames::new(Class::Beat);
        let mut heard = Vec::new();
        let mut pieces = pieces.iter().cycle();
        while !sent.is_empty() {
            let piece = sent.split_to(sent.len().min(*pieces.next().unwrap()));
            frames.extend(&piece);
            while let Some(frame) = frames.pop().unwrap() {
                heard.push(take::<Vec<u8>>(&frame).unwrap().len());
            }
        }
        prop_assert_eq!(heard, sizes);
    }
}

#[test]
fn messages_to_oneself_are_not_sent_and_not_taken() {
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgUnreachable,
    ] {
        let mut message = Message::default();
        message.set_msg_type(kind);
        let mut buffer = BytesMut::new();
        assert!(put_raft(&mut buffer, &message).is_err());
        assert!(buffer.is_empty(), "nothing is left of it");
    }
    // `Peer::Raft`, kind 0 = MsgHup, and zeros.
    let mut forged = vec![0; 17];
    forged[0] = VERSION;
    let error = take_peer(&Bytes::from(forged)).unwrap_err();
    assert_eq!(error, Error::Unreadable("an unknown message".to_owned()));
}

#[test]
fn what_is_too_large_is_neither_written_nor_read() {
    let mut buffer = BytesMut::from(&b"before"[..]);
    let large = vec![0_u8; Class::Beat.bytes_max()];
    assert_eq!(put(&mut buffer, Class::Beat, &large), Err(Error::TooLarge));
    assert_eq!(&buffer[..], b"before");

    let mut frames = Frames::new(Class::Beat);
    frames.extend(&(1 + Class::Beat.bytes_max() as u32).to_le_bytes());
    assert_eq!(frames.pop(), Err(Error::TooLarge));

    // A text that claims to be longer than memory.
    let mut lie = vec![VERSION, 253];
    lie.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(decode::<String>(&lie).is_err());
    assert!(decode::<Vec<u64>>(&lie).is_err());
}

#[test]
fn another_version_and_leftovers_are_refused() {
    let mut bytes = encode(&7_u64, 100).unwrap();
    assert_eq!(decode::<u64>(&bytes), Ok(7));
    bytes.push(0);
    assert!(matches!(decode::<u64>(&bytes), Err(Error::Unreadable(_))));
    bytes[0] = VERSION + 1;
    assert_eq!(decode::<u64>(&bytes), Err(Error::Version(VERSION + 1)));
    assert_eq!(decode::<u64>(&[]), Err(Error::TooLarge));
}

#[test]
fn too_many_in_one_request_are_refused() {
    let back = proto::limit::lease::GiveBack {
        key: proto::limit::CounterKey(1),
        window: 2,
        returned_total: 3,
    };
    let request = |count| Request::Return {
        session: proto::limit::ledger::Session(1),
        returns: vec![back; count],
        bye: false,
    };
    for (count, within) in [(RETURNS_MAX, true), (RETURNS_MAX + 1, false)] {
        let mut buffer = BytesMut::new();
        put_request(&mut buffer, 9, &request(count)).unwrap();
        let frame = only_frame(Class::Request, &buffer).unwrap();
        assert_eq!(take_request(&frame).is_ok(), within);
    }
}

#[test]
fn records_are_read_back_and_a_torn_one_is_an_error() {
    let mut file = Vec::new();
    let mut scratch = BytesMut::new();
    for number in [1_u64, 300, 70_000] {
        write_record(&mut file, &(number, "row"), &mut scratch).unwrap();
    }
    let read = |bytes: &[u8]| {
        let mut input = bytes;
        let mut scratch = Vec::new();
        let mut rows = Vec::new();
        while let Some((number, _)) = read_record::<(u64, String)>(&mut input, &mut scratch)? {
            rows.push(number);
        }
        Ok::<_, io::Error>(rows)
    };
    assert_eq!(read(&file).unwrap(), [1, 300, 70_000]);
    for torn in [1, 4, file.len() - 1] {
        assert!(read(&file[..torn]).is_err());
    }
    assert!(read(&[255; 8]).is_err());
}

#[test]
fn the_size_of_a_value_is_known_before_it_is_written() {
    let value = (300_u64, "text", vec![1_u128; 3]);
    assert_eq!(
        encoded_bytes(&value) + 1,
        encode(&value, 1_000).unwrap().len()
    );
}
