//! The CRD as it is committed and installed: what the derive makes, brought to the Kubernetes API conventions.
//!
//! The derive says `nullable` for `Option`, floats for bounds and unsigned formats that Kubernetes does not know; CEL
//! rules and list types are not its business. All of that happens here, once. The repeated nested defaults stay: the API
//! server checks each default against the rules as it is written.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::pool::ApiserverPool;
use crate::rules::{LISTS, List, RULES};

/// The CRD of the ApiserverPool, as JSON in the form of `apiextensions.k8s.io/v1`.
///
/// Fails if a rule stands at a place that the schema does not have: a programming error that a test finds.
pub fn apiserver_pool() -> Result<Value, Error> {
    let mut crd = serde_json::to_value(ApiserverPool::crd())?;
    let schema = crd
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .ok_or_else(|| Error::NoSuchNode("openAPIV3Schema".to_owned()))?;
    for (at, list) in LISTS {
        let fields = node(schema, at)?;
        match list {
            List::Map(key) => {
                fields.insert("x-kubernetes-list-type".to_owned(), json!("map"));
                fields.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
            }
            List::Set => {
                fields.insert("x-kubernetes-list-type".to_owned(), json!("set"));
            }
        }
    }
    for rule in RULES {
        let rules = node(schema, rule.at)?
            .entry("x-kubernetes-validations")
            .or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(json!({ "rule": rule.cel, "message": rule.message }));
        }
    }
    conform(schema);
    // Also for those who never use Helm: an upgrade of a release that once owned the CRD would delete it otherwise.
    if let Some(Value::Object(metadata)) = crd.get_mut("metadata") {
        metadata.insert(
            "annotations".to_owned(),
            json!({ "helm.sh/resource-policy": "keep" }),
        );
    }
    Ok(crd)
}

/// Why the CRD could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The derived CRD is not JSON.
    #[error("the derived CRD cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// A rule or a list type names a place that is not in the schema.
    #[error("the schema has no node {0:?}")]
    NoSuchNode(String),
}

/// The schema node at a pointer such as `/spec/members/*/name`.
fn node<'schema>(root: &'schema mut Value, at: &str) -> Result<&'schema mut Map<String, Value>, Error> {
    at.split('/')
        .skip(1)
        .try_fold(root, |schema, step| match step {
            "*" => schema.get_mut("items"),
            property => schema.get_mut("properties")?.get_mut(property),
        })
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Error::NoSuchNode(at.to_owned()))
}

