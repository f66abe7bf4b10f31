//! The admission policy of the chart that lets a proxy write only the report of its own node, run offline.

use kube_cel::{VapEvaluator, VapExpression};
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("../../../charts/trivet/templates/admission-policies.yaml");

const PROXY: &str = "system:serviceaccount:trivet-system:trivet-proxy";

/// The claim of a token that names its node.
const CLAIM: &str = "authentication.kubernetes.io/node-name";

/// The policy, without what Helm fills in.
fn policy() -> Value {
    let mut documents = TEMPLATE.split("\n---\n");
    let document = documents
        .find(|document| document.contains("\n  name: trivet-proxy-reports\n"))
        .unwrap();
    let text = document.replace("{{ $proxy }}", PROXY);
    let end = text.find("{{- end }}").unwrap();
    let lines = text[..end].lines().filter(|line| !line.contains("{{"));
    serde_saphyr::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

/// The expressions of a part of the policy. The evaluator has no `request.userInfo`, so that stands in for the parameters,
/// and variables are replaced by their expressions.
fn expressions(policy: &Value, part: &str) -> Vec<VapExpression> {
    let listed = |part: &str| policy["spec"][part].as_array().unwrap().clone();
    let resolved = |entry: &Value| {
        let mut expression = entry["expression"].as_str().unwrap().to_owned();
        for variable in listed("variables") {
            let name = format!("variables.{}", variable["name"].as_str().unwrap());
            let of_variable = format!("({})", variable["expression"].as_str().unwrap());
            expression = expression.replace(&name, &of_variable);
        }
        // The evaluator escapes dots and slashes in the keys of what has no schema; the API server does not.
        expression
            .replace("request.userInfo", "params")
            .replace(CLAIM, "node")
    };
    let entries = listed(part);
    entries
        .iter()
        .map(|entry| VapExpression {
            expression: resolved(entry),
            message: entry["message"].as_str().map(str::to_owned),
            message_expression: None,
        })
        .collect()
}

/// What the policy says of a write by this user; none if it does not concern it.
fn refusals(user: &Value, node: &str) -> Option<Vec<String>> {
    let policy = policy();
    let evaluator = VapEvaluator::builder()
        .object(json!({ "metadata": { "name": "default.w1" }, "poolName": "default", "nodeName": node }))
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

fn proxy_of(extra: &Value) -> Value {
    json!({ "username": PROXY, "extra": extra })
}

#[test]
fn a_proxy_writes_the_report_of_its_own_node_alone() {
    let user = proxy_of(&json!({ "node": ["w1"] }));
    assert_eq!(refusals(&user, "w1"), Some(Vec::new()));
    let refused = refusals(&user, "w2").unwrap();
    assert_eq!(refused, ["a proxy writes only the report of its own node"]);
}

#[test]
fn a_token_that_is_bound_to_no_node_writes_no_report() {
    for user in [
        proxy_of(&json!({ "pod": ["trivet-default-x"] })),
        proxy_of(&json!({})),
        json!({ "username": PROXY }),
    ] {
        for node in ["w1", ""] {
            let refused = refusals(&user, node).unwrap();
            assert!(refused[0].contains("bound to no node"), "{user}: {refused:?}");
        }
    }
}

#[test]
fn the_policy_concerns_the_proxies_alone() {
    let other = json!({ "username": "system:serviceaccount:trivet-system:trivet-operator" });
    assert_eq!(refusals(&other, "w1"), None);
}
