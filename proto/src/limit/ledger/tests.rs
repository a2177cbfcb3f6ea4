mod model;
mod reference;
mod unit;

use super::*;
use crate::{
    command::{Command, Member, NodeId},
    limit::{
        CounterKey, Identity, Window,
        lease::{Ask, GiveBack},
    },
};

/// Small ones, so that every one is reached.
const BOUNDS: Bounds = Bounds {
    counters_max: 4,
    limits_max: 2,
    nodes_max: 3,
    hold_ms: 5_000,
};
const START_MS: u64 = 6_000_000;

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Session(Session),
    Standing(Standing),
    Credited(u128),
    Refused(Refusal),
}

/// Applies a command as the machine does.
fn apply(ledger: &mut Ledger, command: &Command) -> Answer {
    let answer = match command {
        Command::Hello {
            node,
            nonce,
            secret_check,
            rules_max,
        } => ledger
            .hello(*node, *nonce, *secret_check, *rules_max)
            .map(Answer::Session),
        Command::Define {
            session,
            revision,
            definitions,
            last,
        } => ledger
            .define(*session, *revision, definitions, *last)
            .map(|()| Answer::Done),
        Command::Lease { session, ask } => ledger.lease(*session, ask).map(Answer::Standing),
        Command::Return { session, back } => {
            ledger.give_back(*session, back).map(|()| Answer::Done)
        }
        Command::Bye { session } => ledger.bye(*session).map(|()| Answer::Done),
        Command::Credit { key } => ledger.credit(*key).map(Answer::Credited),
        Command::Reset { key } => ledger.reset(*key).map(|()| Answer::Done),
        Command::Gone { session } => {
            ledger.gone(*session);
            Ok(Answer::Done)
        }
        Command::SetClock { now_ms } => {
            ledger.set_clock(*now_ms);
            Ok(Answer::Done)
        }
        Command::Member(Member::Remove { node }) => {
            ledger.remove_node(*node);
            Ok(Answer::Done)
        }
        other => panic!("not the ledger's: {other:?}"),
    };
    answer.unwrap_or_else(Answer::Refused)
}

fn node(who: usize) -> NodeId {
    NodeId(who as u64 + 7)
}

fn identity(n: usize) -> Identity {
    Identity(n as u128 + 1)
}

/// The windows of the limits of the tests.
fn length_ms(identity: Identity) -> u64 {
    [10_000, 60_000, 7_000][identity.0 as usize - 1]
}

fn definition(n: usize, max: u64) -> Definition {
    Definition {
        identity: identity(n),
        window: Window::Duration(length_ms(identity(n))),
        max,
    }
}

fn counter(key: usize) -> CounterKey {
    // Spread over the shards as hashes are.
    CounterKey((key as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// The first keys are a group of the first limit.
fn limit_of(key: usize) -> usize {
    key.saturating_sub(3)
}

fn ask(key: usize, want: u64, min: u64) -> Ask {
    Ask {
        identity: identity(limit_of(key)),
        key: counter(key),
        window_hint: 0,
        want,
        min,
        seen_granted: 0,
        returned_total: 0,
        group: (key < 4).then_some(Group {
            key: CounterKey(99),
            keys_max: 3,
        }),
        waiting: true,
    }
}

fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Exhausted(_) => "exhausted",
        Refusal::KeysFull { .. } => "keys full",
        Refusal::CountersFull => "counters full",
        Refusal::LimitsFull => "limits full",
        Refusal::NodesFull => "nodes full",
        Refusal::Undefined => "undefined",
        Refusal::Conflict => "conflict",
        Refusal::UnknownSession => "unknown session",
        Refusal::Quarantined => "quarantined",
        Refusal::Secret => "secret",
        Refusal::UnknownCounter => "unknown counter",
        Refusal::Overflow => "overflow",
    }
}
