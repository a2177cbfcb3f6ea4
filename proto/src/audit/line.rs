//! The JSON of audit lines: one shape an event, fields that are not known left out.

use super::{
    KEYS, LimitLine, Operation, Record, Rejection, Suppressed, TEXT_BYTES, bounded, bounded_again,
    json::{self, Hex128, Word},
};
use crate::{limit::Settled, mcp::Era, time::rfc3339};
use std::borrow::Cow;

/// Appends a field, or one that is there only sometimes; its key is a literal, which nobody has to escape.
macro_rules! field {
    ($out:ident, $key:literal, if $value:expr) => {
        if let Some(value) = $value {
            field!($out, $key, value);
        }
    };
    ($out:ident, $key:literal, $value:expr) => {{
        $out.extend_from_slice(concat!(",\"", $key, "\":").as_bytes());
        json::Value::write(&$value, $out);
    }};
}

/// Appends the beginning of a line: which event, and when.
macro_rules! begin {
    ($out:ident, $event:literal, $unix_ms:expr) => {{
        $out.extend_from_slice(concat!("{\"event\":\"", $event, "\"").as_bytes());
        field!($out, "time", *rfc3339($unix_ms));
    }};
}

/// The end of a line.
const END: &[u8] = b"}\n";

fn text(text: &str) -> Cow<'_, str> {
    bounded(text, TEXT_BYTES)
}

impl Record {
    /// Appends the record as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        begin!(out, "request", self.unix_ms);
        field!(out, "request", Hex128(self.request.0));
        field!(out, "source", if self.source);
        field!(out, "grant", *text(&self.grant));
        field!(out, "label", if self.label.as_deref().map(text));
        field!(out, "session", if self.session.as_deref().map(text));
        field!(out, "server", *text(&self.server));
        field!(out, "era", if self.era.map(era).map(Word));
        field!(out, "verb", Word(self.verb));
        field!(out, "method", if self.method.as_deref().map(bounded_again));
        field!(out, "tool", if self.tool.as_deref().map(bounded_again));
        field!(out, "batch_index", if self.batch_index.map(u64::from));
        field!(out, "decision", Word(self.decision));
        field!(out, "code", if self.code.map(Word));
        field!(out, "rule", if self.rule.as_deref().map(text));
        if let Some((name, revision)) = &self.policy {
            out.extend_from_slice(b",\"policy\":{\"name\":");
            json::Value::write(&*text(name), out);
            field!(out, "revision", **revision);
            out.push(b'}');
        }
        let keys = &self.argument_keys[..self.argument_keys.len().min(KEYS)];
        if !keys.is_empty() {
            out.extend_from_slice(b",\"argument_keys\":");
            json::list(out, keys, |key, out| json::Value::write(&**key, out));
        }
        field!(out, "status", u64::from(self.status));
        field!(out, "upstream_status", if self.upstream_status.map(u64::from));
        field!(out, "side", if self.side.map(Word));
        field!(out, "end", Word(self.end));
        field!(out, "latency_us", self.latency_us);
        field!(out, "decide_us", self.decide_us);
        field!(out, "bytes_in", self.bytes_in);
        field!(out, "bytes_out", self.bytes_out);
        if !self.limits.is_empty() {
            out.extend_from_slice(b",\"limits\":");
            json::list(out, &self.limits, charge);
        }
        out.extend_from_slice(END);
    }
}

fn charge(line: &LimitLine, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"identity\":");
    json::Value::write(&Hex128(line.identity), out);
    field!(out, "window", line.window);
    field!(out, "amount", line.amount);
    field!(out, "settled", Word(settled(line.settled)));
    out.push(b'}');
}

fn era(era: Era) -> &'static str {
    match era {
        Era::Modern => "modern",
        Era::Legacy => "legacy",
    }
}

fn settled(settled: Settled) -> &'static str {
    match settled {
        Settled::Charged => "charged",
        Settled::Refunded => "refunded",
        Settled::RefundBound => "refund_bound",
    }
}

impl Rejection {
    /// Appends the rejection as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        begin!(out, "rejected", self.unix_ms);
        field!(out, "reason", Word(self.reason));
        field!(out, "source", self.source);
        field!(out, "path", *self.path);
        field!(out, "status", u64::from(self.status));
        out.extend_from_slice(END);
    }
}

impl Operation {
    /// Appends the operation as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        begin!(out, "admin", self.unix_ms);
        field!(out, "by", *text(&self.by));
        field!(out, "action", Word(self.action));
        field!(out, "target", if self.target.as_deref().map(text));
        field!(out, "outcome", Word(self.outcome));
        field!(out, "version", if self.version);
        field!(out, "detail", if self.detail.as_deref().map(text));
        out.extend_from_slice(END);
    }
}

