//! Mirrors of Raft's messages.
//!
//! Configuration changes lie in entries as protobuf, and whoever applies them decodes it. So they are taken apart here and
//! put together again on the other side: the protobuf that a node decodes was always written by itself.

use super::Error;
use crate::wire::Extra;
use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
    Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use std::{borrow::Cow, fmt};

/// What goes over a stream between voters.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant)] // it lives for one call
pub(super) enum Peer<'a> {
    #[serde(borrow)]
    Raft(Mirror<'a>),
    Extra(Extra),
}

/// [`Message`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mirror<'a> {
    kind: u8,
    to: u64,
    from: u64,
    term: u64,
    log_term: u64,
    index: u64,
    #[serde(borrow)]
    entries: Vec<EntryMirror<'a>>,
    commit: u64,
    commit_term: u64,
    snapshot: Option<SnapshotMirror<'a>>,
    request_snapshot: u64,
    reject: bool,
    reject_hint: u64,
    context: Blob<'a>,
    priority: i64,
}

/// [`Entry`].
#[derive(Debug, Serialize, Deserialize)]
struct EntryMirror<'a> {
    term: u64,
    index: u64,
    #[serde(borrow)]
    payload: Payload<'a>,
    context: Blob<'a>,
}

/// What an entry holds, by its type.
#[derive(Debug, Serialize, Deserialize)]
enum Payload<'a> {
    #[serde(borrow)]
    Data(Blob<'a>),
    Change {
        id: u64,
        change: SingleMirror,
        context: Blob<'a>,
    },
    Changes {
        transition: u8,
        changes: Vec<SingleMirror>,
        context: Blob<'a>,
    },
}

/// [`ConfChangeSingle`].
#[derive(Debug, Serialize, Deserialize)]
struct SingleMirror {
    kind: u8,
    node: u64,
}

/// [`Snapshot`].
#[derive(Debug, Serialize, Deserialize)]
struct SnapshotMirror<'a> {
    #[serde(borrow)]
    data: Blob<'a>,
    index: u64,
    term: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    voters_outgoing: Vec<u64>,
    learners_next: Vec<u64>,
    auto_leave: bool,
}

/// Bytes, written and read in one piece, not copied.
#[derive(Clone, Debug)]
struct Blob<'a>(Cow<'a, [u8]>);

impl<'a> Blob<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
    /// A view of the frame that it was read from.
    fn bytes(&self, frame: &Bytes) -> Bytes {
        frame.slice_ref(&self.0)
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Blob<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Blob<'de>, E> {
                Ok(Blob::of(bytes))
            }
        }
        deserializer.deserialize_bytes(Borrowed)
    }
}

/// Messages that a node may send to itself only are not in here.
const KINDS: [(MessageType, u8); 14] = [
    (MessageType::MsgPropose, 2),
    (MessageType::MsgAppend, 3),
    (MessageType::MsgAppendResponse, 4),
    (MessageType::MsgRequestVote, 5),
    (MessageType::MsgRequestVoteResponse, 6),
    (MessageType::MsgSnapshot, 7),
    (MessageType::MsgHeartbeat, 8),
    (MessageType::MsgHeartbeatResponse, 9),
    (MessageType::MsgTransferLeader, 13),
    (MessageType::MsgTimeoutNow, 14),
    (MessageType::MsgReadIndex, 15),
    (MessageType::MsgReadIndexResp, 16),
    (MessageType::MsgRequestPreVote, 17),
    (MessageType::MsgRequestPreVoteResponse, 18),
];

fn unreadable(what: &str) -> Error {
    Error::Unreadable(what.to_owned())
}

/// A message as it is sent.
pub(super) fn mirror(message: &Message) -> Result<Mirror<'_>, Error> {
    let kind = message.get_msg_type();
    let (_, kind) = KINDS
        .iter()
        .find(|(known, _)| *known == kind)
        .ok_or_else(|| unreadable("a message that is not for others"))?;
    let entries = message.entries.iter().map(entry_mirror);
    Ok(Mirror {
        kind: *kind,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: entries.collect::<Result<_, _>>()?,
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.snapshot.as_ref().map(snapshot_mirror),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: Blob::of(&message.context),
        priority: message.priority,
    })
}

/// A message as it was meant. Its entries share the frame's memory.
pub(super) fn message(mirror: Mirror<'_>, frame: &Bytes) -> Result<Message, Error> {
    let (kind, _) = KINDS
        .iter()
        .find(|(_, known)| *known == mirror.kind)
        .ok_or_else(|| unreadable("an unknown message"))?;
    let mut message = Message {
        to: mirror.to,
        from: mirror.from,
        term: mirror.term,
        log_term: mirror.log_term,
        index: mirror.index,
        commit: mirror.commit,
        commit_term: mirror.commit_term,
        request_snapshot: mirror.request_snapshot,
        reject: mirror.reject,
        reject_hint: mirror.reject_hint,
        context: mirror.context.bytes(frame),
        priority: mirror.priority,
        snapshot: mirror.snapshot.map(|s| snapshot(s, frame)).into(),
        ..Message::default()
    };
    message.set_msg_type(*kind);
    let entries = mirror.entries.into_iter().map(|e| entry(e, frame));
    message.set_entries(entries.collect::<Result<Vec<_>, _>>()?.into());
    Ok(message)
}

