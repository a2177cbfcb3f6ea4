//! The slow and obvious ledger, written from limits.md §2 with plain maps: every grant and return of every session of every
//! counter is kept, and every sum is made anew.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It said goodbye: what it did not return it spent.
    Well,
    Badly,
    Quarantined,
}

#[derive(Clone)]
struct Session_ {
    node: NodeId,
    secret: u64,
    ended: Option<Ended>,
    /// Of the node: newer ones have replaced it.
    newest: bool,
    revision: u64,
    whole: bool,
    /// What it defines, and what it has named of a view that is not whole.
    words: BTreeMap<Identity, u64>,
    named: BTreeSet<Identity>,
}

#[derive(Clone)]
struct Limit {
    in_force: u64,
    generation: u64,
    retired_ms: Option<u64>,
}

#[derive(Clone)]
enum Used {
    /// The sum of what is granted and not returned.
    Summed,
    /// A reset counter's.
    Counted(u128),
    /// Nothing is known: all of it.
    Up,
}

#[derive(Clone)]
struct Counter {
    identity: Identity,
    window: u64,
    end_ms: u64,
    generation: u64,
    used: Used,
    granted: BTreeMap<Session, u128>,
    returned: BTreeMap<Session, u128>,
    credited: BTreeMap<Session, u128>,
}

impl Counter {
    fn of(map: &BTreeMap<Session, u128>, session: Session) -> u128 {
        map.get(&session).copied().unwrap_or(0)
    }
    fn out(&self, session: Session) -> u128 {
        Self::of(&self.granted, session)
            - Self::of(&self.returned, session)
            - Self::of(&self.credited, session)
    }
    fn used(&self, max: u64) -> u128 {
        match self.used {
            Used::Summed => self.granted.keys().map(|session| self.out(*session)).sum(),
            Used::Counted(used) => used,
            Used::Up => max.into(),
        }
    }
    fn take_off(&mut self, units: u128) {
        if let Used::Counted(used) = &mut self.used {
            *used = used.saturating_sub(units);
        }
    }
}

