//! The leader's desk: what was asked, what of it was proposed, what waits for a quorum. Every queue counts against one
//! bound ([`super::Settings::requests_max`]).

use crate::{
    codec,
    wire::{At, Counters, Request, Response},
};
use proto::{
    command::{BATCH_BYTES_MAX, COMMANDS_MAX, Command, Member, NodeId, Reply},
    control::Position,
};
use std::collections::{BTreeMap, VecDeque};

/// Entries that are proposed and not yet applied, beyond which only full batches are proposed.
pub(super) const FLIGHTS_FEW: usize = 4;
/// Most entries that are proposed and not yet applied.
pub(super) const FLIGHTS_MAX: usize = 256;
/// A batch of at least so many commands, or half the bytes, is full enough.
const FULL_COMMANDS: usize = COMMANDS_MAX / 2;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) node: NodeId,
    pub(super) id: u64,
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) request: Request,
}

/// Commands of one request.
#[derive(Debug)]
pub(super) struct Order {
    /// Who waits; `None`: the leader itself wants it.
    pub(super) asker: Option<Asker>,
    pub(super) commands: Vec<Command>,
    /// Encoded bytes of `commands`.
    bytes: usize,
    /// Nothing else goes into its entry.
    alone: bool,
    /// It may let a node go.
    lets_go: bool,
    /// Its entry is stamped with the time as it is, whatever the clock shows.
    pub(super) unstamped: bool,
    /// Nodes whose removal must be complete before the answer.
    pub(super) removes: Vec<NodeId>,
}

/// An entry that was proposed.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) parts: Vec<Part>,
    /// It sets the clock: nothing is stamped until it has.
    pub(super) sets_clock: bool,
}

/// One request's part of a batch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) asker: Option<Asker>,
    pub(super) commands: usize,
    pub(super) removes: Vec<NodeId>,
}

/// A question that is answered from the state, once it is known to be the newest.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) asker: Asker,
    pub(super) what: What,
}

/// What is read.
#[derive(Debug)]
pub(super) enum What {
    Fresh(Position),
    Counters(Counters),
    Status,
}

/// A removal that goes on.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) asker: Asker,
    pub(super) nodes: Vec<NodeId>,
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Requests that somebody waits for, wherever they are.
    pub(super) waiting: usize,
    pub(super) inbox: VecDeque<Asked>,
    queue: VecDeque<Order>,
    queued_commands: usize,
    queued_bytes: usize,
    pub(super) flights: VecDeque<Flight>,
    pub(super) reads: Vec<Read>,
    /// Reads for which the quorum is being asked, and under which number.
    pub(super) reading: Option<(u64, Vec<Read>)>,
    /// Reads that wait for an index to be applied.
    pub(super) readable: VecDeque<(u64, Vec<Read>)>,
    pub(super) removals: Vec<Removal>,
    /// When each node will have used up what it has sent, boot clock nanoseconds.
    paced: BTreeMap<NodeId, u64>,
}

impl Order {
    /// Commands to be proposed together.
    pub(super) fn new(asker: Option<Asker>, commands: Vec<Command>) -> Self {
        let bytes = commands
            .iter()
            .map(codec::encoded_bytes)
            .fold(0, usize::saturating_add);
        let alone = commands
            .iter()
            .any(|c| matches!(c, Command::Control(_) | Command::SetClock { .. }));
        let lets_go = commands
            .iter()
            .any(|c| matches!(c, Command::Member(Member::Remove { .. })));
        Self {
            asker,
            commands,
            bytes,
            alone,
            lets_go,
            unstamped: false,
            removes: Vec::new(),
        }
    }

    /// Whether it can be proposed at all.
    pub(super) fn fits(&self) -> bool {
        let bytes_max = if self.alone {
            codec::BATCH_ENCODED_MAX
        } else {
            BATCH_BYTES_MAX
        };
        self.commands.len() <= COMMANDS_MAX && self.bytes.saturating_add(64) <= bytes_max
    }
}

