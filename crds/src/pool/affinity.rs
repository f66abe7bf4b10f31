//! Which nodes get a proxy, in the form that the affinity of a pod has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The affinity of the proxies' pods: only what decides on whether a node has one. A DaemonSet has no use for preferences, and
/// affinity to other pods would leave nodes without a proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyAffinity {
    /// As in a pod.
    pub node_affinity: ProxyNodeAffinity,
}

/// The node affinity of the proxies' pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyNodeAffinity {
    /// A node gets a proxy if one of the terms matches it, and nodeScope and nodeSelector do.
    pub required_during_scheduling_ignored_during_execution: ProxyNodeSelector,
}

/// Terms of which one must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyNodeSelector {
    /// Each with at least one requirement: a term without any matches no node. Absent or empty: every node that is in scope.
    #[schemars(length(max = 8))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selector_terms: Vec<ProxyNodeSelectorTerm>,
}

/// Requirements of which all must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyNodeSelectorTerm {
    /// Requirements of the node's labels.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<ProxyNodeSelectorRequirement>,
    /// Requirements of metadata.name of the node.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_fields: Vec<ProxyNodeSelectorRequirement>,
}

/// A requirement of a label or a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyNodeSelectorRequirement {
    /// The label, or metadata.name.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn: the value is, or is not, one of values. Exists, DoesNotExist: without values. Gt, Lt: the value is a whole
    /// number above, or below, the only one of values.
    pub operator: NodeSelectorOperator,
    /// What the operator compares with.
    #[schemars(length(max = 64), inner(length(max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the field's documentation tells the operators apart")]
pub enum NodeSelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl NodeSelectorOperator {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
            Self::Gt => "Gt",
            Self::Lt => "Lt",
        }
    }
}
