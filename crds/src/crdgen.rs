//! The CRDs as they are committed and installed: the output of the derive, changed to follow the Kubernetes API conventions.
//!
//! The derive writes `nullable` for `Option`, floats for bounds, and unsigned formats that Kubernetes does not know; it
//! knows no CEL rules and no list types. This module corrects and adds all of that. Nested defaults are repeated at each
//! level on purpose: the API server validates each default as it is written.
//!
//! Fields of list entries have no default in the schema: an API server would add defaults to the entries that a user wrote,
//! and `kubectl apply` and GitOps tools, which compare whole lists, would find a difference each time. Their default is in
//! their description, and the operator applies it when it reads a pool.

use kube::CustomResourceExt;
use kube::core::schema::StructuralSchemaRewriter;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::GROUP;
use crate::pool::ApiserverPool;
use crate::report::{KIND, PLURAL, ReportContent, VERSION};
use crate::rules::{LISTS, List, REPORT_LISTS, REPORT_RULES, RULES, Rule};

/// The CRD of the ApiserverPool, as JSON in the form of `apiextensions.k8s.io/v1`.
///
/// Fails if the path of a rule is not in the schema: a programming error that a test finds.
pub fn apiserver_pool() -> Result<Value, Error> {
    finish(serde_json::to_value(ApiserverPool::crd())?, LISTS, RULES)
}

/// The CRD of the ProxyReport, in the same form. Its fields are at the top level, for which there is no derive.
pub fn proxy_report() -> Result<Value, Error> {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let generator = settings.with_transform(StructuralSchemaRewriter).into_generator();
    let mut schema = serde_json::to_value(generator.into_root_schema_for::<ReportContent>())?;
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in ["apiVersion", "kind"] {
            properties.insert(property.to_owned(), json!({ "type": "string" }));
        }
        properties.insert("metadata".to_owned(), json!({ "type": "object" }));
    }
    if let Value::Object(fields) = &mut schema {
        fields.insert(
            "description".to_owned(),
            json!(
                "ProxyReport is what the proxy of one node says about itself and about the members as it reaches them. The \
                 proxy writes it; edits are overwritten."
            ),
        );
    }
    let column = |name: &str, kind: &str, path: &str, description: &str| json!({ "name": name, "type": kind, "jsonPath": path, "description": description });
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{PLURAL}.{GROUP}") },
        "spec": {
            "group": GROUP,
            "names": {
                "categories": ["trivet"],
                "kind": KIND,
                "plural": PLURAL,
                "shortNames": ["apr"],
                "singular": "proxyreport",
            },
            "scope": "Cluster",
            "versions": [{
                "additionalPrinterColumns": [
                    column("Node", "string", ".nodeName", "The node that reports"),
                    column("Pool", "string", ".poolName", "The pool"),
                    column("Revision", "integer", ".revision", "The document that the proxy follows"),
                    column("Members", "string", ".membersOverview", "Members that are Up from this node, of all active ones, and which are not"),
                    column("Connections", "integer", ".connections", "Connections of clients when this was written"),
                    column("Standby", "string", ".standby", "Whether another process of the node takes over when this one ends"),
                    column("Age", "date", ".observedTime", "Time since the proxy has written this"),
                ],
                "name": VERSION,
                "schema": { "openAPIV3Schema": schema },
                "served": true,
                "storage": true,
            }],
        },
    });
    finish(crd, REPORT_LISTS, REPORT_RULES)
}

/// Adds list types and rules, and makes the schema follow the conventions.
fn finish(mut crd: Value, lists: &[(&str, List)], rules: &[Rule]) -> Result<Value, Error> {
    let schema = crd
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .ok_or_else(|| Error::NoSuchNode("openAPIV3Schema".to_owned()))?;
    for (at, list) in lists {
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
    for rule in rules {
        let rules = node(schema, rule.at)?
            .entry("x-kubernetes-validations")
            .or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(json!({ "rule": rule.cel, "message": rule.message }));
        }
    }
    conform(schema, Place::Object);
    // Also in the CRD for `kubectl apply`: otherwise the upgrade of a release that once owned the CRD would delete it.
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

/// The place of a schema node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of lists.
    Object,
    /// In a list entry.
    Entry,
}

