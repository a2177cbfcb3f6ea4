//! CORE. Who should vote: a pure plan from who belongs to the cluster and how raft stands.
//!
//! ```text
//! joins ──► learner ──(caught up; as many at once as make the voters odd)──► voter ──(Remove)──► leaving ──► gone
//!                                            (who takes its place has caught up, if one is there to take it) ┘
//! ```
//!
//! Every change of voters is one joint change: who leaves and who takes its place change over together. The leader leaves
//! the joint configuration by a second entry; one that is itself leaving hands leadership on first. One that inherits the
//! second entry from the leader before it is out at once, and lays leadership down.

use proto::command::NodeId;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most voters.
pub const VOTERS_MAX: usize = 5;
/// Most nodes that wait to become voters.
pub const LEARNERS_MAX: usize = 5;

/// Raft's configuration, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who votes; in a joint configuration, who will.
    pub voters: BTreeSet<NodeId>,
    /// Who voted before and still must agree; empty outside a joint change.
    pub outgoing: BTreeSet<NodeId>,
    /// Who only follows.
    pub learners: BTreeSet<NodeId>,
}

impl Configuration {
    /// From raft's own; `None` if no such configuration can come about here (nobody votes, too many, twice the same).
    pub fn read(state: &ConfState) -> Option<Self> {
        let set = |ids: &[u64]| -> Option<BTreeSet<NodeId>> {
            let set: BTreeSet<NodeId> = ids.iter().map(|id| NodeId(*id)).collect();
            (set.len() == ids.len() && !set.contains(&NodeId(0))).then_some(set)
        };
        let read = Self {
            voters: set(&state.voters)?,
            outgoing: set(&state.voters_outgoing)?,
            learners: set(&state.learners)?,
        };
        let is_sound = (1..=VOTERS_MAX).contains(&read.voters.len())
            && read.outgoing.len() <= VOTERS_MAX
            && read.learners.len() <= LEARNERS_MAX + VOTERS_MAX
            && read.learners.is_disjoint(&read.voters)
            && read.learners.is_disjoint(&read.outgoing)
            && state.learners_next.is_empty()
            && !state.auto_leave;
        is_sound.then_some(read)
    }

    /// As raft's own, in order.
    pub fn write(&self) -> ConfState {
        let ids = |set: &BTreeSet<NodeId>| set.iter().map(|node| node.0).collect::<Vec<u64>>();
        let mut state = ConfState::default();
        state.set_voters(ids(&self.voters));
        state.set_voters_outgoing(ids(&self.outgoing));
        state.set_learners(ids(&self.learners));
        state
    }

    /// Two sets of voters must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the node takes part in any way.
    pub fn contains(&self, node: NodeId) -> bool {
        self.votes(node) || self.learners.contains(&node)
    }

