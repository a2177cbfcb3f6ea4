//! Other people's words on what was admitted: the upstream's record and the gateways' audit logs.

use super::drive::mark;
use crate::{
    drive::exchange::collect,
    plan::Plan,
    target::{Connector, Endpoint},
};
use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::Full;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// The recording upstream's record.
pub(super) struct Record {
    endpoint: Endpoint,
    connector: Connector,
}

/// Executed calls by mark.
#[derive(Debug, Default)]
pub(super) struct Executed(HashMap<String, u64>);

#[derive(Deserialize)]
struct Call {
    call_id: Option<String>,
    outcome: String,
}

impl Record {
    pub(super) fn new(url: &str, plan: &Plan) -> Result<Self, String> {
        let url = format!(
            "{}/calls",
            url.trim_end_matches('/').trim_end_matches("/calls")
        );
        let connector = Connector {
            http2: false,
            ..plan.connector.clone()
        };
        let record = Self {
            endpoint: Endpoint::parse(&url)?,
            connector,
        };
        // Better now than after the last window.
        record.read(plan)?;
        Ok(record)
    }

    /// Reads it.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn read(&self, _plan: &Plan) -> Result<Executed, String> {
        let url = &self.endpoint.url;
        let advice = "is it the URL that `tollgate-loadtest upstream` serves its record at, http://HOST:PORT/record?";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| format!("cannot start: {e}"))?;
        let (status, body) = runtime
            .block_on(async {
                let mut connection = self.connector.connect(&self.endpoint).await?;
                let mut request = Request::new(Full::new(Bytes::new()));
                *request.uri_mut() = self.endpoint.path.clone();
                request
                    .headers_mut()
                    .insert(HOST, self.endpoint.host.clone());
                let response = connection.send(request).await?;
                let status = response.status().as_u16();
                Ok((status, collect(response).await?))
            })
            .map_err(|e: crate::target::Failure| {
                format!("the record at {url} cannot be read ({e}): {advice}")
            })?;
        if status != 200 {
            return Err(format!(
                "the record at {url} answers HTTP {status}: {advice}"
            ));
        }
        executed(&body).ok_or_else(|| format!("what is at {url} is no record: {advice}"))
    }
}

fn executed(lines: &[u8]) -> Option<Executed> {
    let mut counts = HashMap::new();
    for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let call: Call = serde_json::from_slice(line).ok()?;
        if let Some(id) = call.call_id.filter(|_| call.outcome != "rejected")
            && let Some(end) = id.rfind('-')
        {
            let mark = id.get(..=end).unwrap_or_default().to_owned();
            *counts.entry(mark).or_default() += 1;
        }
    }
    Some(Executed(counts))
}

impl Executed {
    /// Calls of a key in a window.
    pub(super) fn count(&self, key: usize, window: u64) -> u64 {
        self.0.get(&mark(key, window)).copied().unwrap_or(0)
    }
}

/// An audit log, from where it ended when the test began.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    from: u64,
    lines: Vec<Line>,
}

/// A charged call.
#[derive(Debug, PartialEq)]
struct Line {
    grant: String,
    tool: String,
    at_ms: u64,
}

impl Audit {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let length = std::fs::metadata(path)
            .map_err(|e| unreadable(path, &e))?
            .len();
        Ok(Self {
            path: path.to_owned(),
            from: length,
            lines: Vec::new(),
        })
    }

    /// Reads what has been written since.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was (rotated).
    pub(super) fn read(&mut self) -> Result<(), String> {
        let error = |e: std::io::Error| unreadable(&self.path, &e);
        let mut file = File::open(&self.path).map_err(error)?;
        if file.metadata().map_err(error)?.len() < self.from {
            return Err(format!(
                "the audit log {} was rotated during the test: let it grow larger before it is",
                self.path.display()
            ));
        }
        file.seek(SeekFrom::Start(self.from)).map_err(error)?;
        for line in BufReader::new(file).lines() {
            self.lines.extend(charged(&line.map_err(error)?));
        }
        Ok(())
    }

    /// Charged calls of a grant and tool that arrived in this time.
    pub(super) fn charged(&self, grant: &str, tool: &str, from_ms: u64, to_ms: u64) -> u64 {
        let within =
            |l: &&Line| l.grant == grant && l.tool == tool && (from_ms..to_ms).contains(&l.at_ms);
        self.lines.iter().filter(within).count() as u64
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!(
        "cannot read the audit log {}: {error}. It must be a file of this machine (audit.sink.file.path)",
        path.display()
    )
}

#[derive(Deserialize)]
struct AuditLine {
    event: String,
    time: Option<String>,
    grant: Option<String>,
    tool: Option<String>,
    #[serde(default)]
    limits: Vec<AuditLimit>,
}

#[derive(Deserialize)]
struct AuditLimit {
    settled: String,
}

fn charged(line: &str) -> Option<Line> {
    let line: AuditLine = serde_json::from_str(line).ok()?;
    // `refund_bound` stays charged, too.
    let kept = line.limits.iter().any(|l| l.settled != "refunded");
    if line.event != "request" || !kept {
        return None;
    }
    Some(Line {
        grant: line.grant?,
        tool: line.tool?,
        at_ms: rfc3339_ms(&line.time?)?,
    })
}

/// Milliseconds since 1970 of `2031-03-01T09:30:00.125Z`.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = number(5, 7)?.checked_sub(1)? as usize * 3;
    let date = format!(
        "X, {:02} {} {} {}",
        number(8, 10)?,
        months.get(month..month + 3)?,
        number(0, 4)?,
        text.get(11..19)?
    );
    let fraction = text.get(19..)?.strip_suffix('Z')?;
    let ms = match fraction.strip_prefix('.') {
        Some(digits) => format!("{digits:0<3}").get(..3)?.parse().ok()?,
        None => 0,
    };
    Some(crate::preflight::http_date(&date)? * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executed_calls_are_counted_by_their_marks() {
        let mark = mark(0, 1);
        let line = |n: u32, outcome: &str| {
            format!(r#"{{"call_id":"{mark}{n}","outcome":"{outcome}","tool":"x"}}"#)
        };
        let lines = [
            line(1, "done"),
            line(2, "cancelled"),
            line(3, "rejected"),
            r#"{"call_id":null,"outcome":"done"}"#.into(),
        ];
        let read = executed(lines.join("\n").as_bytes()).unwrap();
        assert_eq!(
            (read.count(0, 1), read.count(0, 2), read.count(1, 1)),
            (2, 0, 0)
        );
        assert!(executed(b"<html>").is_none());
    }

    #[test]
    fn audit_lines_count_when_something_stayed_charged() {
        let line = |settled: &str| {
            format!(
                r#"{{"event":"request","time":"2031-03-01T09:30:00.125Z","grant":"a","tool":"t","limits":[{{"identity":"0","window":1,"amount":1,"settled":"{settled}"}}]}}"#
            )
        };
        let kept = Line {
            grant: "a".into(),
            tool: "t".into(),
            at_ms: 1_930_123_800_125,
        };
        assert_eq!(charged(&line("charged")), Some(kept));
        assert!(charged(&line("refund_bound")).is_some());
        assert_eq!(charged(&line("refunded")), None);
        assert_eq!(charged(r#"{"event":"rejected"}"#), None);
        assert_eq!(charged("nonsense"), None);
        assert_eq!(rfc3339_ms("1970-01-01T00:00:01.5Z"), Some(1_500));
        assert_eq!(rfc3339_ms("1970-01-01T00:00:01Z"), Some(1_000));
    }
}
