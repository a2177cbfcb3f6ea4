//! What small clusters do: see `net` for how they are made.

mod chaos;
mod net;
mod shrink;

use super::*;
use crate::{
    codec,
    machine::{self, Loader, Manifest},
    membership::Step,
    wire::{HASH_EVERY, Operate, Push, Status},
};
use net::*;
use proto::{
    command::Role,
    control::{Change, Kind, Position},
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
        ledger::{Bounds, Definition, Refusal, Session, Standing},
    },
};
use raft::eraftpb::MessageType;
use std::{collections::BTreeSet, sync::Arc};

#[test]
fn a_cluster_of_one_leads_at_once_and_its_quota_survives_a_restart() {
    let mut net = Net::new(1 << 20);
    net.settle();
    assert_eq!(net.leader(), Some(1));
    let session = net.session(1, 1, 10);
    assert_eq!(granted(net.lease(1, session, 4)).granted_total, 4);
    net.kill(1);
    net.start(1);
    net.settle();
    let hash = net.replica(1).machine().hash();
    // The same question again is offered what was granted, not more.
    assert_eq!(granted(net.lease(1, session, 4)).granted_total, 4);
    let renewed = net.session(1, 2, 10);
    assert!(matches!(
        net.lease(1, renewed, 7),
        Some(Response::Lease {
            verdict: Err(Refusal::Exhausted(_)),
            ..
        })
    ));
    assert_ne!(net.replica(1).machine().hash(), hash);
}

#[test]
fn three_voters_go_on_when_the_leader_dies_and_grant_nothing_twice() {
    let mut net = Net::grown(3, 1 << 20);
    let session = net.session(1, 1, 10);
    assert_eq!(granted(net.lease(1, session, 6)).granted_total, 6);
    let former = net.leader().unwrap();
    net.kill(former);
    net.run(3_000);
    let leader = net.leader().unwrap();
    assert_ne!(leader, former);
    assert_eq!(granted(net.lease(1, session, 6)).granted_total, 6);
    let other = net.session(2, 1, 10);
    let refused = net.lease(2, other, 5);
    assert!(
        matches!(
            refused,
            Some(Response::Lease {
                verdict: Err(Refusal::Exhausted(Standing { remaining: 4, .. })),
                ..
            })
        ),
        "{refused:?}"
    );
    net.start(former);
    net.run(2_000);
    net.assert_agreed();
}

#[test]
fn a_lease_client_counts_as_heard_between_its_questions_and_a_silent_one_does_not() {
    let mut net = Net::grown(3, 1 << 20);
    net.join(9, Role::Client);
    let heard = |net: &mut Net| {
        let members = net.status().members;
        members.iter().find(|m| m.node.0 == 9).unwrap().reachable
    };
    for _ in 0..3 {
        let leader = net.leader().unwrap();
        let have = Position::default();
        net.ask(leader, 9, Request::Fresh { have });
        assert!(heard(&mut net));
        net.run(1_500);
        assert!(heard(&mut net));
    }
    net.run(2_000);
    assert!(!heard(&mut net));
}

#[test]
fn a_leader_without_a_quorum_answers_nobody_and_steps_down() {
    let mut net = Net::grown(3, 1 << 20);
    let session = net.session(1, 1, 10);
    let former = net.leader().unwrap();
    let request = Request::Lease {
        session,
        ask: ask(1, 1, 0),
    };
    net.cut.insert(former);
    assert_eq!(net.ask(former, 1, request.clone()), None);
    let asked = net.ids;
    let fresh = Request::Fresh {
        have: Position::default(),
    };
    assert_eq!(
        net.ask(former, 1, fresh),
        None,
        "it may be another's word by now"
    );
    net.run(3_000);
    let responses = &net.nodes[&former].responses;
    assert_eq!(responses.get(&asked), Some(&Response::Unknown));
    assert!(matches!(
        responses.get(&(asked + 1)),
        Some(Response::NotLeader { .. })
    ));
    assert!(net.leader().is_some());
    net.cut.clear();
    net.run(2_000);
    let answer = net.ask(former, 1, request);
    assert_eq!(
        answer,
        Some(Response::NotLeader {
            leader: net.leader().map(NodeId)
        })
    );
    net.assert_agreed();
}

