//! Whether this voter's state is that of the others: hashes at the same indexes, compared when they come.

use proto::command::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Indexes that are remembered.
const INDEXES_MAX: usize = 8;

/// Hashes by index and voter, this one's among them.
#[derive(Debug, Default)]
pub(super) struct Hashes(BTreeMap<u64, BTreeMap<NodeId, u64>>);

impl Hashes {
    /// Takes a hash in; the index, if a majority of the voters has another state there than `me`.
    pub(super) fn hear(
        &mut self,
        (index, node, hash): (u64, NodeId, u64),
        me: NodeId,
        voters: &BTreeSet<NodeId>,
    ) -> Option<u64> {
        if self.0.len() >= INDEXES_MAX && !self.0.contains_key(&index) {
            let oldest = *self.0.keys().next()?;
            if index < oldest {
                return None;
            }
            self.0.remove(&oldest);
        }
        let heard = self.0.entry(index).or_default();
        heard.insert(node, hash);
        heard.retain(|node, _| voters.contains(node) || *node == me);
        let mine = *heard.get(&me)?;
        let differs = |other: &u64| {
            let alike = heard
                .iter()
                .filter(|(node, hash)| voters.contains(node) && *hash == other);
            *other != mine && alike.count() > voters.len() / 2
        };
        heard.values().any(differs).then_some(index)
    }

    /// Another state took this one's place.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_majority_with_one_other_state_is_believed() {
        let voters: BTreeSet<NodeId> = [1, 2, 3].map(NodeId).into();
        let me = NodeId(1);
        let hear = |hashes: &mut Hashes, index, node, hash| {
            hashes.hear((index, NodeId(node), hash), me, &voters)
        };
        let mut hashes = Hashes::default();
        assert_eq!(hear(&mut hashes, 1_024, 2, 7), None);
        assert_eq!(hear(&mut hashes, 1_024, 1, 5), None);
        assert_eq!(hear(&mut hashes, 1_024, 3, 6), None, "three states");
        assert_eq!(hear(&mut hashes, 2_048, 9, 6), None, "no voter");
        assert_eq!(hear(&mut hashes, 2_048, 3, 6), None);
        assert_eq!(hear(&mut hashes, 2_048, 2, 6), None);
        assert_eq!(hear(&mut hashes, 2_048, 1, 5), Some(2_048));
        for index in 3..20 {
            hear(&mut hashes, index * 1_024, 1, 5);
        }
        assert_eq!(hashes.0.len(), INDEXES_MAX);
        assert_eq!(hear(&mut hashes, 1_024, 2, 7), None, "long ago");
    }
}
