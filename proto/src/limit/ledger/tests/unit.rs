use super::*;

/// A ledger with one session and limits of 30 in 10 s and 20 in 60 s, at the start of both windows.
fn ledger() -> (Ledger, Session) {
    let mut ledger = Ledger::new(BOUNDS);
    ledger.advance(START_MS);
    let session = ledger.hello(node(0), 1, 0, 1).unwrap();
    define(&mut ledger, session, 1, &[(0, 30), (1, 20)]);
    (ledger, session)
}

fn define(ledger: &mut Ledger, session: Session, revision: u64, limits: &[(usize, u64)]) {
    let definitions: Vec<_> = limits.iter().map(|(n, max)| definition(*n, *max)).collect();
    ledger
        .define(session, revision, &definitions, true)
        .unwrap();
}

fn row(ledger: &Ledger, key: usize) -> Row {
    let question = Counters {
        key: Some(counter(key)),
        most: 1,
        ..Counters::default()
    };
    ledger.rows(&question).0.pop().unwrap()
}

fn back(key: usize, window: u64, returned_total: u128) -> GiveBack {
    GiveBack {
        key: counter(key),
        window,
        returned_total,
    }
}

const NOW: u64 = START_MS / 10_000;

#[test]
fn a_lease_is_half_of_what_is_left_at_most_and_the_whole_max_is_had_at_last() {
    let (mut ledger, session) = ledger();
    let (mut seen, mut grants) = (0, Vec::new());
    while let Ok(standing) = ledger.lease(
        session,
        &Ask {
            window_hint: NOW,
            seen_granted: seen,
            ..ask(0, 8, 1)
        },
    ) {
        grants.push(standing.granted_total - seen);
        seen = standing.granted_total;
    }
    assert_eq!(grants, [8, 8, 7, 3, 2, 1, 1]);
}

#[test]
fn totals_of_an_older_window_credit_nothing_in_this_one() {
    let (mut ledger, session) = ledger();
    ledger.lease(session, &ask(0, 10, 10)).unwrap();
    ledger.advance(START_MS + 10_000);
    ledger.lease(session, &ask(0, 10, 10)).unwrap();
    // A lease and a return of the window before, delayed.
    let late = Ask {
        window_hint: NOW,
        seen_granted: 10,
        returned_total: 9,
        ..ask(0, 10, 10)
    };
    assert_eq!(ledger.lease(session, &late).unwrap().used, 10);
    ledger.give_back(session, &back(0, NOW, 10)).unwrap();
    assert_eq!(ledger.used(counter(0)), 10);
    // A return of a window that has ended meanwhile.
    ledger.advance(START_MS + 20_000);
    ledger.give_back(session, &back(0, NOW + 1, 10)).unwrap();
    assert_eq!(ledger.used(counter(0)), 0);
}

#[test]
fn what_a_crashed_node_held_is_shown_as_lost_and_credited_but_shares_nothing() {
    let (mut ledger, first) = ledger();
    ledger.lease(first, &ask(0, 10, 10)).unwrap();
    // The node starts anew; its limits are defined again.
    let second = ledger.hello(node(0), 2, 0, 1).unwrap();
    define(&mut ledger, second, 1, &[(0, 30), (1, 20)]);
    assert_eq!((row(&ledger, 0).used, row(&ledger, 0).lost), (10, 10));
    // Alone among the living it gets half of the 20 that are left, not a quarter.
    let standing = ledger.lease(second, &ask(0, 10, 1)).unwrap();
    assert_eq!((standing.granted_total, standing.used), (10, 20));
    // Still shown, beside what the new session holds.
    assert_eq!(row(&ledger, 0).lost, 10);
    assert_eq!(
        row(&ledger, 0).holders,
        [Holding {
            node: node(0),
            granted: 10,
            returned: 0,
            lost: 10
        }]
    );
    assert_eq!(ledger.credit(counter(0)), Ok(10));
    assert_eq!(ledger.credit(counter(0)), Ok(0));
    assert_eq!((row(&ledger, 0).used, row(&ledger, 0).lost), (10, 0));
    let more = Ask {
        window_hint: NOW,
        seen_granted: 10,
        ..ask(0, 20, 20)
    };
    assert_eq!(ledger.lease(second, &more).unwrap().used, 30);
    ledger.advance(START_MS + 10_000);
    assert_eq!(ledger.credit(counter(0)), Err(Refusal::UnknownCounter));
}