#[test]
fn a_voter_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut net = Net::grown(3, 20_000);
    let away = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    net.kill(away);
    for number in 0..30 {
        net.operate(document(&format!("policy {number}"), 2_000));
    }
    net.run(1_000);
    let before = net.snapshots;
    net.start(away);
    net.run(2_000);
    assert!(net.snapshots > before);
    net.assert_agreed();
    let leader = net.leader().unwrap();
    assert!(net.replica(leader).figures(net.now(leader)).log_bytes < 60_000);
    // What it installed is on its disk.
    net.kill(away);
    net.start(away);
    net.run(1_000);
    net.assert_agreed();
}

#[test]
fn clusters_grow_to_five_and_shrink_to_three_and_one() {
    let mut net = Net::grown(3, 1 << 20);
    let voters = |net: &mut Net| {
        let leader = net.leader().unwrap();
        net.replica(leader).machine().configuration().voters.len()
    };
    net.join(4, Role::Voter);
    net.run(1_000);
    assert_eq!(voters(&mut net), 3, "one alone waits");
    assert!(
        net.status()
            .members
            .iter()
            .any(|m| m.node == NodeId(4) && m.learner)
    );
    net.join(5, Role::Voter);
    net.run(1_000);
    assert_eq!(voters(&mut net), 5);
    net.assert_agreed();
    // The leader goes with them: it hands leadership on first.
    let former = net.leader().unwrap();
    let other = (1..=5).find(|node| *node != former).unwrap();
    let nodes = vec![NodeId(former), NodeId(other)];
    net.operate(Operate::Remove { nodes });
    net.run(3_000);
    assert_eq!(voters(&mut net), 3);
    let leader = net.leader().unwrap();
    assert!(leader != former && net.replica(leader).machine().removed(NodeId(former)));
    let hello = Request::Hello {
        nonce: 1,
        secret_check: 1,
        rules_max: 1,
    };
    assert_eq!(net.ask(leader, former, hello), Some(Response::Removed));
    let rest: Vec<NodeId> = (1..=5)
        .filter(|n| ![former, other, leader].contains(n))
        .map(NodeId)
        .collect();
    let done = net.operate(Operate::Remove { nodes: rest });
    net.run(1_000);
    assert_eq!(voters(&mut net), 1);
    assert!(done.is_none(), "answered when it is carried out");
    let last = net.operate(Operate::Remove {
        nodes: vec![NodeId(leader)],
    });
    assert_eq!(
        last,
        Some(Response::Member(proto::command::MemberRefusal::LastVoter))
    );
    net.session(leader, 9, 5);
}

#[test]
fn a_leader_that_an_entry_takes_out_lays_leadership_down() {
    let mut net = Net::grown(3, 1 << 20);
    let former = net.leader().unwrap();
    // As if it had inherited the last entry of a change from the leader before it.
    let change = Step::Forget(NodeId(former)).entry().unwrap();
    net.with(former, |replica| {
        replica
            .raft
            .propose_conf_change(Vec::new(), change)
            .unwrap();
    });
    net.settle();
    assert!(!net.replica(former).leads());
    net.run(2_000);
    let leader = net.leader().unwrap();
    assert_ne!(leader, former);
    net.session(leader, 9, 5);
}

#[test]
fn a_dead_voter_is_replaced_in_one_change() {
    let mut net = Net::grown(3, 1 << 20);
    let dead = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    net.kill(dead);
    net.join(4, Role::Voter);
    net.run(1_000);
    net.operate(Operate::Remove {
        nodes: vec![NodeId(dead)],
    });
    net.run(2_000);
    let leader = net.leader().unwrap();
    let voters = &net.replica(leader).machine().configuration().voters;
    assert!(voters.len() == 3 && voters.contains(&NodeId(4)) && !voters.contains(&NodeId(dead)));
    // Its log is of no use to it any more.
    net.start(dead);
    net.run(2_000);
    assert_eq!(net.leader(), Some(leader));
}

