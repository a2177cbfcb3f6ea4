use super::*;
use proptest::prelude::*;

const MINUTE: Window = Window::Duration(60_000);
const LIMIT: Identity = Identity(1);
const KEY: CounterKey = CounterKey(10);

fn bounds() -> Bounds {
    Bounds {
        counters_max: 8,
        limits_max: 4,
        nodes_max: 4,
        hold_ms: 5_000,
    }
}

fn definition(max: u64) -> Definition {
    Definition {
        identity: LIMIT,
        window: MINUTE,
        max,
    }
}

/// A ledger with one session and one limit of `max` a minute, at the start of minute 100.
fn ledger(max: u64) -> (Ledger, Session) {
    let mut ledger = Ledger::new(bounds());
    ledger.advance(6_000_000);
    let session = ledger.hello(1, 1).unwrap();
    ledger.define(session, &[definition(max)], true).unwrap();
    (ledger, session)
}

fn ask(session: Session, want: u64, min: u64) -> Lease {
    Lease {
        identity: LIMIT,
        key: KEY,
        session,
        window_hint: 100,
        want,
        min,
        seen_granted: 0,
        returned_total: 0,
        group: None,
    }
}

fn back(session: Session, window: u64, returned_total: u128) -> Return {
    Return {
        key: KEY,
        session,
        window,
        returned_total,
    }
}

#[test]
fn a_lease_is_half_of_what_is_left_at_most_and_the_whole_max_is_had_at_last() {
    let (mut ledger, session) = ledger(30);
    let (mut seen, mut grants) = (0, Vec::new());
    while let Ok(standing) = ledger.lease(&Lease {
        seen_granted: seen,
        ..ask(session, 8, 1)
    }) {
        grants.push(standing.granted_total - seen);
        seen = standing.granted_total;
    }
    assert_eq!(grants, [8, 8, 7, 3, 2, 1, 1]);
    assert_eq!(seen, 30);
}

#[test]
fn a_repeated_lease_is_offered_what_it_was_granted_before() {
    let (mut ledger, session) = ledger(30);
    let first = ledger.lease(&ask(session, 4, 1)).unwrap();
    assert_eq!(ledger.lease(&ask(session, 4, 1)), Ok(first));
    let more = ledger.lease(&ask(session, 6, 1)).unwrap();
    assert_eq!(more.granted_total, 6);
}

#[test]
fn totals_of_an_older_window_credit_nothing_in_this_one() {
    let (mut ledger, session) = ledger(30);
    ledger.lease(&ask(session, 10, 10)).unwrap();
    ledger.advance(6_060_000);
    ledger
        .lease(&Lease {
            window_hint: 101,
            ..ask(session, 10, 10)
        })
        .unwrap();
    // A lease and a return of minute 100, delayed.
    let late = Lease {
        seen_granted: 10,
        returned_total: 9,
        ..ask(session, 10, 10)
    };
    assert_eq!(ledger.lease(&late).unwrap().used, 10);
    ledger.give_back(&back(session, 100, 10)).unwrap();
    assert_eq!(ledger.used(KEY), 10);
    // A return of minute 101 that arrives after it.
    ledger.advance(6_120_000);
    ledger.give_back(&back(session, 101, 10)).unwrap();
    assert_eq!(ledger.used(KEY), 0);
}

#[test]
fn a_return_is_credited_once_however_often_it_comes() {
    let (mut ledger, session) = ledger(30);
    let before = ledger.lease(&ask(session, 10, 10)).unwrap().generation;
    for total in [4, 4, 2, 6, 6] {
        ledger.give_back(&back(session, 100, total)).unwrap();
    }
    assert_eq!(ledger.used(KEY), 4);
    let after = ledger
        .lease(&Lease {
            seen_granted: 10,
            ..ask(session, 0, 0)
        })
        .unwrap();
    assert_eq!((after.returned_total, after.generation), (6, before + 2));
}

