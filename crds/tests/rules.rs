//! What the rules of the CRDs refuse, run offline. A scenario gives the same cases to a real API server.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

use std::collections::BTreeSet;

use kube_cel::{Validator, apply_defaults};
use serde_json::{Value, json};

const CASES: &str = include_str!("rules/refused.yaml");

fn cases() -> Vec<Value> {
    serde_saphyr::from_str(CASES).unwrap()
}

fn schema(kind: &str) -> Value {
    let crd = match kind {
        "ApiserverPool" => trivet_crds::crdgen::apiserver_pool(),
        "ProxyReport" => trivet_crds::crdgen::proxy_report(),
        other => panic!("{other}"),
    };
    crd.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The messages with which an object of a case is refused.
fn refusals(case: &Value) -> Vec<String> {
    let schema = schema(case["kind"].as_str().unwrap());
    let object = |fields: &Value| {
        let mut object = fields.clone();
        object["metadata"] = json!({ "name": case["name"] });
        apply_defaults(&schema, &object)
    };
    let old = case.get("old").map(object);
    let found = Validator::new().validate(&schema, &object(&case["fields"]), old.as_ref());
    let errors = found
        .err()
        .into_iter()
        .flat_map(kube_cel::ValidationErrors::into_vec);
    errors.map(|error| error.message).collect()
}

/// The messages of all rules below a node of a schema.
fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            let rules = rules.into_iter().flatten();
            found.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
            fields.values().for_each(|nested| messages(nested, found));
        }
        Value::Array(items) => items.iter().for_each(|nested| messages(nested, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_rule_refuses_what_it_names_and_has_a_case() {
    let mut without = BTreeSet::new();
    for kind in ["ApiserverPool", "ProxyReport"] {
        messages(&schema(kind), &mut without);
    }
    assert!(without.len() > 15, "{without:?}");
    for case in cases() {
        let says = case["says"].as_str().unwrap();
        let refusals = refusals(&case);
        assert!(
            refusals.iter().any(|message| message.starts_with(says)),
            "{case}: {refusals:?}"
        );
        without.retain(|message| !message.starts_with(says));
    }
    assert!(
        without.is_empty(),
        "rules without a case in rules/refused.yaml: {without:?}"
    );
}

/// No case in rules/refused.yaml, because the pool on the cluster has no such entry: there it would be added.
#[test]
fn an_entry_beside_apiserver_may_be_added_and_not_moved() {
    let konnectivity = |port: u16| {
        let entry = json!({ "name": "konnectivity", "kind": "TLS", "port": port, "memberPort": 8132 });
        json!({ "spec": { "listeners": [{ "name": "apiserver" }, entry] } })
    };
    let is_refused = |old: &Value, fields: &Value| {
        let case = json!({ "kind": "ApiserverPool", "name": "default", "old": old, "fields": fields });
        let mut refusals = refusals(&case).into_iter();
        refusals.any(|message| message.starts_with("spec.listeners: addresses and port are immutable"))
    };
    let before = konnectivity(18132);
    assert!(!is_refused(&json!({ "spec": {} }), &before), "added");
    assert!(is_refused(&before, &konnectivity(18133)), "moved");
}
