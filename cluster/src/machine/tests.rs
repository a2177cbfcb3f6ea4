use super::*;
use proto::{
    command::{Member, Role},
    control::{Change, Kind},
};
use std::sync::Arc;

const NODE: NodeId = NodeId(1);

fn machine() -> Machine {
    Machine::found(7, Bounds::default(), NODE, "one", "one:1")
}

fn apply(machine: &mut Machine, now_ms: u64, commands: Vec<Command>) -> Vec<Reply> {
    let batch = Batch {
        now_ms,
        rules_version: 1,
        commands,
    };
    machine.apply(machine.index() + 1, &batch).unwrap()
}

fn token(hash: u8, role: Role, expires_ms: u64) -> Command {
    let hash = [hash; 32];
    Command::Member(Member::Token {
        hash,
        role,
        expires_ms,
    })
}

fn join(hash: u8, node: u64, name: &str, address: &str, role: Role) -> Command {
    Command::Member(Member::Join {
        token: Some([hash; 32]),
        node: NodeId(node),
        name: name.to_owned(),
        address: address.to_owned(),
        role,
    })
}

fn hello(node: u64, nonce: u64) -> Command {
    Command::Hello {
        node: NodeId(node),
        nonce,
        secret_check: 1,
        rules_max: 1,
    }
}

fn change(name: &str, bytes: usize) -> Command {
    Command::Control(Change {
        kind: Kind::Policy,
        name: name.to_owned(),
        body: Some(Arc::from(vec![b'x'; bytes])),
        expect: None,
        by: "me".to_owned(),
    })
}

#[test]
fn a_token_lets_one_node_in_once_in_its_time_and_role() {
    let refused = |refusal| vec![Reply::Member(refusal)];
    let mut machine = machine();
    let (client, voter) = (Role::Client, Role::Voter);
    apply(
        &mut machine,
        1_000,
        vec![
            token(1, client, 5_000),
            token(2, voter, 5_000),
            token(3, client, 2_000),
        ],
    );
    for (what, now_ms, command, reply) in [
        (
            "unknown",
            1_000,
            join(9, 9, "n", "", client),
            refused(MemberRefusal::Token),
        ),
        (
            "another role",
            1_000,
            join(1, 9, "n", "a:1", voter),
            refused(MemberRefusal::Token),
        ),
        (
            "no name",
            1_000,
            join(1, 9, "", "", client),
            refused(MemberRefusal::Name),
        ),
        (
            "a voter nobody finds",
            1_000,
            join(2, 9, "n", "", voter),
            refused(MemberRefusal::Name),
        ),
        (
            "a used id",
            1_000,
            join(1, 1, "n", "", client),
            refused(MemberRefusal::Used),
        ),
        (
            "too late",
            2_000,
            join(3, 9, "n", "", client),
            refused(MemberRefusal::Token),
        ),
        ("in", 2_000, join(1, 9, "n", "", client), vec![Reply::Done]),
        (
            "the same again",
            2_000,
            join(1, 9, "n", "", client),
            vec![Reply::Done],
        ),
        (
            "once",
            2_000,
            join(1, 10, "m", "", client),
            refused(MemberRefusal::Token),
        ),
    ] {
        assert_eq!(apply(&mut machine, now_ms, vec![command]), reply, "{what}");
    }
    let removed = Command::Member(Member::Remove { node: NodeId(9) });
    assert_eq!(
        apply(&mut machine, 3_000, vec![removed.clone(), removed]),
        [Reply::Done, Reply::Done]
    );
    assert!(machine.removed(NodeId(9)) && machine.member(NodeId(9)).is_none());
    let again = apply(
        &mut machine,
        3_000,
        vec![token(4, client, 9_000), join(4, 9, "n", "", client)],
    );
    assert_eq!(again[1], Reply::Member(MemberRefusal::Used));
    let last = Command::Member(Member::Remove { node: NODE });
    assert_eq!(
        apply(&mut machine, 3_000, vec![last]),
        refused(MemberRefusal::LastVoter)
    );
}

#[test]
fn strangers_get_no_session_and_a_removed_nodes_session_ends() {
    let mut machine = machine();
    let unknown = Reply::Member(MemberRefusal::Unknown);
    assert_eq!(apply(&mut machine, 1_000, vec![hello(9, 1)]), [unknown]);
    let commands = vec![
        token(1, Role::Client, 5_000),
        join(1, 9, "n", "", Role::Client),
        hello(9, 1),
    ];
    let replies = apply(&mut machine, 1_000, commands);
    let Reply::Session(session) = replies[2] else {
        panic!("{replies:?}")
    };
    assert_eq!(machine.ledger().node_of(session), Some(NodeId(9)));
    apply(
        &mut machine,
        1_000,
        vec![Command::Member(Member::Remove { node: NodeId(9) })],
    );
    assert_eq!(machine.ledger().node_of(session), None);
}

