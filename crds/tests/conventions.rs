//! What users of `kubectl get`, of `kubectl explain` and of server-side apply may rely on in both CRDs.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

use serde_json::{Value, json};

/// Types of Kubernetes, whose bounds are Kubernetes'.
const EMBEDDED: [&str; 6] = [
    ".resources",
    ".tolerations",
    ".imagePullSecrets",
    ".appArmorProfile",
    ".seLinuxOptions",
    ".conditions",
];

fn version(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]
}

fn crds() -> [Value; 2] {
    [
        trivet_crds::crdgen::apiserver_pool().unwrap(),
        trivet_crds::crdgen::proxy_report().unwrap(),
    ]
}

/// The names of the columns of `kubectl get`, or of those that `--output wide` adds.
fn columns(crd: &Value, is_wide: bool) -> Vec<String> {
    let columns = version(crd)["additionalPrinterColumns"].as_array().unwrap();
    let shown = columns
        .iter()
        .filter(|column| (column["priority"].as_i64().unwrap_or_default() > 0) == is_wide);
    shown
        .map(|column| column["name"].as_str().unwrap().to_uppercase())
        .collect()
}

#[test]
fn kubectl_shows_the_promised_columns() {
    let [pool, report] = crds();
    assert_eq!(columns(&pool, false), ["READY", "MEMBERS", "PROXIES", "AGE"]);
    assert_eq!(columns(&pool, true), ["SYNCED", "ENDPOINT", "STATUS"]);
    let shown = [
        "NODE",
        "POOL",
        "REVISION",
        "MEMBERS",
        "CONNECTIONS",
        "STANDBY",
        "AGE",
    ];
    assert_eq!(columns(&report, false), shown);
    assert_eq!(columns(&report, true), Vec::<String>::new());
}

#[test]
fn every_column_shows_a_field_that_there_is() {
    for crd in crds() {
        for column in version(&crd)["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            if path.starts_with(".metadata.") {
                continue;
            }
            // A condition is chosen by its type, which no schema knows.
            let list = path.split('[').next().unwrap();
            let schema = &version(&crd)["schema"]["openAPIV3Schema"];
            let found = list
                .split('.')
                .skip(1)
                .fold(schema, |node, name| &node["properties"][name]);
            assert!(found.is_object(), "{path}");
        }
    }
}

#[test]
fn the_names_and_the_scope_are_the_promised_ones() {
    let [pool, report] = crds();
    for (crd, short) in [(&pool, "asp"), (&report, "apr")] {
        assert_eq!(crd["spec"]["names"]["shortNames"], json!([short]));
        assert_eq!(crd["spec"]["names"]["categories"], json!(["trivet"]));
        assert_eq!(crd["spec"]["scope"], "Cluster");
        assert_eq!(crd["spec"]["versions"].as_array().unwrap().len(), 1);
    }
    assert_eq!(version(&pool)["subresources"], json!({ "status": {} }));
    // An apply to a status cannot create an object, and the proxies create their reports.
    assert!(version(&report).get("subresources").is_none());
}

/// Whether a field has one of Kubernetes' own types.
fn is_embedded(path: &str) -> bool {
    EMBEDDED.iter().any(|embedded| path.ends_with(embedded))
}

/// Whether a field is one that every object has.
fn is_of_every_object(path: &str) -> bool {
    [".apiVersion", ".kind", ".metadata"].contains(&path)
}

/// Every schema node from this one on, with its path; nothing below Kubernetes' own types.
fn walk(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
    check(path, schema);
    if is_embedded(path) {
        return;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, check);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], check);
    }
}

#[test]
fn everything_is_bounded_the_status_too() {
    for crd in crds() {
        walk(
            "",
            &version(&crd)["schema"]["openAPIV3Schema"],
            &mut |path, schema| {
                if is_of_every_object(path) || is_embedded(path) {
                    return;
                }
                let has = |key: &str| schema.get(key).is_some();
                let is_bounded = match schema["type"].as_str().unwrap() {
                    "string" => has("maxLength") || has("enum") || has("format"),
                    "array" => has("maxItems"),
                    "integer" => has("minimum"),
                    "object" => !has("additionalProperties") || has("maxProperties"),
                    other => panic!("{path} is of type {other}"),
                };
                assert!(is_bounded, "{path} is unbounded: {schema}");
            },
        );
    }
}

#[test]
fn every_field_is_described_and_none_is_nullable() {
    for crd in crds() {
        walk(
            "",
            &version(&crd)["schema"]["openAPIV3Schema"],
            &mut |path, schema| {
                assert!(schema.get("nullable").is_none(), "{path} is nullable");
                let is_told = path.is_empty() || path.ends_with("[]") || is_of_every_object(path);
                assert!(
                    is_told || schema["description"].is_string(),
                    "{path} says nothing"
                );
            },
        );
    }
}

/// Each level has its default, so that `spec: {}` has all of them.
#[test]
fn every_object_of_a_spec_has_a_default() {
    let [pool, _] = crds();
    let spec = &version(&pool)["schema"]["openAPIV3Schema"]["properties"]["spec"];
    walk("spec", spec, &mut |path, schema| {
        let has = |key: &str| schema.get(key).is_some();
        if schema["type"] == "object"
            && path != "spec"
            && !path.contains("[]")
            && !has("additionalProperties")
        {
            assert!(has("default"), "{path} has no default");
        }
    });
}

#[test]
fn a_report_says_at_least_whose_and_of_when_it_is() {
    let [_, report] = crds();
    let required = &version(&report)["schema"]["openAPIV3Schema"]["required"];
    assert_eq!(*required, json!(["nodeName", "observedTime", "poolName"]));
}

/// Whether there is a value at this path, in any entry where it leads into a list.
fn has_value(value: &Value, path: &str) -> bool {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, is_list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
    let below = |value: &Value| rest.is_empty() || has_value(value, rest);
    match value.get(name) {
        Some(Value::Array(entries)) if is_list => entries.iter().any(below),
        Some(found) => below(found),
        None => false,
    }
}

#[test]
fn one_example_has_every_field() {
    let example = include_str!("../../examples/pool-every-field.yaml");
    let example: Value = serde_saphyr::from_str(example).unwrap();
    let [pool, _] = crds();
    let spec = &version(&pool)["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut missing = Vec::new();
    walk("spec", spec, &mut |path, field| {
        let is_leaf = field.get("properties").is_none() && field.pointer("/items/properties").is_none();
        if is_leaf && !has_value(&example, path) {
            missing.push(path.to_owned());
        }
    });
    assert_eq!(missing, Vec::<String>::new());
}

/// Server-side apply merges entries by their identity: without one it replaces the whole list, and other owners' entries with it.
#[test]
fn lists_of_named_entries_are_merged_by_the_name() {
    for crd in crds() {
        walk(
            "",
            &version(&crd)["schema"]["openAPIV3Schema"],
            &mut |path, schema| {
                let has_name = schema["items"]["properties"].get("name").is_some();
                if schema["type"] == "array" && has_name && !is_embedded(path) {
                    assert_eq!(schema["x-kubernetes-list-type"], "map", "{path}");
                    assert_eq!(schema["x-kubernetes-list-map-keys"], json!(["name"]), "{path}");
                }
            },
        );
    }
}