#[test]
fn holders_are_recalled_and_those_who_were_refused_hear_when_there_is_more() {
    let mut net = Net::grown(1, 1 << 20);
    net.join(8, Role::Client);
    let mine = net.session(1, 1, 10);
    let theirs = net.session(8, 1, 10);
    assert_eq!(granted(net.lease(1, mine, 10)).granted_total, 10);
    let window = Window::Duration(3_600_000).id(T0);
    net.lease(8, theirs, 1);
    net.lease(8, theirs, 1);
    let recall = Push::Recall {
        session: mine,
        key: KEY,
        window,
        granted_total: 10,
    };
    assert_eq!(net.nodes[&1].pushes, [(NodeId(1), recall)], "once in 20 ms");
    net.nodes.get_mut(&1).unwrap().pushes.clear();
    let back = GiveBack {
        key: KEY,
        window,
        returned_total: 3,
    };
    let returned = Request::Return {
        session: mine,
        returns: vec![back],
        bye: false,
    };
    net.ask(1, 1, returned);
    let pushes = &net.nodes[&1].pushes;
    assert!(
        matches!(pushes[..], [(NodeId(8), Push::Renewed { key: KEY, .. })]),
        "{pushes:?}"
    );
    // A call that needs many at once has what comes back to itself for a moment.
    assert!(matches!(
        net.lease(8, theirs, 5),
        Some(Response::Lease {
            verdict: Err(_),
            ..
        })
    ));
    assert_eq!(net.lease(1, mine, 12), None, "held back");
    let deadline_ns = net.replica(1).deadline_ns().unwrap();
    assert_eq!(deadline_ns, net.now(1).boot_ns + 50_000_000);
    net.run(100);
    let held = net.ids;
    assert!(net.nodes[&1].responses.contains_key(&held));
}

#[test]
fn strangers_other_peoples_sessions_and_clients_that_operate_are_forbidden() {
    let mut net = Net::grown(1, 1 << 20);
    net.join(8, Role::Client);
    let session = net.session(1, 1, 10);
    let lease = Request::Lease {
        session,
        ask: ask(1, 1, 0),
    };
    assert_eq!(net.ask(1, 8, lease.clone()), Some(Response::Forbidden));
    assert_eq!(net.ask(1, 99, lease), Some(Response::Forbidden));
    let key = KEY;
    let reset = Request::Operate(Operate::Reset { key });
    assert_eq!(net.ask(1, 8, reset), Some(Response::Forbidden));
    let unknown = Request::Return {
        session: Session(77),
        returns: Vec::new(),
        bye: true,
    };
    assert_eq!(
        net.ask(1, 8, unknown),
        Some(Response::Refused(Refusal::UnknownSession))
    );
    let join = Operate::Join {
        token: [1; 32],
        node: NodeId(9),
        name: "nine".to_owned(),
        address: String::new(),
        role: Role::Client,
    };
    let refused = Response::Member(proto::command::MemberRefusal::Token);
    assert_eq!(net.operate(join), Some(refused));
}

#[test]
fn rules_wait_for_every_voter_and_a_node_stops_at_rules_it_does_not_know() {
    let mut net = Net::grown(1, 1 << 20);
    let refused = Response::Member(proto::command::MemberRefusal::Rules);
    assert_eq!(net.operate(Operate::Rules { version: 2 }), Some(refused));
    let hello = Request::Hello {
        nonce: 1,
        secret_check: 1,
        rules_max: 2,
    };
    net.ask(1, 1, hello);
    net.operate(Operate::Rules { version: 2 });
    let stop = net.nodes[&1].stopped.clone();
    assert!(
        matches!(
            stop,
            Some(Stop::Entry {
                error: machine::Error::Rules(2),
                ..
            })
        ),
        "{stop:?}"
    );
}

#[test]
fn states_are_compared_and_one_that_differs_from_the_majority_stops() {
    let mut net = Net::grown(3, 1 << 30);
    let odd = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    let on = net.nodes.get_mut(&odd).unwrap();
    on.replica.as_mut().unwrap().machine.apply_nothing(5);
    let hello = |nonce| Request::Hello {
        nonce,
        secret_check: 1,
        rules_max: 1,
    };
    let leader = net.leader().unwrap();
    // The odd one forgets a session.
    for nonce in 1..=HASH_EVERY + 20 {
        net.ask(leader, leader, hello(nonce));
        if nonce == 10 {
            let replica = net.nodes.get_mut(&odd).unwrap().replica.as_mut().unwrap();
            let batch = proto::command::Batch {
                now_ms: T0 + 3_600_000_000,
                rules_version: 1,
                commands: Vec::new(),
            };
            replica.machine.apply(0, &batch).unwrap();
        }
    }
    let stopped: Vec<u64> = net
        .nodes
        .iter()
        .filter(|(_, on)| on.stopped.is_some())
        .map(|(n, _)| *n)
        .collect();
    assert_eq!(stopped, [odd]);
    assert_eq!(
        net.nodes[&odd].stopped,
        Some(Stop::Diverged { index: HASH_EVERY })
    );
}

