//! The wire, and the leader's side of it.

use super::{book::Book, chance::Chance, node::key_of};
use proto::{
    command::NodeId,
    limit::{
        CounterKey,
        lease::{Ask, At, GiveBack, Heard, Question},
        ledger::{Definition, Ledger, Refusal, Session, Standing},
    },
};
use std::collections::BTreeMap;

const MS: u64 = 1_000_000;
/// A counter is recalled at most once in so long.
const RECALL_MS: u64 = 20;

/// To the ledger.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    Lease(Question),
    Return(Session, GiveBack),
}

/// To a node.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "few messages are on their way at a time"
)]
pub enum Reply {
    Heard(Question, Heard),
    Acknowledged(Session, GiveBack),
    Recall {
        session: Session,
        key: CounterKey,
        window: u64,
        granted_total: u128,
    },
    Renewed {
        key: CounterKey,
        generation: u64,
    },
}

/// How bad the wire is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand messages.
    pub lost: u64,
    pub repeated: u64,
    pub slow: u64,
    /// Nanoseconds.
    pub delay: (u64, u64),
}

impl Weather {
    pub const FINE: Self = Self {
        lost: 0,
        repeated: 0,
        slow: 0,
        delay: (MS / 10, 2 * MS),
    };

    pub fn stormy(chance: &mut Chance) -> Self {
        Self {
            lost: chance.pick(&[0, 20, 200, 500]),
            repeated: chance.pick(&[0, 50, 300]),
            slow: chance.pick(&[0, 10, 100]),
            delay: (MS / 10, chance.pick(&[MS, 10 * MS, 60 * MS])),
        }
    }

    /// After how long a message arrives, each of its copies.
    pub fn deliver(&self, chance: &mut Chance) -> Vec<u64> {
        let copies = 1 + usize::from(chance.permille(self.repeated));
        let mut delays = Vec::new();
        for _ in 0..copies {
            if !chance.permille(self.lost) {
                let most = if chance.permille(self.slow) {
                    1_500 * MS
                } else {
                    self.delay.1
                };
                delays.push(chance.between(self.delay.0, most));
            }
        }
        delays
    }
}

/// The ledger, and a leader that does as the real one: answers when applied, recalls, renews.
pub struct Leader {
    pub ledger: Ledger,
    pub term: u64,
    /// Asks for nothing; to read generations.
    probe: Session,
    sessions: BTreeMap<NodeId, Session>,
    holders: BTreeMap<(CounterKey, u64, Session), u128>,
    recalled_ms: BTreeMap<CounterKey, u64>,
    refused: BTreeMap<CounterKey, Vec<(NodeId, u64)>>,
}

impl Leader {
    pub fn new(mut ledger: Ledger) -> Self {
        let probe = ledger.hello(NodeId(u64::MAX), 1, 0, 1).expect("room");
        Self {
            ledger,
            term: 1,
            probe,
            sessions: BTreeMap::new(),
            holders: BTreeMap::new(),
            recalled_ms: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    pub fn hello(&mut self, node: NodeId, nonce: u64) -> Session {
        let session = self.ledger.hello(node, nonce, 0, 1).expect("room");
        self.sessions.insert(node, session);
        session
    }

    /// Every session defines the same.
    pub fn define(&mut self, revision: u64, definitions: &[Definition]) {
        for session in self.sessions.values() {
            self.ledger
                .define(*session, revision, definitions, true)
                .expect("definitions agree");
        }
    }

    fn at(&self) -> At {
        At {
            now_ms: self.ledger.now_ms(),
            term: self.term,
        }
    }

    /// What a message makes the leader say, to whom.
    pub fn apply(
        &mut self,
        from: NodeId,
        message: Message,
        book: &mut Book,
    ) -> Vec<(NodeId, Reply)> {
        let mut said = Vec::new();
        match message {
            Message::Lease(question) => {
                let verdict = self.ledger.lease(question.session, &question.ask);
                if let Ok(standing) | Err(Refusal::Exhausted(standing)) = verdict {
                    self.note(question.session, &question.ask, &standing, book);
                }
                if let Err(Refusal::Exhausted(standing)) = verdict {
                    self.refused
                        .entry(question.ask.key)
                        .or_default()
                        .push((from, standing.generation));
                    if question.ask.waiting {
                        self.recall(question.session, &question.ask, &standing, &mut said);
                    }
                }
                self.renew(&question.ask, &mut said);
                let heard = Heard {
                    session: question.session,
                    at: self.at(),
                    verdict,
                };
                said.push((from, Reply::Heard(question, heard)));
            }
            Message::Return(session, back) => {
                if self.ledger.give_back(session, &back).is_ok() {
                    said.push((from, Reply::Acknowledged(session, back)));
                }
                let ask = Ask {
                    key: back.key,
                    ..probe(back.key)
                };
                self.renew(&ask, &mut said);
            }
        }
        said
    }

    fn note(&mut self, session: Session, ask: &Ask, standing: &Standing, book: &mut Book) {
        let total = standing.granted_total;
        book.granted(session, key_of(ask.key), standing.window, total);
        self.holders
            .insert((ask.key, standing.window, session), total);
    }

    fn recall(
        &mut self,
        session: Session,
        ask: &Ask,
        standing: &Standing,
        said: &mut Vec<(NodeId, Reply)>,
    ) {
        let now_ms = self.ledger.now_ms();
        let last = self.recalled_ms.entry(ask.key).or_default();
        if now_ms < last.saturating_add(RECALL_MS) {
            return;
        }
        *last = now_ms;
        for (node, holder) in &self.sessions {
            let total = self.holders.get(&(ask.key, standing.window, *holder));
            if let Some(granted_total) = total.filter(|_| *holder != session) {
                let recall = Reply::Recall {
                    session: *holder,
                    key: ask.key,
                    window: standing.window,
                    granted_total: *granted_total,
                };
                said.push((*node, recall));
            }
        }
    }

    /// Tells those who were refused that the generation has moved on.
    fn renew(&mut self, ask: &Ask, said: &mut Vec<(NodeId, Reply)>) {
        let Some(refused) = self.refused.get_mut(&ask.key) else {
            return;
        };
        let Ok(standing) = self.ledger.lease(self.probe, &probe(ask.key)) else {
            return;
        };
        refused.retain(|(node, generation)| {
            let renewed = standing.generation > *generation;
            if renewed {
                let renewed = Reply::Renewed {
                    key: ask.key,
                    generation: standing.generation,
                };
                said.push((*node, renewed));
            }
            !renewed
        });
    }
}

fn probe(key: CounterKey) -> Ask {
    Ask {
        identity: super::node::identity_of(key_of(key)),
        key,
        window_hint: u64::MAX,
        want: 0,
        min: 0,
        seen_granted: 0,
        returned_total: 0,
        group: None,
        waiting: false,
    }
}
