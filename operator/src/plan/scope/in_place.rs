//! Where a pool's proxies are.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::{Placement, Scope};

/// Where a pool's proxies are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InPlace {
    /// The scope of the DaemonSet, if there is one.
    pub scope: Option<Scope>,
    /// The nodes with a proxy that has started; `None` while the pods have not been read.
    pub nodes: Option<BTreeSet<String>>,
}

impl InPlace {
    /// Whether `node` has a proxy.
    pub fn has(&self, node: &Node) -> bool {
        match &self.nodes {
            Some(nodes) => nodes.contains(&node.name_any()),
            None => self.scope.is_some() && self.placement(node) == Placement::Placed,
        }
    }

    /// What the DaemonSet in place does on `node`. Pods that have lost their DaemonSet stay where they are.
    pub fn placement(&self, node: &Node) -> Placement {
        self.scope
            .as_ref()
            .map_or(Placement::Placed, |scope| scope.placement(node))
    }
}
