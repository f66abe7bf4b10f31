//! Matches a node with a node selector, by the rules of k8s.io/component-helpers/scheduling/corev1/nodeaffinity and
//! k8s.io/apimachinery/pkg/labels: terms are ORed, the requirements of a term are ANDed, and a term that is empty or that
//! cannot be parsed matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use kube::ResourceExt;

/// The only field of a node that a term can name.
const NAME: &str = "metadata.name";

/// Whether a term of `selector` matches `node`.
pub(super) fn matches(selector: &NodeSelector, node: &Node) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|term| term_matches(term, node))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions
        .iter()
        .all(|requirement| label_matches(requirement, node.labels()))
        && fields
            .iter()
            .all(|requirement| field_matches(requirement, &node.name_any()))
}

fn label_matches(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let label = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" => label.is_some_and(|label| values.contains(label)),
        // Also of a node without the label.
        "NotIn" => !values.is_empty() && label.is_none_or(|label| !values.contains(label)),
        "Exists" => values.is_empty() && label.is_some(),
        "DoesNotExist" => values.is_empty() && label.is_none(),
        "Gt" => numbers(label, values).is_some_and(|(label, value)| label > value),
        "Lt" => numbers(label, values).is_some_and(|(label, value)| label < value),
        _ => false,
    }
}

/// The label and the only value, if both are whole numbers.
fn numbers(label: Option<&String>, values: &[String]) -> Option<(i64, i64)> {
    match values {
        [value] => Some((label?.parse().ok()?, value.parse().ok()?)),
        _ => None,
    }
}

/// A field is compared with exactly one value.
fn field_matches(requirement: &NodeSelectorRequirement, name: &str) -> bool {
    let ([value], NAME) = (
        requirement.values.as_deref().unwrap_or_default(),
        requirement.key.as_str(),
    ) else {
        return false;
    };
    match requirement.operator.as_str() {
        "In" => value == name,
        "NotIn" => value != name,
        _ => false,
    }
}
