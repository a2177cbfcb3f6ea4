//! Stage 7: one audit line and one count for every request that was identified, written when its last part is dropped.

use super::{Ends, Gate, Out, error::Answer, identify::Caller, session::Session};
use crate::{
    audit::Slot,
    clock,
    limiter::{Charged, Tickets},
    metrics::{Metrics, ServerMetrics, Stage},
};
use http::{Response, request::Parts};
use proto::{
    audit::{LimitLine, Record, bounded_keys, bounded_tool},
    id::RequestId,
    limit::{Outcome, Settled},
    mcp::Era,
    policy::{Denial, Policy},
    scan::Envelope,
    time::Now,
};
use std::{net::IpAddr, sync::Arc};

/// The record of one request in the making. Dropping it writes it: there is no other way to write one, and none not to.
/// Boxed, since every stage hands it to the next: moved by value it would be copied each time.
#[derive(Debug)]
pub struct Recorder {
    /// There until it is written.
    record: Option<Box<Record>>,
    slot: Option<Slot>,
    metrics: Arc<Metrics>,
    server: Arc<ServerMetrics>,
    arrived: Now,
    /// The boot clock as it was read last, nanoseconds.
    read_ns: u64,
    /// When the upstream's reply began, likewise.
    relayed_ns: Option<u64>,
    forwarded: bool,
    tickets: Option<Tickets>,
}

impl Recorder {
    /// Begins the record of an identified request.
    pub fn new(
        request: RequestId,
        caller: &Caller,
        source: IpAddr,
        verb: &'static str,
        metrics: &Arc<Metrics>,
        slot: Option<Slot>,
        arrived: Now,
    ) -> Box<Self> {
        let record = Box::new(Record {
            request,
            unix_ms: arrived.unix_ms,
            source: Some(source),
            grant: caller.grant.id.clone(),
            label: caller.grant.label.clone(),
            session: None,
            server: caller.server.clone(),
            era: None,
            verb,
            method: None,
            tool: None,
            batch_index: None,
            decision: "allow",
            code: None,
            rule: None,
            policy: None,
            argument_keys: Vec::new(),
            status: 0,
            upstream_status: None,
            side: None,
            end: "cancelled",
            latency_us: 0,
            decide_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            limits: Vec::new(),
        });
        Box::new(Self {
            record: Some(record),
            slot,
            metrics: metrics.clone(),
            server: caller.metrics.clone(),
            arrived,
            read_ns: arrived.boot_ns,
            relayed_ns: None,
            forwarded: false,
            tickets: None,
        })
    }

