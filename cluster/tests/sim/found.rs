//! The beginning of a run: a cluster that has its voters and members, and everything that is going to happen.

use super::{
    disk::Disk,
    event::Event,
    plan::{Plan, bounds},
    voter::CLUSTER,
    world::World,
};
use cluster::{machine::Machine, membership::Configuration, replica::founded};
use proto::{
    command::{Batch, Command, Member, NodeId, RULES_VERSION, Role},
    time::Now,
};
use std::rc::Rc;

/// A world at its first moment.
pub fn found(plan: Plan) -> World {
    let now = Now {
        unix_ms: plan.start_ms,
        boot_ns: 0,
    };
    let voters: Vec<NodeId> = (1..=plan.voters).map(NodeId).collect();
    let clients: Vec<NodeId> = (51..51 + plan.clients).map(NodeId).collect();
    let machine = machine(&voters, &clients, now);
    let mut world = World::new(plan, machine.clone());
    for node in voters {
        let (recovered, image) = founded(machine.clone());
        let mut disk = Disk::default();
        disk.found(
            &recovered,
            image.manifest,
            Rc::new(image.chunks().collect()),
        );
        world.add_host(node, true, disk);
    }
    for node in clients {
        world.add_host(node, false, Disk::default());
    }
    for host in 0..world.hosts.len() {
        world.later(0, Event::Start { host });
    }
    let chaos_ns = world.plan.chaos_ns;
    world.later(super::clock::SECOND, Event::Deed);
    world.later(chaos_ns, Event::Heal);
    world
}

/// The state of a cluster with these members.
fn machine(voters: &[NodeId], clients: &[NodeId], now: Now) -> Machine {
    let first = voters[0];
    let mut machine = Machine::found(CLUSTER, bounds(), first, "n1", "n1:1");
    let mut commands = Vec::new();
    let rest = voters[1..].iter().map(|node| (*node, Role::Voter));
    for (node, role) in rest.chain(clients.iter().map(|node| (*node, Role::Client))) {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&node.0.to_le_bytes());
        commands.push(Command::Member(Member::Token {
            hash,
            role,
            expires_ms: u64::MAX,
        }));
        commands.push(Command::Member(Member::Join {
            token: Some(hash),
            node,
            name: format!("n{}", node.0),
            address: match role {
                Role::Voter => format!("n{}:1", node.0),
                Role::Client => String::new(),
            },
            role,
        }));
    }
    let batch = Batch {
        now_ms: now.unix_ms,
        rules_version: RULES_VERSION,
        commands,
    };
    machine.apply(2, &batch).expect("the rules are known");
    let configuration = Configuration {
        voters: voters.iter().copied().collect(),
        ..Configuration::default()
    };
    machine.apply_configuration(3, configuration);
    machine
}