#[test]
fn returning_more_than_was_granted_closes_the_session() {
    let (mut ledger, session) = ledger(30);
    ledger.lease(&ask(session, 10, 10)).unwrap();
    assert_eq!(
        ledger.give_back(&back(session, 100, 11)),
        Err(Refusal::Quarantined)
    );
    assert_eq!(ledger.lease(&ask(session, 1, 1)), Err(Refusal::Quarantined));
    assert_eq!(ledger.used(KEY), 10);
    let fresh = ledger.hello(1, 2).unwrap();
    ledger.define(fresh, &[definition(30)], true).unwrap();
    assert_eq!(ledger.lease(&ask(fresh, 20, 20)).unwrap().used, 30);
    // A total with nothing granted is as forged.
    let forged = Lease {
        key: CounterKey(11),
        returned_total: 1,
        ..ask(fresh, 1, 1)
    };
    assert_eq!(ledger.lease(&forged), Err(Refusal::Quarantined));
}

#[test]
fn hello_is_idempotent_by_nonce_and_an_older_one_never_becomes_current() {
    let (mut ledger, session) = ledger(30);
    assert_eq!(ledger.hello(1, 1), Ok(session));
    ledger.lease(&ask(session, 10, 10)).unwrap();
    let second = ledger.hello(1, 5).unwrap();
    assert_ne!(second, session);
    assert_eq!(ledger.hello(1, 4), Err(Refusal::UnknownSession));
    assert_eq!(
        ledger.lease(&ask(session, 1, 1)),
        Err(Refusal::UnknownSession)
    );
    // Its leases are lost, not credited.
    assert_eq!(ledger.used(KEY), 10);
}

#[test]
fn the_smallest_max_of_the_live_sessions_rules_and_a_raise_moves_the_generation() {
    let (mut ledger, first) = ledger(30);
    let second = ledger.hello(2, 1).unwrap();
    let before = ledger.lease(&ask(first, 1, 1)).unwrap().generation;
    ledger.define(second, &[definition(5)], true).unwrap();
    assert!(matches!(
        ledger.lease(&ask(second, 5, 5)),
        Err(Refusal::Exhausted(_))
    ));
    assert_eq!(ledger.lease(&ask(second, 4, 4)).unwrap().generation, before);
    ledger.define(second, &[definition(40)], true).unwrap();
    let raised = ledger
        .lease(&Lease {
            seen_granted: 4,
            ..ask(second, 25, 25)
        })
        .unwrap();
    assert_eq!((raised.used, raised.generation), (30, before + 1));
}

#[test]
fn a_lowered_max_leases_nothing_past_it() {
    let (mut ledger, session) = ledger(30);
    ledger.lease(&ask(session, 20, 20)).unwrap();
    ledger.define(session, &[definition(10)], true).unwrap();
    let more = Lease {
        seen_granted: 20,
        ..ask(session, 1, 1)
    };
    let Err(Refusal::Exhausted(standing)) = ledger.lease(&more) else {
        panic!("leased past the new max");
    };
    assert_eq!(standing.remaining, 0);
    ledger.give_back(&back(session, 100, 11)).unwrap();
    assert_eq!(
        ledger
            .lease(&Lease {
                returned_total: 11,
                ..more
            })
            .unwrap()
            .used,
        10
    );
}

#[test]
fn a_limit_out_of_force_is_kept_for_a_while_and_its_counter_to_the_end() {
    let (mut ledger, session) = ledger(30);
    ledger.lease(&ask(session, 10, 10)).unwrap();
    ledger.define(session, &[], true).unwrap();
    assert!(
        ledger
            .lease(&Lease {
                seen_granted: 10,
                ..ask(session, 1, 1)
            })
            .is_ok()
    );
    ledger.define(session, &[definition(30)], true).unwrap();
    assert_eq!(ledger.used(KEY), 11);
    ledger.define(session, &[], true).unwrap();
    ledger.advance(6_000_000 + RETIRED_MS);
    ledger.define(session, &[], true).unwrap();
    assert_eq!(ledger.lease(&ask(session, 1, 1)), Err(Refusal::Undefined));
    assert_eq!(ledger.limits(), 0);
}

