//! A cluster in order, which the tests of the checks change, and golden outputs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use trivet_crds::crdgen;

use super::expected::{POLICIES, RIGHTS};
use super::*;
use crate::read::Rights;

/// When the facts were read, and the reports were written.
pub(crate) const NOW: &str = "2026-11-29T12:00:00Z";

/// The kinds of findings, in their order.
pub(crate) fn kinds(findings: &[Finding]) -> Vec<Kind> {
    findings.iter().map(|finding| finding.kind).collect()
}

/// A pool with three members, and every condition True.
pub(crate) fn pool() -> ApiserverPool {
    let member = |number: u8| {
        json!({
            "name": format!("cp{number}"), "addresses": [format!("10.0.0.1{number}")], "port": 6443, "source": "Node",
            "nodeName": format!("cp{number}"), "state": "Active", "health": "Up",
        })
    };
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "True", "reason": "Good", "message": "as it should be", "observedGeneration": 3,
            "lastTransitionTime": "2026-11-29T10:00:00Z",
        })
    };
    let conditions = [
        "Ready",
        "Accepted",
        "ProxiesAvailable",
        "Progressing",
        "CertificateMatches",
    ]
    .map(condition);
    serde_json::from_value(json!({
        "metadata": { "name": "default", "generation": 3, "creationTimestamp": "2026-11-29T10:00:00Z" },
        "spec": { "nodeBootstrap": { "policy": "StaticPod" } },
        "status": {
            "observedGeneration": 3,
            "conditions": conditions,
            "members": [member(1), member(2), member(3)],
            "membersSummary": "3/3", "proxiesSummary": "5/5",
            "endpoints": ["https://127.0.0.1:7443", "https://[::1]:7443"],
            "configRevision": 1_795_900_000,
        },
    }))
    .unwrap()
}

/// The pool with another condition.
pub(crate) fn with_condition(type_: &str, status: &str, reason: &str, message: &str) -> ApiserverPool {
    let mut pool = pool();
    let conditions = &mut pool.status.as_mut().unwrap().conditions;
    let changed: Condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..conditions[0].clone()
    };
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(changed);
    pool
}

fn report(node: &str) -> Value {
    let member = |number: u8| json!({ "name": format!("cp{number}"), "address": format!("10.0.0.1{number}:6443"), "health": "Up", "connections": 2 });
    json!({
        "metadata": { "name": format!("default.{node}") },
        "poolName": "default", "nodeName": node, "proxyVersion": "0.1.0", "revision": 1_795_900_000_u64, "standby": "Ready",
        "listeners": [{ "address": "127.0.0.1:7443", "state": "Listening" }, { "address": "[::1]:7443", "state": "Listening" }],
        "members": [member(1), member(2), member(3)], "membersSummary": "3/3", "connections": 6, "observedTime": NOW,
    })
}

fn node(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/os": "linux" } },
        "status": { "allocatable": { "pods": "110" }, "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn rights() -> Rights {
    let mut rights = Rights::default();
    for right in &RIGHTS {
        let rules: Vec<_> = right
            .needs
            .iter()
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect();
        let binding = json!({
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "any", "name": right.role },
            "subjects": [{ "kind": "ServiceAccount", "name": right.holder.account(), "namespace": "trivet-system" }],
        });
        let namespace = right.namespace("trivet-system");
        let with_metadata = |mut object: Value| {
            object["metadata"] = json!({ "name": right.role, "namespace": namespace });
            object
        };
        let (role, binding) = (with_metadata(json!({ "rules": rules })), with_metadata(binding));
        if namespace.is_none() {
            rights.cluster_roles.push(serde_json::from_value(role).unwrap());
            rights
                .cluster_role_bindings
                .push(serde_json::from_value(binding).unwrap());
        } else {
            rights.roles.push(serde_json::from_value(role).unwrap());
            rights
                .role_bindings
                .push(serde_json::from_value(binding).unwrap());
        }
    }
    rights
}