impl Desk {
    /// Whether a node may send so many commands now, at this rate a second and as many in a burst.
    pub(super) fn admit(
        &mut self,
        node: NodeId,
        commands: usize,
        rate_per_s: u32,
        now_ns: u64,
    ) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        let rate = u64::from(rate_per_s.max(1));
        let cost_ns = (commands as u64).saturating_mul(SECOND_NS) / rate;
        let paced = self.paced.entry(node).or_insert(0);
        let until = (*paced).max(now_ns).saturating_add(cost_ns);
        if until > now_ns.saturating_add(SECOND_NS) && *paced > now_ns {
            return false;
        }
        *paced = until;
        true
    }

    /// Forgets the pace of nodes that are gone.
    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.paced.retain(|node, _| is_member(*node));
    }

    pub(super) fn enqueue(&mut self, order: Order) {
        self.queued_commands += order.commands.len();
        self.queued_bytes += order.bytes;
        self.queue.push_back(order);
    }

    pub(super) fn put_back(&mut self, orders: Vec<Order>) {
        for order in orders.into_iter().rev() {
            self.queued_commands += order.commands.len();
            self.queued_bytes += order.bytes;
            self.queue.push_front(order);
        }
    }

    /// Whether nothing is proposed or about to be.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flights.is_empty()
    }

    /// Whether something that the leader itself wants is not done yet.
    pub(super) fn is_tending(&self) -> bool {
        let queued = self
            .queue
            .iter()
            .map(|order| (order.asker, order.commands.len()));
        let flying = self.flights.iter().flat_map(|flight| &flight.parts);
        let flying = flying.map(|part| (part.asker, part.commands));
        queued
            .chain(flying)
            .any(|(asker, commands)| asker.is_none() && commands > 0)
    }

    /// The orders of the next entry: as many as fit; none while some entries are on their way and these are few. Nobody is
    /// let go while voters change.
    pub(super) fn next_entry(&mut self, is_changing: bool) -> Vec<Order> {
        let is_full =
            self.queued_commands >= FULL_COMMANDS || self.queued_bytes >= BATCH_BYTES_MAX / 2;
        let flights_max = if is_full { FLIGHTS_MAX } else { FLIGHTS_FEW };
        let (mut commands, mut bytes) = (0, 64);
        let mut orders = Vec::new();
        if self.flights.len() >= flights_max || self.flights.back().is_some_and(|f| f.sets_clock) {
            return orders;
        }
        while let Some(order) = self.queue.front() {
            if is_changing && order.lets_go {
                break;
            }
            commands += order.commands.len();
            bytes += order.bytes;
            let is_first = orders.is_empty();
            if !is_first && (order.alone || commands > COMMANDS_MAX || bytes > BATCH_BYTES_MAX) {
                break;
            }
            let alone = order.alone;
            self.queued_commands -= order.commands.len();
            self.queued_bytes -= order.bytes;
            orders.extend(self.queue.pop_front());
            if alone {
                break;
            }
        }
        orders
    }

    /// The flight that this entry was, if it was one of ours, and those before it that it proves lost.
    pub(super) fn landed(&mut self, index: u64, term: u64) -> (Option<Flight>, Vec<Flight>) {
        let mut lost = Vec::new();
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.index <= index) {
            if flight.index == index && flight.term == term {
                return (Some(flight), lost);
            }
            lost.push(flight);
        }
        (None, lost)
    }

    /// Everything that was proposed or is being carried out: nobody here will hear what becomes of it.
    pub(super) fn drop_unknown(&mut self) -> Vec<Asker> {
        let flights = self.flights.drain(..).flat_map(|flight| flight.parts);
        let removals = self.removals.drain(..).map(|removal| removal.asker);
        flights
            .filter_map(|part| part.asker)
            .chain(removals)
            .collect()
    }

    /// Everything that was not begun.
    pub(super) fn drop_undone(&mut self) -> Vec<Asker> {
        (self.queued_commands, self.queued_bytes) = (0, 0);
        let reading = self.reading.take().into_iter().flat_map(|(_, reads)| reads);
        let readable = self.readable.drain(..).flat_map(|(_, reads)| reads);
        let reads = self.reads.drain(..).chain(reading).chain(readable);
        let inbox = self.inbox.drain(..).map(|asked| asked.asker);
        let queue = self.queue.drain(..).filter_map(|order| order.asker);
        reads
            .map(|read| read.asker)
            .chain(inbox)
            .chain(queue)
            .collect()
    }

    /// The reads that this index allows to be answered.
    pub(super) fn readable_at(&mut self, index: u64) -> Vec<Read> {
        let mut reads = Vec::new();
        while let Some((_, more)) = self.readable.pop_front_if(|(wanted, _)| *wanted <= index) {
            reads.extend(more);
        }
        reads
    }
}

