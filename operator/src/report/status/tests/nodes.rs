//! What the nodes report, in the conditions that follow from it.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use trivet_crds::report::ProxyReport;

use super::*;
use crate::reports::NodeReport;
use crate::reports::troubles::{self, Trouble};

/// The revision of the document in force, in which the members have their states.
const REVISION: u64 = 4;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A member as a node reports it: its number, and what differs from one that is Up.
fn reported(number: u8, change: Value) -> Value {
    let mut member = json!({
        "name": format!("cp{number}"), "address": format!("10.0.0.{number}:6443"), "health": "Up",
        "standing": "Active", "lastAnswer": "Verified", "connections": 0,
    });
    let Value::Object(fields) = change else {
        panic!("no fields: {change}");
    };
    member.as_object_mut().unwrap().extend(fields);
    member
}

fn report(node: &str, revision: u64, members: Vec<Value>) -> NodeReport {
    let report: ProxyReport = serde_json::from_value(json!({
        "metadata": { "name": format!("default.{node}") }, "poolName": "default", "nodeName": node,
        "revision": revision, "members": members, "observedTime": "1970-01-01T00:16:40Z",
    }))
    .unwrap();
    report.into()
}

/// A pool with these nodes, of which these report.
fn with(nodes: &[&str], reports: Vec<NodeReport>) -> Case {
    let ready = nodes.iter().map(|node| (*node).to_owned()).collect();
    let mut case = Case {
        fleet: Fleet::of(reports.into_iter().map(Arc::new).collect(), ready, 5, at(1000)),
        ..Case::good()
    };
    case.plan.memory.membership.since = REVISION;
    case
}

fn both(change: Value) -> Vec<Value> {
    vec![reported(1, json!({})), reported(2, change)]
}

fn told(case: &Case, type_: &str) -> (String, String, String) {
    let status = case.status();
    let message = condition(&status, type_).unwrap().message.clone();
    let (holds, reason) = shown(&status, type_);
    (holds, reason, message)
}

#[track_caller]
fn tells(case: &Case, type_: &str, expected: (&str, &str), part: &str) {
    let (holds, reason, message) = told(case, type_);
    assert_eq!((holds.as_str(), reason.as_str()), expected, "{message}");
    assert!(message.contains(part), "{message}");
}

/// The pool with this state of its second member.
fn leaving(state: PoolMemberState, nodes: &[&str], reports: Vec<NodeReport>) -> Case {
    let mut case = with(nodes, reports);
    case.plan.members = vec![member(1, PoolMemberState::Active), member(2, state)];
    case
}

fn draining(connections: u32) -> Value {
    json!({ "standing": "Draining", "connections": connections, "leavingConnections": connections })
}

const DRAINED: &str = "MembersDrained";

#[test]
fn a_drained_member_is_safe_to_switch_off_in_these_words() {
    let reports = ["w1", "w2"].map(|node| report(node, REVISION, both(draining(0))));
    let case = leaving(PoolMemberState::Draining, &["w1", "w2"], reports.into());
    let (holds, reason, message) = told(&case, DRAINED);
    assert_eq!((holds.as_str(), reason.as_str()), ("True", "Drained"));
    assert_eq!(
        message,
        "safe to switch off as far as Trivet's clients are concerned: cp2 (no client on any of 2 Ready nodes is connected to \
         it by Trivet); Trivet knows nothing of etcd's quorum, nor of clients that bypass it"
    );
}

#[test]
fn a_member_with_one_client_on_one_node_is_not_drained() {
    let reports = vec![
        report("w1", REVISION, both(draining(0))),
        report("w2", REVISION, both(draining(3))),
    ];
    let case = leaving(PoolMemberState::Draining, &["w1", "w2"], reports);
    tells(
        &case,
        DRAINED,
        ("False", "ClientsLeft"),
        "3 connections to cp2 left: w2 (3)",
    );
    // A node that is not Ready may be as alive as its clients.
    let reports = vec![
        report("w1", REVISION, both(draining(0))),
        report("lost", REVISION, both(draining(1))),
    ];
    let case = leaving(PoolMemberState::Draining, &["w1"], reports);
    tells(
        &case,
        DRAINED,
        ("False", "ClientsLeft"),
        "1 connection to cp2 left: lost (1)",
    );
}