#[test]
fn a_build_stops_at_rules_it_does_not_know_and_has_changed_nothing() {
    let mut machine = machine();
    let before = machine.hash();
    let batch = Batch {
        now_ms: 1,
        rules_version: 2,
        commands: Vec::new(),
    };
    assert_eq!(machine.apply(2, &batch), Err(Error::Rules(2)));
    assert_eq!(machine.hash(), before);
    let set = Command::SetRules { version: 2 };
    assert_eq!(
        apply(&mut machine, 1, vec![set]),
        [Reply::Member(MemberRefusal::Rules)]
    );
}

/// With twenty documents of so many bytes.
fn busy(bytes: usize) -> Machine {
    let mut machine = machine();
    let commands = vec![
        token(1, Role::Client, 5_000),
        join(1, 9, "n", "", Role::Client),
        hello(9, 1),
    ];
    apply(&mut machine, 1_000, commands);
    for number in 0..20 {
        apply(
            &mut machine,
            1_000,
            vec![change(&format!("policy {number}"), bytes)],
        );
    }
    machine
}

fn load(machine: &Machine, chunks: &[Vec<u8>]) -> Result<Machine, Error> {
    let mut loader = Loader::new(machine.image().manifest, Bounds::default());
    for chunk in chunks {
        loader.chunk(chunk)?;
    }
    loader.finish()
}

#[test]
fn an_image_is_read_back_as_the_same_state_and_goes_on_alike() {
    let mut machine = busy(200_000);
    let image = machine.image();
    let session = machine.ledger().session_of(NodeId(9)).unwrap();
    // The image does not move with the machine.
    let (mut copy, hash) = (machine.clone(), machine.hash());
    apply(&mut machine, 2_000, vec![hello(1, 1), change("later", 10)]);
    let chunks: Vec<Vec<u8>> = image.chunks().collect();
    assert!(
        chunks.len() > 3
            && chunks
                .iter()
                .all(|chunk| chunk.len() < CHUNK_BYTES + 300_000)
    );
    let mut read = load(&copy, &chunks).unwrap();
    assert_eq!(read.hash(), hash);
    let commands = vec![Command::Bye { session }, hello(1, 1), change("later", 10)];
    assert_eq!(
        apply(&mut read, 2_000, commands.clone()),
        apply(&mut copy, 2_000, commands)
    );
    assert_eq!(read.hash(), copy.hash());
    let manifest = Manifest::decode(&image.manifest.encode()).unwrap();
    assert_eq!(manifest, image.manifest);
}

#[test]
fn damaged_images_are_refused() {
    let machine = busy(300);
    let chunks: Vec<Vec<u8>> = machine.image().chunks().collect();
    assert!(load(&machine, &chunks[..chunks.len() - 1]).is_err());
    assert!(load(&machine, &chunks[1..]).is_err());
    assert!(load(&machine, &[]).is_err());
    let mut dice = crate::dice::Dice::new(3);
    for _ in 0..50 {
        let mut broken = chunks.clone();
        let at = dice.below(broken.len() as u64) as usize;
        let byte = dice.below(broken[at].len() as u64) as usize;
        broken[at][byte] ^= 1 << dice.below(8);
        // A document's bytes are not read, so only a hash can tell.
        let read = load(&machine, &broken);
        assert!(read.is_err() || read.is_ok_and(|read| read.hash() == machine.hash()));
    }
    assert!(Manifest::decode(b"").is_err() && Manifest::decode(&[9; 20]).is_err());
}

#[test]
fn a_cluster_after_another_keeps_documents_and_nobody_else() {
    let mut machine = busy(300);
    let version = machine.control().version();
    let now = Now {
        unix_ms: 9_000,
        boot_ns: 0,
    };
    let session = machine.ledger().session_of(NodeId(9)).unwrap();
    machine = machine.refound(8, NodeId(5), "five", "five:1", now);
    assert_eq!(
        (
            machine.cluster(),
            machine.index(),
            machine.control().version()
        ),
        (8, 1, version)
    );
    assert!(
        machine.removed(NODE) && machine.removed(NodeId(9)) && machine.member(NodeId(5)).is_some()
    );
    let bye = Command::Bye { session };
    let refused = apply(&mut machine, 9_000, vec![bye]);
    assert!(matches!(refused[0], Reply::Refused(_)));
}
