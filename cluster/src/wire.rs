//! What nodes say to each other, apart from Raft's own messages.
//!
//! A node (voter or lease client) holds one connection to each voter and sends its requests to the one that it believes
//! to lead. The voter knows from the connection's certificate which node asks; a request of another node's session is
//! refused. Requests are answered in any order, by id; pushes come by themselves and may be lost.

pub use proto::limit::ledger::{Conflict, Counters, Holding, ROWS_MAX, Row};
use proto::{
    command::{MemberRefusal, NodeId, Role},
    control::{self, Page, Position},
    limit::{
        CounterKey,
        lease::{Ask, GiveBack},
        ledger::{Definition, Refusal, Session, Standing},
    },
};
use serde::{Deserialize, Serialize};

pub use proto::limit::lease::At;

/// Most returns in one request.
pub const RETURNS_MAX: usize = 512;
/// Most definitions in one request.
pub const DEFINITIONS_MAX: usize = 512;
/// Bytes of resources in one page of the control plane, unless one alone is larger.
pub const PAGE_BYTES: usize = 1 << 20;

/// What a node asks a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens the asker's session, or finds it again.
    Hello {
        /// Grows with every start of the node.
        nonce: u64,
        /// Hash of the identity secret.
        secret_check: u64,
        /// The highest rules version that the node knows.
        rules_max: u32,
    },
    /// A piece of the limits of a view.
    Define {
        /// The asker's session.
        session: Session,
        /// The view's revision on that node.
        revision: u64,
        /// At most [`DEFINITIONS_MAX`].
        definitions: Vec<Definition>,
        /// It is the last piece.
        last: bool,
    },
    /// Quota.
    Lease {
        /// The asker's session.
        session: Session,
        /// What.
        ask: Ask,
    },
    /// Quota back.
    Return {
        /// The asker's session.
        session: Session,
        /// At most [`RETURNS_MAX`].
        returns: Vec<GiveBack>,
        /// Nothing else will come: the session closes when these are credited.
        bye: bool,
    },
    /// How fresh is what I know of the control plane? Answered only after a majority has acknowledged a heartbeat sent
    /// after this question came.
    Fresh {
        /// How much of the control plane the asker has.
        have: Position,
    },
    /// Counters as the ledger holds them; linearizable.
    Counters(Counters),
    /// How the cluster is.
    Status,
    /// Who belongs to the cluster and where. Any voter answers from what it has applied.
    Members,
    /// An operator's write, of a voter's node only. Acknowledged = committed; [`Operate::Remove`]: carried out.
    Operate(Operate),
}

/// What operators change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operate {
    /// See [`proto::command::Command::Credit`].
    Credit {
        /// The counter.
        key: CounterKey,
    },
    /// See [`proto::command::Command::Reset`].
    Reset {
        /// The counter.
        key: CounterKey,
    },
    /// See [`proto::command::Command::SetClock`].
    AcceptClock,
    /// Changes a resource of the control plane.
    Control(control::Change),
    /// Lets one node in.
    Token {
        /// SHA-256 of the token.
        hash: [u8; 32],
        /// As what.
        role: Role,
        /// How long it is good.
        ttl_ms: u64,
    },
    /// A joining node, vouched for by the voter that checked its token's hash and signed its certificate.
    Join {
        /// SHA-256 of the token.
        token: [u8; 32],
        /// Its new id.
        node: NodeId,
        /// Its name for people.
        name: String,
        /// `host:port`; empty for a lease client.
        address: String,
        /// As what.
        role: Role,
    },
    /// A voter listens elsewhere now.
    Address {
        /// `host:port`.
        address: String,
    },
    /// Takes nodes out, in one joint change where they vote.
    Remove {
        /// Which.
        nodes: Vec<NodeId>,
    },
    /// Applies later batches by these rules; every voter must have announced that it knows them.
    Rules {
        /// Which.
        version: u32,
    },
}

