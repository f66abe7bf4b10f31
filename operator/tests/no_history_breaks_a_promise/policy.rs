//! The chart's admission policies that limit which DaemonSets the operator may write, and which names in DNS, run offline.
//!
//! The evaluator has no optional fields and no variables, and finds only keys of letters, so the text is written in words that
//! it has.

use kube_cel::{VapEvaluator, VapExpression};
use serde::Serialize;
use serde_json::{Value, json};

/// The chart with everything switched on, as helm renders it.
const CHART: &str = include_str!("../../../tests/chart/everything.yaml");

const POLICY: &str = "trivet-daemonset-writes";

/// The policy for names in DNS.
const NAMES: &str = "trivet-dns-writes";

const OPERATOR: &str = "'system:serviceaccount:trivet-system:trivet-operator'";

/// A policy for what the operator writes.
pub(crate) struct Policy(Vec<VapExpression>);

impl Policy {
    pub(crate) fn new() -> Self {
        Self::named(POLICY, "daemonsets")
    }

    /// The one for names in DNS, as it judges objects of this resource.
    pub(crate) fn of_names(resource: &str) -> Self {
        Self::named(NAMES, resource)
    }

    fn named(name: &str, resource: &str) -> Self {
        let named = format!("\n  name: {name}\n");
        let mut objects = CHART.split("\n---\n");
        let text = objects
            .find(|object| object.contains("kind: ValidatingAdmissionPolicy\n") && object.contains(&named))
            .unwrap();
        let policy: Value = serde_saphyr::from_str(&simple_keys(text)).unwrap();
        let entries = |part: &str| policy["spec"][part].as_array().unwrap().clone();
        let variables: Vec<_> = entries("variables")
            .iter()
            .map(|variable| {
                (
                    format!("variables.{}", text_of(variable, "name")),
                    text_of(variable, "expression"),
                )
            })
            .collect();
        let validations = entries("validations").into_iter().map(|validation| {
            let mut expression = text_of(&validation, "expression");
            // Later variables use earlier ones.
            for (name, value) in variables.iter().rev() {
                expression = replace_word(&expression, name, &format!("({value})"));
            }
            let expression = expression
                .replace("request.userInfo.username", OPERATOR)
                .replace("request.resource.resource", &format!("'{resource}'"))
                .replace("dyn(object)", "object");
            VapExpression {
                expression: without_optionals(&expression),
                message: Some(text_of(&validation, "message")),
                message_expression: None,
            }
        });
        Self(validations.collect())
    }

    /// Why the API server refuses this object, though the operator writes it.
    pub(crate) fn refusals(&self, object: &impl Serialize) -> Vec<String> {
        let object = serde_json::from_str(&simple_keys(&json!(object).to_string())).unwrap();
        let evaluator = VapEvaluator::builder()
            .object(object)
            .old_object(Value::Null)
            .build();
        let results = evaluator.evaluate(&self.0).into_iter();
        let failed = results.filter(|result| !result.passed);
        failed.map(|result| result.message.unwrap_or_default()).collect()
    }
}

fn text_of(entry: &Value, field: &str) -> String {
    entry[field].as_str().unwrap().to_owned()
}

fn simple_keys(text: &str) -> String {
    text.replace("trivet.dev/pool", "ofPool")
        .replace("trivet.dev/component", "component")
        .replace("endpointslice.kubernetes.io/managed-by", "managedBy")
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Replaces `word` where it is not the beginning of a longer one.
fn replace_word(text: &str, word: &str, by: &str) -> String {
    let mut parts = text.split(word);
    let mut replaced = parts.next().unwrap().to_owned();
    for part in parts {
        replaced.push_str(if part.starts_with(is_of_name) { word } else { by });
        replaced.push_str(part);
    }
    replaced
}

/// `a.?b.?c.orValue(d)` becomes `(has(a.b) && has(a.b.c) ? a.b.c : d)`.
fn without_optionals(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(at) = [".?", "[?"].iter().filter_map(|mark| text.find(mark)).min() {
        let begin = beginning(&text[..at]);
        let mut place = text[begin..at].to_owned();
        let mut conditions = Vec::new();
        let mut rest = &text[at..];
        let default = loop {
            if let Some(argument) = rest.strip_prefix(".orValue(") {
                let end = closing(argument);
                let default = &argument[..end];
                rest = &argument[end + 1..];
                break Some(default);
            } else if let Some(key) = rest.strip_prefix("[?") {
                let (key, after) = key.split_once(']').unwrap();
                conditions.push(format!("{key} in {place}"));
                place = format!("{place}[{key}]");
                rest = after;
            } else if let Some(name) = rest.strip_prefix(".?").or_else(|| rest.strip_prefix('.')) {
                let end = name.find(|letter| !is_of_name(letter)).unwrap_or(name.len());
                place = format!("{place}.{}", &name[..end]);
                conditions.push(format!("has({place})"));
                rest = &name[end..];
            } else {
                // Optional values that are compared with each other, of objects that are there.
                break None;
            }
        };
        let value = match default {
            Some(default) => format!("({} ? {place} : {default})", conditions.join(" && ")),
            None => place,
        };
        text = format!("{}{value}{rest}", &text[..begin]);
    }
    text
}

/// Where the path begins that ends with `text`: a name with its fields, or something in parentheses with its fields.
fn beginning(text: &str) -> usize {
    let mut depth = 0;
    for (index, letter) in text.char_indices().rev() {
        match letter {
            ')' => depth += 1,
            '(' if depth == 0 => return index + 1,
            '(' => depth -= 1,
            letter if depth == 0 && !is_of_name(letter) && letter != '.' => return index + letter.len_utf8(),
            _ => {}
        }
    }
    0
}

/// Where the parenthesis closes that was opened before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (index, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 0 => return index,
            ')' => depth -= 1,
            _ => {}
        }
    }
    panic!("not closed: {text}");
}