#[test]
fn what_is_not_known_is_not_drained() {
    let drained = |node| report(node, REVISION, both(draining(0)));
    let of = |other: Option<NodeReport>| {
        let reports = std::iter::once(drained("w1")).chain(other).collect();
        leaving(PoolMemberState::Draining, &["w1", "w2"], reports)
    };
    let not_reported = ("Unknown", "NotReported");
    tells(&of(None), DRAINED, not_reported, "nobody reports from 1 node: w2");

    let behind = report("w2", REVISION - 1, both(json!({})));
    tells(
        &of(Some(behind)),
        DRAINED,
        not_reported,
        "1 node not known to follow revision 4 yet: w2",
    );

    let earlier = report("w2", REVISION, both(json!({ "standing": null })));
    tells(
        &of(Some(earlier)),
        DRAINED,
        not_reported,
        "does not tell which connections",
    );

    for reason in ["HandoverPathUnwritable", "OtherConnectionsUnknown"] {
        let mut blind = drained("w2");
        blind.troubles = vec![Trouble {
            kind: troubles::Kind::Warning(reason.to_owned()),
            words: String::new(),
        }];
        tells(
            &of(Some(blind)),
            DRAINED,
            not_reported,
            "does not see the connections",
        );
    }

    let mut unread = of(None);
    unread.fleet = Fleet::unread(vec!["w1".to_owned()]);
    tells(&unread, DRAINED, ("Unknown", "ReportsUnreadable"), "CRD");
}

#[test]
fn a_report_from_before_the_member_left_says_nothing_even_if_it_had_no_connection_then() {
    // It drained once before, at revision 2, was Active at 3, and drains again.
    let stale = report("w1", 2, both(draining(0)));
    let case = leaving(PoolMemberState::Draining, &["w1"], vec![stale]);
    tells(&case, DRAINED, ("Unknown", "NotReported"), "revision 4");
    let later = report("w1", REVISION + 5, both(draining(0)));
    let case = leaving(PoolMemberState::Draining, &["w1"], vec![later]);
    tells(&case, DRAINED, ("True", "Drained"), "cp2");
}

#[test]
fn a_member_that_was_removed_is_waited_for_while_a_node_has_connections_to_it() {
    let removed = json!({ "standing": "Removed", "connections": 2, "leavingConnections": 2 });
    let of = |other: Vec<Value>| {
        let reports = vec![report("w1", REVISION, other)];
        let mut case = with(&["w1"], reports);
        case.plan.members = vec![member(1, PoolMemberState::Active)];
        case
    };
    let left = of(both(removed));
    tells(
        &left,
        DRAINED,
        ("False", "ClientsLeft"),
        "2 connections to cp2 left: w1 (2)",
    );
    let gone = of(vec![reported(1, json!({}))]);
    tells(&gone, DRAINED, ("True", "NoneLeaves"), "safe to switch off");

    // A node that does not know yet that it was removed counts none of them as leaving.
    let mut unaware = of(both(json!({ "connections": 2 })));
    unaware.plan.memory.membership.since = REVISION + 1;
    tells(&unaware, DRAINED, ("False", "ClientsLeft"), "cp2");
}

#[test]
fn an_address_that_a_member_no_longer_has_is_waited_for() {
    let moved = json!({ "connections": 5, "leavingConnections": 1 });
    let case = with(&["w1"], vec![report("w1", REVISION, both(moved))]);
    tells(
        &case,
        DRAINED,
        ("False", "ClientsLeft"),
        "1 connection to cp2 left",
    );
    let settled = with(
        &["w1"],
        vec![report("w1", REVISION, both(json!({ "connections": 5 })))],
    );
    tells(&settled, DRAINED, ("True", "NoneLeaves"), "safe to switch off");
}

