//! What happens beside the requests: returns, rest, pushes, sessions, the end.

use super::*;
use cluster::wire::Push;
use proto::limit::{
    Scope,
    ledger::{Counters, Session},
};

/// Units that the ledger counts as used, by anybody.
fn used(node: &Node, limit: &Arc<Limit>) -> u128 {
    let question = Counters {
        key: Some(charge(limit, 1).key),
        most: 1,
        ..Counters::default()
    };
    let rows = node.memory().read(|ledger| ledger.rows(&question).0);
    rows.first().map_or(0, |row| row.used)
}

/// Turns as the node's own task would, until nothing is on its way.
async fn turn(node: &Node, now: Now) {
    node.at(now);
    for _ in 0..3 {
        node.core.turn(now);
        node.settled().await;
    }
}

#[test]
fn an_unused_lease_goes_back_and_the_counter_is_put_to_rest_and_wakes_exactly() {
    run(async {
        let limit = Arc::new(plain(1, 100));
        let node = node(&[&limit]).await;
        admit(&node, charge(&limit, 1), START).await.unwrap();
        assert_eq!(used(&node, &limit), 4);
        for ms in [100, 1_500, 3_000, 6_000] {
            turn(&node, later(ms)).await;
        }
        assert_eq!(used(&node, &limit), 1);
        assert_eq!((node.core.counters.len(), node.core.parked.len()), (0, 1));
        assert_eq!((node.len(), node.core.timers.len()), (1, 0));
        // At rest it is still known.
        assert_eq!(charged(&node, &limit, later(6_000)), 1);
        let shown = &node.show(&Filter::default(), later(6_000))[0];
        assert_eq!((shown.charged, &*shown.scope_value), (1, "grant-1"));
        let now = later(7_000);
        assert_eq!(admitted(&node, charge(&limit, 1), now).await.0, 99);
        assert_eq!(used(&node, &limit), 100);
        turn(&node, later(20_000)).await;
        node.sweep(later(60_000)).await;
        assert!(node.is_empty());
    });
}

#[test]
fn counters_at_rest_are_kept_until_the_ledger_was_heard_to_be_past_their_window() {
    run(async {
        let limit = Arc::new(plain(1, 100));
        let node = node(&[&limit]).await;
        admit(&node, charge(&limit, 3), START).await.unwrap();
        for ms in [100, 1_500, 3_000, 6_000] {
            turn(&node, later(ms)).await;
        }
        assert_eq!(node.core.parked.len(), 1);
        // Its window is over by this node's clock, but nobody says so.
        node.memory().set_mood(Mood::Lost);
        node.sweep(later(60_500)).await;
        assert_eq!(node.core.parked.len(), 1);
        node.memory().set_mood(Mood::Answers);
        node.sweep(later(60_600)).await;
        assert!(node.is_empty());
    });
}

#[test]
fn a_lost_answer_costs_nothing_but_time() {
    run(async {
        let limit = Arc::new(plain(1, 10));
        let node = node(&[&limit]).await;
        node.memory().set_mood(Mood::Lost);
        let no = admit(&node, charge(&limit, 1), START).await.unwrap_err();
        assert_eq!(no.code, Code::Unreachable);
        assert!(used(&node, &limit) >= 4);
        node.memory().set_mood(Mood::Answers);
        // What was granted unheard is asked for, and returned as nobody wants it.
        turn(&node, later(1_000)).await;
        turn(&node, later(1_100)).await;
        assert_eq!(used(&node, &limit), 0);
        let now = later(1_200);
        assert_eq!(admitted(&node, charge(&limit, 1), now).await.0, 10);
    });
}

#[test]
fn recalls_are_obeyed_at_rest_too_and_news_ends_a_refusal() {
    run(async {
        let limit = Arc::new(plain(1, 10));
        let node = node(&[&limit]).await;
        admit(&node, charge(&limit, 1), START).await.unwrap();
        let (key, window) = (charge(&limit, 1).key, MINUTE.id(START.unix_ms));
        let recall = |granted_total| Push::Recall {
            session: Session(1),
            key,
            window,
            granted_total,
        };
        node.core.pushed(recall(4));
        turn(&node, later(1)).await;
        assert_eq!(used(&node, &limit), 1);
        for ms in [1_500, 3_000, 6_000] {
            turn(&node, later(ms)).await;
        }
        assert_eq!(node.core.parked.len(), 1);
        node.core.pushed(recall(4));
        assert_eq!(node.core.parked.len(), 0);
        let now = later(6_000);
        assert_eq!(admitted(&node, charge(&limit, 1), now).await.0, 9);
        let asked = node.memory().leases();
        assert!(admit(&node, charge(&limit, 1), now).await.is_err());
        assert_eq!(node.memory().leases(), asked);
        node.core.pushed(Push::Renewed {
            key,
            generation: u64::MAX,
        });
        assert!(admit(&node, charge(&limit, 1), now).await.is_err());
        assert!(node.memory().leases() > asked);
    });
}