    /// Whether the node votes, in either half of a joint configuration.
    pub fn votes(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether the node votes now and will go on to: one that enters or leaves by a joint change does not count yet, or any
    /// more, because whoever is lost meanwhile is lost to both halves.
    pub fn votes_for_good(&self, node: NodeId) -> bool {
        self.voters.contains(&node) && (!self.is_joint() || self.outgoing.contains(&node))
    }

    /// Everybody who votes.
    pub fn all_voters(&self) -> BTreeSet<NodeId> {
        self.voters.union(&self.outgoing).copied().collect()
    }
}

/// What the plan is made from. Sets hold voters and voters-to-be only.
#[derive(Clone, Debug)]
pub struct View {
    /// The leader, who plans.
    pub me: NodeId,
    /// As applied.
    pub configuration: Configuration,
    /// Members that should vote.
    pub wanted: BTreeSet<NodeId>,
    /// Heard of within an election timeout; the leader too.
    pub reachable: BTreeSet<NodeId>,
    /// Have (nearly) all of the log.
    pub caught_up: BTreeSet<NodeId>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let this node follow the log.
    Learn(NodeId),
    /// Stop sending the log to a node that does not vote.
    Forget(NodeId),
    /// Enter a joint configuration.
    Change {
        /// Learners that vote from now on.
        promote: Vec<NodeId>,
        /// Voters that do not.
        remove: Vec<NodeId>,
    },
    /// Leave the joint configuration.
    Settle,
    /// Hand leadership to this voter.
    Transfer(NodeId),
}

/// The next step, if one can be taken.
pub fn plan(view: &View) -> Option<Step> {
    let now = &view.configuration;
    if now.is_joint() {
        if now.voters.contains(&view.me) {
            return Some(Step::Settle);
        }
        let heir = |node: &&NodeId| view.caught_up.contains(node) && view.reachable.contains(node);
        return now.voters.iter().find(heir).copied().map(Step::Transfer);
    }
    let stay: BTreeSet<NodeId> = now.voters.intersection(&view.wanted).copied().collect();
    let (ready, coming): (Vec<NodeId>, Vec<NodeId>) = now
        .learners
        .iter()
        .filter(|node| view.wanted.contains(node) && view.reachable.contains(node))
        .partition(|node| view.caught_up.contains(node));
    let promote = &ready[..promoted(stay.len(), ready.len())];
    let remove: Vec<NodeId> = now.voters.difference(&view.wanted).copied().collect();
    let next: BTreeSet<NodeId> = stay.iter().chain(promote).copied().collect();
    let alive = next.intersection(&view.reachable).count();
    // Who leaves waits for who takes its place, as long as that one is there and catching up.
    let is_early = promote.is_empty() && promoted(stay.len(), ready.len() + coming.len()) > 0;
    let changes = !promote.is_empty() || (!remove.is_empty() && !is_early);
    // A configuration that could not agree on anything is not entered: there would be no way back.
    if changes && !next.is_empty() && alive > next.len() / 2 {
        return Some(Step::Change {
            promote: promote.to_vec(),
            remove,
        });
    }
    let former = now.learners.difference(&view.wanted).next().copied();
    if let Some(node) = former {
        return Some(Step::Forget(node));
    }
    let newcomer = view.wanted.iter().find(|node| !now.contains(**node));
    newcomer
        .filter(|_| now.learners.len() < LEARNERS_MAX)
        .copied()
        .map(Step::Learn)
}

/// How many of the learners to promote beside so many voters: as many as make the number odd, at most [`VOTERS_MAX`].
fn promoted(voters: usize, learners: usize) -> usize {
    let room = VOTERS_MAX.saturating_sub(voters).min(learners);
    (1..=room)
        .rev()
        .find(|more| (voters + more) % 2 == 1)
        .unwrap_or(0)
}

impl Step {
    /// The step as an entry of the log; `None`: it is none.
    pub fn entry(&self) -> Option<ConfChangeV2> {
        let mut change = ConfChangeV2::default();
        let mut push = |node: NodeId, kind| {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = node.0;
            change.mut_changes().push(single);
        };
        match self {
            Step::Learn(node) => push(*node, ConfChangeType::AddLearnerNode),
            Step::Forget(node) => push(*node, ConfChangeType::RemoveNode),
            Step::Change { promote, remove } => {
                promote
                    .iter()
                    .for_each(|node| push(*node, ConfChangeType::AddNode));
                remove
                    .iter()
                    .for_each(|node| push(*node, ConfChangeType::RemoveNode));
                change.set_transition(ConfChangeTransition::Explicit);
            }
            Step::Settle => {}
            Step::Transfer(_) => return None,
        }
        Some(change)
    }
}

/// Reads a configuration change from an entry's data. Entries come from peers, so no general parser is let near them: the
/// bytes must be exactly what [`Step::entry`] makes.
pub fn read_change(bytes: &[u8]) -> Option<ConfChangeV2> {
    const CHANGES_MAX: usize = 2 * VOTERS_MAX;
    let mut change = ConfChangeV2::default();
    let mut rest = bytes;
    while let Some((tag, after)) = rest.split_first() {
        match tag {
            // transition = 1, varint
            0x08 => {
                let (value, after) = varint(after)?;
                change.set_transition(match value {
                    0 => ConfChangeTransition::Auto,
                    2 => ConfChangeTransition::Explicit,
                    _ => return None,
                });
                rest = after;
            }
            // changes = 2, a message
            0x12 => {
                let (length, after) = varint(after)?;
                let length = usize::try_from(length).ok()?;
                let (one, after) = after.split_at_checked(length)?;
                if change.changes.len() >= CHANGES_MAX {
                    return None;
                }
                change.mut_changes().push(read_single(one)?);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(change)
}

fn read_single(bytes: &[u8]) -> Option<ConfChangeSingle> {
    let mut single = ConfChangeSingle::default();
    let mut rest = bytes;
    while let Some((tag, after)) = rest.split_first() {
        let (value, after) = varint(after)?;
        match tag {
            0x08 => single.set_change_type(match value {
                0 => ConfChangeType::AddNode,
                1 => ConfChangeType::RemoveNode,
                2 => ConfChangeType::AddLearnerNode,
                _ => return None,
            }),
            0x10 => single.node_id = value,
            _ => return None,
        }
        rest = after;
    }
    (single.node_id != 0).then_some(single)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        let part = u64::from(byte & 0x7f);
        value |= part
            .checked_shl(7 * at as u32)
            .filter(|v| v >> (7 * at) == part)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message as _;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    /// All reachable and caught up but `dead`; node 1 leads.
    fn view(
        voters: &[u64],
        outgoing: &[u64],
        learners: &[u64],
        wanted: &[u64],
        dead: &[u64],
    ) -> View {
        let configuration = Configuration {
            voters: set(voters),
            outgoing: set(outgoing),
            learners: set(learners),
        };
        let mut alive: BTreeSet<NodeId> = configuration.all_voters();
        alive.extend(&configuration.learners);
        let alive: BTreeSet<NodeId> = alive.difference(&set(dead)).copied().collect();
        View {
            me: NodeId(1),
            configuration,
            wanted: set(wanted),
            reachable: alive.clone(),
            caught_up: alive,
        }
    }

    /// The same, but one lacks much of the log.
    fn lagging(mut view: View, node: u64) -> View {
        view.caught_up.remove(&NodeId(node));
        view
    }

    fn change(promote: &[u64], remove: &[u64]) -> Option<Step> {
        let nodes = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        Some(Step::Change {
            promote: nodes(promote),
            remove: nodes(remove),
        })
    }

    #[test]
    fn the_number_of_voters_stays_odd_where_it_can() {
        let learn = |id| Some(Step::Learn(NodeId(id)));
        for (what, view, step) in [
            ("alone", view(&[1], &[], &[], &[1], &[]), None),
            ("one joins", view(&[1], &[], &[], &[1, 2], &[]), learn(2)),
            ("one waits", view(&[1], &[], &[2], &[1, 2], &[]), None),
            (
                "two go",
                view(&[1], &[], &[2, 3], &[1, 2, 3], &[]),
                change(&[2, 3], &[]),
            ),
            ("not yet", view(&[1], &[], &[2, 3], &[1, 2, 3], &[3]), None),
            (
                "1 to 5",
                view(&[1], &[], &[2, 3, 4, 5], &[1, 2, 3, 4, 5], &[]),
                change(&[2, 3, 4, 5], &[]),
            ),
            (
                "1 to 3, one waits",
                view(&[1], &[], &[2, 3, 4], &[1, 2, 3, 4], &[]),
                change(&[2, 3], &[]),
            ),
            (
                "never 7",
                view(&[1, 2, 3, 4, 5], &[], &[6, 7], &[1, 2, 3, 4, 5, 6, 7], &[]),
                None,
            ),
            (
                "even to odd",
                view(&[1, 2], &[], &[3], &[1, 2, 3], &[]),
                change(&[3], &[]),
            ),
            (
                "even to odd, one waits",
                view(&[1, 2], &[], &[3, 4], &[1, 2, 3, 4], &[]),
                change(&[3], &[]),
            ),
            (
                "replace a dead one",
                view(&[1, 2, 3], &[], &[4], &[1, 2, 4], &[3]),
                change(&[4], &[3]),
            ),
            (
                "its place is not taken yet",
                lagging(view(&[1, 2, 3], &[], &[4], &[1, 2, 4], &[3]), 4),
                None,
            ),
            (
                "whoever was to take its place is gone",
                view(&[1, 2, 3], &[], &[4], &[1, 2, 4], &[3, 4]),
                change(&[], &[3]),
            ),
            (
                "one of two that go, and nobody is needed in its place",
                lagging(view(&[1, 2, 3, 5, 6], &[], &[4], &[1, 2, 3, 4], &[]), 4),
                change(&[], &[5, 6]),
            ),
            (
                "drop a dead one",
                view(&[1, 2, 3], &[], &[], &[1, 2], &[3]),
                change(&[], &[3]),
            ),
            (
                "shrink",
                view(&[1, 2, 3, 4, 5], &[], &[], &[1, 2, 3], &[]),
                change(&[], &[4, 5]),
            ),
            (
                "to the dead",
                view(&[1, 2, 3], &[], &[], &[1, 3], &[3]),
                None,
            ),
            (
                "a learner leaves",
                view(&[1], &[], &[2], &[1], &[]),
                Some(Step::Forget(NodeId(2))),
            ),
            ("nobody is wanted", view(&[1], &[], &[], &[], &[]), None),
            (
                "settle",
                view(&[1, 2, 3], &[1], &[], &[1, 2, 3], &[]),
                Some(Step::Settle),
            ),
            (
                "hand on",
                view(&[2, 3], &[1, 2, 3], &[], &[2, 3], &[2]),
                Some(Step::Transfer(NodeId(3))),
            ),
            (
                "nobody to hand on to",
                view(&[2], &[1], &[], &[2], &[2]),
                None,
            ),
        ] {
            assert_eq!(plan(&view), step, "{what}");
        }
    }

    #[test]
    fn changes_are_read_as_they_were_written_and_nothing_else_is() {
        for step in [
            Step::Learn(NodeId(u64::MAX)),
            Step::Forget(NodeId(7)),
            Step::Settle,
            change(&[4, 5], &[1, 300]).unwrap(),
        ] {
            let entry = step.entry().unwrap();
            let bytes = entry.write_to_bytes().unwrap();
            assert_eq!(read_change(&bytes), Some(entry), "{step:?}");
        }
        for bytes in [
            &b"\x08\x01"[..],
            b"\x08",
            b"\x12\x05\x08\x00",
            b"\x12\x02\x08\x00",
            b"\x1a\x00",
            b"\x12\x0c\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x13\x13\x13\x13",
        ] {
            assert_eq!(read_change(bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn who_enters_or_leaves_by_a_joint_change_does_not_count() {
        let mut configuration = Configuration {
            voters: set(&[1, 2, 4]),
            outgoing: set(&[1, 2, 3]),
            learners: set(&[5]),
        };
        let for_good = |configuration: &Configuration| -> Vec<u64> {
            let all = 1..=5;
            all.filter(|id| configuration.votes_for_good(NodeId(*id)))
                .collect()
        };
        assert_eq!(for_good(&configuration), [1, 2]);
        configuration.outgoing.clear();
        assert_eq!(for_good(&configuration), [1, 2, 4]);
    }

    #[test]
    fn configurations_that_cannot_come_about_are_not_read() {
        let good = Configuration {
            voters: set(&[1, 2, 3]),
            outgoing: set(&[1]),
            learners: set(&[4]),
        };
        assert_eq!(Configuration::read(&good.write()), Some(good.clone()));
        let broken: [fn(&mut ConfState); 6] = [
            |state| state.voters.clear(),
            |state| state.voters.push(1),
            |state| state.voters.extend([10, 11, 12]),
            |state| state.learners.push(2),
            |state| state.voters.push(0),
            |state| state.learners_next.push(1),
        ];
        for breaks in broken {
            let mut state = good.write();
            breaks(&mut state);
            assert_eq!(Configuration::read(&state), None);
        }
    }
}
