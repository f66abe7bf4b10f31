use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A member with a path for each of these standings and numbers of connections; the first is its best.
fn upstream(name: &str, state: &str, paths: &[(&str, u64)]) -> UpstreamStatus {
    let paths: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(number, (standing, connections))| {
            json!({
                "address": format!("10.0.0.{number}:6443"), "state": state, "reason": "Silent", "stateMilliseconds": 1,
                "connections": connections, "standing": standing, "proven": true, "suspect": false,
            })
        })
        .collect();
    let connections: u64 = paths
        .iter()
        .map(|path| path["connections"].as_u64().unwrap())
        .sum();
    serde_json::from_value(json!({
        "member": name, "address": "10.0.0.0:6443", "addresses": [], "paths": paths, "state": state,
        "reason": "Silent", "reasonMeans": "", "stateMilliseconds": 1, "connections": connections,
        "standing": paths[0]["standing"], "proven": true, "suspect": false, "effect": "", "wayBack": "", "goodAnswers": 0,
        "goodAnswersWanted": 1, "silentQuestions": 0, "silentQuestionsTolerated": 1, "holdDownMilliseconds": 0,
        "evidence": [],
    }))
    .unwrap()
}

fn held(member: &str, address: &str, connections: u64) -> Held {
    Held {
        member: member.to_owned(),
        address: address.to_owned(),
        connections,
        is_of_extra: false,
    }
}

fn probed(outcome: &str, microseconds: Option<u64>) -> Observation {
    serde_json::from_value(json!({
        "origin": "Probe", "outcome": outcome, "detail": "", "times": 1, "firstMillisecondsAgo": 1,
        "lastMillisecondsAgo": 1, "latencyMicroseconds": microseconds,
    }))
    .unwrap()
}

#[test]
fn the_connections_of_extra_listeners_count_for_their_member_and_leave_only_with_it() {
    let of_extra = |member: &str| Held {
        is_of_extra: true,
        ..held(member, "10.0.0.0:8132", 2)
    };
    let counts = |standing: &str| {
        let upstreams = [upstream("cp1", "Up", &[(standing, 1)])];
        let members = members(&upstreams, &[of_extra("cp1")]);
        (members[0].connections, members[0].leaving_connections)
    };
    assert_eq!(counts("Active"), (3, 0));
    assert_eq!(counts("Draining"), (3, 3));
    // An address that the member does not have any more.
    let elsewhere = Held {
        address: "10.0.9.9:8132".to_owned(),
        ..of_extra("cp1")
    };
    let members = members(&[upstream("cp1", "Up", &[("Active", 1)])], &[elsewhere]);
    assert_eq!((members[0].connections, members[0].leaving_connections), (3, 2));
}

#[test]
fn the_overview_names_the_active_ones_that_are_not_up_the_worst_first() {
    let overview = |upstreams: &[UpstreamStatus]| overview(&members(upstreams, &[]));
    let up = |name| upstream(name, "Up", &[("Active", 1)]);
    assert_eq!(overview(&[up("cp1"), up("cp2")]), "2/2");
    let one = [up("cp1"), upstream("cp2", "Down", &[("Active", 0)])];
    assert_eq!(overview(&one), "1/2 cp2 Down");
    let all = [
        upstream("cp1", "Unready", &[("Active", 0)]),
        upstream("cp2", "Down", &[("Active", 0)]),
        upstream("cp3", "Down", &[("Draining", 2)]),
    ];
    assert_eq!(overview(&all), "0/2 cp2 Down, cp1 Unready, cp3 leaves");
    let long = "x".repeat(250);
    let many = [
        upstream(&long, "Down", &[("Active", 0)]),
        upstream("cp2", "Down", &[("Active", 0)]),
    ];
    assert_eq!(overview(&many).chars().count(), MAX_OVERVIEW);
}