#[test]
fn under_a_new_session_limits_are_defined_again_and_nothing_old_is_spent() {
    run(async {
        let limit = Arc::new(plain(1, 10));
        let node = node(&[&limit]).await;
        let before = node.reserve(&[charge(&limit, 1)], START).await.unwrap();
        let work = tokio::spawn(node.limiter.run());
        tokio::task::yield_now().await;
        node.memory().renew_session();
        while node.core.session() != Some(Session(2)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Its row is dead: three units of it are lost until the window ends, and what was charged is not given back.
        let lines = before.settle(Outcome::Unsent, || START);
        assert_eq!(lines[0].settled, Settled::Charged);
        assert_eq!(admitted(&node, charge(&limit, 1), START).await.0, 6);
        work.abort();
    });
}

#[test]
fn the_nodes_own_task_prefetches_so_that_no_call_waits() {
    run(async {
        let limit = Arc::new(plain(1, 100_000));
        let node = node(&[&limit]).await;
        let work = tokio::spawn(node.limiter.run());
        let mut waited = 0;
        for ms in 0..3_000 {
            let asked = node.memory().leases();
            admit(&node, charge(&limit, 1), later(ms)).await.unwrap();
            waited += node.memory().leases() - asked;
            node.settled().await;
            tokio::task::yield_now().await;
            node.settled().await;
        }
        assert!(waited <= 8, "{waited} calls waited");
        let asked = node.memory().leases();
        assert!(asked < 40, "{asked} questions for 3,000 calls in 3 s");
        // A crash now would lose no more than the demand of the last seconds.
        assert!(used(&node, &limit) - 3_000 < 3_000);
        work.abort();
    });
}

#[test]
fn a_graceful_stop_returns_everything_and_takes_no_more_calls() {
    run(async {
        let limits = [1, 2, 3].map(|identity| Arc::new(plain(identity, 100)));
        let node = node(&limits.each_ref()).await;
        for limit in &limits {
            admit(&node, charge(limit, 1), START).await.unwrap();
            assert_eq!(used(&node, limit), 4);
        }
        node.close(START).await;
        for limit in &limits {
            assert_eq!(used(&node, limit), 1);
            let no = admit(&node, charge(limit, 1), START).await.unwrap_err();
            assert_eq!(no.code, Code::Unreachable);
        }
    });
}

#[test]
fn a_goodbye_that_nobody_answers_is_bounded() {
    run(async {
        let limit = Arc::new(plain(1, 100));
        let node = node(&[&limit]).await;
        admit(&node, charge(&limit, 1), START).await.unwrap();
        node.memory().set_mood(Mood::Silent);
        let began = Instant::now();
        node.close_within(WAIT, START).await;
        assert!(began.elapsed() < 20 * WAIT);
    });
}

#[test]
fn narrow_scopes_are_taken_first_and_a_refusal_names_the_callers_charge() {
    run(async {
        let scoped = |identity, scope, max| {
            Arc::new(Limit {
                scope,
                ..plain(identity, max)
            })
        };
        let all = scoped(1, Scope::All, 100);
        let server = scoped(2, Scope::Server, 100);
        let split = scoped(3, Scope::Server, 100);
        let grant = scoped(4, Scope::Grant, 2);
        let session = scoped(5, Scope::Session, 100);
        let node = node(&[&all, &server, &split, &grant, &session]).await;
        let charges = [
            charge(&all, 1),
            charge(&server, 1),
            keyed(&split, 7, 10),
            charge(&grant, 1),
            charge(&session, 1),
        ];
        assert_eq!(in_order(&charges).as_slice(), [4, 3, 2, 1, 0]);
        for _ in 0..2 {
            let tickets = node.reserve(&charges, START).await.unwrap();
            let lines = tickets.settle(Outcome::Acted, || START);
            let order: Vec<u128> = lines.iter().map(|line| line.identity).collect();
            assert_eq!(order, [1, 2, 3, 4, 5], "as in the caller's list");
        }
        let before = node.memory().leases();
        let no = node.reserve(&charges, START).await.err().unwrap();
        assert_eq!((no.index, no.code), (3, Code::Limit));
        // Only the grant's own limit was asked for; nothing was taken from what others share.
        assert_eq!(node.memory().leases(), before + 1);
        assert_eq!(charged(&node, &all, START), 2);
        assert_eq!(charged(&node, &session, START), 2);
    });
}