/// Brings one schema node and all below it to the conventions.
fn conform(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("nullable");
    fields.remove("title");
    if let Some(Value::String(description)) = fields.get_mut("description") {
        *description = unwrap_lines(description);
    }
    for bound in ["minimum", "maximum"] {
        if let Some(value) = fields.get_mut(bound) {
            integral(value);
        }
    }
    if let Some(format) = fields.get_mut("format") {
        match format.as_str() {
            Some("uint8" | "uint16" | "uint32" | "int8" | "int16") => *format = json!("int32"),
            Some("uint64" | "uint") => *format = json!("int64"),
            _ => {}
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(conform);
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = fields.get_mut(nested) {
            conform(nested);
        }
    }
}

/// Rust's doc comments are wrapped; `kubectl explain` wraps by itself. Blank lines stay.
fn unwrap_lines(text: &str) -> String {
    let paragraphs: Vec<_> = text
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    paragraphs.join("\n\n")
}

/// 65535.0 → 65535.
#[allow(clippy::cast_possible_truncation, reason = "every bound is far below 2^53")]
fn integral(value: &mut Value) {
    if let Some(float) = value.as_f64().filter(|float| float.fract() == 0.0) {
        *value = json!(float as i64);
    }
}

#[cfg(test)]
mod tests {
    use kube_cel::Validator;

    use super::*;
    use crate::pool::ApiserverPoolSpec;

    fn schema() -> Value {
        let crd = apiserver_pool().unwrap();
        crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap()
            .clone()
    }

    fn defaulted(pool: &Value) -> Value {
        kube_cel::apply_defaults(&schema(), pool)
    }

    /// What the CEL rules say of a pool of that spec.
    fn refusals(spec: Value, old: Option<Value>) -> Vec<String> {
        let pool = |spec| defaulted(&json!({ "metadata": { "name": "default" }, "spec": spec }));
        let (new, old) = (pool(spec), old.map(pool));
        match Validator::new().validate(&schema(), &new, old.as_ref()) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
        }
    }

    fn refused(spec: Value, start: &str) {
        let refusals = refusals(spec.clone(), None);
        assert!(
            refusals.len() == 1 && refusals[0].starts_with(start),
            "{spec}: {refusals:?}"
        );
    }

    fn member(address: &str) -> Value {
        json!({ "members": [{ "name": "a", "addresses": [address] }] })
    }

    #[test]
    fn an_empty_spec_is_a_working_pool() {
        assert_eq!(refusals(json!({}), None), Vec::<String>::new());
        let pool = defaulted(&json!({ "spec": {} }));
        let spec: ApiserverPoolSpec = serde_json::from_value(pool["spec"].clone()).unwrap();
        assert_eq!(spec, ApiserverPoolSpec::default());
    }

    #[test]
    fn without_discovery_an_active_member_with_an_address_is_needed() {
        let start = "spec.members: with discovery.policy None";
        refused(json!({ "discovery": { "policy": "None" } }), start);
        refused(
            json!({ "discovery": { "policy": "None" }, "members": [{ "name": "a" }] }),
            start,
        );
        let draining = json!([{ "name": "a", "addresses": ["10.0.0.1"], "state": "Draining" }]);
        refused(
            json!({ "discovery": { "policy": "None" }, "members": draining }),
            start,
        );
        let active = json!([{ "name": "a", "addresses": ["10.0.0.1"] }]);
        assert!(
            refusals(
                json!({ "discovery": { "policy": "None" }, "members": active }),
                None
            )
            .is_empty()
        );
    }

    #[test]
    fn an_address_must_be_one_that_nodes_can_reach() {
        for good in [
            "10.0.0.1",
            "fd00::1",
            "master-1",
            "api.example.com",
            "3com.example",
        ] {
            assert_eq!(refusals(member(good), None), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "239.1.2.3",
            "ff02::1",
            "localhost",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.1:6443",
            "https://api",
            "API.example.com",
            "a_b",
            "-a",
            "a.",
        ] {
            refused(member(bad), "spec.members[].addresses: ");
        }
    }

    #[test]
    fn every_apiserver_is_one_member() {
        let two = |port: u16| {
            json!({ "members": [
                { "name": "a", "addresses": ["10.0.0.1", "fd00::1"] },
                { "name": "b", "addresses": ["fd00::1"], "port": port },
            ] })
        };
        refused(two(6443), "spec.members: two members");
        assert!(refusals(two(6444), None).is_empty());
    }

    #[test]
    fn listeners_are_on_loopback_and_stay() {
        let listener = |address: &str, port: u16| json!({ "listeners": [{ "name": "apiserver", "addresses": [address], "port": port }] });
        refused(
            listener("10.0.0.1", 7443),
            "spec.listeners[].addresses: only loopback",
        );
        assert!(refusals(listener("127.0.0.2", 7443), Some(listener("127.0.0.2", 7443))).is_empty());
        for changed in [listener("127.0.0.1", 7443), listener("127.0.0.2", 7444)] {
            let refusals = refusals(changed, Some(listener("127.0.0.2", 7443)));
            assert!(
                refusals.iter().any(|message| message.contains("immutable")),
                "{refusals:?}"
            );
        }
    }

    #[test]
    fn the_other_rules_refuse_what_they_name() {
        refused(
            json!({ "healthCheck": { "periodMilliseconds": 500, "timeoutMilliseconds": 600 } }),
            "spec.healthCheck.timeoutMilliseconds: ",
        );
        refused(
            json!({
                "discovery": { "policy": "None", "nodeSelector": { "a": "b" } },
                "members": [{ "name": "a", "addresses": ["10.0.0.1"] }],
            }),
            "spec.discovery.nodeSelector: ",
        );
        refused(
            json!({ "proxy": { "metrics": { "address": "lo" } } }),
            "spec.proxy.metrics.address: ",
        );
        refused(
            json!({ "proxy": { "nodeSelector": { "kubernetes.io/os": "windows" } } }),
            "spec.proxy.nodeSelector: ",
        );
        let pool = defaulted(&json!({ "metadata": { "name": "p".repeat(41) }, "spec": {} }));
        let errors = Validator::new().validate(&schema(), &pool, None).unwrap_err();
        assert!(
            errors
                .iter()
                .any(|error| error.message.starts_with("metadata.name: "))
        );
    }

    /// Whether every field of `value` is one of the schema's.
    fn is_known(value: &Value, schema: &Value) -> bool {
        match value {
            Value::Object(fields) => fields.iter().all(|(name, field)| {
                let property = schema["properties"].get(name);
                property.is_some_and(|property| is_known(field, property))
            }),
            Value::Array(items) => items.iter().all(|item| is_known(item, &schema["items"])),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let words = schema.get("enum").and_then(Value::as_array);
                words.is_none_or(|words| words.contains(value))
            }
        }
    }

    #[test]
    fn every_example_is_a_pool_that_is_accepted() {
        for example in [
            include_str!("../../examples/pool-default.yaml"),
            include_str!("../../examples/pool-members.yaml"),
            include_str!("../../examples/pool-zones.yaml"),
        ] {
            let pool: Value = serde_saphyr::from_str(example).unwrap();
            let spec = &pool["spec"];
            assert!(is_known(spec, &schema()["properties"]["spec"]), "{spec}");
            assert_eq!(refusals(spec.clone(), None), Vec::<String>::new(), "{spec}");
            serde_json::from_value::<ApiserverPool>(defaulted(&pool)).unwrap();
        }
    }

    #[test]
    fn each_message_names_a_field_and_a_way_out() {
        for rule in RULES {
            let (field, advice) = rule.message.split_once(": ").unwrap();
            assert!(
                field.starts_with("spec.") || field.starts_with("metadata."),
                "{field}"
            );
            assert!(advice.len() > 20, "{advice}");
        }
    }

    /// Walks our own fields; below the embedded Kubernetes types its authors are responsible.
    fn walk(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
        const EMBEDDED: &[&str] = &[".resources", ".tolerations", ".imagePullSecrets", ".conditions"];
        check(path, schema);
        if EMBEDDED.iter().any(|embedded| path.ends_with(embedded)) {
            return;
        }
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, property) in properties {
                walk(&format!("{path}.{name}"), property, check);
            }
        }
        if let Some(items) = schema.get("items") {
            walk(&format!("{path}[]"), items, check);
        }
    }

    #[test]
    fn the_schema_keeps_the_api_conventions() {
        walk("", &schema(), &mut |path, schema| {
            let has = |key: &str| schema.get(key).is_some();
            assert!(!has("nullable"), "{path} is nullable");
            assert!(
                path.is_empty() || path.ends_with("[]") || has("description"),
                "{path} says nothing"
            );
            match schema["type"].as_str().unwrap_or_default() {
                "string" if path.starts_with(".spec") => {
                    assert!(has("maxLength") || has("enum"), "{path} is unbounded");
                }
                "array" => assert!(has("maxItems"), "{path} is unbounded"),
                "integer" => assert!(
                    schema["minimum"].is_i64() || path.starts_with(".status"),
                    "{path} has no integer bound"
                ),
                "string" | "object" => {}
                other => panic!("{path} is of type {other:?}"),
            }
            if path.starts_with(".spec.") && schema["type"] == "object" && !has("additionalProperties") {
                assert!(path.contains("[]") || has("default"), "{path} has no default");
            }
        });
    }
}