/// Makes one schema node and all below it follow the conventions.
fn conform(schema: &mut Value, place: Place) {
    let Value::Object(fields) = schema else { return };
    if place == Place::Entry
        && let Some(default) = fields.remove("default")
        && let Some(Value::String(description)) = fields.get_mut("description")
    {
        *description = format!("{description} Default: {}.", plain(&default));
    }
    fields.remove("nullable");
    fields.remove("title");
    if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
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
        properties
            .values_mut()
            .for_each(|property| conform(property, place));
    }
    if let Some(items) = fields.get_mut("items") {
        conform(items, Place::Entry);
    }
    if let Some(values) = fields.get_mut("additionalProperties") {
        conform(values, place);
    }
}

/// A default as part of a sentence: the values without quotes and brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" and "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
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
    use crate::pool::{ApiserverPoolSpec, PoolMemberState};
    use crate::report::{MAX_LISTENERS, MAX_MEMBERS, MAX_MESSAGE, MAX_WARNINGS, ProxyReport};
    use crate::wire::MAX_REVISION;

    fn schema_of(crd: Value) -> Value {
        crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap()
            .clone()
    }

    fn schema() -> Value {
        schema_of(apiserver_pool().unwrap())
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
    fn a_member_without_a_port_has_the_default_one() {
        let two = |port: u16| {
            json!({ "members": [
                { "name": "a", "addresses": ["10.0.0.1"] },
                { "name": "b", "addresses": ["10.0.0.1"], "port": port },
            ] })
        };
        refused(two(6443), "spec.members: two members");
        assert!(refusals(two(6444), None).is_empty());
    }

    #[test]
    fn a_listener_may_spell_out_its_defaults_or_leave_them_out() {
        let full = json!({ "listeners": [{ "name": "apiserver", "addresses": ["::1", "127.0.0.1"], "port": 7443 }] });
        let short = json!({ "listeners": [{ "name": "apiserver" }] });
        for (new, old) in [(&full, &short), (&short, &full), (&short, &json!({}))] {
            assert_eq!(
                refusals(new.clone(), Some(old.clone())),
                Vec::<String>::new(),
                "{old} to {new}"
            );
        }
        let moved = json!({ "listeners": [{ "name": "apiserver", "port": 7453 }] });
        let fewer = json!({ "listeners": [{ "name": "apiserver", "addresses": ["127.0.0.1"] }] });
        for new in [moved, fewer] {
            let refusals = refusals(new.clone(), Some(short.clone()));
            assert!(
                refusals.iter().any(|message| message.contains("immutable")),
                "{new}: {refusals:?}"
            );
        }
    }

    /// Every schema node inside of lists' entries, with its path.
    fn entries(path: &str, schema: &Value, is_entry: bool, check: &mut dyn FnMut(&str, &Value)) {
        if is_entry {
            check(path, schema);
        }
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, property) in properties {
                entries(&format!("{path}.{name}"), property, is_entry, check);
            }
        }
        if let Some(items) = schema.get("items") {
            entries(&format!("{path}[]"), items, true, check);
        }
    }

    #[test]
    fn the_api_server_adds_nothing_to_an_entry_of_a_list() {
        let mut seen = 0;
        entries("", &schema(), false, &mut |path, schema| {
            seen += 1;
            assert!(schema.get("default").is_none(), "{path}: {schema}");
        });
        assert!(seen > 10, "the schema has lists");
        let pool = json!({ "spec": {
            "members": [{ "name": "a" }],
            "listeners": [{ "name": "apiserver" }],
        } });
        let defaulted = defaulted(&pool);
        assert_eq!(defaulted["spec"]["members"], pool["spec"]["members"]);
        assert_eq!(defaulted["spec"]["listeners"], pool["spec"]["listeners"]);
    }

    #[test]
    fn what_an_entry_leaves_out_means_the_documented_default() {
        let spec: ApiserverPoolSpec = serde_json::from_value(json!({
            "members": [{ "name": "a" }],
            "listeners": [{ "name": "apiserver" }],
        }))
        .unwrap();
        assert_eq!(spec.members[0].port, 6443);
        assert_eq!(spec.members[0].state, PoolMemberState::Active);
        assert_eq!(spec.listeners, ApiserverPoolSpec::default().listeners);
        for (path, default) in [
            ("members.*.port", "Default: 6443."),
            ("members.*.state", "Default: Active."),
            ("listeners.*.port", "Default: 7443."),
            ("listeners.*.addresses", "Default: 127.0.0.1 and ::1."),
        ] {
            let schema = schema();
            let mut node = &schema["properties"]["spec"];
            for step in path.split('.') {
                node = match step {
                    "*" => &node["items"],
                    property => &node["properties"][property],
                };
            }
            let description = node["description"].as_str().unwrap();
            assert!(description.ends_with(default), "{path}: {description}");
        }
    }

    #[test]
    fn a_server_name_is_one_that_a_certificate_can_have() {
        let check = |name: &str| json!({ "healthCheck": { "tlsServerName": name } });
        for good in [
            "kubernetes",
            "api.example.com",
            "10.0.0.1",
            "fd00::1",
            "3com.example",
        ] {
            assert_eq!(refusals(check(good), None), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "https://api",
            "API.example.com",
            "api:6443",
            "a_b",
            "a.",
            "10.0.0",
        ] {
            refused(check(bad), "spec.healthCheck.tlsServerName: ");
        }
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
            "spec.proxy.metrics.address: must be an IP address",
        );
        refused(
            json!({ "proxy": { "metrics": { "exposure": "Node", "address": "0.0.0.0" } } }),
            "spec.proxy.metrics.address: with exposure Node",
        );
        let exposed = json!({ "proxy": { "metrics": { "exposure": "Node", "address": "::1" } } });
        assert_eq!(refusals(exposed, None), Vec::<String>::new());
        refused(
            json!({ "proxy": { "nodeSelector": { "kubernetes.io/os": "windows" } } }),
            "spec.proxy.nodeSelector: ",
        );
        for (name, refused) in [
            ("p".repeat(41), true),
            ("a-bootstrap".to_owned(), true),
            ("bootstrap".to_owned(), false),
        ] {
            let pool = defaulted(&json!({ "metadata": { "name": name }, "spec": {} }));
            let errors = Validator::new().validate(&schema(), &pool, None);
            let is_refused = errors.is_err_and(|errors| {
                errors
                    .iter()
                    .all(|error| error.message.starts_with("metadata.name: "))
            });
            assert_eq!(is_refused, refused, "{name}");
        }
    }

    #[test]
    fn a_directory_of_manifests_is_a_plain_absolute_path() {
        let spec = |path: &str| json!({ "nodeBootstrap": { "policy": "StaticPod", "manifestPath": path } });
        for good in [
            "/etc/kubernetes/manifests",
            "/var/lib/rancher/rke2/agent/pod-manifests",
            "/var/lib/rancher/k3s/agent/pod-manifests",
            "/etc/kubelet.d",
        ] {
            assert_eq!(refusals(spec(good), None), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "/etc",
            "etc/kubernetes/manifests",
            "/etc/kubernetes/manifests/",
            "/etc/../etc",
            "/etc/./manifests",
            "/etc//manifests",
            "/etc/.hidden",
            "/etc/a b",
            "/etc/$(x)",
            "/etc/a\n",
        ] {
            refused(spec(bad), "spec.nodeBootstrap.manifestPath: ");
        }
    }

    /// Whether every field of `value` is one of the schema's.
    fn is_known(value: &Value, schema: &Value) -> bool {
        match value {
            Value::Object(fields) => fields.iter().all(|(name, field)| {
                let property = schema["properties"]
                    .get(name)
                    .or(schema.get("additionalProperties"));
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
            include_str!("../../examples/pool-every-field.yaml"),
            include_str!("../../examples/pool-extra-listeners.yaml"),
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
    fn an_affinity_is_checked_before_it_chooses_no_node() {
        let affinity = |term: Value| {
            let required = json!({ "nodeSelectorTerms": [term] });
            json!({ "proxy": { "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": required,
            } } } })
        };
        let expression = |operator: &str, values: &[&str]| {
            affinity(json!({ "matchExpressions": [{ "key": "a", "operator": operator, "values": values }] }))
        };
        for (operator, values) in [
            ("In", vec!["x", "y"]),
            ("NotIn", vec!["x"]),
            ("Exists", vec![]),
            ("DoesNotExist", vec![]),
            ("Gt", vec!["-7"]),
            ("Lt", vec!["7"]),
        ] {
            assert_eq!(
                refusals(expression(operator, &values), None),
                Vec::<String>::new(),
                "{operator}"
            );
        }
        let start = "spec.proxy.affinity: In and NotIn need values";
        for (operator, values) in [
            ("In", vec![]),
            ("NotIn", vec![]),
            ("Exists", vec!["x"]),
            ("DoesNotExist", vec!["x"]),
            ("Gt", vec!["x"]),
            ("Lt", vec!["1", "2"]),
        ] {
            refused(expression(operator, &values), start);
        }
        refused(affinity(json!({})), "spec.proxy.affinity: a term without");
        let field = |key: &str| {
            affinity(json!({ "matchFields": [{ "key": key, "operator": "In", "values": ["w1"] }] }))
        };
        assert_eq!(refusals(field("metadata.name"), None), Vec::<String>::new());
        refused(
            field("metadata.labels"),
            "spec.proxy.affinity: matchFields compares",
        );
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

    fn content(pool: &str, node: &str) -> ReportContent {
        let content = json!({ "poolName": pool, "nodeName": node, "observedTime": "2026-11-29T00:00:00Z" });
        serde_json::from_value(content).unwrap()
    }

    /// What the CEL rules say of a report, written over `old`.
    fn refusals_of(report: &Value, old: Option<&Value>) -> Vec<String> {
        match Validator::new().validate(&schema_of(proxy_report().unwrap()), report, old) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
        }
    }

    #[test]
    fn a_report_has_the_name_of_its_pool_and_node_and_keeps_both() {
        let mine = content("default", "w1").object().unwrap();
        assert_eq!(refusals_of(&mine, None), Vec::<String>::new());
        assert_eq!(refusals_of(&mine, Some(&mine)), Vec::<String>::new());
        let long = content(&"p".repeat(40), &"n".repeat(253)).object().unwrap();
        assert_eq!(refusals_of(&long, None), Vec::<String>::new());
        let mut of_another = mine.clone();
        of_another["metadata"]["name"] = json!("default.w2");
        assert!(refusals_of(&of_another, None)[0].starts_with("metadata.name: "));
        for (field, other) in [("poolName", "other"), ("nodeName", "w2")] {
            let mut changed = mine.clone();
            changed[field] = json!(other);
            let refusals = refusals_of(&changed, Some(&mine));
            assert!(
                refusals.iter().any(|refusal| refusal.starts_with(field)),
                "{refusals:?}"
            );
        }
    }

    #[test]
    fn a_report_reads_as_it_was_written() {
        let object = content("default", "w1").object().unwrap();
        let read: ProxyReport = serde_json::from_value(object).unwrap();
        assert_eq!(read.content, content("default", "w1"));
        assert_eq!(read.metadata.name.as_deref(), Some("default.w1"));
    }

    #[test]
    fn the_bounds_of_a_report_are_those_that_proxies_keep() {
        let schema = schema_of(proxy_report().unwrap());
        for (path, bound) in [
            ("/listeners/maxItems", MAX_LISTENERS),
            ("/members/maxItems", MAX_MEMBERS),
            ("/warnings/maxItems", MAX_WARNINGS),
            ("/listeners/items/properties/message/maxLength", MAX_MESSAGE),
            ("/members/items/properties/lastError/maxLength", MAX_MESSAGE),
            ("/warnings/items/properties/message/maxLength", MAX_MESSAGE),
        ] {
            let found = schema.pointer(&format!("/properties{path}"));
            assert_eq!(found.unwrap().as_u64(), u64::try_from(bound).ok(), "{path}");
        }
        let revision = schema.pointer("/properties/revision/maximum").unwrap();
        assert_eq!(revision.as_u64(), Some(MAX_REVISION));
    }
}