#[test]
fn while_a_spec_is_not_obeyed_nobody_is_told_that_it_is_drained_or_synced() {
    let reports = vec![report("w1", REVISION, both(json!({})))];
    let mut case = with(&["w1"], reports);
    tells(&case, "ConfigSynced", ("True", "Synced"), "1 of 1");
    case.refused = Some(refusal(Kind::ConfigMap, "the API server refuses it: forbidden"));
    for type_ in [DRAINED, "ConfigSynced"] {
        tells(&case, type_, ("False", "ApplyFailed"), "forbidden");
    }
    case.refused = None;
    case.plan.verdict = rejected(Rejection::NodesUnknown);
    for type_ in [DRAINED, "ConfigSynced"] {
        tells(&case, type_, ("False", "NodesUnknown"), "see Accepted");
    }
}

#[test]
fn the_document_is_synced_once_every_ready_node_follows_it() {
    let of = |revisions: &[(&str, u64)]| {
        let reports = revisions
            .iter()
            .map(|(node, revision)| report(node, *revision, both(json!({}))));
        with(&["w1", "w2", "w3"], reports.collect())
    };
    let synced = of(&[("w1", 4), ("w2", 4), ("w3", 4), ("lost", 2)]);
    tells(
        &synced,
        "ConfigSynced",
        ("True", "Synced"),
        "3 of 3 Ready nodes follow revision 4",
    );
    assert_eq!(synced.status().proxies.unwrap().synced, 3);
    let behind = of(&[("w1", 4), ("w2", 3), ("w3", 4)]);
    tells(
        &behind,
        "ConfigSynced",
        ("False", "Syncing"),
        "2 of 3 Ready nodes follow revision 4; 1 node follows another: w2 (3)",
    );
    assert_eq!(behind.status().proxies.unwrap().synced, 2);
    let silent = of(&[("w1", 4), ("w2", 4)]);
    tells(
        &silent,
        "ConfigSynced",
        ("Unknown", "NotReported"),
        "nobody reports from 1 node: w3",
    );
    let untold = of(&[("w1", 4), ("w2", 0), ("w3", 4)]);
    tells(
        &untold,
        "ConfigSynced",
        ("Unknown", "NotReported"),
        "1 node has not heard from the API which document is in force: w2",
    );
    // As soon as the next one is written.
    let mut next = synced;
    next.plan.revision = 5;
    tells(&next, "ConfigSynced", ("False", "Syncing"), "0 of 3");
}

#[test]
fn a_member_that_one_node_cannot_reach_is_told_with_the_node_and_its_words() {
    let down = json!({ "health": "Down", "lastAnswer": "NoAnswer", "lastError": "no answer from 10.0.0.2:6443 in time" });
    let reports = vec![
        report("w1", REVISION, both(down)),
        report("w2", REVISION, both(json!({}))),
        report("w3", REVISION, both(json!({}))),
        report("lost", 1, Vec::new()),
    ];
    let case = with(&["w1", "w2", "w3"], reports);
    tells(
        &case,
        "MembersAvailable",
        ("False", "NotUpOnSomeNodes"),
        "cp2 is not Up on 1 of 3 nodes: w1 (Down); w1 says: no answer from 10.0.0.2:6443 in time",
    );
    let status = case.status();
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    let cp2 = &status.members[1];
    assert_eq!((cp2.reachable_nodes, cp2.reporting_nodes), (2, 3));
    assert_eq!(cp2.health, MemberHealth::Up, "most nodes reach it");
    assert!(
        cp2.message.starts_with("not Up on 1 of 3 nodes: w1 (Down)"),
        "{}",
        cp2.message
    );
    assert_eq!(status.members_summary, "2/2");
}