#[test]
fn what_a_node_that_said_goodbye_did_not_return_was_spent() {
    let (mut ledger, session) = ledger();
    ledger.lease(session, &ask(0, 10, 10)).unwrap();
    ledger.give_back(session, &back(0, NOW, 4)).unwrap();
    ledger.bye(session).unwrap();
    assert_eq!((row(&ledger, 0).used, row(&ledger, 0).lost), (6, 0));
    assert_eq!(ledger.credit(counter(0)), Ok(0));
    assert_eq!(ledger.bye(session), Err(Refusal::UnknownSession));
    // The same nonce opens nothing: the session is over.
    assert_eq!(ledger.hello(node(0), 1, 0, 1), Err(Refusal::UnknownSession));
}

#[test]
fn a_removed_nodes_leases_are_lost_and_its_words_do_not_rule() {
    let (mut ledger, first) = ledger();
    let second = ledger.hello(node(1), 1, 0, 3).unwrap();
    define(&mut ledger, second, 1, &[(0, 5)]);
    assert_eq!(
        ledger.conflicts(),
        [Conflict {
            identity: identity(0),
            sources: vec![(node(1), 5), (node(0), 30)]
        }]
    );
    ledger.lease(second, &ask(0, 4, 4)).unwrap();
    assert_eq!(ledger.holders(counter(0)).unwrap().1.len(), 1);
    assert_eq!(ledger.rules_max_of(node(1)), Some(3));
    ledger.remove_node(node(1));
    assert_eq!(ledger.holders(counter(0)).unwrap(), (NOW, Vec::new()));
    assert_eq!(ledger.rules_max_of(node(1)), None);
    assert_eq!(ledger.node_of(second), None);
    assert!(ledger.conflicts().is_empty());
    assert_eq!(row(&ledger, 0).lost, 4);
    assert_eq!(ledger.lease(first, &ask(0, 26, 26)).unwrap().used, 30);
}

#[test]
fn a_reset_counter_grants_its_max_again_and_totals_go_on() {
    let (mut ledger, session) = ledger();
    ledger.lease(session, &ask(0, 30, 30)).unwrap();
    assert_eq!(ledger.available(counter(0)), Some((0, 1)));
    ledger.reset(counter(0)).unwrap();
    assert_eq!(ledger.available(counter(0)), Some((30, 2)));
    let heard = Ask {
        window_hint: NOW,
        seen_granted: 30,
        ..ask(0, 30, 30)
    };
    let standing = ledger.lease(session, &heard).unwrap();
    assert_eq!((standing.granted_total, standing.used), (60, 30));
    ledger.give_back(session, &back(0, NOW, 60)).unwrap();
    assert_eq!(ledger.used(counter(0)), 0);
    assert_eq!(ledger.reset(counter(1)), Err(Refusal::UnknownCounter));
}

#[test]
fn views_are_defined_in_pieces_and_older_ones_change_nothing() {
    let (mut ledger, session) = ledger();
    let piece = |ledger: &mut Ledger, revision, n, max, last| {
        ledger.define(session, revision, &[definition(n, max)], last)
    };
    // The first piece of the next view: the other limit of the former one stays.
    piece(&mut ledger, 2, 0, 10, false).unwrap();
    piece(&mut ledger, 1, 0, 99, true).unwrap();
    assert_eq!(ledger.lease(session, &ask(0, 0, 0)).unwrap().remaining, 10);
    assert_eq!(ledger.lease(session, &ask(4, 0, 0)).unwrap().remaining, 20);
    piece(&mut ledger, 2, 0, 11, true).unwrap();
    // Out of force, it is found by late calls until it is forgotten.
    assert!(ledger.lease(session, &ask(4, 0, 0)).is_ok());
    // Repeated, the last piece ends nothing; more of the same view may follow.
    piece(&mut ledger, 2, 1, 7, false).unwrap();
    piece(&mut ledger, 2, 0, 11, true).unwrap();
    ledger.advance(START_MS + RETIRED_MS);
    define(&mut ledger, session, 2, &[]);
    assert_eq!(ledger.lease(session, &ask(4, 0, 0)).unwrap().remaining, 7);
    define(&mut ledger, session, 3, &[(0, 11)]);
    ledger.advance(START_MS + 2 * RETIRED_MS);
    define(&mut ledger, session, 4, &[(0, 11)]);
    assert_eq!(
        ledger.lease(session, &ask(4, 1, 1)),
        Err(Refusal::Undefined)
    );
    assert_eq!(ledger.limits(), 1);
}

