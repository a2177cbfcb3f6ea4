//! The cluster's state for people.

use crate::cli::table::{span, table};
use proto::{
    admin::members::{Cluster, Led, Member},
    command::Role,
    time::rfc3339,
};
use std::fmt::Write as _;

pub(super) fn told(cluster: &Cluster) -> String {
    let role = role(cluster.role);
    let mut out = format!(
        "cluster {}, node {} ({}, {role})\n",
        cluster.cluster, cluster.name, cluster.node
    );
    let fresh = match cluster.fresh_age_ms {
        Some(ms) => format!("heard {} ago", span(ms / 1_000)),
        None => "not heard yet".to_owned(),
    };
    let _ = writeln!(out, "grants  {fresh}");
    if cluster.role == Role::Voter {
        let Cluster {
            term,
            committed,
            applied,
            log_bytes,
            ..
        } = cluster;
        let _ = writeln!(
            out,
            "log     term {term}, committed {committed}, applied {applied}, {log_bytes} bytes"
        );
    }
    match &cluster.led {
        Some(led) => out += &told_by_leader(led),
        None => {
            out += "\nNO LEADER ANSWERS: nothing is leased until more than half of the voters reach each other.\n";
        }
    }
    out
}

fn told_by_leader(led: &Led) -> String {
    let mut out = format!(
        "ledger  {}, {} counters, {} limits, control version {}, rules {}\n\n",
        rfc3339(led.now_ms),
        led.counters,
        led.limits,
        led.control_version,
        led.rules_version
    );
    let rows: Vec<Vec<String>> = led.members.iter().map(row).collect();
    let heading = ["NODE", "ID", "ROLE", "ADDRESS", "STATE", "MATCHED", "CLOCK"];
    out += &table(&heading, &[5, 6], &rows);
    for problem in problems(led) {
        let _ = write!(out, "\n{problem}\n");
    }
    out
}

fn row(member: &Member) -> Vec<String> {
    let votes = member.role == Role::Voter;
    let state = match member {
        Member { leaving: true, .. } => "leaving",
        Member { leader: true, .. } => "leads",
        Member {
            reachable: false, ..
        } => "NOT HEARD",
        Member { learner: true, .. } => "learner",
        _ => "follows",
    };
    let state = match (votes, state) {
        (false, "follows") => "leases",
        (_, state) => state,
    };
    vec![
        member.name.clone(),
        member.node.clone(),
        role(member.role).to_owned(),
        member.address.clone(),
        state.to_owned(),
        match votes {
            true => member.matched.to_string(),
            false => String::new(),
        },
        member
            .clock_offset_ms
            .map_or_else(String::new, |ms| format!("{ms:+} ms")),
    ]
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Voter => "voter",
        Role::Client => "client",
    }
}

/// What an operator should know, each with what to do.
fn problems(led: &Led) -> Vec<String> {
    let mut problems = Vec::new();
    let voters = led
        .members
        .iter()
        .filter(|member| member.role == Role::Voter);
    let full: Vec<&Member> = voters
        .clone()
        .filter(|m| !m.learner && !m.leaving)
        .collect();
    let waiting: Vec<&str> = voters
        .filter(|member| member.learner && !member.leaving)
        .map(|member| member.name.as_str())
        .collect();
    let away: Vec<&Member> = full
        .iter()
        .copied()
        .filter(|m| !m.reachable && !m.leader)
        .collect();
    let spare = full.len().saturating_sub(1) / 2;
    match full.len() {
        n if n % 2 == 0 => problems.push(format!(
            "{n} VOTERS bear no more failures than {}: join one more.",
            n - 1
        )),
        1 if waiting.is_empty() && led.members.len() > 1 => problems.push(
            "ONE VOTER: when it fails, nothing can be leased. Two more make the cluster bear the loss of one.".to_owned(),
        ),
        1 if !waiting.is_empty() => problems.push(format!(
            "{} waits for one more voter to join: the number of voters stays odd.",
            waiting.join(", ")
        )),
        _ => {}
    }
    if !away.is_empty() {
        let names: Vec<&str> = away.iter().map(|member| member.name.as_str()).collect();
        let left = spare.saturating_sub(away.len());
        problems.push(format!(
            "{} NOT HEARD: {left} more voters may fail. A node that is lost for good: `tollgate cluster remove {}`, then join a new one.",
            names.join(", "),
            names.join(" ")
        ));
    }
    if let Some(why) = &led.clock_problem {
        problems.push(format!(
            "CLOCK: {why}. Set the voters' clocks right, or `tollgate cluster accept-clock`."
        ));
    }
    for conflict in &led.conflicts {
        let sources: Vec<String> = conflict
            .sources
            .iter()
            .map(|(node, max)| format!("{node} says {max}"))
            .collect();
        problems.push(format!(
            "DIFFERENT LIMITS: {}: {}. The smallest rules.",
            conflict.limit,
            sources.join(", ")
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin::members::Conflict;

    fn member(name: &str, role: Role) -> Member {
        Member {
            node: format!("{:016x}", name.len()),
            name: name.into(),
            address: format!("{name}:7421"),
            role,
            leader: name == "a",
            learner: false,
            leaving: false,
            reachable: true,
            matched: 41,
            clock_offset_ms: Some(-3),
            rules_max: 1,
        }
    }

    fn cluster(members: Vec<Member>) -> Cluster {
        Cluster {
            cluster: "1f".repeat(16),
            node: "0000000000000001".into(),
            name: "a".into(),
            role: Role::Voter,
            leader: None,
            term: 3,
            committed: 42,
            applied: 41,
            log_bytes: 4_096,
            fresh_age_ms: Some(900),
            led: Some(Led {
                now_ms: 1_785_230_400_000,
                rules_version: 1,
                counters: 7,
                limits: 2,
                control_version: 5,
                clock_problem: None,
                members,
                conflicts: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_healthy_cluster_is_a_table_without_remarks() {
        let members = vec![
            member("a", Role::Voter),
            member("b", Role::Voter),
            member("c", Role::Voter),
            member("gate", Role::Client),
        ];
        let text = told(&cluster(members));
        for part in [
            "term 3",
            "leads",
            "follows",
            "leases",
            "-3 ms",
            "2026-07-28T09:20:00",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.ends_with("-3 ms\n"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let mut members: Vec<Member> = ["a", "b", "c"].map(|n| member(n, Role::Voter)).into();
        members[1].reachable = false;
        let mut shown = cluster(members);
        let led = shown.led.as_mut().unwrap();
        led.clock_problem = Some("the clock is behind".into());
        led.conflicts = vec![Conflict {
            limit: "s/p/t/c".into(),
            identity: "00".repeat(16),
            sources: vec![("a".into(), "30".into()), ("b".into(), "20".into())],
        }];
        let text = told(&shown);
        for part in [
            "b NOT HEARD: 0 more voters may fail",
            "tollgate cluster remove b",
            "CLOCK: the clock is behind.",
            "s/p/t/c: a says 30, b says 20",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let mut two: Vec<Member> = ["a", "b"].map(|n| member(n, Role::Voter)).into();
        two[1].learner = true;
        assert!(told(&cluster(two)).contains("b waits for one more voter"));
        let even = vec![member("a", Role::Voter), member("b", Role::Voter)];
        assert!(told(&cluster(even)).contains("2 VOTERS bear no more failures than 1"));
        let alone = vec![member("a", Role::Voter), member("gate", Role::Client)];
        assert!(told(&cluster(alone)).contains("ONE VOTER"));
        shown.led = None;
        assert!(told(&shown).contains("NO LEADER ANSWERS"));
    }
}
