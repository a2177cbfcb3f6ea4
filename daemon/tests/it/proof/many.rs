//! Large amounts, and many grants at once, over HTTP.

use super::{
    drive::while_calling,
    judge::{Judged, judge},
    *,
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// A window that no run crosses but by a midnight between Sunday and Monday; then it waits.
const WEEK_MS: u64 = 7 * 86_400_000;
const MONDAY_MS: u64 = 4 * 86_400_000;

fn not_across_a_week() {
    let left = WEEK_MS - (daemon::clock::now().unix_ms - MONDAY_MS) % WEEK_MS;
    if left < 300_000 {
        std::thread::sleep(Duration::from_millis(left + 1_000));
    }
}

#[test]
fn a_million_units_in_amounts_of_a_thousand_are_admitted_exactly() {
    if skipped() {
        return;
    }
    not_across_a_week();
    let net = Net::new(3);
    let upstream = record(&net);
    let set = grants("million", 1);
    let policy = json!({ "version": "1", "default": "allow", "tools": { "echo": { "limits": [
        { "counter": "units", "window": "week", "max": 1_000_000, "scope": "grant", "increment_from": "args.amount" }] } } });
    let told = Told {
        upstream: upstream.url(),
        policies: vec![("p".into(), policy)],
        grants: vec![(set[0].0.clone(), set[0].1.clone(), "p".into())],
    };
    let fleet = Fleet::form(&net, &told, 3, 0);
    let nodes = fleet.addresses();
    let plan = Plan {
        name: "million",
        nodes: &nodes,
        grants: &set,
        callers: 6,
        pause: Duration::from_millis(1),
        tool: "echo",
        amount: 1_000,
    };
    let tally = Tally::default();
    while_calling(&net, &[(&plan, &tally)], || {
        let until = Instant::now() + Duration::from_secs(60);
        // Well beyond the first refusal: what is out with other nodes comes back.
        while (tally.ok.load(Relaxed) < 1_000 || tally.limit.load(Relaxed) < 2_000)
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let (_dir, audits) = fleet.end();
    let judged = Judged {
        grants: "million",
        window_ms: u64::MAX,
        max: 1_000_000,
    };
    let found = judge(upstream.recorder(), &audits, &judged);
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    println!("{}", tally.text());
    assert_eq!(
        found.charged.values().copied().collect::<Vec<_>>(),
        [1_000_000],
        "{}",
        tally.text()
    );
}

#[test]
fn ten_thousand_grants_at_once_each_have_their_own_exact_limit() {
    if skipped() {
        return;
    }
    not_across_a_week();
    const GRANTS: usize = 10_000;
    let net = Net::new(3);
    let upstream = record(&net);
    let set = grants("many", GRANTS);
    let told = Told {
        upstream: upstream.url(),
        policies: vec![("p".into(), limited(1, "week"))],
        grants: set
            .iter()
            .map(|(id, token)| (id.clone(), token.clone(), "p".into()))
            .collect(),
    };
    let fleet = Fleet::form(&net, &told, 3, 0);
    let nodes = fleet.addresses();
    let tally = Tally::default();
    // Each caller goes round its own share of the grants, twice or more.
    let shares: Vec<&[(String, Token)]> = set.chunks(GRANTS / 10).collect();
    let names: Vec<String> = (0..shares.len())
        .map(|share| format!("many{share}"))
        .collect();
    let plans: Vec<Plan<'_>> = shares
        .iter()
        .zip(&names)
        .map(|(share, name)| Plan {
            name,
            nodes: &nodes,
            grants: share,
            callers: 1,
            pause: Duration::ZERO,
            tool: "echo",
            amount: 1,
        })
        .collect();
    let pairs: Vec<_> = plans.iter().map(|plan| (plan, &tally)).collect();
    while_calling(&net, &pairs, || {
        let until = Instant::now() + Duration::from_secs(480);
        // Everyone once, and most a second time.
        let (ok, limit) = (&tally.ok, &tally.limit);
        let done = || ok.load(Relaxed) >= GRANTS as u64 && limit.load(Relaxed) >= GRANTS as u64 / 2;
        while !done() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let (_dir, audits) = fleet.end();
    let found = judge(
        upstream.recorder(),
        &audits,
        &Judged {
            grants: "many",
            window_ms: u64::MAX,
            max: 1,
        },
    );
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
    println!("{}", tally.text());
    let full = found
        .charged
        .values()
        .filter(|charged| **charged == 1)
        .count();
    assert_eq!(
        full,
        GRANTS,
        "grants that reached their limit; {}",
        tally.text()
    );
}