#[test]
fn a_clock_that_is_far_off_waits_for_the_operator() {
    let mut net = Net::grown(1, 1 << 20);
    let session = net.session(1, 1, 10);
    net.kill(1);
    net.wall_off_ms.insert(1, -7_200_000);
    net.start(1);
    net.settle();
    assert_eq!(net.lease(1, session, 1), Some(Response::Unknown));
    assert!(net.status().clock_problem.is_some());
    let done = net.operate(Operate::AcceptClock);
    assert!(matches!(done, Some(Response::Done { .. })), "{done:?}");
    assert_eq!(net.status().clock_problem, None);
    assert!(net.status().now_ms < T0);
    let renewed = net.session(1, 2, 10);
    assert!(matches!(
        net.lease(1, renewed, 1),
        Some(Response::Lease { .. })
    ));
}

#[test]
fn a_voter_whose_clock_is_off_does_not_stand() {
    let mut net = Net::grown(3, 1 << 20);
    let former = net.leader().unwrap();
    let off = (1..=3).find(|node| *node != former).unwrap();
    net.wall_off_ms.insert(off, 900);
    net.run(2_000);
    let sees = net.replica(off).figures(net.now(off)).clock_offset_ms;
    assert!((850..=950).contains(&sees), "{sees}");
    net.with(former, Replica::resign);
    for _ in 0..5 {
        net.run(1_000);
        assert_ne!(net.replica(off).elections, 99);
    }
    // With one other voter left the two are 0.9 s apart: both within half a second of the middle.
    let other = (1..=3)
        .find(|node| *node != former && *node != off)
        .unwrap();
    net.wall_off_ms.insert(off, 2_000);
    net.kill(former);
    net.run(4_000);
    assert!(net.leader().is_none_or(|leader| leader == other));
    net.run(6_000);
    assert_eq!(
        net.leader(),
        Some(other),
        "the one nearest to the cluster's time"
    );
}

#[test]
fn time_goes_on_and_dead_sessions_end_while_somebody_looks() {
    let mut net = Net::grown(1, 1 << 20);
    net.join(8, Role::Client);
    net.session(8, 1, 10);
    let fresh = Request::Fresh {
        have: Position::default(),
    };
    for _ in 0..65 {
        net.run(10_000);
        let answer = net.ask(1, 1, fresh.clone());
        assert!(matches!(answer, Some(Response::Fresh { .. })), "{answer:?}");
    }
    let machine = net.replica(1).machine();
    assert!(machine.now_ms() + 2_000 > T0 + net.ms);
    assert_eq!(machine.ledger().session_of(NodeId(8)), None);
}

#[test]
fn whatever_peers_send_is_survived() {
    let mut net = Net::grown(3, 1 << 20);
    let follower = (1..=3).find(|node| Some(*node) != net.leader()).unwrap();
    let leader = net.leader().unwrap();
    let mut dice = crate::dice::Dice::new(5);
    for round in 0..20_000 {
        let mut message = Message::default();
        let kinds = [
            MessageType::MsgHup,
            MessageType::MsgBeat,
            MessageType::MsgPropose,
            MessageType::MsgAppend,
            MessageType::MsgAppendResponse,
            MessageType::MsgRequestVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgSnapshot,
            MessageType::MsgHeartbeatResponse,
            MessageType::MsgUnreachable,
            MessageType::MsgSnapStatus,
            MessageType::MsgTransferLeader,
            MessageType::MsgTimeoutNow,
            MessageType::MsgReadIndex,
            MessageType::MsgReadIndexResp,
            MessageType::MsgRequestPreVote,
            MessageType::MsgRequestPreVoteResponse,
        ];
        message.set_msg_type(kinds[dice.below(kinds.len() as u64) as usize]);
        let to = if dice.below(2) == 0 { leader } else { follower };
        let any = |dice: &mut crate::dice::Dice| match dice.below(4) {
            0 => dice.below(4),
            1 => u64::MAX - dice.below(2),
            _ => dice.below(40),
        };
        message.to = to;
        message.from = 1 + dice.below(4);
        message.term = any(&mut dice).min(40);
        message.log_term = any(&mut dice);
        message.index = any(&mut dice);
        message.reject = dice.below(2) == 0;
        message.reject_hint = any(&mut dice);
        message.commit = any(&mut dice);
        message.commit_term = any(&mut dice);
        for _ in 0..dice.below(3) {
            let entry = Entry {
                index: any(&mut dice),
                term: any(&mut dice),
                data: vec![dice.roll() as u8; dice.below(9) as usize].into(),
                ..Entry::default()
            };
            // Entries that do follow on would be believed: a voter is trusted with the log.
            if entry.index != message.index.wrapping_add(1) {
                message.mut_entries().push(entry);
            }
        }
        let now = net.now(to);
        net.with(to, |replica| replica.step(message, now));
        if round % 500 == 0 {
            net.run(TICK_MS);
        }
    }
}