/// A cluster of three masters and two workers in which nothing is wrong.
pub(crate) fn facts() -> Facts {
    let names = ["cp1", "cp2", "cp3", "w1", "w2"];
    let policy = |name: &str| json!({ "metadata": { "name": name } });
    let binding =
        |name: &str| json!({ "metadata": { "name": name }, "spec": { "validationActions": ["Deny"] } });
    let set = json!({
        "metadata": { "name": "trivet-default", "labels": { "trivet.dev/pool": "default" } },
        "spec": { "selector": {}, "template": { "spec": {
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "proxy", "image": "trivet.dev/trivet-proxy:0.1.0", "imagePullPolicy": "IfNotPresent" }],
        } } },
        "status": { "currentNumberScheduled": 5, "desiredNumberScheduled": 5, "numberMisscheduled": 0, "numberReady": 5 },
    });
    let operator = json!({
        "metadata": { "name": "trivet-operator" },
        "spec": { "replicas": 1, "selector": {}, "template": {} }, "status": { "availableReplicas": 1 },
    });
    let all = |values: Vec<Value>| Value::Array(values);
    Facts {
        namespace: "trivet-system".to_owned(),
        now: NOW.parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_second(),
        version: Some("v1.34.4".to_owned()),
        pools: Some(vec![pool()]),
        reports: serde_json::from_value(all(names.iter().copied().map(report).collect())).unwrap(),
        nodes: serde_json::from_value(all(names.iter().copied().map(node).collect())).unwrap(),
        daemon_sets: serde_json::from_value(json!([set])).unwrap(),
        operator: Some(serde_json::from_value(operator).unwrap()),
        home: Some(serde_json::from_value(json!({ "metadata": { "name": "trivet-system" } })).unwrap()),
        crds: serde_json::from_value(json!([
            crdgen::apiserver_pool().unwrap(),
            crdgen::proxy_report().unwrap()
        ]))
        .unwrap(),
        policies: serde_json::from_value(all(POLICIES.map(policy).into())).unwrap(),
        bindings: serde_json::from_value(all(POLICIES.map(binding).into())).unwrap(),
        rights: Some(rights()),
        kube_proxy: Some(None),
        ..Facts::default()
    }
}

/// A cluster with faults of every severity.
pub(crate) fn faulty() -> Facts {
    let mut facts = facts();
    facts.operator = Some(None);
    facts.kube_proxy = Some(Some("https://10.0.0.11:6443".to_owned()));
    let reports = facts.reports.as_mut().unwrap();
    let w1 = reports
        .iter_mut()
        .find(|report| report.content.node_name == "w1")
        .unwrap();
    w1.content.standby = trivet_crds::report::StandbyState::Absent;
    w1.content.members[1].health = trivet_crds::report::ReportedHealth::Down;
    w1.content.members[1].connections = 0;
    w1.content.members[1].last_error = "no answer from 10.0.0.12:6443 in time".to_owned();
    w1.content.members_summary = "2/3".to_owned();
    let w2 = reports
        .iter_mut()
        .find(|report| report.content.node_name == "w2")
        .unwrap();
    w2.content.connections = 0;
    for member in &mut w2.content.members {
        member.connections = 0;
    }
    facts
}

#[test]
fn a_cluster_in_order_has_no_finding() {
    let found = findings(&facts());
    assert_eq!(found, []);
    assert_eq!(outcome(&found), Outcome::Fine);
    insta::assert_snapshot!(print::table(Screen::plain(), &facts(), &found));
}

#[test]
fn every_finding_is_printed_with_its_place_and_its_remedy() {
    let facts = faulty();
    let found = findings(&facts);
    assert_eq!(outcome(&found), Outcome::Wrong);
    insta::assert_snapshot!(print::table(Screen::plain(), &facts, &found));
}

#[test]
fn scripts_get_every_finding_with_stable_names() {
    let facts = faulty();
    let found = findings(&facts);
    insta::assert_json_snapshot!(print::json(&facts, &found));
}

#[test]
fn a_note_alone_is_nothing_wrong() {
    let mut facts = facts();
    facts.pools.as_mut().unwrap()[0] = with_condition(
        "CertificateMatches",
        "False",
        "NotCovered",
        "write tls-server-name",
    );
    let found = findings(&facts);
    assert_eq!(kinds(&found), [Kind::CertificateNames]);
    assert_eq!(outcome(&found), Outcome::Fine);
}

#[test]
fn a_cluster_of_which_nothing_can_be_read_has_no_other_finding() {
    let facts = Facts {
        namespace: "trivet-system".to_owned(),
        unread: vec![crate::read::Unread {
            what: "nodes".to_owned(),
            why: "forbidden".to_owned(),
        }],
        ..Facts::default()
    };
    assert_eq!(kinds(&findings(&facts)), [Kind::CannotRead]);
}

#[test]
fn a_finding_names_ten_nodes_of_a_large_cluster() {
    let nodes: Vec<_> = (10..40)
        .map(|number| (format!("w{number}"), String::new()))
        .collect();
    let finding = Finding::on(Kind::NotReporting, "default", nodes).unwrap();
    assert_eq!(finding.place, "pool default, 30 nodes");
    assert!(
        finding.message.ends_with("w19 and 20 more"),
        "{}",
        finding.message
    );
}
