//! Voters are taken out, and those that stay lose power: they must go on without them.

use super::*;

/// As many voters as that, of whom this one leads.
fn few(grown: u64, left: usize) -> (Net, u64) {
    let mut net = Net::grown(grown, 1 << 20);
    let leader = net.leader().unwrap();
    let gone = others(&net, leader).split_off(left - 1);
    if !gone.is_empty() {
        net.operate(Operate::Remove { nodes: gone });
        net.run(2_000);
    }
    assert_eq!(
        (net.leader(), voters(&net, leader).len()),
        (Some(leader), left)
    );
    (net, leader)
}

fn voters(net: &Net, node: u64) -> BTreeSet<NodeId> {
    net.replica(node).machine().configuration().all_voters()
}

fn others(net: &Net, leader: u64) -> Vec<NodeId> {
    let voters = voters(net, leader).into_iter();
    voters.filter(|node| node.0 != leader).collect()
}

fn run_until(net: &mut Net, node: u64, what: &str, is_so: impl Fn(&Machine) -> bool) {
    for _ in 0..100 {
        if is_so(net.replica(node).machine()) {
            return;
        }
        net.run(TICK_MS);
    }
    panic!("never: {what}");
}

/// The leader has applied the removal, written what must be synced, and told those that are gone, but nobody else.
fn run_until_removed(net: &mut Net, leader: u64, gone: &[NodeId]) {
    for _ in 0..100 {
        net.ms += TICK_MS;
        let nodes: Vec<u64> = net.nodes.keys().copied().collect();
        for node in &nodes {
            let now = net.now(*node);
            net.with(*node, |replica| replica.tick(now));
        }
        for node in nodes.iter().cycle().take(100 * nodes.len()) {
            let now = net.now(*node);
            while let Some(mut effects) = net.poll(*node, now) {
                let machine = net.replica(leader).machine();
                let is_done = gone.iter().all(|node| machine.removed(*node));
                if is_done {
                    effects.messages.clear();
                }
                net.carry_out(*node, effects, now);
                if is_done {
                    return;
                }
            }
        }
    }
    panic!("never removed: {gone:?}");
}

/// Those lose power, those end for good; the former must lead.
fn lose_all(net: &mut Net, stay: &[NodeId], gone: &[NodeId]) -> Option<u64> {
    gone.iter().for_each(|node| net.kill(node.0));
    stay.iter().for_each(|node| net.lose_power(node.0));
    stay.iter().for_each(|node| net.start(node.0));
    net.run(10_000);
    net.leader()
}

#[test]
fn nobody_is_let_go_before_those_that_stay_can_do_without() {
    // Voters at first, when the shrink begins, taken out, and lost with the leader that let them go.
    for (grown, before, leave, lost) in [(3, 2, 1, 0), (3, 3, 2, 0), (5, 4, 1, 1)] {
        let (mut net, leader) = few(grown, before);
        let others = others(&net, leader);
        let (gone, stay) = others.split_at(leave);
        let nodes = gone.to_vec();
        net.operate(Operate::Remove {
            nodes: nodes.clone(),
        });
        run_until(&mut net, leader, "a joint configuration", |machine| {
            machine.configuration().is_joint()
        });
        // The removal is said again while the second half of the change is on its way to the others.
        net.cut = others.iter().map(|node| node.0).collect();
        let last = net.replica(leader).figures(net.now(leader)).last;
        net.run(TICK_MS);
        assert!(net.replica(leader).figures(net.now(leader)).last > last);
        net.operate(Operate::Remove { nodes });
        net.cut.clear();
        run_until_removed(&mut net, leader, gone);
        let is_lost = |node: &NodeId| lost > 0 && node.0 == leader;
        let stay = stay.iter().copied().chain([NodeId(leader)]);
        let (dead, stay): (Vec<NodeId>, Vec<NodeId>) = stay.partition(is_lost);
        let leads = lose_all(&mut net, &stay, &[gone, &dead].concat());
        let leads = leads.unwrap_or_else(|| panic!("nobody of {stay:?} leads"));
        let machine = net.replica(leads).machine();
        assert!(
            gone.iter()
                .all(|node| !machine.configuration().contains(*node))
        );
    }
}

#[test]
fn a_change_of_voters_is_on_the_disk_with_its_commit() {
    let (mut net, leader) = few(3, 2);
    let gone = others(&net, leader);
    net.operate(Operate::Remove {
        nodes: gone.clone(),
    });
    run_until(&mut net, leader, "one voter", |machine| {
        let configuration = machine.configuration();
        configuration.all_voters().len() == 1
    });
    // `status` shows it, and so somebody switches the other off before it is let go.
    assert!(!net.replica(leader).machine().removed(gone[0]));
    assert_eq!(lose_all(&mut net, &[NodeId(leader)], &gone), Some(leader));
}
