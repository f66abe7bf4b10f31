//! Which nodes have a proxy. Pure: the scheduling of a pod template and a node in, the DaemonSet controller's answer out.
//!
//! The rules are those of `NodeShouldRunDaemonPod` in Kubernetes' pkg/controller/daemon/daemon_controller.go. It deletes
//! the pods of nodes that a template leaves, at once and without a replacement, so an edit must be judged before it is
//! written.

mod affinity;
pub mod guard;
pub mod in_place;
mod taints;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration,
};
use kube::ResourceExt;
use trivet_crds::pool::{
    NodeScope, ProxyAffinity, ProxyNodeSelectorRequirement, ProxyNodeSelectorTerm, ProxyTemplate,
};

use super::masters::CONTROL_PLANE_LABELS;
pub use taints::is_decisive;

/// The values of a node's label `type` that mark nodes without a kubelet. A pod on them is a pod in name only.
pub const VIRTUAL_NODES: [&str; 2] = ["virtual-kubelet", "kwok"];

/// The parts of a pod template that decide on which nodes its pods are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// The required node affinity.
    pub required: Option<NodeSelector>,
    /// The taints that the pods bear.
    pub tolerations: Vec<Toleration>,
}

/// What the DaemonSet controller does on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// It deletes the pod, or the pod is evicted.
    Excluded,
    /// A pod that is there stays, but none takes its place: the first one that fails is the last one.
    Kept,
    /// The node has a pod.
    Placed,
}

impl Scope {
    /// The scope that a pool's spec asks for.
    pub fn wanted(proxy: &ProxyTemplate) -> Self {
        let mut node_selector = proxy.node_selector.clone();
        node_selector.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        let mut requirements = vec![no_virtual_node()];
        match proxy.node_scope {
            NodeScope::AllNodes => {}
            NodeScope::WorkersOnly => requirements.extend(CONTROL_PLANE_LABELS.map(absent)),
        }
        Self {
            node_selector,
            required: Some(NodeSelector {
                node_selector_terms: terms(&proxy.affinity, &requirements),
            }),
            tolerations: proxy
                .tolerations
                .clone()
                .unwrap_or_else(|| vec![tolerate_everything()]),
        }
    }

    /// The scope that a DaemonSet has, also after somebody has edited it by hand.
    pub fn in_force(daemon_set: &DaemonSet) -> Option<Self> {
        let pod = daemon_set.spec.as_ref()?.template.spec.as_ref()?;
        let node_affinity = pod.affinity.as_ref().and_then(|all| all.node_affinity.as_ref());
        Some(Self {
            node_selector: pod.node_selector.clone().unwrap_or_default(),
            required: node_affinity.and_then(|affinity| {
                affinity
                    .required_during_scheduling_ignored_during_execution
                    .clone()
            }),
            tolerations: pod.tolerations.clone().unwrap_or_default(),
        })
    }

    /// The affinity for a pod template.
    pub fn affinity(&self) -> Affinity {
        Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: self.required.clone(),
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        }
    }

    /// What the DaemonSet controller does on `node`.
    pub fn placement(&self, node: &Node) -> Placement {
        let labels = node.labels();
        let has_labels = self
            .node_selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        let is_required = self
            .required
            .as_ref()
            .is_none_or(|required| affinity::matches(required, node));
        if !has_labels || !is_required {
            return Placement::Excluded;
        }
        taints::placement(node, &self.tolerations)
    }

    /// Whether both choose the same among nodes that a kubelet runs, by what they say.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.without_virtual() == other.without_virtual()
    }

    /// The scope without what releases of the operator say differently of nodes that no kubelet runs.
    fn without_virtual(&self) -> Self {
        let mut scope = self.clone();
        // No requirement at all says what is left of a term of this one only.
        let required = scope.required.get_or_insert_with(|| NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm::default()],
        });
        for term in &mut required.node_selector_terms {
            let expressions = term.match_expressions.get_or_insert_default();
            expressions.retain(|requirement| *requirement != no_virtual_node());
        }
        scope
    }
}

/// The terms of the spec, each with these requirements too; without terms one with these alone.
fn terms(affinity: &ProxyAffinity, requirements: &[NodeSelectorRequirement]) -> Vec<NodeSelectorTerm> {
    let of_spec = &affinity
        .node_affinity
        .required_during_scheduling_ignored_during_execution;
    let term = |term: &ProxyNodeSelectorTerm| {
        let expressions = term.match_expressions.iter().map(requirement);
        let fields: Vec<_> = term.match_fields.iter().map(requirement).collect();
        NodeSelectorTerm {
            match_expressions: Some(expressions.chain(requirements.iter().cloned()).collect()),
            match_fields: (!fields.is_empty()).then_some(fields),
        }
    };
    let of_spec = &of_spec.node_selector_terms;
    if of_spec.is_empty() {
        return vec![term(&ProxyNodeSelectorTerm::default())];
    }
    of_spec.iter().map(term).collect()
}

fn requirement(of_spec: &ProxyNodeSelectorRequirement) -> NodeSelectorRequirement {
    let ProxyNodeSelectorRequirement {
        key,
        operator,
        values,
    } = of_spec;
    NodeSelectorRequirement {
        key: key.clone(),
        operator: operator.as_str().to_owned(),
        values: (!values.is_empty()).then(|| values.clone()),
    }
}

/// Keeps proxies off nodes that no kubelet runs.
fn no_virtual_node() -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: "type".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(VIRTUAL_NODES.map(str::to_owned).to_vec()),
    }
}

fn absent(label: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: label.to_owned(),
        operator: "DoesNotExist".to_owned(),
        values: None,
    }
}

fn tolerate_everything() -> Toleration {
    Toleration {
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    }
}

#[cfg(test)]
mod tests;
