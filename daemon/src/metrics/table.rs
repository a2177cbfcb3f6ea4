//! Every metric, once: descriptions are registered from here, and the documentation is tested against it.

/// What kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A present value.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels. Values are server names of the configuration or words of the code, never anything of a client.
    pub labels: &'static [&'static str],
    /// What it says, with its unit.
    pub help: &'static str,
}

pub(super) const REQUESTS: &str = "tollgate_requests_total";
pub(super) const STAGE: &str = "tollgate_stage_seconds";
pub(super) const REQUEST: &str = "tollgate_request_seconds";
pub(super) const IN_FLIGHT: &str = "tollgate_in_flight";
pub(super) const CONNECTIONS: &str = "tollgate_connections";
pub(super) const SESSIONS: &str = "tollgate_sessions";
pub(super) const PROCESSES: &str = "tollgate_processes";
pub(super) const STDIO_SKIPPED: &str = "tollgate_stdio_skipped_lines_total";
pub(super) const UPSTREAM_ERRORS: &str = "tollgate_upstream_errors_total";
pub(super) const REFUSALS: &str = "tollgate_refusals_total";
pub(super) const IDENTIFY_FAILURES: &str = "tollgate_identify_failures_total";
pub(super) const REFUNDS: &str = "tollgate_refunds_total";
pub(super) const HTTP_ERRORS: &str = "tollgate_http_protocol_errors_total";
pub(super) const RELOADS: &str = "tollgate_config_reloads_total";
pub(super) const RELOAD_OK: &str = "tollgate_config_last_reload_success";
pub(super) const REVISION: &str = "tollgate_view_revision";
pub(super) const CONTROL_VERSION: &str = "tollgate_control_version";
pub(super) const CONTROL_AGE: &str = "tollgate_control_age_seconds";
pub(super) const CONTROL_UNRESOLVED: &str = "tollgate_control_unresolved";
pub(super) const LEDGER_LEADER: &str = "tollgate_ledger_leader";
pub(super) const LEDGER_OUTSTANDING: &str = "tollgate_ledger_outstanding";
pub(super) const LEDGER_MEMBERS: &str = "tollgate_ledger_members";
pub(super) const LEDGER_COUNTERS: &str = "tollgate_ledger_counters";
pub(super) const LEDGER_CONFLICTS: &str = "tollgate_ledger_conflicts";
pub(super) const RAFT_LEADS: &str = "tollgate_raft_leads";
pub(super) const RAFT_TERM: &str = "tollgate_raft_term";
pub(super) const RAFT_INDEX: &str = "tollgate_raft_index";
pub(super) const RAFT_ELECTIONS: &str = "tollgate_raft_elections_total";
pub(super) const RAFT_BATCHES: &str = "tollgate_raft_batches_total";
pub(super) const RAFT_COMMANDS: &str = "tollgate_raft_commands_total";
pub(super) const RAFT_REQUESTS: &str = "tollgate_raft_requests";
pub(super) const RAFT_REFUSED: &str = "tollgate_raft_refused_total";
pub(super) const RAFT_IGNORED: &str = "tollgate_raft_ignored_total";
pub(super) const RAFT_LOG_BYTES: &str = "tollgate_raft_log_bytes";
pub(super) const RAFT_FSYNC: &str = "tollgate_raft_fsync_seconds";
pub(super) const PEER_CONNECTIONS: &str = "tollgate_peer_connections";
pub(super) const PEER_LOST: &str = "tollgate_peer_lost_total";
pub(super) const PEER_SLOW: &str = "tollgate_peer_slow_total";
pub(super) const CLOCK_OFFSET: &str = "tollgate_clock_offset_seconds";
pub(super) const CLOCK_WAITS: &str = "tollgate_clock_waits";
pub(super) const LEASES: &str = "tollgate_leases_total";
pub(super) const LEASE_PUSHES: &str = "tollgate_lease_pushes_total";
pub(super) const LEASE_WAIT: &str = "tollgate_lease_wait_seconds";
pub(super) const UNREACHABLE: &str = "tollgate_unreachable_total";
pub(super) const AUDIT_QUEUE: &str = "tollgate_audit_queue";
pub(super) const AUDIT_READY: &str = "tollgate_audit_ready";
pub(super) const AUDIT_REFUSED: &str = "tollgate_audit_refused_total";
pub(super) const AUDIT_SUPPRESSED: &str = "tollgate_audit_suppressed_total";
pub(super) const BUILD: &str = "tollgate_build_info";

