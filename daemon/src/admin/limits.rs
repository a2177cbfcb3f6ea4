//! The one place where the admin plane reads counters.

use crate::limiter::{Filter, LimitState, Limiter};
use proto::{
    admin::{Counter, Limits, LimitsQuery},
    limit::{Kind, Scope},
    time::Now,
};

/// The counters of this node that the query asks for.
pub(super) fn shown(limiter: &Limiter, query: &LimitsQuery, now: Now) -> Limits {
    let filter = Filter {
        identity: None,
        text: query.filter.clone(),
        fullest: query.top.is_some(),
        most: query.top,
    };
    let found = limiter.find(&filter, now);
    Limits {
        counters: found.states.iter().map(counter).collect(),
        total: found.total,
    }
}

fn counter(state: &LimitState) -> Counter {
    let scope = match state.scope {
        Scope::Session => "session",
        Scope::Grant => "grant",
        Scope::Server => "server",
        Scope::All => "all",
    };
    Counter {
        limit: state.label.to_string(),
        identity: format!("{:032x}", state.identity.0),
        scope: scope.to_owned(),
        scope_value: state.scope_value.to_string(),
        key: state.key_text.as_deref().map(str::to_owned),
        window: match state.kind {
            Kind::Rate(window) => window.name(),
            Kind::InFlight => "in flight".to_owned(),
        },
        ends_ms: state.ends_in_ms,
        used: state.scale.show(state.used()),
        max: match state.max {
            Some(max) => state.scale.show(max),
            None => "unlimited".to_owned(),
        },
        used_permille: state.used_permille(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::tests::sample;

    #[test]
    fn counters_are_shown_as_plain_words_and_decimal_numbers() {
        let (limiter, now) = sample();
        let query = |filter: Option<&str>, top| LimitsQuery {
            filter: filter.map(str::to_owned),
            top,
        };
        let all = shown(&limiter, &query(None, None), now);
        assert_eq!(all.total, 2);
        let expected = Counter {
            limit: "flux/images/img2img/1".into(),
            identity: format!("{:032x}", 1),
            scope: "grant".into(),
            scope_value: "grant-1".into(),
            key: None,
            window: "minute".into(),
            ends_ms: Some(60_000),
            used: "6.5".into(),
            max: "10".into(),
            used_permille: 650,
        };
        assert_eq!(all.counters[0], expected);
        let gate = &all.counters[1];
        assert_eq!(
            (gate.window.as_str(), gate.used.as_str(), gate.ends_ms),
            ("in flight", "1", None)
        );
        let top = shown(&limiter, &query(None, Some(1)), now);
        assert_eq!(
            (top.counters.as_slice(), top.total),
            ([expected].as_slice(), 2)
        );
        assert_eq!(shown(&limiter, &query(Some("nobody"), None), now).total, 0);
    }
}
