//! What policies say of one call.

use crate::{clock, view::View};
use proto::{
    limit::{Charge, CounterKey, HashKey, Limit},
    policy::{
        Denial, Policy, Verdict,
        compile::{Call, Site, Usage},
    },
    scan,
};
use std::{collections::BTreeMap, sync::Arc};

/// Where a policy is tried: on no server in particular.
pub(super) fn site() -> Site<'static> {
    const SECRET: &HashKey = &HashKey([0; 16]);
    Site {
        server: "check",
        policy: "check",
        secret: SECRET,
        sessions_per_grant: crate::bounds::Bounds::default().sessions_grant as u32,
    }
}

/// Nothing has been used.
struct Fresh;

impl Usage for Fresh {
    fn used(&self, _limit: &Limit, _key: CounterKey, _unix_ms: u64) -> u64 {
        0
    }
    fn refused(
        &self,
        _limit: &Limit,
        _key: CounterKey,
        _amount: u64,
        _unix_ms: u64,
    ) -> Option<Option<u64>> {
        None
    }
}

/// Prints what a policy decides of a call when nothing has been used; false if the call is refused before that.
pub(super) fn on_policy(policy: &Policy, tool: &str, arguments: &str) -> bool {
    match verdict(policy, tool, arguments) {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(why) => {
            println!("refused before any policy: {why}");
            return false;
        }
    }
    true
}

/// The same for every policy of a configuration, on each server where it is used.
pub(super) fn on_view(view: &View, tool: &str, arguments: &str) -> bool {
    let bindings = view.grants.values().flat_map(|grant| &grant.servers);
    let used: BTreeMap<(&str, &str), &Arc<Policy>> = bindings
        .filter_map(|(server, binding)| {
            let policy = binding.policy.as_ref()?;
            Some(((&**server, &*policy.name), policy))
        })
        .collect();
    used.iter().all(|((server, name), policy)| {
        println!("on {server}, policy {name}:");
        on_policy(policy, tool, arguments)
    })
}

fn verdict(policy: &Policy, tool: &str, arguments: &str) -> Result<Vec<String>, String> {
    // Through the scanner, like a client's bytes: what it refuses no policy ever sees.
    let name = serde_json::Value::from(tool).to_string();
    let head = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},"arguments":"#
    );
    let start = head.len();
    let body = format!("{head}{arguments}}}}}");
    let read = scan::read(
        body.as_bytes(),
        &scan::Bounds::default(),
        scan::From::Client,
    );
    let envelope = match read {
        Ok(scan::Body::One(envelope)) => envelope,
        Ok(scan::Body::Batch(_)) => return Err("a batch".to_owned()),
        Err(refusal) => {
            let at = refusal.at.saturating_sub(start);
            return Err(format!(
                "{} (at byte {at} of the arguments)",
                refusal.reason.text()
            ));
        }
    };
    let call = Call {
        tool,
        arguments: envelope.arguments,
        grant: "check",
        session: None,
        unix_ms: clock::now().unix_ms,
    };
    Ok(match policy.evaluate(&call, &Fresh) {
        Verdict::Admit { charges, shadow } => {
            let shadow = shadow
                .iter()
                .map(|denial| format!("  in force it would be: {}", shown(denial)));
            std::iter::once("allow".to_owned())
                .chain(charges.iter().map(charged))
                .chain(shadow)
                .collect()
        }
        Verdict::Deny(denial) => vec![shown(&denial)],
    })
}

fn shown(denial: &Denial<'_>) -> String {
    format!(
        "deny ({}) by {}: {}",
        denial.code.as_str(),
        denial.rule,
        denial.message
    )
}

fn charged(charge: &Charge<'_>) -> String {
    let Charge { limit, amount, .. } = charge;
    let (amount, max) = (limit.scale.show(*amount), limit.scale.show(limit.max));
    format!(
        "  takes {amount} of {max} by {} ({})",
        limit.rule, limit.label
    )
}
