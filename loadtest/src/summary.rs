//! A result as a screenful of text.

use crate::{
    plan::text::nanos,
    result::{Class, Document, Limits, Round},
};
use std::fmt::Write as _;

/// The document in words. Ends with a line break.
pub fn text(document: &Document) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for target in &document.targets {
        let _ = writeln!(out, "{}", target.url);
    }
    for round in &document.rounds {
        let _ = writeln!(out);
        self::round(&mut out, round);
    }
    if let Some(ramp) = &document.ramp {
        let _ = writeln!(out, "\n  rate/s     met  because");
        for step in &ramp.steps {
            let met = if step.met { "yes" } else { "no" };
            let _ = writeln!(out, "  {:<9}  {met:<3}  {}", step.rate, step.why);
        }
        let _ = writeln!(out, "\n{}", ramp.verdict);
    }
    if let Some(limits) = &document.limits {
        let _ = writeln!(out);
        self::limits(&mut out, limits);
    }
    if document.interrupted {
        let _ = writeln!(out, "\nInterrupted: this is what was measured until then.");
    }
    out
}

fn round(out: &mut String, round: &Round) {
    let total: u64 = round.classes.iter().map(|c| c.count).sum();
    let name = if round.name.is_empty() {
        String::new()
    } else {
        format!("{}: ", round.name)
    };
    let rate = total as f64 / round.seconds.max(1e-9);
    let _ = writeln!(
        out,
        "{name}{total} requests in {:.2} s, {rate:.0}/s",
        round.seconds
    );
    if let Some(intended) = round.rate_intended {
        let _ = writeln!(
            out,
            "  intended {intended:.0}/s: {} were due, {} could not be sent",
            round.due, round.unsent
        );
    }
    let _ = writeln!(
        out,
        "\n  {:<26}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "reply", "count", "p50", "p90", "p99", "p99.9", "longest"
    );
    for class in &round.classes {
        let name = match (class.class, &class.code) {
            (class, None) => class.name().to_owned(),
            (class, Some(code)) => format!("{} ({code})", class.name()),
        };
        let at = |q: f64| nanos(class.latency.quantile(q));
        let _ = writeln!(
            out,
            "  {name:<26}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            class.count,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            nanos(class.latency.max)
        );
    }
    let _ = writeln!(out);
    if let Some(error) = round.error_ns {
        let _ = writeln!(
            out,
            "  Latencies count from when a request was due; this client's own part in p99 is at most {}.",
            nanos(error)
        );
    }
    for sample in &round.samples {
        if !matches!(sample.class, Class::Ok | Class::Denied) {
            let _ = writeln!(out, "  {}: {}", sample.class.name(), sample.text);
        }
    }
    let client = &round.client;
    let _ = writeln!(
        out,
        "  client: {:.1} µs of a processor a request ({:.2} s user, {:.2} s system)",
        client.cpu_us_request, client.cpu_user_s, client.cpu_system_s
    );
    for process in &round.processes {
        let _ = writeln!(
            out,
            "  {}: {:.1} µs of a processor a request, {:.1} MB",
            process.name,
            process.cpu_us_request,
            process.rss_bytes as f64 / 1e6
        );
    }
    let _ = writeln!(out, "  {}", client.verdict);
}

fn limits(out: &mut String, limits: &Limits) {
    let _ = writeln!(
        out,
        "  {:<20}{:>16}{:>8}{:>10}{:>10}{:>10}{:>9}  verdict",
        "key", "window (UTC)", "sent", "admitted", "upstream", "audit", "refused"
    );
    let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
    for key in &limits.keys {
        for window in &key.windows {
            let verdict = match window.verdict {
                crate::result::Verdict::Exact => "exact",
                crate::result::Verdict::Short => "SHORT",
                crate::result::Verdict::Over => "OVER",
                crate::result::Verdict::NotJudged => "not judged",
            };
            let why = window
                .why
                .as_ref()
                .map_or(String::new(), |w| format!(": {w}"));
            let _ = writeln!(
                out,
                "  {:<20}{:>16}{:>8}{:>10}{:>10}{:>10}{:>9}  {verdict}{why}",
                key.key,
                clock(window.starts_ms),
                window.sent,
                window.admitted,
                number(window.admitted_upstream),
                number(window.admitted_audit),
                window.refused
            );
        }
    }
    let _ = writeln!(out, "\n{}", limits.sentence);
}

/// The time of day, UTC.
pub fn clock(unix_ms: u64) -> String {
    let ms = unix_ms % 86_400_000;
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match ms % 1000 {
        0 => format!("{h:02}:{m:02}:{s:02}"),
        rest => format!("{h:02}:{m:02}:{s:02}.{rest:03}"),
    }
}