#[test]
fn definitions_are_checked_before_any_of_them_counts() {
    let (mut ledger, session) = ledger();
    let before = ledger.hash();
    let odd = |window, max| Definition {
        window,
        max,
        ..definition(0, 1)
    };
    let ten = Window::Duration(10_000);
    for (piece, refusal) in [
        (vec![odd(Window::Week, 1)], Refusal::Conflict),
        (vec![odd(Window::Duration(0), 1)], Refusal::Overflow),
        (vec![odd(Window::Duration(u64::MAX), 1)], Refusal::Overflow),
        (vec![odd(ten, 1_000_000_000_000_001)], Refusal::Overflow),
        (vec![odd(ten, 2), definition(2, 1)], Refusal::LimitsFull),
    ] {
        assert_eq!(ledger.define(session, 9, &piece, true), Err(refusal));
        assert_eq!(ledger.hash(), before);
    }
    ledger
        .define(session, 9, &[odd(ten, u64::MAX)], false)
        .unwrap();
}

#[test]
fn a_clock_that_goes_back_leaves_every_window_that_had_begun_used_up() {
    let (mut ledger, session) = ledger();
    ledger.lease(session, &ask(4, 1, 1)).unwrap();
    ledger.advance(START_MS + 25_000);
    ledger.set_clock(START_MS + 5_000);
    assert_eq!(
        ledger.lease(session, &ask(0, 1, 1)),
        Err(Refusal::UnknownSession)
    );
    let session = ledger.hello(node(0), 2, 0, 1).unwrap();
    define(&mut ledger, session, 1, &[(0, 30), (1, 20)]);
    for ms in [5_000, 15_000, 25_000] {
        ledger.advance(START_MS + ms);
        let Err(Refusal::Exhausted(standing)) = ledger.lease(session, &ask(0, 1, 1)) else {
            panic!("a window was reborn");
        };
        assert_eq!((standing.remaining, standing.used), (0, 30));
    }
    assert_eq!(row(&ledger, 0).used, 30);
    // The operator may say that it was not.
    ledger.reset(counter(0)).unwrap();
    assert_eq!(ledger.lease(session, &ask(0, 30, 30)).unwrap().used, 30);
    ledger.advance(START_MS + 30_000);
    assert!(ledger.lease(session, &ask(0, 30, 30)).is_ok());
    assert!(ledger.lease(session, &ask(4, 1, 1)).is_err());
    ledger.advance(START_MS + 60_000);
    assert!(ledger.lease(session, &ask(4, 20, 20)).is_ok());
}

#[test]
fn after_a_recovery_sessions_have_new_numbers_and_live_windows_are_used_up() {
    let (mut ledger, session) = ledger();
    ledger.recover_used_up(START_MS + 1_000);
    assert_eq!(ledger.now_ms(), START_MS + 1_000);
    assert_eq!(ledger.node_of(session), None);
    let fresh = ledger.hello(node(0), 2, 0, 1).unwrap();
    assert!(fresh.0 > session.0 + 1_000_000);
    define(&mut ledger, fresh, 1, &[(0, 30), (1, 20)]);
    assert!(ledger.lease(fresh, &ask(0, 1, 1)).is_err());
    ledger.advance(START_MS + 10_000);
    assert!(ledger.lease(fresh, &ask(0, 1, 1)).is_ok());
}

