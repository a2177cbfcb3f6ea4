//! What is counted is rendered, named, documented and bounded.

use super::*;

fn counted() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let server = metrics.server(&ServerName::new("flux"));
    server.finished("allow", "none", 1_500);
    server.finished("allow", "none", 1_500);
    server.finished("deny", "limit", 20);
    server.call_started();
    server.call_started();
    server.call_ended();
    server.upstream_error("upstream_timeout");
    server.refunded();
    metrics.stage(Stage::Scan, 900);
    metrics.refused("duplicate_key");
    metrics.identify_failed("wrong_token");
    metrics.connection_opened();
    metrics.reloaded(true, 3);
    metrics.reloaded(false, 3);
    metrics.set_sessions(2);
    metrics.http_protocol_error();
    metrics.processes(&ServerName::new("flux"), 4);
    metrics.stdio_skipped(&ServerName::new("flux"), 7);
    let ledger = metrics.ledger();
    ledger.show(&LedgerFigures {
        has_leader: true,
        outstanding: 2,
        term: 7,
        connections: [2, 5],
        lost: [11, 0],
        slow: 1,
        voter: Some(VoterFigures {
            leads: true,
            index: [40, 39, 38, 20],
            elections: 3,
            clock_offset_ms: -250,
            ..VoterFigures::default()
        }),
        led: Some(LedFigures {
            voters: 3,
            voters_reachable: 2,
            ..LedFigures::default()
        }),
    });
    ledger.synced(Duration::from_micros(200));
    ledger.waited(Duration::from_millis(3));
    ledger.leased("granted");
    ledger.pushed("recall");
    ledger.unreachable("no_leader");
    metrics
}

#[test]
fn what_was_counted_is_rendered() {
    let text = counted().render();
    for line in [
        r#"tollgate_requests_total{server="flux",decision="allow",code="none"} 2"#,
        r#"tollgate_requests_total{server="flux",decision="deny",code="limit"} 1"#,
        r#"tollgate_in_flight{server="flux"} 1"#,
        r#"tollgate_upstream_errors_total{server="flux",code="upstream_timeout"} 1"#,
        r#"tollgate_refunds_total{server="flux"} 1"#,
        r#"tollgate_stage_seconds_bucket{stage="scan",le="0.000001"} 1"#,
        r#"tollgate_request_seconds_bucket{server="flux",le="0.0025"} 3"#,
        r#"tollgate_refusals_total{reason="duplicate_key"} 1"#,
        r#"tollgate_identify_failures_total{reason="wrong_token"} 1"#,
        "tollgate_connections 1",
        r#"tollgate_config_reloads_total{result="error"} 1"#,
        "tollgate_config_last_reload_success 0",
        "tollgate_view_revision 3",
        "tollgate_sessions 2",
        "tollgate_http_protocol_errors_total 1",
        r#"tollgate_processes{server="flux"} 4"#,
        r#"tollgate_stdio_skipped_lines_total{server="flux"} 7"#,
        "tollgate_ledger_leader 1",
        "tollgate_raft_term 7",
        r#"tollgate_peer_connections{of="taken"} 5"#,
        r#"tollgate_peer_lost_total{kind="raft"} 11"#,
        "tollgate_peer_slow_total 1",
        r#"tollgate_raft_index{of="applied"} 38"#,
        "tollgate_raft_elections_total 3",
        "tollgate_clock_offset_seconds -0.25",
        r#"tollgate_ledger_members{of="voters_reachable"} 2"#,
        r#"tollgate_raft_fsync_seconds_bucket{le="0.00025"} 1"#,
        "tollgate_lease_wait_seconds_count 1",
        r#"tollgate_leases_total{result="granted"} 1"#,
        r#"tollgate_lease_pushes_total{kind="recall"} 1"#,
        r#"tollgate_unreachable_total{reason="no_leader"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
}

#[test]
fn every_series_is_in_the_table_with_exactly_its_labels_and_a_help_line() {
    let text = counted().render();
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|s| {
                name.strip_suffix(s)
                    .filter(|f| TABLE.iter().any(|r| r.name == *f))
            })
            .unwrap_or(name);
        let row = TABLE.iter().find(|r| r.name == family).expect(line);
        let labels: Vec<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|l| l.split_once('=').map(|(key, _)| key))
            .filter(|key| *key != "le")
            .collect();
        assert_eq!(labels, row.labels, "{line}");
        assert!(text.contains(&format!("# HELP {family} ")), "{family}");
    }
}

#[test]
fn the_number_of_series_is_bounded_whatever_is_counted() {
    let metrics = Metrics::new();
    for i in 0..WORDS_MAX + 50 {
        metrics.refused(Box::leak(format!("word{i}").into_boxed_str()));
    }
    let text = metrics.render();
    let series = |prefix: &str| text.lines().filter(|l| l.starts_with(prefix)).count();
    assert_eq!(series("tollgate_refusals_total{"), WORDS_MAX + 1);
    assert!(text.contains("tollgate_refusals_total{reason=\"(other)\"} 50\n"));

    for i in 0..SERVERS_MAX + 10 {
        metrics.server(&ServerName::new(&format!("s{i}")));
    }
    assert_eq!(metrics.servers.read().unwrap().len(), SERVERS_MAX + 1);
}

#[test]
fn a_server_has_one_set_of_handles() {
    let metrics = Metrics::new();
    let name = ServerName::new("a");
    assert!(Arc::ptr_eq(&metrics.server(&name), &metrics.server(&name)));
}

#[test]
fn names_follow_the_conventions() {
    for row in TABLE {
        assert!(row.name.starts_with("tollgate_"), "{}", row.name);
        assert_eq!(
            row.kind == Kind::Counter,
            row.name.ends_with("_total"),
            "{}",
            row.name
        );
        let named = row.kind != Kind::Histogram || row.name.ends_with("_seconds");
        assert!(named, "{}", row.name);
    }
}

#[test]
fn the_documentation_has_every_metric() {
    let page = include_str!("../../../docs/src/metrics.md");
    for row in TABLE {
        let line = page
            .lines()
            .find(|l| l.starts_with(&format!("| `{}` |", row.name)));
        let line = line.unwrap_or_else(|| panic!("{} is missing", row.name));
        for label in row.labels {
            assert!(line.contains(&format!("`{label}`")), "{line}: {label}");
        }
    }
}