#[test]
fn connections_that_must_end_are_those_over_paths_that_are_not_active() {
    let of = |paths: &[(&str, u64)], elsewhere: &[Held]| {
        let members = members(&[upstream("cp1", "Up", paths)], elsewhere);
        (members[0].connections, members[0].leaving_connections)
    };
    assert_eq!(of(&[("Active", 3)], &[]), (3, 0));
    assert_eq!(of(&[("Draining", 3)], &[]), (3, 3));
    assert_eq!(
        of(&[("Active", 3), ("Removed", 2)], &[]),
        (5, 2),
        "an address that is gone"
    );
    // The process before hands over, and knows an address that this one has not any more.
    let others = [held("cp1", "10.0.0.0:6443", 4), held("cp1", "10.9.9.9:6443", 1)];
    assert_eq!(of(&[("Active", 3)], &others), (8, 1));
    assert_eq!(of(&[("Draining", 0)], &others), (5, 5));
}

#[test]
fn a_member_that_only_another_process_has_connections_to_is_one_that_was_removed() {
    let others = [held("gone", "10.0.0.8:6443", 2), held("gone", "10.0.0.9:6443", 1)];
    let members = members(&[upstream("cp1", "Up", &[("Active", 1)])], &others);
    let gone = &members[1];
    assert_eq!((gone.name.as_str(), members.len()), ("gone", 2));
    assert_eq!(gone.standing, Some(ReportedStanding::Removed));
    assert_eq!((gone.connections, gone.leaving_connections), (3, 3));
}

#[test]
fn what_the_last_probe_brought_is_told() {
    let told = |probe| {
        let mut upstream = upstream("cp1", "Up", &[("Active", 1)]);
        upstream.last_probe = probe;
        let members = members(&[upstream], &[]);
        (members[0].last_answer, members[0].last_probe_milliseconds)
    };
    assert_eq!(told(None), (None, None));
    assert_eq!(
        told(Some(probed("Ready", Some(1_400)))),
        (Some(LastAnswer::Verified), Some(2))
    );
    assert_eq!(
        told(Some(probed("NotReady", Some(1)))).0,
        Some(LastAnswer::Verified)
    );
    assert_eq!(
        told(Some(probed("Untrusted", Some(1)))).0,
        Some(LastAnswer::Unverified)
    );
    assert_eq!(
        told(Some(probed("Silent", None))),
        (Some(LastAnswer::NoAnswer), None)
    );
    assert_eq!(told(Some(probed("Unsent", None))), (None, None));
}

proptest! {
    #[test]
    fn no_connection_is_lost_by_a_report_however_many_members_there_are(
        known in prop::collection::vec((0..4_usize, 0..3_u64), 0..80),
        elsewhere in prop::collection::vec((0..100_usize, 1..3_u64), 0..8),
    ) {
        let words = ["Active", "Draining", "Removed", "LastResort"];
        let upstreams: Vec<_> = known
            .iter()
            .enumerate()
            // A document has at most 32 members, and so many may drain; the others are of earlier ones.
            .map(|(number, (standing, connections))| {
                let standing = if number < 40 { words[*standing] } else { "LastResort" };
                let connections = if number < 40 { *connections } else { 0 };
                upstream(&format!("cp{number}"), "Up", &[(standing, connections)])
            })
            .collect();
        let others: Vec<_> = elsewhere
            .iter()
            .map(|(number, connections)| held(&format!("cp{number}"), "10.0.0.0:6443", *connections))
            .collect();
        let members = members(&upstreams, &others);
        prop_assert!(members.len() <= MAX_MEMBERS);
        let told: u64 = members.iter().map(|member| u64::from(member.connections)).sum();
        let own: u64 = upstreams.iter().map(|upstream| upstream.connections).sum();
        prop_assert_eq!(told, own + others.iter().map(|held| held.connections).sum::<u64>());
        let mut names: Vec<_> = members.iter().map(|member| &member.name).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), members.len());
        for member in &members {
            let is_active = member.standing == Some(ReportedStanding::Active);
            prop_assert!(member.leaving_connections <= member.connections);
            prop_assert!(is_active || member.leaving_connections == member.connections);
        }
    }
}