#[test]
fn numbers_out_of_range_are_refused_and_change_nothing() {
    let (mut ledger, session) = ledger();
    assert_eq!(ledger.hello(NodeId(0), 1, 0, 1), Err(Refusal::Overflow));
    assert_eq!(ledger.hello(node(1), 1, 5, 1), Err(Refusal::Secret));
    define(&mut ledger, session, 2, &[(0, u64::MAX)]);
    let all = ask(0, u64::MAX, u64::MAX);
    ledger.lease(session, &all).unwrap();
    ledger.reset(counter(0)).unwrap();
    let before = ledger.hash();
    let more = Ask {
        window_hint: NOW,
        seen_granted: u64::MAX.into(),
        ..all
    };
    assert_eq!(ledger.lease(session, &more), Err(Refusal::Overflow));
    assert_eq!(ledger.hash(), before);
    // With everybody else gone another secret is as good.
    let mut other = ledger.clone();
    other.bye(session).unwrap();
    assert!(other.hello(node(1), 1, 5, 1).is_ok());
    // Totals pass 2^64 where it is returned and leased again.
    let whole = u128::from(u64::MAX);
    ledger.give_back(session, &back(0, NOW, whole)).unwrap();
    let again = Ask {
        returned_total: whole,
        ..more
    };
    assert_eq!(
        ledger.lease(session, &again).unwrap().granted_total,
        2 * whole
    );
    // Time at its very end.
    ledger.advance(u64::MAX);
    assert_eq!(ledger.lease(session, &ask(0, 1, 1)), Err(Refusal::Overflow));
    ledger.advance(0);
    assert_eq!(ledger.now_ms(), u64::MAX);
}

#[test]
fn the_fullest_counters_are_shown_first() {
    let (mut ledger, session) = ledger();
    for (key, units) in [(0, 3), (1, 9), (2, 6)] {
        ledger.lease(session, &ask(key, units, units)).unwrap();
    }
    ledger.lease(session, &ask(4, 19, 19)).unwrap();
    let question = Counters {
        fullest: true,
        most: 3,
        ..Counters::default()
    };
    let (rows, total) = ledger.rows(&question);
    let used: Vec<_> = rows.iter().map(|row| row.used).collect();
    assert_eq!((used.as_slice(), total), (&[19, 9, 6][..], 4));
    let of_one = Counters {
        identity: Some(identity(1)),
        most: 9,
        ..Counters::default()
    };
    assert_eq!(ledger.rows(&of_one).1, 1);
    let frozen = ledger.freeze();
    ledger.advance(START_MS + 60_000);
    assert_eq!(ledger.rows(&question), (Vec::new(), 0));
    assert_eq!(frozen.rows(&question).0, rows);
}

#[test]
fn room_of_past_counters_is_freed_and_used_again() {
    let bounds = Bounds {
        counters_max: 10_000,
        ..BOUNDS
    };
    let mut ledger = Ledger::new(bounds);
    ledger.advance(START_MS);
    let session = ledger.hello(node(0), 1, 0, 1).unwrap();
    define(&mut ledger, session, 1, &[(0, 30)]);
    for window in 0..4 {
        ledger.advance(START_MS + window * 10_000);
        assert_eq!(ledger.counters(), 0);
        for n in 0..5_000 {
            // Half of the keys come back in every window.
            let key = CounterKey((n + u128::from(window) * 2_500) << 100);
            let one = Ask {
                key,
                group: None,
                ..ask(0, 1, 1)
            };
            ledger.lease(session, &one).unwrap();
        }
        assert_eq!(ledger.counters(), 5_000);
        assert!(ledger.counters.occupied() <= 10_000);
    }
    ledger.advance(START_MS + 40_000);
    ledger.sweep(usize::MAX);
    assert_eq!((ledger.counters(), ledger.counters.occupied()), (0, 0));
}

#[test]
fn records_that_do_not_fit_are_no_ledger() {
    let (mut ledger, session) = ledger();
    ledger.lease(session, &ask(0, 3, 3)).unwrap();
    let records: Vec<Record> = ledger.freeze().records().collect();
    let load = |records: Vec<Record>| Ledger::load(BOUNDS, records).map(|ledger| ledger.hash());
    assert_eq!(load(records.clone()), Ok(ledger.hash()));
    assert!(load(Vec::new()).is_err());
    for at in 0..records.len() {
        let mut twice = records.clone();
        twice.insert(at, records[at].clone());
        assert!(load(twice).is_err(), "{:?}", records[at]);
    }
    let mut turned = records.clone();
    turned.rotate_left(1);
    assert!(load(turned).is_err());
    let small = Bounds {
        limits_max: 1,
        ..BOUNDS
    };
    assert!(Ledger::load(small, records).is_err());
}