const fn row(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row {
        name,
        kind,
        labels,
        help,
    }
}

/// Every metric of the gateway.
pub const TABLE: &[Row] = &[
    row(
        REQUESTS,
        Kind::Counter,
        &["server", "decision", "code"],
        "Requests of identified callers that ended, by decision (allow, deny, shadow, refuse, error) and code (none if allowed).",
    ),
    row(
        STAGE,
        Kind::Histogram,
        &["stage"],
        "Seconds spent in each stage of a request: identify, scan, decide, forward, relay.",
    ),
    row(
        REQUEST,
        Kind::Histogram,
        &["server"],
        "Seconds from a request's arrival to the end of its reply.",
    ),
    row(
        IN_FLIGHT,
        Kind::Gauge,
        &["server"],
        "Calls that were forwarded and have not ended.",
    ),
    row(
        CONNECTIONS,
        Kind::Gauge,
        &[],
        "Open connections of clients.",
    ),
    row(SESSIONS, Kind::Gauge, &[], "Open MCP sessions."),
    row(
        PROCESSES,
        Kind::Gauge,
        &["server"],
        "Child processes of a stdio server.",
    ),
    row(
        STDIO_SKIPPED,
        Kind::Counter,
        &["server"],
        "Lines on a stdio server's standard output that were no JSON-RPC messages and were skipped.",
    ),
    row(
        UPSTREAM_ERRORS,
        Kind::Counter,
        &["server", "code"],
        "Calls that failed at the upstream, by what happened.",
    ),
    row(
        REFUSALS,
        Kind::Counter,
        &["reason"],
        "Bodies and headers refused as unreadable or against the protocol, by reason.",
    ),
    row(
        IDENTIFY_FAILURES,
        Kind::Counter,
        &["reason"],
        "Requests turned away before a grant was known, by reason.",
    ),
    row(
        REFUNDS,
        Kind::Counter,
        &["server"],
        "Charges given back because the upstream certainly did not act.",
    ),
    row(
        HTTP_ERRORS,
        Kind::Counter,
        &[],
        "Connections that ended in an HTTP protocol error.",
    ),
    row(
        RELOADS,
        Kind::Counter,
        &["result"],
        "Reloads of the configuration by result: ok or error.",
    ),
    row(
        RELOAD_OK,
        Kind::Gauge,
        &[],
        "1 if the last reload took effect, 0 if the old view was kept.",
    ),
    row(
        REVISION,
        Kind::Gauge,
        &[],
        "Revision of the view in force, counted from 1 at the start.",
    ),
    row(
        CONTROL_VERSION,
        Kind::Gauge,
        &[],
        "Version of the cluster's control plane that is in the view in force.",
    ),
    row(
        CONTROL_AGE,
        Kind::Gauge,
        &[],
        "Seconds since a majority confirmed that this version was the newest; -1 if none ever did.",
    ),
    row(
        CONTROL_UNRESOLVED,
        Kind::Gauge,
        &[],
        "Grants, policies and servers of the control plane that cannot be put in force on this node.",
    ),
    row(
        LEDGER_LEADER,
        Kind::Gauge,
        &[],
        "1 if this node knows a leader of the ledger, else 0.",
    ),
    row(
        LEDGER_OUTSTANDING,
        Kind::Gauge,
        &[],
        "Questions of this node that wait for the ledger's leader.",
    ),
    row(
        LEDGER_MEMBERS,
        Kind::Gauge,
        &["of"],
        "Nodes of the cluster as the leader knows them: voters, voters_reachable, clients; 0 where this node does not lead.",
    ),
    row(
        LEDGER_COUNTERS,
        Kind::Gauge,
        &[],
        "Counters with a running window in the ledger; 0 where this node does not lead.",
    ),
    row(
        LEDGER_CONFLICTS,
        Kind::Gauge,
        &[],
        "Limits that nodes define differently, the smallest max rules; 0 where this node does not lead.",
    ),
    row(
        RAFT_LEADS,
        Kind::Gauge,
        &[],
        "1 if this node leads the ledger.",
    ),
    row(RAFT_TERM, Kind::Gauge, &[], "Raft's term, as last heard."),
    row(
        RAFT_INDEX,
        Kind::Gauge,
        &["of"],
        "Indexes of this voter's log: last, committed, applied, snapshot.",
    ),
    row(
        RAFT_ELECTIONS,
        Kind::Counter,
        &[],
        "Elections that this voter began.",
    ),
    row(
        RAFT_BATCHES,
        Kind::Counter,
        &[],
        "Batches that this voter proposed while it led.",
    ),
    row(
        RAFT_COMMANDS,
        Kind::Counter,
        &[],
        "Commands in those batches.",
    ),
    row(
        RAFT_REQUESTS,
        Kind::Gauge,
        &[],
        "Requests of nodes that wait at this voter for a majority.",
    ),
    row(
        RAFT_REFUSED,
        Kind::Counter,
        &[],
        "Requests that this voter refused because a node's rate or the queue's bound was reached.",
    ),
    row(
        RAFT_IGNORED,
        Kind::Counter,
        &[],
        "Messages of other voters that were ignored because they do not fit.",
    ),
    row(
        RAFT_LOG_BYTES,
        Kind::Gauge,
        &[],
        "Bytes of this voter's log on the disk.",
    ),
    row(
        RAFT_FSYNC,
        Kind::Histogram,
        &[],
        "Seconds that writes of this voter's log took to be on the disk.",
    ),
    row(
        PEER_CONNECTIONS,
        Kind::Gauge,
        &["of"],
        "Connections between nodes: made by this node (to voters), taken from others.",
    ),
    row(
        PEER_LOST,
        Kind::Counter,
        &["kind"],
        "Messages lost here for want of a connection or room: raft (repeated by itself), pushes (they only hasten).",
    ),
    row(
        PEER_SLOW,
        Kind::Counter,
        &[],
        "Connections that were closed because their node did not read its answers.",
    ),
    row(
        CLOCK_OFFSET,
        Kind::Gauge,
        &[],
        "This voter's wall clock less the median of the reachable voters'.",
    ),
    row(
        CLOCK_WAITS,
        Kind::Gauge,
        &[],
        "1 while this voter waits for tollgate cluster accept-clock.",
    ),
    row(
        LEASES,
        Kind::Counter,
        &["result"],
        "Questions for quota by what came of them: granted, refused, keys (too many distinct ones), unreachable, undefined, quarantined, other.",
    ),
    row(
        LEASE_PUSHES,
        Kind::Counter,
        &["kind"],
        "What the leader said by itself: recall (a call waits elsewhere for quota held here), renewed (what was refused may be had).",
    ),
    row(
        LEASE_WAIT,
        Kind::Histogram,
        &[],
        "Seconds that calls waited for quota, those that were then denied among them.",
    ),
    row(
        UNREACHABLE,
        Kind::Counter,
        &["reason"],
        "Charges for which quota could not be had: no_session (no leader since the start), no_answer, stopping; allowed: let through under on_unreachable: allow.",
    ),
    row(
        AUDIT_QUEUE,
        Kind::Gauge,
        &[],
        "Places of the audit queue that are taken.",
    ),
    row(
        AUDIT_READY,
        Kind::Gauge,
        &[],
        "1 if calls can be recorded, 0 while they are refused with code audit.",
    ),
    row(
        AUDIT_REFUSED,
        Kind::Counter,
        &[],
        "Calls refused because no place in the audit queue came free in time.",
    ),
    row(
        AUDIT_SUPPRESSED,
        Kind::Counter,
        &[],
        "Rejections that have no audit line of their own, only a share in a suppressed count.",
    ),
    row(
        BUILD,
        Kind::Gauge,
        &["version"],
        "Always 1; the version of this build.",
    ),
];