#[test]
fn what_most_nodes_see_counts_more_than_what_the_operator_sees() {
    let reports = ["w1", "w2"].map(|node| report(node, REVISION, both(json!({}))));
    let mut case = with(&["w1", "w2"], reports.into());
    case.healths = healths(&[], &[1, 2]);
    let status = case.status();
    assert_eq!(status.members_summary, "2/2");
    assert_eq!(shown(&status, "Ready"), is("True", "Ready"));
    assert_eq!(
        status.members[0].message,
        "as seen from the operator it does not answer"
    );
    tells(
        &case,
        "MembersAvailable",
        ("True", "Available"),
        "2/2 members are Up on all of 2",
    );

    let unready = json!({ "health": "Unready", "lastAnswer": "NoAnswer", "lastError": "refused" });
    let reports = ["w1", "w2"].map(|node| report(node, REVISION, both(unready.clone())));
    let case = with(&["w1", "w2"], reports.into());
    assert_eq!(case.status().members_summary, "1/2");
    tells(
        &case,
        "MembersAvailable",
        ("False", "MemberDown"),
        "cp2 is not Up on 2 of 2 nodes",
    );
}

#[test]
fn without_reports_the_operator_s_own_view_counts() {
    let mut case = Case::good();
    tells(
        &case,
        "MembersAvailable",
        ("True", "Available"),
        "as seen from the operator, because no node reports",
    );
    case.healths = healths(&[1], &[2]);
    tells(&case, "MembersAvailable", ("False", "MemberDown"), "cp2 is Down");
    case.healths = healths(&[], &[1, 2]);
    tells(&case, "MembersAvailable", ("False", "NoMemberUp"), "cp1 is Down");
    case.healths = healths(&[], &[]);
    tells(
        &case,
        "MembersAvailable",
        ("Unknown", "NotReported"),
        "cp1 is Unknown",
    );
}

const CERTIFICATE: &str = "CertificateMatches";

/// A pool with three nodes that have seen these certificates of its second member.
fn certified(certificates: [Value; 3]) -> Case {
    let nodes = ["w1", "w2", "w3"];
    let reports = nodes.iter().zip(certificates).map(|(node, certificate)| {
        let error = "certificate refused: it has the names a and not kubernetes";
        let member = json!({ "certificate": certificate, "lastError": error });
        report(node, REVISION, both(member))
    });
    with(&nodes, reports.collect())
}

#[test]
fn a_certificate_that_does_not_cover_the_listeners_is_told_with_both_cures() {
    let certificate = json!({ "state": "Verified", "uncoveredAddresses": ["127.0.0.1", "::1"] });
    let case = certified([certificate.clone(), certificate.clone(), certificate]);
    let (holds, reason, message) = told(&case, CERTIFICATE);
    assert_eq!((holds.as_str(), reason.as_str()), ("False", "NamesMissing"));
    assert_eq!(
        message,
        "certificates do not have the addresses of the listeners: cp2 (lacks 127.0.0.1, ::1); in kubeconfigs that name \
         https://127.0.0.1:7443 set tls-server-name: kubernetes, or issue the certificates anew with 127.0.0.1 and ::1 too \
         (certSANs of kubeadm's apiServer)"
    );
    assert_eq!(
        shown(&case.status(), "Ready"),
        is("True", "Ready"),
        "it is information"
    );
    let good = || json!({ "state": "Verified", "notAfter": "1971-01-01T00:00:00Z" });
    let case = certified([good(), good(), good()]);
    tells(&case, CERTIFICATE, ("True", "Matches"), "valid and cover");
    tells(
        &Case::good(),
        CERTIFICATE,
        ("Unknown", "NotReported"),
        "no node has reported",
    );
}

#[test]
fn a_certificate_that_ends_within_thirty_days_is_warned_of_and_one_that_has_ended_is_told() {
    // It is the first of January 1970, a quarter past midnight.
    let until = |day: &str| json!({ "state": "Verified", "notAfter": format!("1970-{day}T00:00:00Z") });
    let ends = |day: &str| certified([until(day), until(day), until(day)]);
    tells(&ends("02-02"), CERTIFICATE, ("True", "Matches"), "");
    tells(
        &ends("01-30"),
        CERTIFICATE,
        ("False", "ExpiresSoon"),
        "the certificate of cp2 expires on 1970-01-30: renew it",
    );
    let expired = || json!({ "state": "Expired", "notAfter": "1969-12-31T00:00:00Z" });
    tells(
        &certified([expired(), expired(), expired()]),
        CERTIFICATE,
        ("False", "Expired"),
        "has expired on 1969-12-31: clients refuse it",
    );
    let early = || json!({ "state": "NotYetValid" });
    tells(
        &certified([early(), early(), early()]),
        CERTIFICATE,
        ("False", "NotYetValid"),
        "is not valid yet",
    );
}

