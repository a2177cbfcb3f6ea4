//! What gateways are asked to do, and the service that is demanded when everything is well again.

use super::{
    check::Broken,
    clock::{MS, SECOND},
    event::Event,
    scenes::Scene,
    world::World,
};
use cluster::wire::Operate;

/// For how long service is demanded of every key, in whole windows: at least in this many, at most of this length
/// altogether.
const DEMANDED: u64 = 2;
const DEMANDED_MS: u64 = 5_000;
/// A retried call that was let down must have had its units within reach for this long, or a fifth of its window.
const REACH_NS: u64 = 600 * MS;
/// Until when before a window's end a call is retried.
const LAST_NS: u64 = 500 * MS;

/// Grants in the log.
pub const GRANTS: [&str; 2] = ["g0", "g1"];

/// In how many windows of this length service is demanded: none where they are too short.
fn demanded(length_ms: u64) -> u64 {
    match length_ms {
        ..2_000 => 0,
        _ => (DEMANDED_MS / length_ms).clamp(1, DEMANDED),
    }
}

impl World {
    /// The next call of a gateway comes in.
    pub fn call_of_workload(&mut self, host: usize) {
        let pause_ns = self.pause_ns();
        let run = self.hosts[host].run;
        self.later(pause_ns, Event::Call { host, run });
        let now = self.now(host);
        let rests = self.dice.below(16) == 0;
        if let Some(gateway) = self.gateway(host)
            && rests
        {
            let rested = gateway.rest(now);
            self.scenes.note_many(Scene::HolderRested, rested);
        }
        let first = self.dice.below(self.plan.keys.len() as u64) as usize;
        let mut charges = vec![(first, self.amount(first))];
        let second = self.dice.below(self.plan.keys.len() as u64) as usize;
        if second != first && self.dice.below(5) == 0 {
            charges.push((second, self.amount(second)));
        }
        let grant = match self.dice.below(6) {
            n @ (0 | 1) => Some(GRANTS[n as usize]),
            _ => None,
        };
        self.call_arrives(host, grant, charges, None);
    }

    fn amount(&mut self, index: usize) -> u64 {
        let limit = self.plan.limits[self.plan.keys[index].limit];
        match self.dice.below(20) {
            0 => 1 + self.dice.below(limit.max),
            1..6 => 1,
            _ => 1 + self.dice.below(2 * limit.amount - 1),
        }
    }

    /// Usual pauses, and now and then one that ends where a window does.
    fn pause_ns(&mut self) -> u64 {
        if self.dice.below(8) == 0 {
            return self.border_ns();
        }
        self.dice.below(2 * SECOND / self.plan.calls_per_s)
    }

    /// How long it is until just before or after a window's border.
    pub fn border_ns(&mut self) -> u64 {
        let limit = self.dice.below(self.plan.limits.len() as u64) as usize;
        let length_ns = self.plan.limits[limit].window_ms * MS;
        let ledger_ns = self.ledger_ms() * MS + self.true_ns % MS;
        let left_ns = length_ns - ledger_ns % length_ns;
        (left_ns + self.dice.below(60 * MS)).saturating_sub(30 * MS)
    }

    /// Replicated time as of now, if the newest entry's clock still runs.
    fn ledger_ms(&self) -> u64 {
        self.true_ms().saturating_add_signed(-self.check.lag_ms)
    }

    /// Everything has been well for a while: the cluster must be whole, and calls must get through.
    pub fn demand_service(&mut self) {
        if self.clock_is_lost() {
            self.done = true;
            return;
        }
        if let Some((invariant, how)) = self.ills() {
            if self.true_ns < self.heal_until_ns {
                return self.later(SECOND, Event::Settled);
            }
            return self.fail(invariant, how + &self.voters_in_words());
        }
        for index in 0..self.plan.keys.len() {
            self.old_windows[index] = self.check.books.newest(index);
            self.probe_next(index, 0);
        }
        let longest_ms = self.plan.keys.iter().map(|key| {
            let length_ms = self.plan.limits[key.limit].window_ms;
            length_ms * (demanded(length_ms) + 1)
        });
        let all_ns = longest_ms.max().unwrap_or(0) * MS;
        self.later(all_ns, Event::Done);
    }

