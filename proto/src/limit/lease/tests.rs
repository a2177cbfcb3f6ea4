use super::*;
use crate::{
    limit::{Settled, bucket::Bucket},
    time::Now,
};

const SESSION: Session = Session(3);
const SUBJECT: Subject = Subject {
    identity: Identity(1),
    key: CounterKey(2),
    window: Window::Duration(10_000),
    group: None,
};
/// The ledger's time and the boot clock at the start: 1 s into window 100.
const LEDGER_MS: u64 = 1_001_000;
const BOOT_NS: u64 = 500_000 * MS;

fn at(ms: u64) -> Now {
    Now {
        unix_ms: 0,
        boot_ns: BOOT_NS + ms * MS,
    }
}

/// A holder and its bucket, told at which moment things happen.
struct Node {
    holder: Holder,
    bucket: Bucket,
}

/// A standing in window 100 of a ledger that has granted so much to this node alone.
fn standing(granted: u128, returned: u128, remaining: u64) -> Standing {
    Standing {
        window: 100,
        end_ms: 1_010_000,
        granted_total: granted,
        returned_total: returned,
        used: granted - returned,
        remaining,
        ttl_ms: 5_000,
        generation: 1,
    }
}

impl Node {
    fn new() -> Self {
        Self {
            holder: Holder::new(SUBJECT, Some(SESSION), 7),
            bucket: Bucket::default(),
        }
    }

    fn poll(&mut self, ms: u64) -> Option<Todo> {
        self.holder.poll(&self.bucket, at(ms))
    }

    fn wait(&mut self, amount: u64, ms: u64) -> Wait {
        let until_ns = at(ms + 100).boot_ns;
        self.holder.wait(&self.bucket, amount, until_ns, at(ms))
    }

    /// Asks for a waiting call.
    fn asks(&mut self, ms: u64) -> Question {
        match self.poll(ms) {
            Some(Todo::Ask(question)) => question,
            other => panic!("{other:?}"),
        }
    }

    fn hears(&mut self, question: &Question, verdict: Result<Standing, Refusal>, ms: u64) {
        let heard = Heard {
            session: SESSION,
            at: At {
                now_ms: LEDGER_MS + ms,
                term: 1,
            },
            verdict,
        };
        self.holder.heard(&self.bucket, question, &heard, at(ms));
    }

