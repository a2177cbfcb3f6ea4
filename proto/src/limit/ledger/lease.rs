//! Granting and taking back: the two commands that spending consists of.

use super::{
    Ledger, Refusal, SWEPT_PER_COUNTER, Session, Standing, USED_UP,
    counter::{Counter, Totals},
    nodes::State,
    table::{Keys, Place},
};
use crate::{
    command::NodeId,
    faulty::planted,
    limit::{
        CounterKey,
        lease::{Ask, GiveBack},
    },
};

/// What stands when a command comes: the asker's row, and the counter around it.
struct Found {
    /// `None`: the key has no counter in its present window.
    place: Option<Place>,
    used: u64,
    generation: u64,
    row: Totals,
    /// Live sessions of other nodes with something out.
    others: u64,
}

/// What a total that a holder sends comes to.
enum Merged {
    /// The row as it is now, and what was credited.
    Row(Totals, u64),
    /// More than was granted.
    Forged,
}

impl Ledger {
    /// Grants quota, or says why not.
    pub fn lease(&mut self, session: Session, ask: &Ask) -> Result<Standing, Refusal> {
        let node = self.nodes.admit(session)?;
        let limit = self.limits.get(ask.identity).ok_or(Refusal::Undefined)?;
        let (max, limit_generation) = (limit.in_force, limit.generation);
        let window = limit.window.id(self.now_ms);
        let end_ms = limit.window.bounds_ms(window).1;
        let is_used_up = max != u64::MAX
            && self
                .used_up_ms
                .is_some_and(|until_ms| window <= limit.window.id(until_ms));
        let found = self.found(session, node, ask, window, is_used_up)?;

        let (mut seen, mut returned) = (0, 0);
        if ask.window_hint == window || planted!(self, MergeWithoutWindowCheck) {
            (seen, returned) = (ask.seen_granted, ask.returned_total);
        }
        let Merged::Row(mut row, credited) = self.merge(found.row, returned) else {
            self.quarantine(session);
            return Err(Refusal::Quarantined);
        };
        let mut used = found.used.saturating_sub(credited);
        let generation = found.generation.saturating_add(u64::from(credited > 0));

        let mut unseen = row.granted().saturating_sub(seen);
        if planted!(self, RetryGrantsTwice) {
            unseen = 0;
        }
        let unseen = u64::try_from(unseen).unwrap_or(u64::MAX);
        let want = ask.want.saturating_sub(unseen);
        let min = ask.min.saturating_sub(unseen);
        let mut available = max.saturating_sub(used);
        if planted!(self, UncappedGrant) {
            available = available.max(ask.want).max(ask.min);
        }
        let share = want.min(available / found.others.saturating_add(1).saturating_mul(2));
        let grant = if available < min {
            0
        } else {
            available.min(min.max(share))
        };
        row.out = row.out.checked_add(grant).ok_or(Refusal::Overflow)?;
        used = used.checked_add(grant).ok_or(Refusal::Overflow)?;

        match found.place {
            None if grant > 0 || is_used_up => {
                if end_ms <= self.now_ms {
                    return Err(Refusal::Overflow);
                }
                self.room(ask, end_ms)?;
                let mut counter = Counter::new(ask.identity, window, used);
                if grant > 0 {
                    counter.put(row);
                }
                if !self.counters.insert(ask.key, end_ms, counter) {
                    // Not written down is not granted.
                    return Err(Refusal::Overflow);
                }
            }
            Some(place) if grant > 0 || credited > 0 => self.counters.edit(place, |counter| {
                (counter.used, counter.generation) = (used, generation);
                counter.put(row);
            }),
            _ => {}
        }
        let standing = Standing {
            window,
            end_ms,
            granted_total: row.granted(),
            returned_total: row.returned,
            used: used_shown(used, max).into(),
            remaining: available.saturating_sub(grant),
            ttl_ms: end_ms.saturating_sub(self.now_ms).min(self.bounds.hold_ms),
            generation: generation.saturating_add(limit_generation),
        };
        if available < min {
            Err(Refusal::Exhausted(standing))
        } else {
            Ok(standing)
        }
    }