#[test]
fn every_table_is_bounded_and_past_counters_make_room() {
    let (mut ledger, session) = ledger(30);
    let other = |n| Lease {
        key: CounterKey(n),
        ..ask(session, 1, 1)
    };
    for n in 0..8 {
        ledger.lease(&other(n)).unwrap();
    }
    assert_eq!(ledger.lease(&other(8)), Err(Refusal::CountersFull));
    assert!(ledger.lease(&other(7)).is_ok());
    ledger.advance(6_060_000);
    assert!(ledger.lease(&other(8)).is_ok());
    ledger.expire(100);
    assert_eq!((ledger.counters(), ledger.ends.len()), (1, 1));

    let define = |n: u128| Definition {
        identity: Identity(n),
        ..definition(1)
    };
    let five: Vec<_> = (0..5).map(define).collect();
    let before = ledger.clone();
    assert_eq!(
        ledger.define(session, &five, false),
        Err(Refusal::LimitsFull)
    );
    let week = Definition {
        window: Window::Week,
        ..definition(1)
    };
    assert_eq!(
        ledger.define(session, &[define(2), week], false),
        Err(Refusal::Conflict)
    );
    assert_eq!(ledger, before);
    for node in 2..=4 {
        ledger.hello(node, 1).unwrap();
    }
    assert_eq!(ledger.hello(5, 1), Err(Refusal::NodesFull));
}

#[test]
fn distinct_keys_are_counted_when_they_are_first_granted_and_anew_in_each_window() {
    let (mut ledger, session) = ledger(30);
    let keyed = |n, min| Lease {
        key: CounterKey(n),
        group: Some(Group {
            key: CounterKey(99),
            keys_max: 2,
        }),
        ..ask(session, min, min)
    };
    // A refused key takes no place.
    assert!(matches!(
        ledger.lease(&keyed(0, 31)),
        Err(Refusal::Exhausted(_))
    ));
    ledger.lease(&keyed(1, 1)).unwrap();
    ledger.lease(&keyed(2, 1)).unwrap();
    assert_eq!(
        ledger.lease(&keyed(3, 1)),
        Err(Refusal::KeysFull { end_ms: 6_060_000 })
    );
    assert!(ledger.lease(&keyed(2, 5)).is_ok());
    ledger.advance(6_060_000);
    assert!(ledger.lease(&keyed(3, 1)).is_ok());
    assert!(ledger.lease(&keyed(1, 1)).is_ok());
    assert!(matches!(
        ledger.lease(&keyed(2, 1)),
        Err(Refusal::KeysFull { .. })
    ));
    ledger.advance(6_120_000);
    ledger.expire(100);
    assert!(ledger.groups.is_empty() && ledger.ends.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Define(usize, u64),
    /// Who, which key, want, min, and how stale the totals are that it sends.
    Lease(usize, usize, u64, u64, bool),
    Return(usize, usize, u64),
    /// A copy of an earlier command, late.
    Replay(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..40_000u64).prop_map(Step::Wait),
        1 => (0..2usize, 0..60u64).prop_map(|(who, max)| Step::Define(who, max)),
        8 => (0..2usize, 0..2usize, 0..20u64, 0..12u64, any::<bool>())
            .prop_map(|(who, key, want, min, lost)| Step::Lease(who, key, want, min, lost)),
        3 => (0..2usize, 0..2usize, 0..12u64).prop_map(|(who, key, n)| Step::Return(who, key, n)),
        2 => (0..200usize).prop_map(Step::Replay),
    ]
}

/// Everything granted and returned in one window, as a list: the slow and obvious ledger.
#[derive(Default)]
struct Reference {
    grants: Vec<(usize, usize, u64, u64)>,
    /// Largest total that was sent and accepted.
    returned: BTreeMap<(usize, usize, u64), u64>,
}

impl Reference {
    fn granted(&self, who: usize, key: usize, window: u64) -> u64 {
        let mine = |g: &&(usize, usize, u64, u64)| (g.0, g.1, g.2) == (who, key, window);
        self.grants.iter().filter(mine).map(|g| g.3).sum()
    }
    fn returned(&self, who: usize, key: usize, window: u64) -> u64 {
        self.returned.get(&(who, key, window)).copied().unwrap_or(0)
    }
    fn out(&self, who: usize, key: usize, window: u64) -> u64 {
        self.granted(who, key, window) - self.returned(who, key, window)
    }
    fn used(&self, key: usize, window: u64) -> u64 {
        (0..2).map(|who| self.out(who, key, window)).sum()
    }
    fn merge(&mut self, who: usize, key: usize, window: u64, total: u64) {
        let known = self.returned.entry((who, key, window)).or_default();
        *known = total.max(*known);
    }
}

