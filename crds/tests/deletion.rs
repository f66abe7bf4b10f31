//! The admission policies of the chart that keep people from deleting the proxy of a node without a standby, run offline.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

use kube_cel::{VapEvaluator, VapExpression};
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("../../charts/trivet/templates/admission-policies.yaml");

/// What stands in for what the evaluator does not have, or reads otherwise: the user, keys with dots and slashes, and optional
/// fields, each in the order of replacement.
const STAND_INS: [(&str, &str); 9] = [
    ("request.userInfo", "params"),
    ("trivet.dev/allow-delete", "allowed"),
    ("trivet.dev/standby", "standby"),
    ("{{ $namespace }}", "trivet-system"),
    ("oldObject.spec.?nodeName.orValue('')", "oldObject.spec.nodeName"),
    (
        "oldObject.?status.?conditions.orValue([])",
        "(has(oldObject.status) && has(oldObject.status.conditions) ? oldObject.status.conditions : [])",
    ),
    (
        "oldObject.metadata.?annotations[?'standby'].orValue('')",
        "(has(oldObject.metadata.annotations) && 'standby' in oldObject.metadata.annotations ? oldObject.metadata.annotations['standby'] : '')",
    ),
    (
        "oldObject.metadata.?annotations[?'allowed'].orValue('')",
        "(has(oldObject.metadata.annotations) && 'allowed' in oldObject.metadata.annotations ? oldObject.metadata.annotations['allowed'] : '')",
    ),
    (
        "namespaceObject.metadata.?annotations[?'allowed'].orValue('')",
        "(has(namespaceObject.metadata.annotations) && 'allowed' in namespaceObject.metadata.annotations ? namespaceObject.metadata.annotations['allowed'] : '')",
    ),
];

/// A policy, without what Helm fills in.
fn policy(name: &str) -> Value {
    let mut documents = TEMPLATE.split("\n---\n");
    let named = format!("\n  name: {name}\n");
    let mut text = documents
        .find(|document| document.contains(&named))
        .unwrap()
        .to_owned();
    for (from, to) in STAND_INS {
        text = text.replace(from, to);
    }
    let end = text.find("{{- end }}").unwrap();
    let lines = text[..end].lines().filter(|line| !line.contains("{{"));
    serde_saphyr::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

fn expressions(policy: &Value, part: &str) -> Vec<VapExpression> {
    let entries = policy["spec"][part].as_array().unwrap();
    let text = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
    entries
        .iter()
        .map(|entry| VapExpression {
            expression: text(entry, "expression").unwrap(),
            message: text(entry, "message"),
            message_expression: text(entry, "messageExpression"),
        })
        .collect()
}

/// What the policy says of the deletion of a pod by this user; none if it does not concern it.
fn refusals(user: &Value, pod: &Value, namespace: &Value) -> Option<Vec<String>> {
    let policy = policy("trivet-pod-deletion");
    let evaluator = VapEvaluator::builder()
        .old_object(pod.clone())
        .namespace_object(namespace.clone())
        .params(user.clone())
        .build();
    let evaluate = |part| evaluator.evaluate(&expressions(&policy, part));
    let concerns = evaluate("matchConditions").iter().all(|result| result.passed);
    concerns.then(|| {
        let failed = evaluate("validations")
            .into_iter()
            .filter(|result| !result.passed);
        failed.map(|result| result.message.unwrap_or_default()).collect()
    })
}

fn person() -> Value {
    json!({ "username": "admin", "groups": ["system:masters"] })
}

fn namespace() -> Value {
    json!({ "metadata": { "name": "trivet-system" } })
}

/// A proxy that serves.
fn pod(annotations: &Value, ready: &str) -> Value {
    json!({
        "metadata": { "name": "trivet-default-x", "annotations": annotations },
        "spec": { "nodeName": "w1" },
        "status": { "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": ready }] },
    })
}

fn by_a_person(pod: &Value) -> Vec<String> {
    refusals(&person(), pod, &namespace()).unwrap()
}

#[test]
fn a_ready_proxy_without_a_standby_is_not_deleted_and_the_way_out_is_told() {
    for annotations in [
        json!({}),
        json!({ "standby": "Stale" }),
        json!({ "allowed": "no" }),
    ] {
        let refused = by_a_person(&pod(&annotations, "True"));
        assert_eq!(refused.len(), 1, "{annotations}");
        let words = "annotate pod trivet-default-x allowed=true";
        assert!(
            refused[0].contains(words) && refused[0].contains("w1"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_proxy_beside_a_standby_and_one_that_does_not_serve_are_deleted() {
    let mut leaves = pod(&json!({}), "True");
    leaves["metadata"]["deletionTimestamp"] = json!("2026-11-29T00:00:00Z");
    let mut starts = pod(&json!({}), "True");
    starts.as_object_mut().unwrap().remove("status");
    for free in [
        pod(&json!({ "standby": "Ready" }), "True"),
        pod(&json!({ "allowed": "true" }), "True"),
        pod(&json!({}), "False"),
        leaves,
        starts,
    ] {
        assert_eq!(by_a_person(&free), Vec::<String>::new(), "{free}");
    }
    let allowed = json!({ "metadata": { "annotations": { "allowed": "true" } } });
    let of_namespace = refusals(&person(), &pod(&json!({}), "True"), &allowed);
    assert_eq!(of_namespace, Some(Vec::new()));
}

#[test]
fn those_that_replace_and_collect_pods_are_not_concerned() {
    let of_kube_system = |name: &str| json!({ "username": format!("system:serviceaccount:kube-system:{name}"), "groups": ["system:serviceaccounts"] });
    for user in [
        of_kube_system("daemon-set-controller"),
        of_kube_system("generic-garbage-collector"),
        of_kube_system("pod-garbage-collector"),
        of_kube_system("namespace-controller"),
        json!({ "username": "system:node:w1", "groups": ["system:nodes"] }),
        json!({ "username": "system:kube-controller-manager", "groups": ["system:authenticated"] }),
    ] {
        assert_eq!(
            refusals(&user, &pod(&json!({}), "True"), &namespace()),
            None,
            "{user}"
        );
    }
    for user in [
        of_kube_system("other"),
        json!({ "username": "system:serviceaccount:other:daemon-set-controller", "groups": [] }),
        json!({ "username": "admin" }),
    ] {
        let refused = refusals(&user, &pod(&json!({}), "True"), &namespace()).unwrap();
        assert_eq!(refused.len(), 1, "{user}");
    }
}