/// What the replies to a request's commands come to: the first that is not `Done`.
pub(super) fn response(replies: &[Reply], at: At) -> Response {
    let telling = replies.iter().find(|reply| **reply != Reply::Done);
    match telling {
        None | Some(Reply::Done) => Response::Done { at },
        Some(Reply::Session(session)) => Response::Session {
            session: *session,
            at,
        },
        Some(Reply::Lease(verdict)) => Response::Lease {
            verdict: *verdict,
            at,
        },
        Some(Reply::Credited(units)) => Response::Credited(*units),
        Some(Reply::Version(version)) => Response::Version(*version),
        Some(Reply::Refused(refusal)) => Response::Refused(*refusal),
        Some(Reply::Control(refusal)) => Response::Control(*refusal),
        Some(Reply::Member(refusal)) => Response::Member(*refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::limit::{CounterKey, ledger::Session};
    use std::sync::Arc;

    fn order(commands: usize) -> Order {
        Order::new(
            None,
            vec![
                Command::Bye {
                    session: Session(1)
                };
                commands
            ],
        )
    }

    fn taken(desk: &mut Desk) -> Vec<usize> {
        let orders = desk.next_entry(false);
        orders.iter().map(|order| order.commands.len()).collect()
    }

    #[test]
    fn an_entry_takes_what_fits_and_a_document_stands_alone() {
        let mut desk = Desk::default();
        let document = proto::control::Change {
            kind: proto::control::Kind::Policy,
            name: "p".to_owned(),
            body: Some(Arc::from(vec![0u8; 200_000])),
            expect: None,
            by: "me".to_owned(),
        };
        for sizes in [500, 500, 500] {
            desk.enqueue(order(sizes));
        }
        desk.enqueue(Order::new(None, vec![Command::Control(document)]));
        desk.enqueue(order(1));
        assert_eq!(taken(&mut desk), [500, 500]);
        assert_eq!(taken(&mut desk), [500]);
        assert_eq!(taken(&mut desk), [1]);
        assert_eq!(taken(&mut desk), [1]);
        assert!(taken(&mut desk).is_empty() && desk.is_idle());
    }

    #[test]
    fn few_commands_wait_while_entries_are_on_their_way() {
        let mut desk = Desk::default();
        for index in 0..FLIGHTS_FEW as u64 {
            desk.flights.push_back(Flight {
                index,
                term: 1,
                parts: Vec::new(),
                sets_clock: false,
            });
        }
        desk.enqueue(order(1));
        assert!(taken(&mut desk).is_empty());
        desk.enqueue(order(FULL_COMMANDS));
        assert_eq!(taken(&mut desk), [1, FULL_COMMANDS]);
        desk.enqueue(order(1));
        let (landed, lost) = desk.landed(1, 1);
        assert_eq!(
            (landed.map(|flight| flight.index), lost.len()),
            (Some(1), 1)
        );
        assert_eq!(taken(&mut desk), [1]);
        let (landed, lost) = desk.landed(2, 2);
        assert_eq!((landed.is_none(), lost.len()), (true, 1));
    }

    #[test]
    fn a_node_keeps_its_pace() {
        let mut desk = Desk::default();
        let admitted = |desk: &mut Desk, now_ns| {
            (0..100)
                .filter(|_| desk.admit(NodeId(1), 10, 200, now_ns))
                .count()
        };
        assert_eq!(admitted(&mut desk, 5), 20);
        assert_eq!(admitted(&mut desk, 500_000_005), 10);
        assert!(desk.admit(NodeId(2), 10, 200, 5));
    }

    #[test]
    fn the_first_telling_reply_is_the_answer() {
        let at = At { now_ms: 1, term: 1 };
        let refusal = proto::limit::ledger::Refusal::Undefined;
        assert_eq!(response(&[], at), Response::Done { at });
        let replies = [Reply::Done, Reply::Refused(refusal), Reply::Credited(1)];
        assert_eq!(response(&replies, at), Response::Refused(refusal));
        assert!(Order::new(None, vec![Command::Credit { key: CounterKey(1) }]).fits());
        assert!(!order(COMMANDS_MAX + 1).fits());
    }
}