fn entry_mirror(entry: &Entry) -> Result<EntryMirror<'_>, Error> {
    let local = |_| unreadable("a configuration change that is none");
    let payload = match entry.get_entry_type() {
        EntryType::EntryNormal => Payload::Data(Blob::of(&entry.data)),
        // These bytes are of the own log; what came from others was written anew on its way in.
        EntryType::EntryConfChange => {
            let mut change = ConfChange::default();
            change.merge_from_bytes(&entry.data).map_err(local)?;
            Payload::Change {
                id: change.id,
                change: SingleMirror {
                    kind: change.get_change_type() as u8,
                    node: change.node_id,
                },
                context: Blob(Cow::Owned(change.context.to_vec())),
            }
        }
        EntryType::EntryConfChangeV2 => {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(local)?;
            let single = |c: &ConfChangeSingle| SingleMirror {
                kind: c.get_change_type() as u8,
                node: c.node_id,
            };
            Payload::Changes {
                transition: change.get_transition() as u8,
                changes: change.changes.iter().map(single).collect(),
                context: Blob(Cow::Owned(change.context.to_vec())),
            }
        }
    };
    Ok(EntryMirror {
        term: entry.term,
        index: entry.index,
        payload,
        context: Blob::of(&entry.context),
    })
}

fn entry(mirror: EntryMirror<'_>, frame: &Bytes) -> Result<Entry, Error> {
    let lost = |_| unreadable("a configuration change that cannot be written");
    let (kind, data) = match mirror.payload {
        Payload::Data(data) => (EntryType::EntryNormal, data.bytes(frame)),
        Payload::Change {
            id,
            change,
            context,
        } => {
            let mut written = ConfChange {
                id,
                node_id: change.node,
                context: context.bytes(frame),
                ..ConfChange::default()
            };
            written.set_change_type(change_type(change.kind)?);
            let data = written.write_to_bytes().map_err(lost)?;
            (EntryType::EntryConfChange, data.into())
        }
        Payload::Changes {
            transition,
            changes,
            context,
        } => {
            let mut written = ConfChangeV2 {
                context: context.bytes(frame),
                ..ConfChangeV2::default()
            };
            written.set_transition(match transition {
                0 => ConfChangeTransition::Auto,
                1 => ConfChangeTransition::Implicit,
                2 => ConfChangeTransition::Explicit,
                _ => return Err(unreadable("an unknown transition")),
            });
            for change in changes {
                let mut single = ConfChangeSingle {
                    node_id: change.node,
                    ..ConfChangeSingle::default()
                };
                single.set_change_type(change_type(change.kind)?);
                written.mut_changes().push(single);
            }
            let data = written.write_to_bytes().map_err(lost)?;
            (EntryType::EntryConfChangeV2, data.into())
        }
    };
    let mut entry = Entry {
        term: mirror.term,
        index: mirror.index,
        data,
        context: mirror.context.bytes(frame),
        ..Entry::default()
    };
    entry.set_entry_type(kind);
    Ok(entry)
}

fn change_type(kind: u8) -> Result<ConfChangeType, Error> {
    Ok(match kind {
        0 => ConfChangeType::AddNode,
        1 => ConfChangeType::RemoveNode,
        2 => ConfChangeType::AddLearnerNode,
        _ => return Err(unreadable("an unknown change")),
    })
}

fn snapshot_mirror(snapshot: &Snapshot) -> SnapshotMirror<'_> {
    let metadata = snapshot.get_metadata();
    let state = metadata.get_conf_state();
    SnapshotMirror {
        data: Blob::of(&snapshot.data),
        index: metadata.index,
        term: metadata.term,
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

fn snapshot(mirror: SnapshotMirror<'_>, frame: &Bytes) -> Snapshot {
    let state = ConfState {
        voters: mirror.voters,
        learners: mirror.learners,
        voters_outgoing: mirror.voters_outgoing,
        learners_next: mirror.learners_next,
        auto_leave: mirror.auto_leave,
        ..ConfState::default()
    };
    let metadata = SnapshotMetadata {
        conf_state: Some(state).into(),
        index: mirror.index,
        term: mirror.term,
        ..SnapshotMetadata::default()
    };
    Snapshot {
        data: mirror.data.bytes(frame),
        metadata: Some(metadata).into(),
        ..Snapshot::default()
    }
}