    fn admitted(&mut self, ms: u64) -> Ticket {
        match self.poll(ms) {
            Some(Todo::Admit(_, ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn denied(&mut self, ms: u64) -> Denial {
        match self.poll(ms) {
            Some(Todo::Deny(_, denial)) => denial,
            other => panic!("{other:?}"),
        }
    }

    fn gives_back(&mut self, ms: u64) -> u128 {
        match self.poll(ms) {
            Some(Todo::GiveBack(SESSION, back)) => {
                assert_eq!((back.key, back.window), (SUBJECT.key, 100));
                back.returned_total
            }
            other => panic!("{other:?}"),
        }
    }

    /// A first lease of `granted` for a call of 1, at 0 ms.
    fn leased(granted: u128) -> Self {
        let mut node = Self::new();
        assert!(matches!(node.wait(1, 0), Wait::Waits(_)));
        let question = node.asks(0);
        node.hears(&question, Ok(standing(granted, 0, 100)), 2);
        drop(node.admitted(2));
        node
    }
}

const LIMIT: Denial = Denial::Limit {
    remaining: 0,
    end_ms: 1_010_000,
};

#[test]
fn a_first_lease_is_four_times_the_calls_amount_and_one_question_is_on_its_way_at_a_time() {
    let mut node = Node::new();
    assert_eq!(node.holder.due_ns(&node.bucket), None);
    node.wait(3, 0);
    let question = node.asks(0);
    let ask = question.ask;
    assert_eq!((ask.want, ask.min, ask.waiting), (12, 3, true));
    assert_eq!((ask.window_hint, ask.seen_granted), (u64::MAX, 0));
    node.wait(2, 1);
    assert_eq!(node.poll(1), None);
    node.hears(&question, Ok(standing(12, 0, 88)), 2);
    assert_eq!(node.admitted(2).amount(), 3);
    assert_eq!(node.admitted(2).amount(), 2);
    assert_eq!(node.bucket.remaining(), 7);
    // Repeated, the answer grants nothing new.
    node.hears(&question, Ok(standing(12, 0, 88)), 3);
    assert_eq!((node.poll(3), node.bucket.remaining()), (None, 7));
}

#[test]
fn an_unused_lease_is_returned_and_the_return_repeated_until_it_is_acknowledged() {
    let mut node = Node::leased(4);
    let due_ns = node.holder.due_ns(&node.bucket).unwrap();
    assert_eq!(due_ns, at(1_002).boot_ns);
    assert_eq!(node.poll(1_001), None);
    assert_eq!(node.gives_back(1_002), 3);
    assert_eq!(node.poll(1_003), None);
    assert_eq!(node.holder.due_ns(&node.bucket), Some(at(1_502).boot_ns));
    assert_eq!(node.gives_back(1_502), 3);
    let back = GiveBack {
        key: SUBJECT.key,
        window: 100,
        returned_total: 3,
    };
    node.holder.acknowledged(Session(2), &back);
    assert!(node.holder.rest(&node.bucket, at(2_000)).is_none());
    node.holder.acknowledged(SESSION, &back);
    assert_eq!(node.holder.due_ns(&node.bucket), None);
    let rest = node.holder.rest(&node.bucket, at(2_000)).unwrap();
    assert_eq!((rest.granted_total, rest.returned_total), (4, 3));
    // Awake again it asks from where it was.
    let bucket = Bucket::default();
    let end_ns = at(9_000).boot_ns;
    let mut holder = Holder::wake(SUBJECT, Some(SESSION), &bucket, (&rest, end_ns), 1);
    assert!(matches!(
        holder.wait(&bucket, 1, end_ns, at(2_000)),
        Wait::Waits(_)
    ));
    let Some(Todo::Ask(question)) = holder.poll(&bucket, at(2_000)) else {
        panic!()
    };
    let ask = question.ask;
    assert_eq!(
        (ask.window_hint, ask.seen_granted, ask.returned_total),
        (100, 4, 3)
    );
}

#[test]
fn at_the_leases_end_nothing_is_spent_and_a_late_refund_is_returned() {
    let mut node = Node::leased(4);
    let ticket = node.bucket.try_take(1, at(900)).unwrap();
    node.poll(900);
    // 5 s from before the question, less a thousandth and a margin.
    for ms in [1_800, 2_700, 3_600, 4_500] {
        node.holder.demand.touch(at(ms).boot_ns);
        node.poll(ms);
    }
    assert!(node.bucket.try_take(1, at(4_989)).is_some());
    assert!(node.bucket.try_take(1, at(4_990)).is_none());
    assert_eq!(node.gives_back(4_990), 1);
    let settled = node.holder.refund(&node.bucket, ticket, 10, at(5_100));
    assert_eq!(settled, Settled::Refunded);
    assert!(node.bucket.try_take(1, at(5_100)).is_none());
    assert_eq!(node.gives_back(5_100), 2);
    // Window over: nothing is said any more.
    assert_eq!(node.poll(9_000), None);
}

#[test]
fn a_lease_in_use_is_renewed_before_its_end_and_topped_up_when_it_is_low() {
    let mut node = Node::leased(10);
    for ms in 3..9 {
        assert!(node.bucket.try_take(1, at(ms)).is_some());
    }
    assert!(!node.bucket.take_low());
    assert!(node.bucket.try_take(1, at(9)).is_some());
    assert!(node.bucket.take_low() && !node.bucket.take_low());
    let question = node.asks(9);
    let ask = question.ask;
    assert_eq!((ask.min, ask.waiting, ask.seen_granted), (0, false, 10));
    // Used up within 200 ms: twice as much.
    assert_eq!(ask.want, 8 - 2);
    node.hears(&question, Ok(standing(16, 0, 84)), 10);
    assert_eq!(node.bucket.remaining(), 8);
    let mut ms = 10;
    let renewal = loop {
        ms += 500;
        if ms % 1_500 == 10 {
            assert!(node.bucket.try_take(1, at(ms)).is_some());
        }
        node.holder.demand.touch(at(ms).boot_ns);
        if let Some(todo) = node.poll(ms) {
            break todo;
        }
    };
    assert!(
        matches!(renewal, Todo::Ask(question) if question.ask.min == 0),
        "{renewal:?}"
    );
    assert!((4_000..5_000).contains(&ms), "{ms}");
}

#[test]
fn an_empty_lease_whose_end_was_slept_through_leaves_nothing_due() {
    let mut node = Node::leased(4);
    assert!(node.bucket.try_take(3, at(10)).is_some());
    // The process stood still from here until after the lease's end.
    assert_eq!(node.poll(6_000), None);
    assert_eq!(node.holder.due_ns(&node.bucket), None);
    assert!(matches!(node.wait(1, 6_001), Wait::Waits(_)));
    assert_eq!(node.asks(6_001).ask.min, 1);
}

#[test]
fn a_refusal_is_believed_for_a_while_for_calls_as_large_and_dropped_by_a_newer_generation() {
    let mut node = Node::new();
    node.wait(5, 0);
    let question = node.asks(0);
    let full = Standing {
        remaining: 3,
        ..standing(0, 0, 3)
    };
    node.hears(&question, Err(Refusal::Exhausted(full)), 2);
    let denial = Denial::Limit {
        remaining: 3,
        end_ms: 1_010_000,
    };
    assert_eq!(node.denied(2), denial);
    assert_eq!(node.wait(5, 100), Wait::Denied(denial));
    assert_eq!(node.wait(9, 100), Wait::Denied(denial));
    // A smaller one asks.
    assert!(matches!(node.wait(4, 100), Wait::Waits(_)));
    let question = node.asks(100);
    node.hears(&question, Err(Refusal::Exhausted(full)), 101);
    assert_eq!(node.denied(101), denial);
    // Believed twice as long now; a newer generation ends it.
    assert_eq!(node.wait(4, 450), Wait::Denied(denial));
    node.holder.renewed(1);
    assert_eq!(node.wait(4, 450), Wait::Denied(denial));
    node.holder.renewed(2);
    assert!(matches!(node.wait(4, 451), Wait::Waits(_)));
}

#[test]
fn a_call_that_is_refused_while_others_hold_waits_for_what_they_return() {
    let mut node = Node::new();
    node.wait(1, 0);
    let question = node.asks(0);
    let full = Standing {
        used: 10,
        ..standing(0, 0, 0)
    };
    node.hears(&question, Err(Refusal::Exhausted(full)), 2);
    assert_eq!(node.poll(2), None);
    node.holder.renewed(2);
    let question = node.asks(10);
    let one = Standing {
        used: 10,
        generation: 2,
        ..standing(1, 0, 0)
    };
    node.hears(&question, Ok(one), 12);
    assert_eq!(node.admitted(12).amount(), 1);
    // Nobody returns anything: refused as the ledger said, not as unreachable.
    node.wait(1, 20);
    let question = node.asks(20);
    let full = Standing {
        used: 10,
        generation: 2,
        ..standing(1, 0, 0)
    };
    node.hears(&question, Err(Refusal::Exhausted(full)), 22);
    assert_eq!(node.poll(71), None);
    assert_eq!(node.denied(72), LIMIT);
}

#[test]
fn a_large_call_keeps_what_there_is_for_50_ms_and_gives_it_up_when_it_is_recalled() {
    let mut node = Node::leased(10);
    assert!(matches!(node.wait(15, 10), Wait::Waits(_)));
    let question = node.asks(10);
    assert_eq!((question.ask.min, node.holder.reserved()), (6, 9));
    assert_eq!(node.bucket.try_take(1, at(11)), None);
    assert!(matches!(node.wait(1, 11), Wait::Waits(_)));
    node.holder
        .recall(&node.bucket, Some((SESSION, 100, 10)), at(12));
    assert_eq!(node.holder.reserved(), 0);
    assert_eq!(node.gives_back(12), 9);
    // What was asked for is not enough now: kept, and the rest is asked for.
    node.hears(&question, Ok(standing(16, 9, 84)), 13);
    let question = node.asks(13);
    assert_eq!((question.ask.min, node.holder.reserved()), (9, 6));
    // After 50 ms smaller calls take what there is.
    assert_eq!(node.admitted(60).amount(), 1);
    assert_eq!((node.holder.reserved(), node.bucket.remaining()), (0, 5));
}

#[test]
fn what_an_unheard_answer_granted_is_asked_for_and_returned() {
    let mut node = Node::new();
    node.wait(1, 0);
    let question = node.asks(0);
    node.holder.failed(&question, at(90));
    assert_eq!(node.denied(100), Denial::Unreachable);
    assert!(!node.holder.is_past(u64::MAX));
    let settle = node.asks(100);
    assert_eq!(
        (settle.ask.want, settle.ask.min, settle.ask.waiting),
        (0, 0, false)
    );
    node.hears(&settle, Ok(standing(4, 0, 96)), 102);
    assert_eq!(node.bucket.remaining(), 0);
    assert_eq!(node.gives_back(102), 4);
    // The late answer to the first question changes nothing.
    node.hears(&question, Ok(standing(4, 0, 96)), 103);
    assert_eq!((node.poll(103), node.bucket.remaining()), (None, 0));
}

#[test]
fn a_recall_adopts_before_it_returns_and_only_in_its_own_session_and_window() {
    let mut node = Node::leased(4);
    for told in [(Session(2), 100, 9), (SESSION, 99, 9)] {
        node.holder.recall(&node.bucket, Some(told), at(10));
        assert_eq!((node.poll(10), node.bucket.remaining()), (None, 3));
    }
    node.holder
        .recall(&node.bucket, Some((SESSION, 100, 9)), at(10));
    assert_eq!(node.gives_back(10), 8);
    assert_eq!(node.holder.spent(&node.bucket), 1);
}

#[test]
fn a_new_session_voids_what_was_held_and_older_windows_are_not_heard() {
    let mut node = Node::leased(4);
    let ticket = node.bucket.try_take(1, at(10)).unwrap();
    node.wait(9, 10);
    let question = node.asks(10);
    node.holder.session(&node.bucket, Session(4));
    assert_eq!(node.bucket.remaining(), 0);
    let settled = node.holder.refund(&node.bucket, ticket, 10, at(11));
    assert_eq!(settled, Settled::Charged);
    // The answer to the former session.
    node.hears(&question, Ok(standing(20, 0, 80)), 11);
    assert_eq!(node.holder.totals(), None);
    let again = node.asks(12);
    assert_eq!((again.session, again.ask.seen_granted), (Session(4), 0));

    let mut node = Node::leased(4);
    node.wait(9, 10);
    let question = node.asks(10);
    let older = Standing {
        window: 99,
        ..standing(50, 0, 50)
    };
    node.hears(&question, Ok(older), 11);
    assert_eq!(node.holder.totals(), Some((SESSION, 100, 4, 0)));
}

#[test]
fn a_silent_ledger_makes_calls_wait_once_and_then_fail_at_once() {
    let mut node = Node::new();
    assert!(matches!(node.wait(1, 0), Wait::Waits(_)));
    let question = node.asks(0);
    assert_eq!(node.denied(100), Denial::Unreachable);
    assert!(matches!(node.wait(1, 150), Wait::Waits(_)));
    assert_eq!(node.wait(1, 201), Wait::Denied(Denial::Unreachable));
    node.hears(&question, Ok(standing(4, 0, 96)), 220);
    assert_eq!(node.admitted(220).amount(), 1);
}

#[test]
fn refunds_are_bounded_and_cancelled_calls_leave_nothing() {
    let mut node = Node::leased(10);
    let [first, second] = [2, 2].map(|n| node.bucket.try_take(n, at(5)).unwrap());
    assert_eq!(
        node.holder.refund(&node.bucket, first, 3, at(6)),
        Settled::Refunded
    );
    assert_eq!(
        node.holder.refund(&node.bucket, second, 3, at(6)),
        Settled::RefundBound
    );
    assert_eq!(node.holder.view(&node.bucket).refunded, 2);
    assert_eq!(node.holder.view(&node.bucket).charged, 3);
    let Wait::Waits(call) = node.wait(9, 10) else {
        panic!()
    };
    let question = node.asks(10);
    node.hears(&question, Ok(standing(20, 0, 80)), 11);
    node.holder.cancel(&node.bucket, call, at(11));
    assert_eq!(node.poll(11), None);
    assert_eq!(node.bucket.remaining(), 17);
}
