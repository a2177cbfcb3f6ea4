//! Who leads, who belongs: another leader, a replaced voter, five voters, one again.

use crate::harness::{Node, insist, run, until, voters};
use cluster::wire::Operate;
use proto::{command::Role, limit::ledger::Refusal};
use std::time::Instant;

/// Three voters.
async fn three() -> [Node; 3] {
    let first = Node::first();
    let second = Node::join("n2", Role::Voter, &first).await;
    let third = Node::join("n3", Role::Voter, &first).await;
    until(first.handle(), "three voters", |s| voters(s) == 3).await;
    [first, second, third]
}

#[test]
fn another_voter_leads_when_the_leader_stops_and_what_was_leased_stays_used() {
    run(async {
        let mut nodes = three().await;
        let client = Node::join("c1", Role::Client, &nodes[0]).await;
        insist(client.handle(), 1, 7).await.unwrap();
        let leader = until(client.handle(), "a leader", |_| true).await.leader;
        let at = nodes.iter().position(|node| node.id() == leader).unwrap();
        let began = Instant::now();
        nodes[at].stop().await;
        let standing = insist(client.handle(), 2, 1).await.unwrap();
        eprintln!("another leader after {:?}", began.elapsed());
        assert_eq!(standing.used, 1);
        let refused = insist(client.handle(), 1, 11).await;
        assert!(matches!(refused, Err(Refusal::Exhausted(standing)) if standing.used == 7));
        // A minority neither leads nor answers.
        let other = (at + 1) % 3;
        nodes[other].stop().await;
        let last = (at + 2) % 3;
        assert!(nodes[last].handle().status().await.is_err());
        nodes[at].start();
        until(nodes[last].handle(), "a majority again", |s| voters(s) == 3).await;
        let refused = insist(nodes[last].handle(), 1, 4).await;
        assert!(matches!(refused, Err(Refusal::Exhausted(standing)) if standing.used == 7));
    });
}

/// The code with which a node ends by itself.
async fn ended(node: &Node) -> u8 {
    let mut failed = node.handle().failed();
    let ended = tokio::time::timeout(crate::harness::PATIENCE, failed.wait_for(Option::is_some));
    ended.await.unwrap().unwrap().as_ref().unwrap().exit_code()
}

#[test]
fn a_dead_voter_is_replaced_and_never_heard_again() {
    run(async {
        let mut nodes = three().await;
        let dead = nodes[2].id();
        nodes[2].stop().await;
        insist(nodes[0].handle(), 1, 3).await.unwrap();
        let fresh = Node::join("n4", Role::Voter, &nodes[0]).await;
        let remove = Operate::Remove { nodes: vec![dead] };
        nodes[0].handle().operate(remove).await.unwrap();
        let status = until(nodes[0].handle(), "replaced", |s| voters(s) == 3).await;
        assert!(status.members.iter().all(|member| member.node != dead));
        assert!(
            status
                .members
                .iter()
                .any(|member| member.node == fresh.id())
        );
        // What is left of it comes back and is turned away.
        nodes[2].start();
        assert_eq!(ended(&nodes[2]).await, 77);
        nodes[1].stop().await;
        let refused = insist(fresh.handle(), 1, 8).await;
        assert!(matches!(refused, Err(Refusal::Exhausted(standing)) if standing.used == 3));
    });
}

#[test]
fn a_cluster_grows_to_five_and_shrinks_to_one() {
    run(async {
        let mut nodes = Vec::from(three().await);
        for name in ["n4", "n5"] {
            let node = Node::join(name, Role::Voter, &nodes[0]).await;
            nodes.push(node);
        }
        until(nodes[0].handle(), "five voters", |s| voters(s) == 5).await;
        insist(nodes[4].handle(), 1, 6).await.unwrap();
        let ids: Vec<_> = nodes.iter().map(Node::id).collect();
        for (from, upto, left) in [(3, 5, 3), (1, 3, 1)] {
            let remove = Operate::Remove {
                nodes: ids[from..upto].to_vec(),
            };
            // Who led may be among those that go.
            let mut done = nodes[0].handle().operate(remove.clone()).await;
            for _ in 0..10 {
                if done.is_ok() {
                    break;
                }
                done = nodes[0].handle().operate(remove.clone()).await;
            }
            until(nodes[0].handle(), "fewer voters", |s| voters(s) == left).await;
            for gone in nodes.split_off(from) {
                assert_eq!(ended(&gone).await, 77);
            }
        }
        let refused = insist(nodes[0].handle(), 1, 5).await;
        assert!(matches!(refused, Err(Refusal::Exhausted(standing)) if standing.used == 6));
    });
}
