//! Calls written as text, and counters that do what a limiter does.

use proto::{
    limit::{Charge, CounterKey, HashKey, Kind, Limit},
    policy::{
        self, Denial, Keys, Policy, Verdict,
        compile::{Call, Site, Usage},
    },
};
use std::collections::{HashMap, HashSet};

pub const SITE: Site<'static> = Site {
    server: "srv",
    policy: "pol",
    secret: &HashKey([7; 16]),
    sessions_per_grant: 8,
};

pub fn compile(document: &str) -> Policy {
    let loaded =
        policy::load(document).unwrap_or_else(|problems| panic!("{document}\n{problems:#?}"));
    policy::compile(&loaded.policy, SITE)
        .unwrap_or_else(|problems| panic!("{document}\n{problems:#?}"))
}

/// Counters of one node.
#[derive(Default)]
pub struct Fake {
    pub used: HashMap<(CounterKey, u64), u64>,
    pub keys: HashMap<(u128, String, u64), HashSet<CounterKey>>,
    /// A node that was told nothing yet: what is used up shows only when it is taken.
    pub ignorant: bool,
}

fn window(limit: &Limit, unix_ms: u64) -> (u64, u64) {
    match limit.kind {
        Kind::Rate(window) => {
            let id = window.id(unix_ms);
            (id, window.bounds_ms(id).1 - unix_ms)
        }
        Kind::InFlight => (0, 0),
    }
}

impl Usage for Fake {
    fn used(&self, limit: &Limit, key: CounterKey, unix_ms: u64) -> u64 {
        self.used
            .get(&(key, window(limit, unix_ms).0))
            .copied()
            .unwrap_or(0)
    }
    fn refused(
        &self,
        limit: &Limit,
        key: CounterKey,
        amount: u64,
        unix_ms: u64,
    ) -> Option<Option<u64>> {
        let left = limit.max.saturating_sub(self.used(limit, key, unix_ms));
        let known = !self.ignorant && amount > left;
        known.then(|| (limit.kind != Kind::InFlight).then(|| window(limit, unix_ms).1))
    }
}

impl Fake {
    /// `[g=GRANT] [s=SESSION] [t=UNIX_MS] [xTIMES] TOOL ARGUMENTS` → `admit` (with amounts where they are not 1),
    /// `shadow CODE@RULE: TEXT` or `CODE@RULE: TEXT`; of several calls the last one's, the others must be admitted.
    pub fn call(&mut self, policy: &Policy, line: &str) -> String {
        let (mut grant, mut session, mut unix_ms, mut times) = ("g1", None, 1_000_000_000_000, 1);
        let mut rest = line;
        while let Some((word, after)) = rest.split_once(' ') {
            match word.split_at_checked(2) {
                Some(("g=", value)) => grant = value,
                Some(("s=", value)) => session = Some(value),
                Some(("t=", value)) => unix_ms += value.parse::<u64>().expect("milliseconds"),
                _ => match word.strip_prefix('x').map(str::parse) {
                    Some(Ok(count)) => times = count,
                    _ => break,
                },
            }
            rest = after;
        }
        let (tool, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
        let call = Call {
            tool,
            arguments: Some(arguments.as_bytes()),
            grant,
            keys: None,
            session,
            unix_ms,
        };
        let mut said = String::new();
        for time in 0..times {
            assert!(
                time == 0 || said.starts_with("admit"),
                "{line}: call {time} was not admitted: {said}"
            );
            said = self.judge(policy, &call);
        }
        said
    }

    fn judge(&mut self, policy: &Policy, call: &Call<'_>) -> String {
        let (charges, shadow) = match policy.evaluate(call, self) {
            Verdict::Deny(denial) => return show(&denial),
            Verdict::Admit { charges, shadow } => (charges, shadow),
        };
        // What is kept of a grant changes no counter's key.
        let kept = Call {
            keys: Some(&Keys::default()),
            ..*call
        };
        if let Verdict::Admit { charges: again, .. } = policy.evaluate(&kept, self) {
            let keys = |charges: &[Charge<'_>]| charges.iter().map(|c| c.key).collect::<Vec<_>>();
            assert_eq!(keys(&again), keys(&charges));
        }
        for charge in &charges {
            let (limit, key) = (charge.limit.as_ref(), charge.key);
            let (id, wait) = window(limit, call.unix_ms);
            if let Some(most) = charge.keys_max {
                let keys = self
                    .keys
                    .entry((limit.identity.0, charge.scope_value.to_owned(), id))
                    .or_default();
                keys.insert(key);
                if keys.len() > most as usize {
                    keys.remove(&key);
                    return show(&policy.keys_denial(limit));
                }
            }
            let left = limit
                .max
                .saturating_sub(self.used(limit, key, call.unix_ms));
            if !limit.counts_only && charge.amount > left {
                return show(&policy.limit_denial(
                    limit,
                    left,
                    (limit.kind != Kind::InFlight).then_some(wait),
                ));
            }
        }
        let mut admitted = "admit".to_owned();
        for charge in &charges {
            let id = window(charge.limit, call.unix_ms).0;
            *self.used.entry((charge.key, id)).or_default() += charge.amount;
            let shown = charge.limit.scale.show(charge.amount);
            if shown != "1" {
                admitted.push_str(&format!(" {shown}"));
            }
            if let Some(key) = &charge.key_text {
                admitted.push_str(&format!(" {key}"));
            }
        }
        match shadow {
            Some(denial) => format!("shadow {}", show(&denial)),
            None => admitted,
        }
    }
}

fn show(denial: &Denial<'_>) -> String {
    let text = denial.text();
    let text = text
        .strip_prefix("[POLICY DENIED] ")
        .expect("every denial begins so");
    format!("{}@{}: {text}", denial.code.as_str(), denial.rule)
}