/// How the cluster is, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: u128,
    /// Who answers, and leads.
    pub leader: NodeId,
    /// Raft's term.
    pub term: u64,
    /// Committed and applied indexes.
    pub committed: u64,
    /// See `committed`.
    pub applied: u64,
    /// Replicated time, milliseconds since 1970.
    pub now_ms: u64,
    /// The rules in force.
    pub rules_version: u32,
    /// Every member.
    pub members: Vec<MemberStatus>,
    /// Live counters, defined limits.
    pub counters: u64,
    /// See `counters`.
    pub limits: u64,
    /// Limits that live sessions define differently: the smallest rules.
    pub conflicts: Vec<Conflict>,
    /// The control plane's version.
    pub control_version: u64,
    /// Why the leader's clock is not trusted, if it is not.
    pub clock_problem: Option<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Which.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port`; empty for a lease client.
    pub address: String,
    /// What it is.
    pub role: Role,
    /// A voter-to-be: catching up, waiting for a second one so that the number of voters stays odd, or in the joint change
    /// that is not over. One that is on its way out by a joint change has `leaving`.
    pub learner: bool,
    /// The leader has heard of it within an election timeout.
    pub reachable: bool,
    /// The last index that it is known to have (voters).
    pub matched: u64,
    /// Its wall clock less the leader's, milliseconds, where known.
    pub clock_offset_ms: Option<i64>,
    /// The highest rules version that it announced.
    pub rules_max: u32,
    /// It is being taken out.
    pub leaving: bool,
}

/// A member and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddress {
    /// Which.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// `host:port`; empty for a lease client.
    pub address: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Not here: nothing was done.
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
    },
    /// The leader's queue is full, or the leader is stepping down: it may or may not be done. Ask again.
    Unknown,
    /// `Hello`.
    Session {
        /// The session.
        session: Session,
        /// When.
        at: At,
    },
    /// `Define`, `Return`, most of `Operate`.
    Done {
        /// When.
        at: At,
    },
    /// `Lease`.
    Lease {
        /// What the ledger says.
        verdict: Result<Standing, Refusal>,
        /// When.
        at: At,
    },
    /// `Fresh`.
    Fresh {
        /// When.
        at: At,
        /// What changed after what the asker has.
        page: Page,
        /// Grows with every change of membership: ask for [`Request::Members`] when it does.
        members_version: u64,
    },
    /// `Members`.
    Members {
        /// Who, by node.
        members: Vec<MemberAddress>,
        /// See [`Response::Fresh`].
        members_version: u64,
        /// Who leads, where known.
        leader: Option<NodeId>,
    },
    /// `Counters`.
    Counters {
        /// What was asked for.
        rows: Vec<Row>,
        /// How many there are.
        total: u64,
        /// When.
        at: At,
    },
    /// `Status`.
    Status(Box<Status>),
    /// `Operate::Credit`: units given back.
    Credited(u128),
    /// `Operate::Control`: the new version.
    Version(u64),
    /// The ledger refuses.
    Refused(Refusal),
    /// The control plane refuses.
    Control(control::Refusal),
    /// Membership refuses.
    Member(MemberRefusal),
    /// The asker may not ask this: no member, another node's session, a lease client's [`Request::Operate`].
    Forbidden,
    /// The asker was taken out of the cluster: its id is never used again.
    Removed,
}

/// What voters say to each other beside Raft's messages; may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extra {
    /// What does your wall clock say?
    AskClock {
        /// The asker's boot clock, echoed in the answer.
        asked_ns: u64,
    },
    /// It says this.
    Clock {
        /// From the question.
        asked_ns: u64,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// The state after an index.
    Hash {
        /// The index, a multiple of [`HASH_EVERY`].
        index: u64,
        /// The machine's hash after it was applied.
        hash: u64,
    },
}

/// What a leader says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// A call waits for quota elsewhere: return what is not used.
    Recall {
        /// The hearer's session to which the total belongs; a hearer in another one does nothing.
        session: Session,
        /// The counter.
        key: CounterKey,
        /// Its window.
        window: u64,
        /// Everything granted to the hearer: to be adopted before anything is returned.
        granted_total: u128,
    },
    /// What was refused may be had now.
    Renewed {
        /// The counter.
        key: CounterKey,
        /// The counter's generation.
        generation: u64,
    },
    /// The control plane has a newer version.
    Control {
        /// Which.
        version: u64,
    },
}

/// Entries from one exchange of hashes to the next.
pub const HASH_EVERY: u64 = 1_024;