    fn line(&mut self) -> &mut Record {
        let record = self.record.as_deref_mut();
        record.expect("invariant: only dropping takes the record away")
    }
    /// The request's id.
    pub fn request(&self) -> RequestId {
        self.record.as_ref().map_or(RequestId(0), |r| r.request)
    }
    /// Whether the line has its place in the queue.
    pub fn has_slot(&self) -> bool {
        self.slot.is_some()
    }
    /// Notes what the body says.
    pub fn message(&mut self, message: &Envelope<'_>, batch_index: Option<u32>) {
        let record = self.line();
        record.bytes_in = message.raw.len() as u64;
        record.batch_index = batch_index;
        if !message.method.is_empty() {
            record.method = Some(bounded_tool(message.method));
        }
        if message.method == "tools/call" {
            record.tool = message.name.as_deref().map(bounded_tool);
            record.argument_keys = message.arguments.map(bounded_keys).unwrap_or_default();
        }
    }
    /// Notes the era.
    pub fn era(&mut self, era: Era) {
        self.line().era = Some(era);
    }
    /// Notes the session.
    pub fn session(&mut self, session: &Session) {
        self.line().session = Some(session.audit_id.to_string());
    }
    /// Notes the policy that judges.
    pub fn policy(&mut self, policy: &Policy) {
        self.line().policy = Some((policy.name.clone(), policy.revision.clone()));
    }
    /// Notes what shadow mode would have said.
    pub fn shadow(&mut self, denial: &Denial<'_>) {
        self.line().decision = "shadow";
        self.line().code = Some(denial.code.as_str());
        self.line().rule = Some(denial.rule.to_string());
    }
    /// Notes when the decision was made, and says so: the boot clock, nanoseconds.
    pub fn decided(&mut self) -> u64 {
        self.read_ns = clock::boot_ns();
        self.line().decide_us = self.read_ns.saturating_sub(self.arrived.boot_ns) / 1_000;
        self.read_ns
    }
    /// Notes when the upstream replied or failed, and says so likewise.
    pub fn replied(&mut self) -> u64 {
        self.read_ns = clock::boot_ns();
        self.read_ns
    }
    /// The boot clock as it was read last, nanoseconds.
    pub fn read_ns(&self) -> u64 {
        self.read_ns
    }
    /// Notes that the request goes upstream.
    pub fn forwarding(&mut self) {
        self.forwarded = true;
        self.server.call_started();
    }
    /// Notes the gateway's own answer, which ends the request.
    pub fn answered(&mut self, answer: &Answer) {
        let record = self.line();
        record.decision = answer.decision;
        record.code = Some(answer.code);
        record.rule = answer.rule.clone();
        record.status = answer.status.as_u16();
        record.side =
            (answer.decision == "error" || answer.decision == "refuse").then_some(answer.side);
        record.bytes_out = answer.body.len() as u64;
        record.end = "complete";
        if answer.decision == "error" && answer.side == "upstream" {
            self.server.upstream_error(answer.code);
        }
    }
    /// Ends the request with the gateway's own answer.
    pub fn answer(mut self: Box<Self>, answer: Answer) -> Response<Out> {
        self.answered(&answer);
        answer.into_response()
    }
    /// Notes an upstream's failure in the middle of its reply.
    pub fn failed(&mut self, code: &'static str, end: &'static str) {
        self.server.upstream_error(code);
        self.line().decision = "error";
        self.line().code = Some(code);
        self.line().side = Some("upstream");
        self.line().end = end;
    }
    /// Notes the statuses of a reply.
    pub fn status(&mut self, sent: u16, upstream: u16) {
        self.line().status = sent;
        self.line().upstream_status = (upstream != 0).then_some(upstream);
        self.relayed_ns.get_or_insert(self.read_ns);
    }
    /// The upstream's status, 0 when there was none.
    pub fn upstream_status(&self) -> u16 {
        self.record
            .as_ref()
            .and_then(|r| r.upstream_status)
            .unwrap_or(0)
    }
    /// Counts bytes of the reply.
    pub fn sent(&mut self, bytes: usize) {
        self.line().bytes_out += bytes as u64;
    }
    /// The reply came to its proper end.
    pub fn complete(&mut self) {
        let record = self.line();
        if record.end == "cancelled" {
            record.end = "complete";
        }
    }
    /// The gateway ended the reply before its answer: a drain, a session or a grant that is over.
    pub fn cut(&mut self) {
        self.line().end = "cut";
    }
    /// Keeps the tickets of a forwarded call.
    pub fn hold(&mut self, tickets: Tickets) {
        self.tickets = Some(tickets);
    }
    /// Whether a settlement is still open.
    pub fn holds(&self) -> bool {
        self.tickets.is_some()
    }
    /// Settles the tickets, once: a second call finds none.
    pub fn settle(&mut self, outcome: Outcome) {
        let Some(tickets) = self.tickets.take() else {
            return;
        };
        let lines = tickets.settle(outcome, clock::now);
        if lines.iter().any(|line| line.settled == Settled::Refunded) {
            self.server.refunded();
        }
        self.line().limits = lines
            .into_iter()
            .map(
                |Charged {
                     identity,
                     window,
                     amount,
                     settled,
                 }| LimitLine {
                    identity,
                    window,
                    amount,
                    settled,
                },
            )
            .collect();
    }
}

/// Records that somebody was turned away before a grant was known: this waits for nobody and delays nobody.
pub fn turned_away(gate: &Gate, ends: Ends, parts: &Parts, answer: Answer) -> Response<Out> {
    let (source, path) = (ends.peer.ip(), parts.uri.path());
    gate.metrics.identify_failed(answer.code);
    gate.audit
        .rejected(answer.code, source, path, answer.status.as_u16());
    answer.into_response()
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.settle(Outcome::Acted);
        let Some(mut record) = self.record.take() else {
            return;
        };
        let now_ns = clock::boot_ns();
        record.latency_us = now_ns.saturating_sub(self.arrived.boot_ns) / 1_000;
        if self.forwarded {
            self.server.call_ended();
        }
        if let Some(relayed_ns) = self.relayed_ns {
            self.metrics
                .stage(Stage::Relay, now_ns.saturating_sub(relayed_ns));
        }
        self.server.finished(
            record.decision,
            record.code.unwrap_or("none"),
            record.latency_us,
        );
        if let Some(slot) = self.slot.take() {
            slot.write(record);
        }
    }
}