impl Suppressed {
    /// Appends the count as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        begin!(out, "suppressed", self.unix_s.saturating_mul(1_000));
        field!(out, "reason", Word(self.reason));
        field!(out, "suppressed", self.count);
        out.extend_from_slice(END);
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    fn record() -> Record {
        Record {
            request: RequestId(0xab),
            unix_ms: 1_785_230_400_125,
            source: Some([127, 0, 0, 1].into()),
            grant: GrantId::new("ci"),
            label: Some("the \"CI\"\nrobot".into()),
            session: Some("00112233aabbccdd".into()),
            server: ServerName::new("flux"),
            era: Some(Era::Legacy),
            verb: "POST",
            method: Some("tools/call".into()),
            tool: Some("generate_image".into()),
            batch_index: None,
            decision: "deny",
            code: Some("limit"),
            rule: Some("/tools/generate_image/rules/0".into()),
            policy: Some(("images".into(), "0123456789abcdef".into())),
            argument_keys: vec!["prompt".into()],
            status: 200,
            upstream_status: None,
            side: None,
            end: "complete",
            latency_us: 812,
            decide_us: 12,
            bytes_in: 120,
            bytes_out: 300,
            limits: vec![LimitLine {
                identity: 0xfeed,
                window: 29_753_840,
                amount: 1,
                settled: Settled::RefundBound,
            }],
        }
    }

    fn line(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_one_line_that_says_everything_and_escapes_what_people_wrote() {
        assert_eq!(
            line(|out| record().write_line(out)),
            concat!(
                r#"{"event":"request","time":"2026-07-28T09:20:00.125Z","request":"000000000000000000000000000000ab","#,
                r#""source":"127.0.0.1","grant":"ci","label":"the \"CI\"\nrobot","session":"00112233aabbccdd","server":"flux","#,
                r#""era":"legacy","verb":"POST","method":"tools/call","tool":"generate_image","decision":"deny","code":"limit","#,
                r#""rule":"/tools/generate_image/rules/0","policy":{"name":"images","revision":"0123456789abcdef"},"#,
                r#""argument_keys":["prompt"],"status":200,"end":"complete","latency_us":812,"decide_us":12,"bytes_in":120,"#,
                r#""bytes_out":300,"limits":[{"identity":"0000000000000000000000000000feed","window":29753840,"amount":1,"#,
                r#""settled":"refund_bound"}]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_line_is_bounded_whatever_its_parts_were() {
        let huge = "\u{1}é".repeat(100_000);
        let mut record = record();
        record.label = Some(huge.as_str().into());
        record.grant = GrantId::new(&huge);
        record.method = Some(huge.clone());
        record.tool = Some(bounded_tool(&huge));
        record.rule = Some(huge.clone());
        record.argument_keys = vec![bounded(&huge, KEY_BYTES).into_owned(); 100];
        let line = line(|out| record.write_line(out));
        assert!(line.len() < 24 << 10, "{}", line.len());
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["argument_keys"].as_array().unwrap().len(), KEYS);
        assert_eq!(read["tool"].as_str(), Some(&*bounded_tool(&huge)));
    }

    #[test]
    fn a_rejection_has_its_path_without_a_query() {
        let at = 1_785_230_400_125;
        let from = IpAddr::from([192, 0, 2, 7]);
        let rejection = Rejection::new(at, "wrong_token", from, "/mcp/flux?token=tg_secret", 401);
        assert_eq!(
            line(|out| rejection.write_line(out)),
            concat!(
                r#"{"event":"rejected","time":"2026-07-28T09:20:00.125Z","reason":"wrong_token","#,
                r#""source":"192.0.2.7","path":"/mcp/flux","status":401}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_operation_says_who_did_what_to_what_and_what_came_of_it() {
        let operation = Operation {
            unix_ms: 1_785_230_400_125,
            by: "uid:0".into(),
            action: "grant.revoke",
            target: Some("ci".into()),
            outcome: "done",
            version: Some(7),
            detail: None,
        };
        assert_eq!(
            line(|out| operation.write_line(out)),
            concat!(
                r#"{"event":"admin","time":"2026-07-28T09:20:00.125Z","by":"uid:0","action":"grant.revoke","#,
                r#""target":"ci","outcome":"done","version":7}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_suppressed_count_names_its_second_and_reason() {
        let suppressed = Suppressed {
            unix_s: 1_785_230_400,
            reason: "wrong_token",
            count: 90,
        };
        assert_eq!(
            line(|out| suppressed.write_line(out)),
            "{\"event\":\"suppressed\",\"time\":\"2026-07-28T09:20:00.000Z\",\"reason\":\"wrong_token\",\"suppressed\":90}\n"
        );
    }
}