    /// What keeps the cluster from being whole.
    fn ills(&mut self) -> Option<Broken> {
        for host in 0..self.hosts.len() {
            if !self.is_member(host) {
                continue;
            }
            let now = self.now(host);
            let id = self.hosts[host].id;
            let newest = self.check.newest_acknowledged(self.true_ns - 4 * SECOND);
            let Some(gateway) = self.gateway(host) else {
                // Its joining was answered to nobody: an operator looks, and starts it.
                self.start(host);
                return Some(("the cluster heals", format!("node {} is down", id.0)));
            };
            let has = gateway.control.position().upto;
            let fresh_ns = gateway.fresh_ns.unwrap_or(0);
            let is_stale = now.boot_ns.saturating_sub(fresh_ns) > 4 * SECOND;
            if is_stale && self.knows_nobody(host) {
                // As the operators' page says: it joins anew. Rare, because all voters change within seconds.
                self.operate(Operate::Remove { nodes: vec![id] });
                return Some(("the cluster heals", format!("node {} knows no voter", id.0)));
            }
            if newest > has {
                let how = format!("node {} has version {has}, {newest} was acknowledged", id.0);
                return Some(("what is acknowledged is everywhere in the end", how));
            }
            let Some(gateway) = self.gateway(host) else {
                continue;
            };
            if gateway.in_force.is_none() || is_stale {
                let how = format!(
                    "node {}: session {:?}, limits in force: {}, fresh {} ms ago",
                    id.0,
                    gateway.session,
                    gateway.in_force.is_some(),
                    now.boot_ns.saturating_sub(fresh_ns) / MS
                );
                return Some(("the cluster heals", how));
            }
        }
        None
    }

    /// Whether every voter that a node noted was taken out while it heard of nothing.
    fn knows_nobody(&self, host: usize) -> bool {
        let present = self.voters();
        let known = &self.hosts[host].voters;
        !known.iter().any(|node| present.contains(node))
    }

    fn voters_in_words(&self) -> String {
        let mut words = String::new();
        for host in 0..self.hosts.len() {
            let h = &self.hosts[host];
            let Some(voter) = h.process.as_ref().and_then(|p| p.voter.as_ref()) else {
                continue;
            };
            let f = voter.replica.figures(self.now(host));
            words += &format!(
                "\n  voter {} (member {}): term {} leader {:?} last {} committed {} applied {} snapshot {} clock {} ms off, waits {}, {:?}",
                h.id.0,
                self.is_member(host),
                f.term,
                voter.replica.leader(),
                f.last,
                f.committed,
                f.applied,
                f.snapshot,
                f.clock_offset_ms,
                f.clock_problem,
                voter.replica.machine().configuration(),
            );
        }
        words
    }

    /// Replicated time is far from everybody's clock: windows stand still until an operator or time itself helps.
    fn clock_is_lost(&self) -> bool {
        self.check.lag_ms.abs() > 2_000
    }

    fn probe_next(&mut self, index: usize, after: u64) {
        let length_ms = self.plan.limits[self.plan.keys[index].limit].window_ms;
        if after == demanded(length_ms) {
            return;
        }
        let left_ms = length_ms - self.ledger_ms() % length_ms;
        let delay_ns = (left_ms + 20) * MS;
        let count = after + 1;
        self.later(delay_ns, Event::Probe { index, count });
    }

    /// A window begins: on every node somebody keeps asking for one unit of it.
    pub fn probe(&mut self, index: usize, count: u64) {
        let length_ms = self.plan.limits[self.plan.keys[index].limit].window_ms;
        let ledger_ms = self.ledger_ms();
        let left_ns = (length_ms - ledger_ms % length_ms) * MS;
        if left_ns < 2 * LAST_NS {
            // Another leader's clock is behind: the window has not begun yet.
            return self.probe_next(index, count - 1);
        }
        if self.old_windows[index].is_some_and(|old| ledger_ms / length_ms <= old) {
            // So is this one's, by more than a window: what dead nodes held of it is lost.
            return self.probe_next(index, count - 1);
        }
        let until_ns = self.true_ns + left_ns - LAST_NS;
        self.probes[index] = 0;
        for host in 0..self.hosts.len() {
            if self.is_member(host) && self.hosts[host].process.is_some() {
                self.probes[index] += 1;
                self.call_arrives(host, None, vec![(index, 1)], Some(until_ns));
            }
        }
        let window = ledger_ms / length_ms;
        let delay_ns = until_ns + 150 * MS - self.true_ns;
        self.later(delay_ns, Event::Probed { index, window });
        self.probe_next(index, count);
    }

    /// Nobody who kept asking may be left while there was something to be had.
    pub fn probed(&mut self, index: usize, window: u64) {
        let length_ms = self.plan.limits[self.plan.keys[index].limit].window_ms;
        self.note(Scene::Demanded);
        let (charged, max, full_ns) = self.check.books.standing(index, window);
        let reach_ns = REACH_NS.max(length_ms * MS / 5);
        let was_full = full_ns > self.true_ns.saturating_sub(reach_ns);
        if self.probes[index] > 0 && charged < max && !was_full {
            let how = format!(
                "key {index} window {window}: {} callers were refused to the end, {charged} of {max} charged",
                self.probes[index]
            );
            self.fail("what may be admitted is not refused", how);
        }
    }

    pub fn probe_admitted(&mut self, index: usize) {
        self.probes[index] = self.probes[index].saturating_sub(1);
    }
}
