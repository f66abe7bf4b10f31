//! What an API server does with a pool: it fills in the defaults, and refuses what the CRD does not allow.

use std::collections::BTreeSet;

use kube_cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde_json::{Map, Value, json};

/// An API server with the CRD of this checkout.
pub(crate) struct ApiServer {
    schema: Value,
    rules: CompiledSchema,
    validator: Validator,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        let crd = trivet_crds::crdgen::apiserver_pool().unwrap();
        let mut schema = crd
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .unwrap()
            .clone();
        patterns_as_rules(&mut schema);
        Self {
            rules: compile_schema(&schema),
            validator: Validator::new(),
            schema,
        }
    }

    /// The schema of `spec`.
    pub(crate) fn spec(&self) -> &Value {
        &self.schema["properties"]["spec"]
    }

    /// The pool as it is stored, or why it is refused.
    pub(crate) fn admit(&self, new: &Value, old: Option<&Value>) -> Result<Value, Vec<String>> {
        let new = apply_defaults(&self.schema, new);
        let mut refusals = Vec::new();
        violations("spec", self.spec(), &new["spec"], &mut refusals);
        if refusals.is_empty()
            && let Err(errors) = self.validator.validate_compiled(&self.rules, &new, old)
        {
            refusals.extend(errors.iter().map(|error| error.message.clone()));
        }
        if refusals.is_empty() {
            Ok(new)
        } else {
            Err(refusals)
        }
    }

    /// What the schema does not allow in a status, undeclared fields included.
    pub(crate) fn violations_in_status(&self, status: &Value) -> Vec<String> {
        let mut found = Vec::new();
        violations("status", &self.schema["properties"]["status"], status, &mut found);
        found
    }
}

/// The evaluator of rules has regular expressions, and no other part of these tests does.
fn patterns_as_rules(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    if let Some(Value::String(pattern)) = fields.get("pattern").cloned() {
        let rule = json!({ "rule": format!("self.matches({})", json!(pattern)), "message": format!("breaks the pattern {pattern}") });
        match fields
            .entry("x-kubernetes-validations")
            .or_insert_with(|| json!([]))
        {
            Value::Array(rules) => rules.push(rule),
            other => panic!("{other}"),
        }
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = fields.get_mut(nested) {
            patterns_as_rules(nested);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(patterns_as_rules);
    }
}

/// Collects where `value` breaks what `schema` says besides rules.
fn violations(at: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    let Some(kind) = schema.get("type").and_then(Value::as_str) else {
        return;
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    let is_within = |size: usize, least: &str, most: &str| {
        let size = u64::try_from(size).unwrap();
        bound(least).is_none_or(|least| least <= size) && bound(most).is_none_or(|most| size <= most)
    };
    let is_allowed = match (kind, value) {
        ("object", Value::Object(fields)) => {
            violations_in_object(at, schema, fields, found);
            is_within(fields.len(), "minProperties", "maxProperties")
        }
        ("array", Value::Array(items)) => {
            for item in items {
                violations(&format!("{at}[]"), &schema["items"], item, found);
            }
            is_within(items.len(), "minItems", "maxItems") && are_unique(schema, items)
        }
        ("string", Value::String(text)) => is_within(text.chars().count(), "minLength", "maxLength"),
        ("integer", Value::Number(number)) => {
            let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
            number.as_i64().is_some_and(|number| {
                least.is_none_or(|least| least <= number) && most.is_none_or(|most| number <= most)
            })
        }
        ("boolean", Value::Bool(_)) => true,
        _ => false,
    };
    let words = schema.get("enum").and_then(Value::as_array);
    if !is_allowed || words.is_some_and(|words| !words.contains(value)) {
        found.push(format!("{at}: {value} is not allowed"));
    }
}

fn violations_in_object(at: &str, schema: &Value, fields: &Map<String, Value>, found: &mut Vec<String>) {
    for (name, field) in fields {
        let declared = schema["properties"]
            .get(name)
            .or(schema.get("additionalProperties"));
        match declared {
            Some(declared) => violations(&format!("{at}.{name}"), declared, field, found),
            None => found.push(format!("{at}.{name}: field not declared in schema")),
        }
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            found.push(format!("{at}: {required} is missing"));
        }
    }
}

/// Whether the entries of a list with an identity have one each.
fn are_unique(schema: &Value, items: &[Value]) -> bool {
    let identities: BTreeSet<String> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            let identity = |item: &Value| {
                keys.iter()
                    .map(|key| item[key.as_str().unwrap()].to_string())
                    .collect()
            };
            items.iter().map(identity).collect()
        }
        Some("set") => items.iter().map(Value::to_string).collect(),
        _ => return true,
    };
    identities.len() == items.len()
}
