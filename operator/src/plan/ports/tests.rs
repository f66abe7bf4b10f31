//! Which ports of proxies are rejected.

use std::sync::Arc;

use serde_json::{Value, json};
use trivet_crds::pool::{MemberSource, PoolMemberState};

use super::*;
use crate::plan::tests::facts;

fn node(name: &str, label: &str, address: &str, taint: &str) -> Arc<Node> {
    let labels = json!({ "kubernetes.io/os": "linux", (label): "" });
    let taints: Value = match taint {
        "" => json!([]),
        effect => json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": effect }]),
    };
    let node = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "taints": taints },
        "status": { "addresses": [{ "type": "InternalIP", "address": address }] },
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn member(name: &str, node_name: &str, address: &str, state: PoolMemberState) -> Member {
    Member {
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
        port: 6443,
        state,
        zone: String::new(),
        source: MemberSource::Spec,
        node_name: node_name.to_owned(),
        note: String::new(),
    }
}

fn listener(port: u16) -> Vec<Listener> {
    vec![Listener::apiserver(vec!["127.0.0.1".parse().unwrap()], port)]
}

/// A cluster with a tainted master and a worker.
fn cluster() -> Facts {
    let label = "node-role.kubernetes.io/control-plane";
    Facts {
        nodes: vec![
            node("cp1", label, "10.0.0.1", "NoSchedule"),
            node("w1", "worker", "10.0.0.9", ""),
        ],
        ..facts()
    }
}

/// What is said of a listener at `port` and this template, with one member.
fn rejected(port: u16, template: &Value, member: Member) -> Option<Rejection> {
    let proxy: ProxyTemplate = serde_json::from_value(template.clone()).unwrap();
    check_apiservers(&listener(port), &proxy, &[member], &cluster()).err()
}

#[test]
fn a_port_of_an_apiserver_on_a_node_in_scope_is_rejected() {
    let message = rejected(
        6443,
        &json!({}),
        member("cp1", "cp1", "10.0.0.1", PoolMemberState::Active),
    );
    let rejection = message.unwrap();
    assert_eq!(rejection.reason(), "PortOfApiserver");
    let message = rejection.to_string();
    for part in [
        "spec.listeners[].port is 6443",
        "member cp1",
        "node cp1",
        "WorkersOnly",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // By the node's address, and also of a member that is not used: its apiserver may well run.
    let listed = |state| member("extra", "", "10.0.0.1", state);
    assert!(rejected(6443, &json!({}), listed(PoolMemberState::Active)).is_some());
    assert!(rejected(6443, &json!({}), listed(PoolMemberState::Disabled)).is_some());
}

#[test]
fn the_port_of_a_server_beside_the_apiserver_is_rejected_too() {
    let reject = |port: u16, template: &Value| {
        let konnectivity = json!({
            "name": "konnectivity", "kind": "TLS", "addresses": ["127.0.0.1"], "port": port, "memberPort": 8132,
        });
        let mut listeners = listener(7443);
        listeners.push(serde_json::from_value(konnectivity).unwrap());
        let proxy: ProxyTemplate = serde_json::from_value(template.clone()).unwrap();
        let cp1 = member("cp1", "cp1", "10.0.0.1", PoolMemberState::Active);
        check_apiservers(&listeners, &proxy, &[cp1], &cluster()).err()
    };
    let message = reject(8132, &json!({})).unwrap().to_string();
    for part in ["spec.listeners[].port is 8132", "memberPort", "node cp1"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(reject(18132, &json!({})), None, "another port");
    assert_eq!(
        reject(8132, &json!({ "nodeScope": "WorkersOnly" })),
        None,
        "no proxy there"
    );
    assert!(reject(18132, &json!({ "metrics": { "port": 8132 } })).is_some());
}

#[test]
fn the_metrics_port_is_no_better() {
    let metrics = json!({ "metrics": { "port": 6443 } });
    let rejection = rejected(
        7443,
        &metrics,
        member("cp1", "cp1", "10.0.0.1", PoolMemberState::Active),
    );
    assert!(
        rejection
            .unwrap()
            .to_string()
            .contains("spec.proxy.metrics.port is 6443")
    );
}

#[test]
fn an_apiserver_elsewhere_is_no_obstacle() {
    let cp1 = || member("cp1", "cp1", "10.0.0.1", PoolMemberState::Active);
    assert_eq!(rejected(7443, &json!({}), cp1()), None, "another port");
    assert_eq!(
        rejected(6443, &json!({ "nodeScope": "WorkersOnly" }), cp1()),
        None,
        "out of scope"
    );
    assert_eq!(
        rejected(6443, &json!({ "tolerations": [] }), cp1()),
        None,
        "tainted"
    );
    let outside = member("lb", "", "10.0.1.1", PoolMemberState::Active);
    assert_eq!(
        rejected(6443, &json!({}), outside),
        None,
        "no node of the cluster"
    );
}

#[test]
fn an_apiserver_on_a_port_of_the_proxies_of_its_node_is_theirs() {
    let mut facts = cluster();
    facts.serving = vec![("127.0.0.1".parse().unwrap(), 6443)];
    let cp1 = member("cp1", "cp1", "10.0.0.1", PoolMemberState::Active);
    let outside = member("lb", "", "10.0.1.1", PoolMemberState::Active);
    let template = |text: Value| -> ProxyTemplate { serde_json::from_value(text).unwrap() };
    for (scope, expected) in [(json!({}), true), (json!({ "nodeScope": "WorkersOnly" }), false)] {
        facts.in_place.scope = Some(Scope::wanted(&template(scope)));
        assert_eq!(is_of_proxies(&cp1, &facts), expected);
        assert!(!is_of_proxies(&outside, &facts));
    }
    facts.in_place.scope = None;
    facts.serving = vec![("127.0.0.1".parse().unwrap(), 7443)];
    assert!(!is_of_proxies(&cp1, &facts));
}

#[test]
fn the_metrics_have_a_port_of_their_own() {
    let proxy = ProxyTemplate::default();
    assert!(check_own(&listener(7443), &proxy).is_ok());
    let message = check_own(&listener(7444), &proxy).unwrap_err().to_string();
    for part in ["spec.proxy.metrics.port", "spec.listeners[].port", "7444"] {
        assert!(message.contains(part), "{message}");
    }
}