#[derive(Clone, Copy)]
enum Sent {
    Lease(usize, usize, Lease),
    Return(usize, usize, Return),
}

proptest! {
    /// Two holders, two counters, lost replies, delayed and repeated commands, windows that roll, a `max` that moves.
    #[test]
    fn it_agrees_with_an_exact_reference(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut ledger, first) = ledger(30);
        let sessions = [first, ledger.hello(2, 1).unwrap()];
        ledger.define(sessions[1], &[definition(30)], true).unwrap();
        let keys = [KEY, CounterKey(11)];
        let mut reference = Reference::default();
        let mut max = [30, 30];
        // What each holder has heard: window, granted, returned.
        let mut heard = [[(0u64, 0u64, 0u64); 2]; 2];
        let mut sent: Vec<Sent> = Vec::new();
        let mut largest: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            let mut lost = false;
            let command = match step {
                Step::Wait(ms) => { ledger.advance(ledger.now_ms() + ms); None }
                Step::Define(who, to) => {
                    max[who] = to;
                    ledger.define(sessions[who], &[definition(to)], true).unwrap();
                    None
                }
                Step::Lease(who, key, want, min, drop) => {
                    lost = drop;
                    let (window, granted, returned) = heard[who][key];
                    Some(Sent::Lease(who, key, Lease {
                        key: keys[key],
                        window_hint: window,
                        seen_granted: granted.into(),
                        returned_total: returned.into(),
                        ..ask(sessions[who], want, min)
                    }))
                }
                Step::Return(who, key, n) => {
                    let (window, granted, returned) = &mut heard[who][key];
                    *returned = granted.saturating_sub(1).min(*returned + n).max(*returned);
                    Some(Sent::Return(who, key, Return {
                        key: keys[key],
                        ..back(sessions[who], *window, (*returned).into())
                    }))
                }
                Step::Replay(i) => { lost = true; sent.get(i).copied() }
            };
            let window = ledger.now_ms() / 60_000;
            let in_force = max[0].min(max[1]);
            let highest = largest.entry(window).or_default();
            *highest = in_force.max(*highest);
            let Some(command) = command else { continue };
            sent.push(command);
            match command {
                Sent::Return(who, key, returns) => {
                    ledger.give_back(&returns).unwrap();
                    if returns.window == window {
                        reference.merge(who, key, window, returns.returned_total as u64);
                    }
                }
                Sent::Lease(who, key, lease) => {
                    let answer = ledger.lease(&lease);
                    let mut seen = 0;
                    if lease.window_hint == window {
                        seen = lease.seen_granted as u64;
                        reference.merge(who, key, window, lease.returned_total as u64);
                    }
                    let unseen = reference.granted(who, key, window) - seen;
                    let (want, min) = (lease.want.saturating_sub(unseen), lease.min.saturating_sub(unseen));
                    let available = in_force.saturating_sub(reference.used(key, window));
                    let holders = 1 + u64::from(reference.out(1 - who, key, window) > 0);
                    let share = want.min(available / (2 * holders)).max(min);
                    if available >= min {
                        reference.grants.push((who, key, window, share.min(available)));
                    }
                    let (Ok(standing) | Err(Refusal::Exhausted(standing))) = answer else {
                        panic!("{answer:?}");
                    };
                    prop_assert_eq!(answer.is_ok(), available >= min);
                    prop_assert_eq!(standing.window, window);
                    prop_assert_eq!(standing.granted_total as u64, reference.granted(who, key, window));
                    prop_assert_eq!(standing.returned_total as u64, reference.returned(who, key, window));
                    prop_assert_eq!(standing.used as u64, reference.used(key, window));
                    prop_assert_eq!(standing.remaining, in_force.saturating_sub(reference.used(key, window)));
                    if !lost {
                        let mine = &mut heard[who][key];
                        if mine.0 != window {
                            *mine = (window, 0, 0);
                        }
                        mine.1 = mine.1.max(standing.granted_total as u64);
                    }
                }
            }
            for (key, hash) in keys.iter().enumerate() {
                prop_assert_eq!(ledger.used(*hash) as u64, reference.used(key, window));
                prop_assert!(reference.used(key, window) <= largest[&window]);
            }
        }
    }
}
