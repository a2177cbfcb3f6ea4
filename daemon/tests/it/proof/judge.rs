//! Joins what the gateways wrote down with what the server behind them did, by the id that each call carries: it stands
//! in the arguments, once as a value for the server's record and once as a name for the audit trail.

use loadtest::upstream::Recorder;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
};

/// How far a node's view of a window may be from the record's clock, milliseconds.
const BORDER_MS: u64 = 700;

/// The arguments of a call with this id, of this grant.
pub fn arguments(id: &str, grant: &str) -> Value {
    json!({ "call_id": id, "grant": grant, id: 0 })
}

/// What was executed, by grant and window id.
#[derive(Debug, Default)]
pub struct Found {
    /// Executed and not refunded.
    pub charged: BTreeMap<(String, u64), u64>,
    /// Of those: without an audit line, because their node was killed.
    pub unwritten: usize,
    /// All that was executed.
    pub executed: usize,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// What is judged: the first limit of these grants' calls.
pub struct Judged<'a> {
    /// How their ids begin.
    pub grants: &'a str,
    pub window_ms: u64,
    pub max: u64,
}

/// Judges one limit.
pub fn judge(recorder: &Recorder, audits: &[PathBuf], judged: &Judged<'_>) -> Found {
    let (window_ms, max) = (judged.window_ms, judged.max);
    let written = read(audits);
    let mut found = Found::default();
    let mut unwritten: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for call in recorder.executed() {
        let (Some(id), Some(grant)) = (&call.call_id, call.arguments["grant"].as_str()) else {
            continue;
        };
        if !grant.starts_with(judged.grants) {
            continue;
        }
        found.executed += 1;
        if !seen.insert(id.clone()) {
            found.wrong.push(format!("{id} was executed twice"));
        }
        let amount = call.arguments["amount"].as_u64().unwrap_or(1);
        match written.get(id) {
            None => unwritten
                .entry(grant.to_owned())
                .or_default()
                .push((call.at_ms, amount)),
            Some(line) => {
                let limit = &line["limits"][0];
                match (limit["settled"].as_str(), limit["window"].as_u64()) {
                    (Some("charged"), Some(window)) => {
                        let charged = limit["amount"].as_u64().unwrap_or(0);
                        // Where an argument says how much, it is counted in millionths.
                        if charged != amount && charged != amount * 1_000_000 {
                            found
                                .wrong
                                .push(format!("{id} has {amount}, and its node wrote {line}"));
                        }
                        *found.charged.entry((grant.to_owned(), window)).or_default() += amount;
                    }
                    _ => found
                        .wrong
                        .push(format!("{id} was executed, and its node wrote {line}")),
                }
            }
        }
    }
    for (grant, mut calls) in unwritten {
        calls.sort_unstable();
        found.unwritten += calls.len();
        for (at_ms, amount) in calls {
            // Early first: a call near a border belongs to one window or the next.
            let (early, late) = (
                at_ms.saturating_sub(BORDER_MS) / window_ms,
                (at_ms + BORDER_MS) / window_ms,
            );
            let room = |window: u64| {
                let charged = found.charged.get(&(grant.clone(), window)).copied();
                charged.unwrap_or(0) + amount <= max
            };
            let window = if room(early) { early } else { late };
            *found.charged.entry((grant.clone(), window)).or_default() += amount;
        }
    }
    for ((grant, window), charged) in &found.charged {
        if *charged > max {
            found.wrong.push(format!(
                "{grant} was charged {charged} of {max} in window {window}"
            ));
        }
    }
    found
}

/// Calls that were forwarded, by their id. A killed process leaves half a line, which says nothing.
fn read(audits: &[PathBuf]) -> HashMap<String, Value> {
    let mut lines = HashMap::new();
    for path in audits {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        for line in whole.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let keys = line["argument_keys"].as_array().into_iter().flatten();
            let id = keys
                .filter_map(Value::as_str)
                .find(|key| key.starts_with("id-"));
            if let (Some(id), "allow" | "error") =
                (id, line["decision"].as_str().unwrap_or_default())
            {
                lines.insert(id.to_owned(), line.clone());
            }
        }
    }
    lines
}