#[test]
fn entries_hold_batches_in_the_codecs_bytes() {
    let mut net = Net::new(1 << 20);
    net.settle();
    net.session(1, 1, 10);
    let batches: Vec<_> = net.nodes[&1]
        .disk
        .entries
        .values()
        .filter(|entry| !entry.data.is_empty())
        .map(|entry| codec::decode_batch(&entry.data).unwrap())
        .collect();
    assert_eq!(batches.len(), 2);
    assert!(batches.iter().all(|batch| batch.now_ms >= T0));
}

#[test]
fn a_leader_whose_clock_leaps_hands_on_to_one_whose_clock_is_believed() {
    let mut net = Net::grown(3, 1 << 20);
    let session = net.session(1, 1, 10);
    net.run(2_000);
    let former = net.leader().unwrap();
    // Elected by word of the former leader with a clock that nobody would have voted for.
    let off = (1..=3).find(|node| *node != former).unwrap();
    net.wall_off_ms.insert(off, 7_200_000);
    net.with(former, |replica| replica.raft.transfer_leader(off));
    net.settle();
    assert_eq!(net.leader(), Some(off));
    assert_eq!(net.lease(1, session, 1), Some(Response::Unknown));
    net.run(3_000);
    assert_ne!(net.leader(), Some(off));
    granted(net.lease(1, session, 1));
    assert!(net.status().now_ms < T0 + 3_600_000);
}

#[test]
fn nothing_is_stamped_between_a_set_clock_and_its_taking_effect() {
    let mut net = Net::grown(1, 1 << 20);
    let session = net.session(1, 1, 10);
    net.run(1_000);
    net.wall_off_ms.insert(1, -600_000);
    let now = net.now(1);
    let lease = Request::Lease {
        session,
        ask: ask(1, 1, 0),
    };
    net.with(1, |replica| {
        replica.request(NodeId(1), 901, Request::Operate(Operate::AcceptClock), now);
        replica.request(NodeId(1), 902, lease, now);
    });
    net.settle();
    assert!(net.nodes[&1].responses.contains_key(&902));
    assert!(net.status().now_ms <= now.unix_ms + 1_000);
}

#[cfg(feature = "faults")]
#[test]
fn the_planted_faults_do_what_they_are_called() {
    use proto::faults::{Fault, Faults};
    let lease = |session| Request::Lease {
        session,
        ask: ask(1, 1, 0),
    };
    for (planted, is_granted) in [
        (Faults::default(), false),
        (Fault::GrantBeforeCommit.into(), true),
    ] {
        let mut net = Net::grown(3, 1 << 20);
        let session = net.session(1, 1, 10);
        let leader = net.leader().unwrap();
        net.with(leader, |replica| replica.settings.faults = planted);
        net.cut.insert(leader);
        assert_eq!(net.ask(leader, 1, lease(session)).is_some(), is_granted);
    }
    for (planted, is_granted) in [
        (Faults::default(), false),
        (Fault::AcknowledgeBeforeFsync.into(), true),
    ] {
        let mut net = Net::grown(1, 1 << 20);
        let session = net.session(1, 1, 10);
        net.with(1, |replica| replica.settings.faults = planted);
        let now = net.now(1);
        let replica = net.nodes.get_mut(&1).unwrap().replica.as_mut().unwrap();
        replica.request(NodeId(1), 901, lease(session), now);
        let mut answered = false;
        // The disk never says a word.
        while let Some(effects) = replica.poll(now) {
            answered |= !effects.responses.is_empty();
        }
        assert_eq!(answered, is_granted);
    }
}
