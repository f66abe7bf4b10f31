//! What users of `kubectl get` and of server-side apply may rely on in both CRDs. `crdgen` has the conventions of the fields
//! that people write.

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

/// Every schema node below this one, outside of Kubernetes' own types, with its path.
fn walk(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
    if EMBEDDED.iter().any(|embedded| path.ends_with(embedded)) || path == ".metadata" {
        return;
    }
    check(path, schema);
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
                if [".apiVersion", ".kind"].contains(&path) {
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

/// Server-side apply merges entries by their identity: without one it replaces the whole list, and other owners' entries with it.
#[test]
fn lists_of_named_entries_are_merged_by_the_name() {
    for crd in crds() {
        walk(
            "",
            &version(&crd)["schema"]["openAPIV3Schema"],
            &mut |path, schema| {
                let has_name = schema["items"]["properties"].get("name").is_some();
                if schema["type"] == "array" && has_name {
                    assert_eq!(schema["x-kubernetes-list-type"], "map", "{path}");
                    assert_eq!(schema["x-kubernetes-list-map-keys"], json!(["name"]), "{path}");
                }
            },
        );
    }
}