#[test]
fn optional_fields_are_written_out() {
    for (text, expected) in [
        ("x && !a.?b.orValue(true)", "x && !(has(a.b) ? a.b : true)"),
        (
            "(a.b).?c.?d.orValue([]).all(e, f)",
            "(has((a.b).c) && has((a.b).c.d) ? (a.b).c.d : []).all(e, f)",
        ),
        (
            "a.?b[?'k'].orValue('') == 'v'",
            "(has(a.b) && 'k' in a.b ? a.b['k'] : '') == 'v'",
        ),
        ("a.?b == c.?b", "a.b == c.b"),
    ] {
        assert_eq!(without_optionals(text), expected);
    }
}

#[test]
fn what_a_thief_of_the_operators_token_would_write_is_refused() {
    let policy = Policy::new();
    let of = |image: &str, privileged: bool| {
        let context = json!({ "privileged": privileged, "allowPrivilegeEscalation": privileged });
        let container = json!({ "name": "proxy", "image": image, "securityContext": context });
        let pod = json!({ "serviceAccountName": "trivet-proxy", "containers": [container] });
        let set = json!({ "metadata": { "name": "trivet-default", "labels": { "trivet.dev/pool": "default" } },
                          "spec": { "selector": {}, "template": { "spec": pod } } });
        policy.refusals(&set)
    };
    assert_eq!(of("trivet.dev/trivet-proxy:1", false), Vec::<String>::new());
    let refusals = of("trivet.dev/trivet-proxy:1", true);
    assert!(
        refusals.len() == 1 && refusals[0].contains("without privileges"),
        "{refusals:?}"
    );
    let refusals = of("example.com/other:1", false);
    assert!(
        refusals.len() == 1 && refusals[0].starts_with(IMAGE),
        "{refusals:?}"
    );
}

/// The beginning of the refusal of an image that the values of the chart do not name. A pool's owner may ask for one.
pub(crate) const IMAGE: &str = "an image ";

#[test]
fn the_operator_writes_no_other_services_slices_and_records_than_those_of_names() {
    let labels = json!({ "trivet.dev/pool": "default" });
    let sliced = json!({ "trivet.dev/pool": "default", "endpointslice.kubernetes.io/managed-by": "operator.trivet.dev" });
    let service = |spec: Value| json!({ "metadata": { "labels": labels }, "spec": spec });
    let records = |sets: Value| json!({ "metadata": { "labels": labels }, "spec": { "endpoints": sets } });
    let set = json!({ "dnsName": "a.b", "recordType": "A", "targets": ["10.0.0.1"] });
    let with = |field: &str, value: Value| {
        let mut set = set.clone();
        set[field] = value;
        records(json!([set]))
    };
    let headless = json!({ "clusterIP": "None", "type": "ClusterIP" });
    for (resource, object, is_taken) in [
        ("services", service(headless.clone()), true),
        ("services", json!({ "metadata": {}, "spec": headless }), false),
        ("services", service(json!({ "type": "ClusterIP" })), false),
        (
            "services",
            service(json!({ "clusterIP": "None", "type": "ClusterIP", "selector": { "a": "b" } })),
            false,
        ),
        (
            "services",
            service(json!({ "clusterIP": "None", "type": "ClusterIP", "externalIPs": ["10.0.0.1"] })),
            false,
        ),
        (
            "services",
            service(json!({ "type": "ExternalName", "externalName": "example.com" })),
            false,
        ),
        (
            "endpointslices",
            json!({ "metadata": { "labels": sliced } }),
            true,
        ),
        (
            "endpointslices",
            json!({ "metadata": { "labels": labels } }),
            false,
        ),
        ("dnsendpoints", records(json!([set])), true),
        ("dnsendpoints", with("targets", json!([])), false),
        ("dnsendpoints", with("recordType", json!("CNAME")), false),
        (
            "dnsendpoints",
            with("providerSpecific", json!([{ "name": "a", "value": "b" }])),
            false,
        ),
        ("dnsendpoints", with("setIdentifier", json!("a")), false),
    ] {
        let refusals = Policy::of_names(resource).refusals(&object);
        assert_eq!(refusals.is_empty(), is_taken, "{resource} {object}: {refusals:?}");
    }
}
