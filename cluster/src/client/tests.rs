use super::*;
use crate::wire::{At, Operate};
use proto::{
    command::Role,
    limit::{
        CounterKey,
        ledger::{Definition, Standing},
    },
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const AT: At = At { now_ms: 7, term: 3 };
const SESSION: Session = Session(9);
const NONCE: u64 = 5 << NONCE_SPARE_BITS;

fn at(ms: u64) -> Now {
    Now {
        unix_ms: 0,
        boot_ns: ms * MS,
    }
}

fn client(voters: &[NodeId]) -> Client {
    let settings = Settings {
        nonce: NONCE,
        secret_check: 1,
        rules_max: 1,
        outstanding_max: 4,
        seed: 0x51f3,
    };
    Client::new(settings, voters.to_vec(), at(0))
}

fn drain(client: &mut Client, ms: u64) -> Vec<Action> {
    std::iter::from_fn(|| client.poll(at(ms))).collect()
}

/// The only thing to be sent: to whom, under which id, what.
fn sent(client: &mut Client, ms: u64) -> (NodeId, u64, Request) {
    match drain(client, ms).as_slice() {
        [Action::Send { to, id, request }] => (*to, *id, request.clone()),
        other => panic!("not one message: {other:?}"),
    }
}

fn greeted(voters: &[NodeId]) -> Client {
    let mut client = client(voters);
    let (to, id, _) = sent(&mut client, 0);
    let session = Response::Session {
        session: SESSION,
        at: AT,
    };
    client.receive(to, id, session, at(0));
    assert_eq!(drain(&mut client, 0), [Action::Session(SESSION)]);
    client
}

fn define(session: Session) -> Request {
    Request::Define {
        session,
        revision: 1,
        definitions: Vec::<Definition>::new(),
        last: true,
    }
}

fn write() -> Request {
    Request::Operate(Operate::Token {
        hash: [0; 32],
        role: Role::Client,
        ttl_ms: 1,
    })
}

const fn not_leader(leader: Option<NodeId>) -> Response {
    Response::NotLeader { leader }
}

fn answer(ticket: u64, response: Option<Response>) -> Action {
    Action::Answer { ticket, response }
}

#[test]
fn it_says_hello_at_its_start_and_tells_its_session() {
    let mut client = client(&[A]);
    let (to, _, request) = sent(&mut client, 0);
    assert_eq!(to, A);
    assert!(matches!(request, Request::Hello { nonce: NONCE, .. }));
    assert_eq!(greeted(&[A]).session(), Some(SESSION));
}

#[test]
fn a_hint_is_followed_at_once_and_a_wrong_hint_is_not() {
    let mut client = greeted(&[A, B, C]);
    let ticket = client.ask(Request::Status, 10_000 * MS, at(1));
    let (first, id, _) = sent(&mut client, 1);
    assert_eq!(id, ticket);
    let leader = if first == C { A } else { C };
    client.receive(first, id, not_leader(Some(leader)), at(2));
    assert_eq!(sent(&mut client, 2).0, leader);
    client.receive(leader, id, not_leader(Some(NodeId(77))), at(3));
    assert_eq!(client.poll(at(3)), Some(Action::UnknownLeader(NodeId(77))));
    let next = sent(&mut client, 3).0;
    assert!(next != leader && next != NodeId(77));
}

#[test]
fn a_voter_that_points_at_a_dead_one_does_not_keep_the_third_from_being_asked() {
    let voters = [A, B, C];
    let mut client = client(&voters);
    let mut asked = Vec::new();
    for ms in (0..1_000).step_by(10) {
        for action in drain(&mut client, ms) {
            let Action::Send { to, id, .. } = action else {
                continue;
            };
            asked.push(to);
            let dead = asked[0];
            let at_dead = voters.iter().position(|v| *v == dead).unwrap();
            if to == voters[(at_dead + 1) % 3] {
                // It was taken out, does not know it, and remembers this leader.
                client.receive(to, id, not_leader(Some(dead)), at(ms));
            } else {
                client.lost(to, at(ms));
            }
        }
    }
    assert!(voters.iter().all(|v| asked.contains(v)), "{asked:?}");
}

#[test]
fn while_nobody_leads_the_pauses_grow_and_stay_bounded() {
    let mut client = greeted(&[A, B, C]);
    client.ask(Request::Status, u64::MAX, at(0));
    let (mut ms, mut sends) = (0, Vec::new());
    while ms < 5_000 {
        for action in drain(&mut client, ms) {
            if let Action::Send { to, id, .. } = action {
                sends.push((ms, to));
                client.receive(to, id, not_leader(None), at(ms));
            }
        }
        ms += 1;
    }
    assert!((15..40).contains(&sends.len()), "{sends:?}");
    let gap = |pair: &[(u64, NodeId)]| pair[1].0 - pair[0].0;
    assert!(sends.windows(2).map(gap).all(|ms| ms <= 401), "{sends:?}");
    for voter in [A, B, C] {
        assert!(sends[..4].iter().any(|(_, to)| *to == voter), "{sends:?}");
    }
}

#[test]
fn a_silent_target_is_given_up_and_its_late_answer_is_good() {
    let mut client = greeted(&[A, B, C]);
    let ticket = client.ask(Request::Status, 10_000 * MS, at(0));
    let (first, id, _) = sent(&mut client, 0);
    assert!(drain(&mut client, 499).is_empty());
    let (second, _, _) = sent(&mut client, 500);
    assert_ne!(first, second);
    let done = Response::Done { at: AT };
    client.receive(first, id, done.clone(), at(510));
    assert_eq!(
        drain(&mut client, 510),
        [answer(ticket, Some(done.clone()))]
    );
    client.receive(second, id, done, at(511));
    assert!(drain(&mut client, 9_000).is_empty());
}

#[test]
fn an_only_voter_that_was_silent_is_asked_again_and_again() {
    let mut client = client(&[A]);
    client.ask(Request::Status, u64::MAX, at(0));
    client.ask(Request::Status, u64::MAX, at(0));
    let mut sends = Vec::new();
    for ms in 0..10_000 {
        let sent = drain(&mut client, ms);
        sends.extend(sent.iter().map(|_| ms));
    }
    assert!((30..70).contains(&sends.len()), "{sends:?}");
    assert!(sends.iter().any(|ms| *ms > 9_000), "{sends:?}");
}

#[test]
fn a_lost_connection_moves_on_at_once() {
    let mut client = greeted(&[A, B]);
    client.ask(Request::Status, 10_000 * MS, at(0));
    let (first, _, _) = sent(&mut client, 0);
    client.lost(first, at(5));
    assert_ne!(sent(&mut client, 5).0, first);
}

#[test]
fn a_deadline_is_an_answer_and_too_much_is_refused_at_once() {
    let mut client = greeted(&[A]);
    let tickets: Vec<u64> = (0..5)
        .map(|_| client.ask(Request::Status, 100 * MS, at(0)))
        .collect();
    let first = drain(&mut client, 0);
    assert_eq!(first[0], answer(tickets[4], None));
    assert_eq!(first.len(), 5);
    assert_eq!(client.deadline_ns(), Some(100 * MS));
    assert_eq!(
        drain(&mut client, 100),
        tickets[..4]
            .iter()
            .map(|t| answer(*t, None))
            .collect::<Vec<_>>()
    );
    assert_eq!(client.outstanding(), 0);
}

#[test]
fn a_void_session_refuses_what_was_asked_in_it_and_begins_another_nonce() {
    for refusal in [Refusal::UnknownSession, Refusal::Quarantined] {
        let mut client = greeted(&[A]);
        let first = client.ask(define(SESSION), 10_000 * MS, at(0));
        let second = client.ask(define(SESSION), 10_000 * MS, at(0));
        drain(&mut client, 0);
        client.receive(A, first, Response::Refused(refusal), at(1));
        let void = Some(Response::Refused(Refusal::UnknownSession));
        let actions = drain(&mut client, 1);
        assert_eq!(actions[0], answer(first, Some(Response::Refused(refusal))));
        assert_eq!(actions[1], answer(second, void.clone()));
        let [
            Action::Send {
                id,
                request: Request::Hello { nonce, .. },
                ..
            },
        ] = actions[2..]
        else {
            panic!("{actions:?}");
        };
        assert_eq!(nonce, NONCE + 1);
        // The old session is never taken back, even if a voter offers it.
        let offer = |session| Response::Session { session, at: AT };
        client.receive(A, id, offer(SESSION), at(1));
        let (_, id, request) = sent(&mut client, 1_000);
        assert!(matches!(request, Request::Hello { nonce, .. } if nonce == NONCE + 2));
        client.receive(A, id, offer(Session(10)), at(1_000));
        assert_eq!(drain(&mut client, 1_000), [Action::Session(Session(10))]);
        let stale = client.ask(define(SESSION), 10_000 * MS, at(1_000));
        assert_eq!(drain(&mut client, 1_000), [answer(stale, void)]);
    }
}

#[test]
fn a_quarantine_is_seen_in_a_leases_verdict_too_but_exhaustion_is_none() {
    let standing = Standing {
        window: 1,
        end_ms: 1,
        granted_total: 0,
        returned_total: 0,
        used: 0,
        remaining: 0,
        ttl_ms: 0,
        generation: 0,
    };
    for (refusal, is_void) in [
        (Refusal::Exhausted(standing), false),
        (Refusal::Quarantined, true),
    ] {
        let mut client = greeted(&[A]);
        let ticket = client.ask(define(SESSION), 10_000 * MS, at(0));
        drain(&mut client, 0);
        let verdict = Err(refusal);
        client.receive(A, ticket, Response::Lease { verdict, at: AT }, at(1));
        assert_eq!(client.session().is_none(), is_void);
    }
}

#[test]
fn a_hello_that_is_refused_is_said_again_with_growing_pauses() {
    let mut client = client(&[A]);
    let (mut ms, mut nonces) = (0, Vec::new());
    while ms < 20_000 {
        for action in drain(&mut client, ms) {
            if let Action::Send {
                to,
                id,
                request: Request::Hello { nonce, .. },
            } = action
            {
                nonces.push(nonce);
                let refused = Response::Refused(Refusal::UnknownSession);
                client.receive(to, id, refused, at(ms));
            }
        }
        ms += 1;
    }
    assert!((5..12).contains(&nonces.len()), "{nonces:?}");
    assert!(nonces.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_write_is_repeated_only_where_it_was_not_done() {
    let mut client = greeted(&[A, B]);
    let ticket = client.ask(write(), 10_000 * MS, at(0));
    let (first, id, _) = sent(&mut client, 0);
    client.receive(first, id, not_leader(None), at(1));
    let (second, _, _) = sent(&mut client, 1);
    assert_ne!(first, second);
    assert!(drain(&mut client, 9_000).is_empty(), "silence is no reason");
    client.lost(second, at(9_001));
    let unknown = answer(ticket, Some(Response::Unknown));
    assert_eq!(drain(&mut client, 9_001), [unknown]);
}

#[test]
fn a_write_that_was_never_sent_is_unreachable_and_one_that_was_is_unknown() {
    for (voters, response) in [(&[][..], None), (&[A][..], Some(Response::Unknown))] {
        let mut client = client(voters);
        let ticket = client.ask(write(), 100 * MS, at(0));
        drain(&mut client, 0);
        let answers = drain(&mut client, 100);
        assert!(answers.contains(&answer(ticket, response)), "{answers:?}");
    }
}

#[test]
fn a_busy_leader_is_asked_again_after_a_pause() {
    let mut client = greeted(&[A, B]);
    client.ask(Request::Status, 10_000 * MS, at(0));
    let (to, id, _) = sent(&mut client, 0);
    client.receive(to, id, Response::Unknown, at(1));
    assert!(drain(&mut client, 1).is_empty());
    assert_eq!(sent(&mut client, 30).0, to);
}

#[test]
fn goodbye_is_the_end_of_the_session() {
    let mut client = greeted(&[A]);
    let bye = Request::Return {
        session: SESSION,
        returns: Vec::new(),
        bye: true,
    };
    let ticket = client.ask(bye, 10_000 * MS, at(0));
    drain(&mut client, 0);
    client.receive(A, ticket, Response::Refused(Refusal::UnknownSession), at(1));
    assert_eq!(client.session(), None);
    assert_eq!(drain(&mut client, 9_000).len(), 1, "the answer alone");
}

#[test]
fn a_recall_of_another_session_is_not_passed_on() {
    let mut client = greeted(&[A]);
    let recall = |session| Push::Recall {
        session,
        key: CounterKey(1),
        window: 1,
        granted_total: 5,
    };
    client.pushed(A, recall(Session(8)), at(1));
    assert!(drain(&mut client, 1).is_empty());
    client.pushed(A, recall(SESSION), at(1));
    assert_eq!(drain(&mut client, 1), [Action::Push(recall(SESSION))]);
}

#[test]
fn voters_that_left_are_asked_no_more() {
    let mut client = greeted(&[A]);
    client.set_voters(vec![B, C], at(1));
    client.ask(Request::Status, 10_000 * MS, at(1));
    assert_ne!(sent(&mut client, 1).0, A);
}