    /// Credits what a holder returns to the window in which it was granted.
    pub fn give_back(&mut self, session: Session, back: &GiveBack) -> Result<(), Refusal> {
        let node = self.nodes.admit(session)?;
        // A window that is over takes nothing back, whether or not its counter has rolled already.
        let Some(place) = self.counters.find(back.key) else {
            return Ok(());
        };
        let (counter, _) = self.counters.at(place);
        if counter.window != back.window && !planted!(self, MergeWithoutWindowCheck) {
            return Ok(());
        }
        let row = match counter.row(node) {
            Some(row) if row.session == session => *row,
            _ => Totals::new(node, session),
        };
        match self.merge(row, back.returned_total) {
            Merged::Forged => {
                self.quarantine(session);
                Err(Refusal::Quarantined)
            }
            Merged::Row(_, 0) => Ok(()),
            Merged::Row(row, credited) => {
                self.counters.edit(place, |counter| {
                    // Less than was returned is used only where the counter was reset meanwhile.
                    counter.used = counter.used.saturating_sub(credited);
                    counter.generation = counter.generation.saturating_add(1);
                    counter.put(row);
                });
                Ok(())
            }
        }
    }

    /// The asker's row of a counter, and what else matters of it.
    fn found(
        &self,
        session: Session,
        node: NodeId,
        ask: &Ask,
        window: u64,
        is_used_up: bool,
    ) -> Result<Found, Refusal> {
        let fresh = Totals::new(node, session);
        let Some(place) = self.counters.find(ask.key) else {
            return Ok(Found {
                place: None,
                used: if is_used_up { USED_UP } else { 0 },
                generation: 0,
                row: fresh,
                others: 0,
            });
        };
        let (counter, _) = self.counters.at(place);
        if counter.identity != ask.identity || counter.window != window {
            return Err(Refusal::Conflict);
        }
        let row = match counter.row(node) {
            Some(row) if row.session == session => *row,
            // The node's former session: what it had out is lost if it ended badly, else it was spent.
            Some(former) => Totals {
                lost: former.lost.saturating_add(self.lost_with(former)),
                ..fresh
            },
            None => fresh,
        };
        let holds =
            |row: &&Totals| row.node != node && row.out > 0 && self.nodes.is_live(row.session);
        Ok(Found {
            place: Some(place),
            used: counter.used,
            generation: counter.generation,
            row,
            others: counter.rows().filter(holds).count() as u64,
        })
    }

    /// What is out with a row's session and will never be returned.
    pub(super) fn lost_with(&self, row: &Totals) -> u64 {
        if self.nodes.is_lost(row.session) {
            row.out
        } else {
            0
        }
    }

    /// Merges a session's absolute total into its row: repeating it changes nothing.
    fn merge(&self, row: Totals, returned_total: u128) -> Merged {
        if planted!(self, DeltasInsteadOfTotals) {
            let credit = u64::try_from(returned_total)
                .unwrap_or(u64::MAX)
                .min(row.out);
            return Merged::credited(row, credit);
        }
        if returned_total > row.granted() && !planted!(self, ForgedReturnAccepted) {
            return Merged::Forged;
        }
        // No more than is out: it fits.
        let credit = returned_total.saturating_sub(row.returned);
        Merged::credited(row, u64::try_from(credit).unwrap_or(u64::MAX))
    }

    /// A session that returned more than it was granted is refused everything; what it holds is lost.
    fn quarantine(&mut self, session: Session) {
        self.end(session, State::Quarantined, true);
    }

    /// Room for one more counter, in the table and in its group; takes the group's place.
    fn room(&mut self, ask: &Ask, end_ms: u64) -> Result<(), Refusal> {
        if self.counters.len() >= self.bounds.counters_max {
            return Err(Refusal::CountersFull);
        }
        self.sweep(SWEPT_PER_COUNTER);
        let Some(group) = ask.group else {
            return Ok(());
        };
        // One entry a window: the keys of one that is over do not count in this one.
        let key = CounterKey(group.key.0 ^ u128::from(end_ms));
        let Some(place) = self.groups.find(key) else {
            if group.keys_max == 0 {
                return Err(Refusal::KeysFull { end_ms });
            }
            self.groups.insert(key, end_ms, Keys { count: 1 });
            return Ok(());
        };
        let (keys, _) = self.groups.at(place);
        if keys.count >= group.keys_max {
            return Err(Refusal::KeysFull { end_ms });
        }
        self.groups
            .edit(place, |keys| keys.count = keys.count.saturating_add(1));
        Ok(())
    }
}

impl Merged {
    fn credited(row: Totals, credit: u64) -> Self {
        let row = Totals {
            out: row.out.saturating_sub(credit),
            returned: row.returned.saturating_add(credit.into()),
            ..row
        };
        Self::Row(row, credit)
    }
}

/// What is shown as used: all of it where the window counts as used up.
pub(super) fn used_shown(used: u64, max: u64) -> u64 {
    if used > USED_UP / 2 { max } else { used }
}
