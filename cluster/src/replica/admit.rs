//! What of a peer's message is let near raft, which trusts what it is told and ends the process over contradictions.

use crate::membership::{self, Configuration};
use raft::{
    Raft, Storage,
    eraftpb::{EntryType, Message, MessageType},
};

/// Terms beyond this are nobody's: raft counts on from them.
const TERM_MAX: u64 = 1 << 62;
/// Longest context of a message, bytes: a read's number, or the word that a transfer is forced.
const CONTEXT_BYTES_MAX: usize = 64;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Raft may have it.
    Fit,
    /// It is nobody's, or of no use.
    Unfit,
    /// A peer knows of entries that this log has lost.
    Damaged(String),
}

/// Judges a message from a peer.
pub(super) fn judge<T: Storage>(message: &Message, raft: &Raft<T>) -> Verdict {
    let last = raft.raft_log.last_index();
    let is_addressed = message.to == raft.id && message.from != raft.id && message.from != 0;
    let is_bounded = (1..=TERM_MAX).contains(&message.term)
        && message.log_term <= TERM_MAX
        && message.index <= TERM_MAX
        && message.reject_hint <= TERM_MAX
        && message.commit <= TERM_MAX
        && message.request_snapshot == 0
        && message.priority == 0
        && message.deprecated_priority == 0
        && message.context.len() <= CONTEXT_BYTES_MAX;
    if !is_addressed || !is_bounded {
        return Verdict::Unfit;
    }
    let is_fit = match message.get_msg_type() {
        MessageType::MsgAppend => follow_on(message),
        MessageType::MsgHeartbeat => {
            // A leader tells a follower to commit what that follower has acknowledged.
            if message.term >= raft.term && message.commit > last {
                let commit = message.commit;
                return Verdict::Damaged(format!(
                    "entry {commit} was acknowledged, and the log ends at {last}"
                ));
            }
            true
        }
        MessageType::MsgAppendResponse => {
            message.reject || message.index <= last || message.term != raft.term
        }
        MessageType::MsgSnapshot => is_snapshot(message) && agrees(message, raft),
        MessageType::MsgTimeoutNow => message.from == raft.leader_id && message.term == raft.term,
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => true,
        // Raft's own notes to itself, and what only leaders are asked here, by requests.
        _ => false,
    };
    let carries = message.get_msg_type() == MessageType::MsgAppend || message.entries.is_empty();
    if is_fit && carries {
        Verdict::Fit
    } else {
        Verdict::Unfit
    }
}

/// The entries follow one another and the one before them, in index and term.
fn follow_on(message: &Message) -> bool {
    let (mut index, mut term) = (message.index, message.log_term);
    message.entries.iter().all(|entry| {
        index += 1;
        let fits = entry.index == index && (term.max(1)..=message.term).contains(&entry.term);
        term = entry.term;
        fits && match entry.get_entry_type() {
            EntryType::EntryNormal => true,
            EntryType::EntryConfChangeV2 => membership::read_change(&entry.data).is_some(),
            EntryType::EntryConfChange => false,
        }
    })
}

fn is_snapshot(message: &Message) -> bool {
    let meta = message.get_snapshot().get_metadata();
    (1..=TERM_MAX).contains(&meta.index)
        && (1..=message.term).contains(&meta.term)
        && Configuration::read(meta.get_conf_state()).is_some()
}

/// What is committed is not put in question.
fn agrees<T: Storage>(message: &Message, raft: &Raft<T>) -> bool {
    let meta = message.get_snapshot().get_metadata();
    meta.index != raft.raft_log.committed || raft.raft_log.match_term(meta.index, meta.term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::{Config, RawNode, eraftpb::Entry, storage::MemStorage};
    use slog::{Discard, Logger, o};

    fn node() -> RawNode<MemStorage> {
        let config = Config {
            id: 1,
            election_tick: 10,
            heartbeat_tick: 2,
            ..Config::default()
        };
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        RawNode::new(&config, storage, &Logger::root(Discard, o!())).unwrap()
    }

    fn message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.to, message.from, message.term) = (1, 2, 3);
        message
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            ..Entry::default()
        }
    }

    #[test]
    fn messages_that_raft_would_choke_on_are_kept_from_it() {
        let node = node();
        type Breaks = fn(&mut Message);
        let cases: [(&str, MessageType, Breaks); 14] = [
            ("to another", MessageType::MsgAppend, |m| m.to = 2),
            ("from nobody", MessageType::MsgAppend, |m| m.from = 0),
            ("a note to itself", MessageType::MsgHup, |_| ()),
            ("a proposal", MessageType::MsgPropose, |m| {
                m.mut_entries().push(entry(1, 1))
            }),
            ("a read", MessageType::MsgReadIndex, |_| ()),
            ("no term", MessageType::MsgAppend, |m| m.term = 0),
            ("the last term", MessageType::MsgRequestVote, |m| {
                m.term = u64::MAX
            }),
            ("a gap", MessageType::MsgAppend, |m| {
                m.mut_entries().push(entry(2, 1))
            }),
            ("a later term", MessageType::MsgAppend, |m| {
                m.mut_entries().push(entry(1, 4))
            }),
            ("an earlier term", MessageType::MsgAppend, |m| {
                m.log_term = 2;
                m.mut_entries().push(entry(1, 1));
            }),
            ("a foreign change", MessageType::MsgAppend, |m| {
                let mut change = entry(1, 1);
                change.set_entry_type(EntryType::EntryConfChangeV2);
                change.data = vec![0x1b; 8].into();
                m.mut_entries().push(change);
            }),
            ("a snapshot for nobody", MessageType::MsgSnapshot, |m| {
                let meta = m.mut_snapshot().mut_metadata();
                (meta.index, meta.term) = (9, 2);
            }),
            (
                "acknowledged too much",
                MessageType::MsgAppendResponse,
                |m| {
                    (m.term, m.index) = (0, 9);
                },
            ),
            ("a coup", MessageType::MsgTimeoutNow, |_| ()),
        ];
        for (what, kind, breaks) in cases {
            let mut message = message(kind);
            breaks(&mut message);
            assert_eq!(judge(&message, &node.raft), Verdict::Unfit, "{what}");
        }
        let mut lost = message(MessageType::MsgHeartbeat);
        lost.commit = 1;
        assert!(matches!(judge(&lost, &node.raft), Verdict::Damaged(_)));
        let mut good = message(MessageType::MsgAppend);
        good.mut_entries().push(entry(1, 2));
        good.mut_entries().push(entry(2, 3));
        assert_eq!(judge(&good, &node.raft), Verdict::Fit);
    }
}