#[test]
fn a_node_that_takes_a_good_certificate_for_expired_has_another_clock() {
    let good = || json!({ "state": "Verified", "notAfter": "1971-01-01T00:00:00Z" });
    for (state, clock) in [("Expired", "ahead"), ("NotYetValid", "behind")] {
        let skewed = json!({ "state": state, "notAfter": "1971-01-01T00:00:00Z" });
        let case = certified([good(), skewed, good()]);
        let (_, reason, message) = told(&case, CERTIFICATE);
        assert_eq!(reason, "ClockSkew");
        assert!(message.starts_with("for w2 the certificate of cp2"), "{message}");
        assert!(message.ends_with(&format!("clock there is {clock}")), "{message}");
    }
}

#[test]
fn a_foreign_certificate_is_told_in_the_words_of_the_proxy() {
    let foreign = || json!({ "state": "Untrusted" });
    tells(
        &certified([foreign(), foreign(), foreign()]),
        CERTIFICATE,
        ("False", "Untrusted"),
        "the certificate of cp2 does not verify for w1, w2, w3: certificate refused: it has the names a and not kubernetes",
    );
}

#[test]
fn the_status_of_a_large_fleet_is_as_small_as_that_of_a_small_one() {
    let of = |count: usize| {
        let nodes: Vec<_> = (0..count).map(|number| format!("w{number:05}")).collect();
        let down = json!({
            "health": "Down", "lastAnswer": "NoAnswer", "lastError": "x".repeat(512), "standing": "Draining",
            "connections": 1, "leavingConnections": 1,
            "certificate": { "state": "Untrusted", "uncoveredAddresses": ["127.0.0.1", "::1"] },
        });
        let reports = nodes.iter().map(|node| {
            report(
                node,
                REVISION - 1,
                vec![reported(1, down.clone()), reported(2, down.clone())],
            )
        });
        let mut case = Case {
            fleet: Fleet::of(reports.map(Arc::new).collect(), nodes, 5, at(1000)),
            ..Case::good()
        };
        case.plan.memory.membership.since = REVISION;
        serde_json::to_string(&case.status()).unwrap().len()
    };
    let (some, many) = (of(20), of(5000));
    assert!(many < some + 200, "{many} beside {some} bytes");
    assert!(many < 16_000, "{many}");
}

proptest! {
    /// The promise on which somebody switches a machine off.
    #[test]
    fn drained_is_true_only_if_every_ready_node_says_so_of_the_newest_membership(
        nodes in prop::collection::vec((0..3_u64, 0..3_u32, prop::bool::ANY, prop::bool::ANY), 1..6),
    ) {
        let names: Vec<_> = (0..nodes.len()).map(|number| format!("w{number}")).collect();
        let reports = names.iter().zip(&nodes).filter(|(_, (_, _, reports, _))| *reports);
        let reports = reports.map(|(node, (behind, connections, _, _))| {
            report(node, REVISION + 1 - behind, both(draining(*connections)))
        });
        let ready: Vec<_> = names
            .iter()
            .zip(&nodes)
            .filter(|(_, (_, _, _, is_ready))| *is_ready)
            .map(|(name, _)| name.as_str())
            .collect();
        let case = leaving(PoolMemberState::Draining, &ready, reports.collect());
        let holds = told(&case, DRAINED).0 == "True";
        let is_free = nodes.iter().all(|(behind, connections, reports, is_ready)| {
            let is_told = *reports && *behind <= 1;
            (!*is_ready || is_told) && (!*reports || *connections == 0)
        });
        prop_assert_eq!(holds, is_free && !ready.is_empty());
    }
}
