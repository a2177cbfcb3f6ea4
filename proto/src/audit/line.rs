//! The JSON of audit lines: one shape an event, fields that are not known left out.

use super::{
    KEYS, LimitLine, Operation, Record, Rejection, Suppressed, TEXT_BYTES, bounded, bounded_again,
};
use crate::{limit::Settled, mcp::Era, time::rfc3339};
use serde::{Serialize, Serializer};
use std::{borrow::Cow, net::IpAddr};

impl Record {
    /// Appends the record as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        append(
            out,
            &Line {
                event: "request",
                time: rfc3339(self.unix_ms),
                request: Hex128(self.request.0),
                source: self.source,
                grant: bounded(&self.grant, TEXT_BYTES),
                label: self.label.as_deref().map(|s| bounded(s, TEXT_BYTES)),
                session: self.session.as_deref().map(|s| bounded(s, TEXT_BYTES)),
                server: bounded(&self.server, TEXT_BYTES),
                era: self.era.map(|era| match era {
                    Era::Modern => "modern",
                    Era::Legacy => "legacy",
                }),
                verb: self.verb,
                method: self.method.as_deref().map(bounded_again),
                tool: self.tool.as_deref().map(bounded_again),
                batch_index: self.batch_index,
                decision: self.decision,
                code: self.code,
                rule: self.rule.as_deref().map(|s| bounded(s, TEXT_BYTES)),
                policy: self.policy.as_ref().map(|(name, revision)| PolicyLine {
                    name: bounded(name, TEXT_BYTES),
                    revision,
                }),
                argument_keys: &self.argument_keys[..self.argument_keys.len().min(KEYS)],
                status: self.status,
                upstream_status: self.upstream_status,
                side: self.side,
                end: self.end,
                latency_us: self.latency_us,
                decide_us: self.decide_us,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                limits: self.limits.iter().map(ChargeLine::from).collect(),
            },
        );
    }
}

impl Rejection {
    /// Appends the rejection as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'static str,
            time: String,
            reason: &'static str,
            source: IpAddr,
            path: &'a str,
            status: u16,
        }
        append(
            out,
            &Line {
                event: "rejected",
                time: rfc3339(self.unix_ms),
                reason: self.reason,
                source: self.source,
                path: &self.path,
                status: self.status,
            },
        );
    }
}

impl Operation {
    /// Appends the operation as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'static str,
            time: String,
            by: Cow<'a, str>,
            action: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            target: Option<Cow<'a, str>>,
            outcome: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<Cow<'a, str>>,
        }
        append(
            out,
            &Line {
                event: "admin",
                time: rfc3339(self.unix_ms),
                by: bounded(&self.by, TEXT_BYTES),
                action: self.action,
                target: self.target.as_deref().map(|s| bounded(s, TEXT_BYTES)),
                outcome: self.outcome,
                version: self.version,
                detail: self.detail.as_deref().map(|s| bounded(s, TEXT_BYTES)),
            },
        );
    }
}

impl Suppressed {
    /// Appends the count as one line of JSON, LF included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Line {
            event: &'static str,
            time: String,
            reason: &'static str,
            suppressed: u64,
        }
        append(
            out,
            &Line {
                event: "suppressed",
                time: rfc3339(self.unix_s.saturating_mul(1_000)),
                reason: self.reason,
                suppressed: self.count,
            },
        );
    }
}

fn append(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line)
        .expect("invariant: plain structs of texts and integers are written to memory");
    out.push(b'\n');
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    time: String,
    request: Hex128,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    grant: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Cow<'a, str>>,
    server: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    era: Option<&'static str>,
    verb: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_index: Option<u32>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyLine<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    argument_keys: &'a [String],
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    end: &'static str,
    latency_us: u64,
    decide_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<ChargeLine>,
}

#[derive(Serialize)]
struct PolicyLine<'a> {
    name: Cow<'a, str>,
    revision: &'a str,
}

#[derive(Serialize)]
struct ChargeLine {
    identity: Hex128,
    window: u64,
    amount: u64,
    settled: &'static str,
}

impl From<&LimitLine> for ChargeLine {
    fn from(line: &LimitLine) -> Self {
        Self {
            identity: Hex128(line.identity),
            window: line.window,
            amount: line.amount,
            settled: match line.settled {
                Settled::Charged => "charged",
                Settled::Refunded => "refunded",
                Settled::RefundBound => "refund_bound",
            },
        }
    }
}

/// 32 hexadecimal digits.
struct Hex128(u128);

impl Serialize for Hex128 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

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