pub(super) struct Model {
    pub(super) now_ms: u64,
    used_up_ms: Option<u64>,
    nodes: BTreeMap<NodeId, (u64, Session)>,
    sessions: BTreeMap<Session, Session_>,
    last: u64,
    limits: BTreeMap<Identity, Limit>,
    counters: BTreeMap<CounterKey, Counter>,
    groups: BTreeMap<(CounterKey, u64), BTreeSet<CounterKey>>,
    /// The largest `max` in force in a window, and counters of which operators have forgiven something.
    largest: BTreeMap<(Identity, u64), u64>,
    forgiven: BTreeSet<(CounterKey, u64)>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            now_ms: 0,
            used_up_ms: None,
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last: 0,
            limits: BTreeMap::new(),
            counters: BTreeMap::new(),
            groups: BTreeMap::new(),
            largest: BTreeMap::new(),
            forgiven: BTreeSet::new(),
        }
    }

    pub(super) fn apply(&mut self, command: &Command) -> Answer {
        match command {
            Command::Hello {
                node,
                nonce,
                secret_check,
                ..
            } => self.hello(*node, *nonce, *secret_check),
            Command::Define {
                session,
                revision,
                definitions,
                last,
            } => self.define(*session, *revision, definitions, *last),
            Command::Lease { session, ask } => self.lease(*session, ask),
            Command::Return { session, back } => self.give_back(*session, back),
            Command::Bye { session } => match self.stranger(*session) {
                Some(refusal) => Answer::Refused(refusal),
                None => self.end(*session, Ended::Well),
            },
            Command::Gone { session } => {
                if self.stranger(*session).is_none() {
                    self.end(*session, Ended::Badly);
                }
                Answer::Done
            }
            Command::Member(Member::Remove { node }) => {
                if let Some((_, session)) = self.nodes.remove(node)
                    && self.stranger(session).is_none()
                {
                    self.end(session, Ended::Badly);
                }
                Answer::Done
            }
            Command::Credit { key } => self.credit(*key),
            Command::Reset { key } => self.reset(*key),
            Command::SetClock { now_ms } if *now_ms < self.now_ms => {
                let former_ms = std::mem::replace(&mut self.now_ms, *now_ms);
                self.use_up(former_ms);
                Answer::Done
            }
            Command::SetClock { now_ms } => {
                self.now_ms = *now_ms;
                Answer::Done
            }
            other => panic!("not the ledger's: {other:?}"),
        }
    }

    pub(super) fn recover(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.use_up(self.now_ms);
        self.last += SESSIONS_SKIPPED;
    }

    fn use_up(&mut self, until_ms: u64) {
        self.used_up_ms = self.used_up_ms.max(Some(until_ms));
        let all: Vec<Session> = self.sessions.keys().copied().collect();
        for session in all {
            let found = self.sessions.get_mut(&session).unwrap();
            found.ended = Some(Ended::Well);
            found.words.clear();
        }
        self.counters.clear();
        self.groups.clear();
        for limit in self.limits.values_mut() {
            limit.retired_ms = Some(limit.retired_ms.unwrap_or(self.now_ms).min(self.now_ms));
        }
    }

    /// Why a session is not heard.
    fn stranger(&self, session: Session) -> Option<Refusal> {
        match self.sessions.get(&session) {
            Some(known) if known.ended.is_none() => None,
            Some(known) if known.ended == Some(Ended::Quarantined) && known.newest => {
                let of_node = self.nodes.get(&known.node).map(|(_, session)| *session);
                if of_node == Some(session) {
                    Some(Refusal::Quarantined)
                } else {
                    Some(Refusal::UnknownSession)
                }
            }
            _ => Some(Refusal::UnknownSession),
        }
    }

    fn hello(&mut self, node: NodeId, nonce: u64, secret: u64) -> Answer {
        let others = self.sessions.values().filter(|other| other.node != node);
        if others
            .filter(|other| other.ended.is_none())
            .any(|other| other.secret != secret)
        {
            return Answer::Refused(Refusal::Secret);
        }
        if let Some((known, session)) = self.nodes.get(&node).copied() {
            if known == nonce {
                return match self.stranger(session) {
                    None => Answer::Session(session),
                    Some(refusal) => Answer::Refused(refusal),
                };
            }
            if known > nonce {
                return Answer::Refused(Refusal::UnknownSession);
            }
            if self.stranger(session).is_none() {
                self.end(session, Ended::Badly);
            }
            self.sessions.get_mut(&session).unwrap().newest = false;
        } else if self.nodes.len() >= BOUNDS.nodes_max {
            return Answer::Refused(Refusal::NodesFull);
        }
        self.last += 1;
        let session = Session(self.last);
        self.nodes.insert(node, (nonce, session));
        let fresh = Session_ {
            node,
            secret,
            ended: None,
            newest: true,
            revision: 0,
            whole: false,
            words: BTreeMap::new(),
            named: BTreeSet::new(),
        };
        self.sessions.insert(session, fresh);
        Answer::Session(session)
    }

    fn end(&mut self, session: Session, how: Ended) -> Answer {
        let known = self.sessions.get_mut(&session).unwrap();
        known.ended = Some(how);
        known.words.clear();
        self.agree();
        Answer::Done
    }

    /// The smallest word of live sessions rules.
    fn agree(&mut self) {
        for (identity, limit) in &mut self.limits {
            let words = self.sessions.values().filter_map(|s| s.words.get(identity));
            match words.min() {
                Some(max) => {
                    if *max > limit.in_force {
                        limit.generation += 1;
                    }
                    limit.in_force = *max;
                    limit.retired_ms = None;
                }
                None => limit.retired_ms = limit.retired_ms.or(Some(self.now_ms)),
            }
        }
    }

    fn forget_retired(&mut self) {
        let now_ms = self.now_ms;
        self.limits
            .retain(|_, limit| limit.retired_ms.is_none_or(|at| at + RETIRED_MS > now_ms));
    }

    fn define(
        &mut self,
        session: Session,
        revision: u64,
        definitions: &[Definition],
        last: bool,
    ) -> Answer {
        if let Some(refusal) = self.stranger(session) {
            return Answer::Refused(refusal);
        }
        let known = &self.sessions[&session];
        if revision < known.revision {
            return Answer::Done;
        }
        if self.limits.len() + definitions.len() > BOUNDS.limits_max {
            self.forget_retired();
        }
        let all = self.limits.keys().copied();
        let all: BTreeSet<Identity> = all.chain(definitions.iter().map(|d| d.identity)).collect();
        if all.len() > BOUNDS.limits_max {
            return Answer::Refused(Refusal::LimitsFull);
        }
        let known = self.sessions.get_mut(&session).unwrap();
        if revision > known.revision {
            (known.revision, known.whole) = (revision, false);
            known.named.clear();
        }
        for definition in definitions {
            let known = self.sessions.get_mut(&session).unwrap();
            known.words.insert(definition.identity, definition.max);
            known.named.insert(definition.identity);
            self.limits.entry(definition.identity).or_insert(Limit {
                in_force: 0,
                generation: 0,
                retired_ms: None,
            });
            self.agree();
        }
        let known = self.sessions.get_mut(&session).unwrap();
        if last && !known.whole {
            known.whole = true;
            let named = std::mem::take(&mut known.named);
            known.words.retain(|identity, _| named.contains(identity));
            self.agree();
            self.forget_retired();
        }
        Answer::Done
    }

    fn live(&self, key: CounterKey) -> Option<&Counter> {
        self.counters
            .get(&key)
            .filter(|counter| counter.end_ms > self.now_ms)
    }

    fn live_count(&self) -> usize {
        let counters = self.counters.values();
        counters
            .filter(|counter| counter.end_ms > self.now_ms)
            .count()
    }

    fn lease(&mut self, session: Session, ask: &Ask) -> Answer {
        if let Some(refusal) = self.stranger(session) {
            return Answer::Refused(refusal);
        }
        let Some(limit) = self.limits.get(&ask.identity).cloned() else {
            return Answer::Refused(Refusal::Undefined);
        };
        let length = length_ms(ask.identity);
        let window = self.now_ms / length;
        let end_ms = (window + 1) * length;
        let max = limit.in_force;
        let highest = self.largest.entry((ask.identity, window)).or_default();
        *highest = max.max(*highest);
        let is_used_up = max != u64::MAX
            && self
                .used_up_ms
                .is_some_and(|until| window <= until / length);
        let known = self.live(ask.key).cloned();
        let is_new = known.is_none();
        let mut counter = known.unwrap_or(Counter {
            identity: ask.identity,
            window,
            end_ms,
            generation: 0,
            used: if is_used_up { Used::Up } else { Used::Summed },
            granted: BTreeMap::new(),
            returned: BTreeMap::new(),
            credited: BTreeMap::new(),
        });
        if counter.identity != ask.identity {
            return Answer::Refused(Refusal::Conflict);
        }
        let (seen, returned) = if ask.window_hint == window {
            (ask.seen_granted, ask.returned_total)
        } else {
            (0, 0)
        };
        let granted = Counter::of(&counter.granted, session);
        if returned > granted {
            self.end(session, Ended::Quarantined);
            return Answer::Refused(Refusal::Quarantined);
        }
        let credit = returned.saturating_sub(Counter::of(&counter.returned, session));
        if credit > 0 {
            counter.returned.insert(session, returned);
            counter.take_off(credit);
            counter.generation += 1;
        }
        let unseen = granted.saturating_sub(seen) as u64;
        let (want, min) = (
            ask.want.saturating_sub(unseen),
            ask.min.saturating_sub(unseen),
        );
        let available = u128::from(max).saturating_sub(counter.used(max)) as u64;
        let mine = self.sessions[&session].node;
        let others = counter.granted.keys().filter(|other| {
            let found = &self.sessions[other];
            found.node != mine && found.ended.is_none() && counter.out(**other) > 0
        });
        let holders = others.count() as u64 + 1;
        let grant = if available < min {
            0
        } else {
            available.min(min.max(want.min(available / (2 * holders))))
        };
        if is_new && (grant > 0 || is_used_up) {
            if self.live_count() >= BOUNDS.counters_max {
                return Answer::Refused(Refusal::CountersFull);
            }
            if let Some(group) = ask.group {
                let keys = self.groups.entry((group.key, end_ms)).or_default();
                if keys.len() >= group.keys_max as usize {
                    return Answer::Refused(Refusal::KeysFull { end_ms });
                }
                keys.insert(ask.key);
            }
        }
        if grant > 0 {
            *counter.granted.entry(session).or_default() += u128::from(grant);
            if let Used::Counted(used) = &mut counter.used {
                *used += u128::from(grant);
            }
        }
        let standing = Standing {
            window,
            end_ms,
            granted_total: Counter::of(&counter.granted, session),
            returned_total: Counter::of(&counter.returned, session),
            used: counter.used(max),
            remaining: available - grant,
            ttl_ms: (end_ms - self.now_ms).min(BOUNDS.hold_ms),
            generation: counter.generation + limit.generation,
        };
        if !is_new || grant > 0 || is_used_up {
            self.counters.insert(ask.key, counter);
        }
        if available < min {
            Answer::Refused(Refusal::Exhausted(standing))
        } else {
            Answer::Standing(standing)
        }
    }

    fn give_back(&mut self, session: Session, back: &GiveBack) -> Answer {
        if let Some(refusal) = self.stranger(session) {
            return Answer::Refused(refusal);
        }
        let now_ms = self.now_ms;
        let Some(counter) = self.counters.get_mut(&back.key) else {
            return Answer::Done;
        };
        if counter.end_ms <= now_ms || counter.window != back.window {
            return Answer::Done;
        }
        if back.returned_total > Counter::of(&counter.granted, session) {
            self.end(session, Ended::Quarantined);
            return Answer::Refused(Refusal::Quarantined);
        }
        let before = Counter::of(&counter.returned, session);
        if back.returned_total > before {
            counter.returned.insert(session, back.returned_total);
            counter.take_off(back.returned_total - before);
            counter.generation += 1;
        }
        Answer::Done
    }

    /// What ended sessions hold and will never return.
    fn lost(&self, counter: &Counter) -> BTreeMap<Session, u128> {
        let badly = |session: &&Session| {
            let ended = self.sessions[session].ended;
            matches!(ended, Some(Ended::Badly | Ended::Quarantined))
        };
        let sessions = counter.granted.keys().filter(badly);
        sessions
            .map(|session| (*session, counter.out(*session)))
            .collect()
    }

    fn credit(&mut self, key: CounterKey) -> Answer {
        let Some(mut counter) = self.live(key).cloned() else {
            return Answer::Refused(Refusal::UnknownCounter);
        };
        let mut units = 0;
        for (session, lost) in self.lost(&counter) {
            *counter.credited.entry(session).or_default() += lost;
            units += lost;
        }
        if units > 0 {
            counter.take_off(units);
            counter.generation += 1;
            self.forgiven.insert((key, counter.window));
        }
        self.counters.insert(key, counter);
        Answer::Credited(units)
    }

    fn reset(&mut self, key: CounterKey) -> Answer {
        let Some(mut counter) = self.live(key).cloned() else {
            return Answer::Refused(Refusal::UnknownCounter);
        };
        counter.used = Used::Counted(0);
        counter.generation += 1;
        for (session, lost) in self.lost(&counter) {
            *counter.credited.entry(session).or_default() += lost;
        }
        self.forgiven.insert((key, counter.window));
        self.counters.insert(key, counter);
        Answer::Done
    }

    /// Units that may be charged to a counter in a window; `None` where an operator has forgiven some.
    pub(super) fn bound(&self, key: CounterKey, identity: Identity, window: u64) -> Option<u64> {
        if self.forgiven.contains(&(key, window)) {
            return None;
        }
        Some(self.largest.get(&(identity, window)).copied().unwrap_or(0))
    }

    /// Used and lost, as operators are shown it.
    pub(super) fn shown(&self, key: CounterKey) -> Option<(u128, u128)> {
        let counter = self.live(key)?;
        let max = self.limits.get(&counter.identity).map_or(0, |l| l.in_force);
        Some((counter.used(max), self.lost(counter).values().sum()))
    }

    /// Live counters, defined limits.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.live_count(), self.limits.len())
    }

    pub(super) fn session_of(&self, node: NodeId) -> Option<Session> {
        let session = self.nodes.get(&node)?.1;
        self.stranger(session).is_none().then_some(session)
    }
}
